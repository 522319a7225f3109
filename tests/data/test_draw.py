"""A part of a split stands for all of it, however the file is sorted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.records import Example, Message
from trimtab.data.draw import sample_groups, sample_rows


def row(number: int, label: str, group: str | None = None) -> Example:
    messages = (Message(role="user", content=f"q{number}"),)
    return Example(id=f"row{number}", messages=messages, references=(label,), group=group)


def sorted_by_label(labels: int, each: int) -> list[Example]:
    return [row(number, f"label{number // each}") for number in range(labels * each)]


def test_of_a_file_sorted_by_label_every_label_is_in_the_draw() -> None:
    rows = sorted_by_label(77, 2)
    assert len({one.references[0] for one in rows[:60]}) == 30  # what the first rows would hold
    assert len({one.references[0] for one in sample_rows(rows, 60, "classify")}) == 60
    assert len({one.references[0] for one in sample_rows(rows, 77, "classify")}) == 77


def test_groups_share_the_draw_where_there_are_no_labels() -> None:
    rows = [row(number, "x", f"g{number // 10}") for number in range(100)]
    assert set(Counter(one.group for one in sample_rows(rows, 30, "answer")).values()) == {3}


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 5), st.randoms())
def test_a_draw_keeps_shares_and_order_and_does_not_depend_on_the_order(labels, most, seed, random) -> None:
    rows = [row(number, label) for number, label in enumerate(labels)]
    part = sample_rows(rows, most, "classify", seed)
    assert len(part) == min(most, len(rows))
    assert list(part) == [one for one in rows if one in part]
    counts, whole = Counter(one.references[0] for one in part), Counter(labels)
    assert all(abs(counts[label] - len(part) * whole[label] / len(rows)) <= 1 for label in whole)
    shuffled = [*rows]
    random.shuffle(shuffled)
    assert {one.id for one in sample_rows(shuffled, most, "classify", seed)} == {one.id for one in part}


def test_seeds_draw_otherwise_and_references_of_answers_do_not_stratify() -> None:
    rows = [replace(row(number, f"answer {number}"), group=None) for number in range(200)]
    first, second = sample_rows(rows, 50, "answer", 0), sample_rows(rows, 50, "answer", 1)
    assert first != second
    assert first == sample_rows(rows, 50, "answer", 0)
    assert max(int(one.id.removeprefix("row")) for one in first) > 150


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=1, max_size=60),
    st.integers(1, 70),
    st.integers(0, 3),
    st.sampled_from(["classify", "answer"]),
)
def test_a_sample_keeps_groups_whole_and_a_larger_one_holds_it(given, most, seed, kind) -> None:
    rows = [row(number, label, f"g{group}" if group else None) for number, (label, group) in enumerate(given)]
    part = sample_groups(rows, most, kind, seed=seed)
    largest = max(Counter(one.group or one.id for one in rows).values())
    assert min(most, len(rows)) <= len(part) < most + largest
    kept = {one.group for one in part} - {None}
    assert all((one in part) == (one.group in kept) for one in rows if one.group)
    assert [one for one in rows if one in part] == list(part)
    assert set(part) <= set(sample_groups(rows, most + 5, kind, seed=seed))
    backwards = sample_groups(rows[::-1], most, kind, seed=seed)
    assert {one.group or one.id for one in backwards} == {one.group or one.id for one in part}


def test_a_sample_gives_every_label_its_share_and_none_is_missing_where_it_must_not() -> None:
    rows = [*sorted_by_label(4, 100), row(1000, "rare")]
    shares = Counter(one.references[0] for one in sample_groups(rows, 40, "classify"))
    assert all(9 <= shares[f"label{n}"] <= 11 for n in range(4))
    assert "rare" in {one.references[0] for one in sample_groups(rows, 5, "classify", every_label=True)}


def test_the_order_of_rows_of_a_group_with_several_labels_decides_nothing() -> None:
    rows = [row(0, "a", "g1"), row(1, "b", None), row(2, "b", "g1")]
    assert {one.id for one in sample_groups(rows, 1, "classify")} == {
        one.id for one in sample_groups(rows[::-1], 1, "classify")
    }
