"""Splits: groups stay whole, rows never move, shares hold to within one group, the ledger survives."""

import random
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.config import SplitTable
from trimtab.base.errors import InputError
from trimtab.base.records import Example, Message
from trimtab.data.duplicates import dedup_text, duplicate_pairs
from trimtab.data.ledger import read_ledger
from trimtab.data.split import SPLITS, assign_splits, time_notes

WORDS = [f"{random.Random(i).randrange(16**6):06x}" for i in range(4000)]


def example(number: int, label: str = "a", *, text: str = "", **more: object) -> Example:
    text = text or " ".join(WORDS[(number * 3 + i) % len(WORDS)] for i in range(3))
    return Example(
        id=f"r{number}",
        messages=(Message(role="user", content=text),),
        references=(label,),
        file="rows.jsonl",
        line=number + 1,
        **more,  # type: ignore[arg-type]
    )


def ids(parts: dict[str, tuple[Example, ...]]) -> dict[str, str]:
    return {row.id: name for name, rows in parts.items() for row in rows}


def split(
    rows: list[Example], ledger: Path, kind: str = "classify", fixed: list[Example] | None = None, **more: object
):
    return assign_splits(rows, fixed or [], SplitTable(**more), ledger, kind)  # type: ignore[arg-type]


@st.composite
def grouped_rows(draw: st.DrawFn) -> list[Example]:
    sizes = draw(st.lists(st.integers(1, 6), min_size=12, max_size=30))
    topics = draw(st.lists(st.sampled_from("xyz"), min_size=len(sizes), max_size=len(sizes)))
    rows: list[Example] = []
    for g, (size, topic) in enumerate(zip(sizes, topics, strict=True)):
        rows += [example(len(rows) + i, group=f"g{g}", slice=topic) for i in range(size)]
    return rows


@given(grouped_rows(), st.integers(0, 5), st.randoms())
def test_groups_stay_whole_and_shares_hold(rows: list[Example], seed: int, shuffler: random.Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parts = split(rows, Path(folder) / "splits.parquet", "answer", seed=seed)
        placed = ids(parts)
        assert set(placed) == {row.id for row in rows}
        assert all(
            len({placed[row.id] for row in rows if row.group == group}) == 1 for group in {r.group for r in rows}
        )
        largest = max(Counter(row.group for row in rows).values())
        for name, share in {"train": 0.6, "dev": 0.15, "test": 0.25}.items():
            assert abs(len(parts[name]) - share * len(rows)) <= largest
        mixed = shuffler.sample(rows, len(rows))
        again = split(mixed, Path(folder) / "other.parquet", "answer", seed=seed)
        assert ids(again) == placed
        assert [row.id for row in again["train"]] == [row.id for row in mixed if placed[row.id] == "train"]


@given(grouped_rows(), st.integers(1, 40), st.randoms())
def test_rows_never_move(rows: list[Example], kept: int, shuffler: random.Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "splits.parquet"
        first = ids(split(rows, ledger, "answer"))
        one_of_each = {first[row.id]: row for row in rows}.values()
        some = [row for row in rows if row in one_of_each or row in shuffler.sample(rows, min(kept, len(rows)))]
        new = [example(1000 + i, group=shuffler.choice([f"g{i % 9}", f"n{i}", None]), slice="x") for i in range(12)]
        second = ids(split(shuffler.sample(some + new, len(some) + 12), ledger, "answer"))
        assert all(second[row.id] == first[row.id] for row in some)
        for row in new:
            if any(row.group == old.group for old in some):
                assert second[row.id] == next(first[old.id] for old in some if old.group == row.group)
        third = ids(split(rows + new, ledger, "answer"))
        assert third == first | {row.id: second[row.id] for row in new}


def test_one_row_groups_are_split_by_largest_remainder(tmp_path: Path) -> None:
    rows = [example(i, label) for i, label in enumerate(["a"] * 40 + ["b"] * 20 + ["c"] * 20)]
    parts = split(rows, tmp_path / "splits.parquet")
    count = {name: Counter(row.references[0] for row in parts[name]) for name in SPLITS}
    assert count == {
        "train": {"a": 24, "b": 12, "c": 12},
        "dev": {"a": 6, "b": 3, "c": 3},
        "test": {"a": 10, "b": 5, "c": 5},
    }
    assert ids(split(rows, tmp_path / "other.parquet", seed=1)) != ids(parts)


def test_small_classes_fill_every_split_and_begin_in_train(tmp_path: Path) -> None:
    rows = [example(i, f"label {i // 3}") for i in range(300)]
    parts = split(rows, tmp_path / "splits.parquet")
    assert [len(parts[name]) for name in SPLITS] == [180, 45, 75]
    assert {row.references[0] for row in parts["train"]} == {row.references[0] for row in rows}


def test_abstentions_are_spread(tmp_path: Path) -> None:
    rows = [example(i, "I don't know." if i % 5 == 0 else f"answer {i}") for i in range(100)]
    parts = assign_splits(rows, [], SplitTable(), tmp_path / "s.parquet", "answer", unknown="I don't know")
    assert [sum(row.references[0] == "I don't know." for row in parts[name]) for name in SPLITS] == [12, 3, 5]


def test_duplicates_stay_together(tmp_path: Path) -> None:
    rows = [example(i) for i in range(60)]
    rows += [example(100 + i, text=dedup_text(rows[i]).upper() + "!") for i in range(30)]
    parts = split(rows, tmp_path / "splits.parquet")
    placed = ids(parts)
    assert all(placed[f"r{i}"] == placed[f"r{100 + i}"] for i in range(30))
    ledger = read_ledger(tmp_path / "splits.parquet")
    assert all(ledger[f"r{i}"].group == ledger[f"r{100 + i}"].group for i in range(30))
    for left, right in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert duplicate_pairs([dedup_text(r) for r in parts[left]], [dedup_text(r) for r in parts[right]]) == []


def test_later_duplicate_follows_its_row(tmp_path: Path) -> None:
    rows = [example(i) for i in range(40)]
    first = ids(split(rows, tmp_path / "splits.parquet"))
    copies = [example(100 + i, text=dedup_text(rows[i]) + "?") for i in range(40)]
    second = ids(split(rows + copies, tmp_path / "splits.parquet"))
    assert all(second[f"r{100 + i}"] == first[f"r{i}"] for i in range(40))
    more = [example(200 + i, text=dedup_text(rows[i]) + "!") for i in range(40)]
    third = ids(split(copies + more, tmp_path / "splits.parquet"))  # the rows that named the groups are gone
    assert all(third[f"r{200 + i}"] == first[f"r{i}"] for i in range(40))


def test_a_row_between_two_splits_goes_where_its_words_stand_and_else_is_held_out(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(60)]
    ends = [example(0, text=" ".join(words[:30])), example(1, text=" ".join(words[30:]))]
    rows = [*ends, *(example(10 + i) for i in range(30))]
    parts = split(rows, tmp_path / "splits.parquet", dev=0.3, test=0.3, seed=1)
    first = ids(parts)
    assert first["r0"] != first["r1"]  # by the seed
    chain = [example(100 + i, text=" ".join(words[i : i + 30])) for i in range(1, 30)]  # each is near the next
    copies = [example(200 + i, text=dedup_text(end) + "!") for i, end in enumerate(ends)]
    placed = ids(split([*rows, *chain, *copies], tmp_path / "splits.parquet", dev=0.3, test=0.3, seed=1))
    assert {placed[row.id] for row in chain} == {max(first["r0"], first["r1"], key=SPLITS.index)}
    assert [placed["r200"], placed["r201"]] == [first["r0"], first["r1"]]
    assert first.items() <= placed.items()


def test_later_rows_come_near_the_shares(tmp_path: Path) -> None:
    split([example(i) for i in range(20)], tmp_path / "splits.parquet")
    later = [example(i) for i in range(20, 1020)]
    parts = split([example(i) for i in range(20)] + later, tmp_path / "splits.parquet")
    assert abs(len(parts["test"]) - 255) < 45
    assert abs(len(parts["dev"]) - 153) < 40


def test_first_group_of_a_class_is_trained(tmp_path: Path) -> None:
    rows = [example(i, f"label {i // 2}") for i in range(40)]
    parts = split(rows, tmp_path / "splits.parquet", dev=0.45, test=0.5)
    assert {row.references[0] for row in parts["train"]} == {row.references[0] for row in rows}
    assert len(parts["train"]) == 20


def test_new_classes_begin_in_train_and_do_not_end_there(tmp_path: Path) -> None:
    rows = [example(i) for i in range(20)]
    split(rows, tmp_path / "splits.parquet")
    new = [example(100 + i, f"new {i // 3}") for i in range(240)]
    parts = split(rows + new, tmp_path / "splits.parquet")
    assert {row.references[0] for row in new} <= {row.references[0] for row in parts["train"]}
    assert len(parts["test"]) > 25


def test_new_rows_of_known_groups_follow_though_the_old_rows_are_gone(tmp_path: Path) -> None:
    first = split([example(i, group=f"g{i}") for i in range(40)], tmp_path / "splits.parquet")
    side = {row.group: name for name, rows in first.items() for row in rows}
    second = split([example(100 + i, group=f"g{i}") for i in range(5, 40)], tmp_path / "splits.parquet")
    assert {row.group: name for name, rows in second.items() for row in rows}.items() <= side.items()


def test_known_rows_stay_when_a_new_one_bridges_them(tmp_path: Path) -> None:
    rows = [example(i, group=f"g{i}") for i in range(40)]
    parts = split(rows, tmp_path / "splits.parquet")
    trained, tested = parts["train"][0], parts["test"][0]
    bridges = [
        example(100, group=trained.group, text=dedup_text(tested)),
        example(101, group=tested.group, text=dedup_text(trained)),
    ]
    placed = ids(split(rows + bridges, tmp_path / "splits.parquet"))
    assert placed == ids(parts) | {"r100": "train", "r101": "test"}


def test_fixed_test_is_taken_as_it_is(tmp_path: Path) -> None:
    rows, test = [example(i) for i in range(40)], [example(100 + i) for i in range(10)]
    parts = split(rows, tmp_path / "splits.parquet", fixed=test)
    assert parts["test"] == tuple(test)
    assert len(parts["dev"]) == 6
    assert ids(split(rows, tmp_path / "splits.parquet", fixed=test)) == ids(parts)
    assert read_ledger(tmp_path / "splits.parquet")["r100"].split == "test"


def test_files_that_share_ids_are_told_apart(tmp_path: Path) -> None:
    rows, test = [example(i) for i in range(40)], [example(i, "b", text=f"{WORDS[i]} apart") for i in range(5)]
    first = split(rows, tmp_path / "splits.parquet", fixed=test)
    assert [row.id for row in first["test"]] == [f"r{i}-test" for i in range(5)]
    later = split(rows[5:], tmp_path / "splits.parquet", fixed=test)  # the namesakes are gone, the names stay
    assert ids(later).items() <= ids(first).items()


def test_ledger_keeps_rows_that_are_gone(tmp_path: Path) -> None:
    rows = [example(i) for i in range(40)]
    first = ids(split(rows, tmp_path / "splits.parquet"))
    split([*rows[:30], example(50)], tmp_path / "splits.parquet")
    assert {row.id: row.split for row in read_ledger(tmp_path / "splits.parquet").values()}.items() >= first.items()
    assert ids(split(rows, tmp_path / "splits.parquet")) == first


def test_no_examples_write_no_ledger(tmp_path: Path) -> None:
    assert split([], tmp_path / "splits.parquet") == {"train": (), "dev": (), "test": ()}
    assert not (tmp_path / "splits.parquet").exists()


def test_refusals(tmp_path: Path) -> None:
    rows = [example(i) for i in range(20)]
    with pytest.raises(InputError, match=r"rows.jsonl:4:id: id 'r3' was used before, at rows.jsonl:4"):
        split([*rows, example(3)], tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"rows.jsonl:51: label 'rare' has one row, so it cannot be both"):
        split([*rows, example(50, "rare")], tmp_path / "a.parquet")
    mixed = [example(60 + i, ["few", "some"][i == 0], group="g") for i in range(4)]
    told = r"rows.jsonl:62: label 'few' has 3 rows that are one group .* \(nor can these, with their rows: 'some' 1\)"
    with pytest.raises(InputError, match=told):
        split([*rows, *mixed], tmp_path / "a.parquet")
    with pytest.raises(InputError, match="20 rows make 1 independent group;"):
        split([example(i, group="g") for i in range(20)], tmp_path / "a.parquet", "answer")
    with pytest.raises(InputError, match=r"group 'g' stands in train .* and in test"):
        split(
            [example(i, group="g" if i < 5 else None) for i in range(20)],
            tmp_path / "a.parquet",
            fixed=[example(50, group="g")],
            dev=0.1,
        )
    assert not (tmp_path / "a.parquet").exists()
    split(rows, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"made before there was a test set of its own"):
        split(rows, tmp_path / "a.parquet", fixed=[example(50)])
    (tmp_path / "a.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(InputError, match="cannot be read"):
        split(rows, tmp_path / "a.parquet")


@pytest.mark.parametrize("kind", ["classify", "answer"])
def test_groups_that_share_questions_are_told_so(tmp_path: Path, kind: str) -> None:
    """The same questions are asked about every policy, and the policy is the group."""
    rows = [
        example(i, "ab"[i % 2], text=f"{WORDS[i % 10]} {WORDS[i % 10 + 1]}", group=f"policy {i // 10}")
        for i in range(60)
    ]
    told = r"60 of 60 rows are one group: 6 groups share texts, as do 'policy 0' and 'policy 1'; .* into the input"
    with pytest.raises(InputError, match=told):
        split(rows, tmp_path / "a.parquet", kind)
    assert split([replace(row, group=None) for row in rows], tmp_path / "b.parquet", kind)


def test_what_repeats_is_one_group_in_every_split_and_in_a_fixed_test_set(tmp_path: Path) -> None:
    """Near copies stand together in the ledger, so they are one independent question in every interval, not two."""
    rows = [example(i) for i in range(60)]
    long = "please send the yearly invoice for the blue warehouse near the harbour before the end of"
    copies = [example(100 + i, text=f"{long} {month}") for i, month in enumerate(["march", "march.", "april"])]
    parts = split([*rows, *copies], tmp_path / "splits.parquet", "answer")
    placed = {row.id: row for part in parts.values() for row in part}
    groups = {placed[copy.id].group for copy in copies}
    assert len(groups) == 1
    assert None not in groups
    assert all(placed[row.id].group is None for row in rows)
    fixed = split(rows, tmp_path / "other.parquet", "answer", fixed=copies)["test"]
    assert len({row.group for row in fixed}) == 1
    assert fixed[0].group is not None
    again = split(rows, tmp_path / "other.parquet", "answer", fixed=copies)["test"]
    assert again == fixed


def timed(number: int, day: int, label: str = "a", **more: object) -> Example:
    when = date(2026, 1, 1) + timedelta(days=day)
    return example(number, label, time=when.isoformat(), **more)


def test_the_newest_rows_are_the_test_set(tmp_path: Path) -> None:
    rows = [timed(i, (i * 37) % 100, "ab"[i % 2]) for i in range(100)]
    parts = split(rows, tmp_path / "s.parquet", dev=0.1, test=0.3)
    days = {name: sorted(row.time or "" for row in parts[name]) for name in SPLITS}
    assert [len(parts[name]) for name in SPLITS] == [60, 10, 30]
    assert days["train"][-1] < days["dev"][0]
    assert days["dev"][-1] < days["test"][0]
    assert time_notes(parts) == [
        "split by time, the newest rows are the test set and a group goes by its newest row: "
        "train 2026-01-01 to 2026-03-01, dev 2026-03-02 to 2026-03-11, test 2026-03-12 to 2026-04-10"
    ]


def test_a_group_goes_by_its_newest_row_and_a_class_begins_in_train(tmp_path: Path) -> None:
    rows = [timed(i, i, "ab"[i % 2]) for i in range(100)]
    rows += [timed(200 + i, day, group="g") for i, day in enumerate((0, 50, 99))]
    rows += [timed(300 + i, 90 + i, "new") for i in range(4)]
    placed = ids(split(rows, tmp_path / "s.parquet"))
    assert {placed[f"r{200 + i}"] for i in range(3)} == {"test"}
    assert [placed[f"r{300 + i}"] for i in range(4)] == ["train", "test", "test", "test"]


def test_rows_of_one_time_are_cut_by_the_seed(tmp_path: Path) -> None:
    rows = [example(i, f"answer {i}", time=str(2020 + i // 50)) for i in range(100)]
    first, other = (
        ids(split(rows, tmp_path / f"{seed}.parquet", "answer", dev=0.2, test=0.2, seed=seed)) for seed in (0, 1)
    )
    assert Counter(first.values()) == Counter(other.values()) == {"train": 60, "dev": 20, "test": 20}
    assert first != other
    assert all(first[f"r{i}"] == "train" for i in range(50))


@given(days=st.lists(st.integers(0, 150), min_size=1, max_size=40), cut=st.integers(40, 80))
def test_later_rows_go_where_their_time_falls_and_none_moves(
    tmp_path_factory: pytest.TempPathFactory, days: list[int], cut: int
) -> None:
    ledger = tmp_path_factory.mktemp("timed") / "s.parquet"
    rows = [timed(i, i, f"answer {i}") for i in range(cut)]
    before = ids(split(rows, ledger, "answer"))
    later = [timed(500 + i, day, f"later {i}") for i, day in enumerate(days)]
    placed = ids(split([*later, *rows], ledger, "answer"))
    assert {name: placed[name] for name in before} == before
    began = {name: min(i for i in range(cut) if before[f"r{i}"] == name) for name in SPLITS}
    for i, day in enumerate(days):
        wanted = "test" if day >= began["test"] else "dev" if day >= began["dev"] else "train"
        assert placed[f"r{500 + i}"] == wanted


def test_a_ledger_without_times_and_a_test_set_of_its_own_are_refused(tmp_path: Path) -> None:
    ledger = tmp_path / "s.parquet"
    rows = [timed(i, i, "ab"[i % 2]) for i in range(100)]
    split([replace(row, time=None) for row in rows], ledger)
    with pytest.raises(InputError, match=r"made without columns\.time"):
        split(rows, ledger)
    with pytest.raises(InputError, match="what is tested on"):
        split(rows, tmp_path / "t.parquet", fixed=[timed(900, 1), timed(901, 2)])
