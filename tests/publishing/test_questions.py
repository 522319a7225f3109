"""Questions out of exports in several languages, each once, with the demand that the source gives; groups and their
stability."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from string import ascii_letters

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.errors import InputError
from trimtab.base.records import Hit, Message, Passage
from trimtab.publishing.questions import (
    count,
    decimal,
    drawn_questions,
    group_questions,
    merged_questions,
    questions_of_traffic,
    read_questions,
)
from trimtab.publishing.records import SurfaceQuestion
from trimtab.serving.traffic_store import ServedAnswer

ENGLISH = (
    'Top queries,Clicks,Impressions,CTR,Position\nhow to return a lamp,12,"1,480",0.81%,4.2\n'
    "lamp warranty,3,40,7.5%,9\n"
)
GERMAN = (
    "Häufigste Suchanfragen;Klicks;Impressionen;CTR;Position\nhow to return a lamp;12;1.480;0,81 %;4,2\n"
    "lamp warranty;3;40;7,5 %;9\n"
)
# A language whose headers are in no list: known by clicks / impressions = rate.
UNKNOWN = (
    "Kyselyt\tKlikkaukset\tNäyttökerrat\tOsuus\tSijainti\nhow to return a lamp\t12\t1\u202f480\t0,81 %\t4,2\n"
    "lamp warranty\t3\t40\t7,5 %\t9\n"
)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(ENGLISH, "utf-8"), (GERMAN, "utf-8-sig"), (UNKNOWN, "utf-8"), (GERMAN.replace(";", "\t"), "utf-16")],
)
def test_an_export_says_the_same_in_every_language(tmp_path, text: str, encoding: str) -> None:
    file = tmp_path / "Queries.csv"
    file.write_text(text, encoding=encoding)
    found = [(one.text, one.demand) for one in read_questions(file)]
    assert found == [("how to return a lamp", 1480.0), ("lamp warranty", 40.0)]


def test_a_column_of_numbers_that_are_no_rate_is_no_demand(tmp_path) -> None:
    file = tmp_path / "kysely.csv"
    file.write_text("Kyselyt,A,B,C\nlamp,12,1480,50%\nwarranty,3,40,20%\n", encoding="utf-8")
    assert [one.demand for one in read_questions(file)] == [None, None]


def test_a_list_of_pages_is_refused_in_words(tmp_path) -> None:
    file = tmp_path / "Pages.csv"
    file.write_text("Top pages,Clicks\nhttps://a.example/x,3\nhttps://a.example/y,2\n", encoding="utf-8")
    with pytest.raises(InputError, match="lists pages and no questions"):
        read_questions(file)


def test_a_count_that_is_none_is_told_with_its_line(tmp_path) -> None:
    file = tmp_path / "q.csv"
    file.write_text("query,impressions\nlamp,12\nwarranty,many\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"q\.csv:3:impressions"):
        read_questions(file)


def test_lines_are_those_of_the_file_below_comments_and_line_breaks(tmp_path) -> None:
    file = tmp_path / "events.csv"
    text = '# Events\n# 2026\n\nSearch term,Event count\n,1540,Grand total\n"lamp\nshade",1500\n#lamps,many\n'
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"events\.csv:8:Event count"):
        read_questions(file)
    file.write_text(text.replace("many", "40"), encoding="utf-8")
    assert [(one.text, one.demand) for one in read_questions(file)] == [("lamp\nshade", 1500.0), ("#lamps", 40.0)]


def test_a_question_with_an_unquoted_separator_is_refused_with_its_line(tmp_path) -> None:
    file = tmp_path / "q.csv"
    file.write_text("query,impressions\nlamp,12\nlamp, please,3\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"q\.csv:3.*3 fields"):
        read_questions(file)


def test_a_list_and_json_rows_bring_labels_along(tmp_path) -> None:
    plain, rows = tmp_path / "q.txt", tmp_path / "q.jsonl"
    plain.write_text("# ours\n- How long is the warranty?\n\nHow long is the warranty ?\n", encoding="utf-8")
    rows.write_text(
        '{"question": "How long?", "answer": ["two years", "24 months"], "page": "a.md"}\n', encoding="utf-8"
    )
    assert [one.text for one in read_questions(plain)] == ["How long is the warranty?"]
    (one,) = read_questions(rows)
    assert (one.references, one.page, one.demand) == (("two years", "24 months"), "a.md", None)


@given(st.integers(0, 10**9), st.sampled_from([",", ".", " ", "\u00a0", "\u202f", "'", "’"]))
def test_thousands_are_read_however_they_are_parted(number: int, mark: str) -> None:
    assert count(f"{number:,}".replace(",", mark)) == number


@given(st.integers(0, 10**6), st.integers(0, 99), st.sampled_from([",", "."]))
def test_a_decimal_is_read_with_either_mark(whole: int, rest: int, mark: str) -> None:
    assert decimal(f"{whole}{mark}{rest:02d}") == pytest.approx(whole + rest / 100)


@given(st.lists(st.tuples(st.sampled_from(["A?", "a", " b", "B!", "c"]), st.none() | st.integers(0, 9)), max_size=12))
def test_demands_of_one_question_are_added_and_never_invented(pairs: list[tuple[str, int | None]]) -> None:
    found = merged_questions([SurfaceQuestion(text=text, source="s", demand=demand) for text, demand in pairs])
    assert len({one.text.strip("?! ").casefold() for one in found}) == len(found)
    assert sum(one.demand or 0 for one in found) == sum(demand or 0 for _, demand in pairs)
    if all(demand is None for _, demand in pairs):
        assert all(one.demand is None for one in found)


def test_the_most_asked_are_drawn_first_and_the_draw_is_seeded() -> None:
    asked = [SurfaceQuestion(text=str(n), source="s", demand=100 if n == 7 else None) for n in range(20)]
    first = drawn_questions(asked, 5)
    assert first == drawn_questions(asked, 5)
    assert "7" in {one.text for one in first}
    assert len(first) == 5


def test_traffic_counts_for_what_was_not_kept() -> None:
    def served(text: str) -> ServedAnswer:
        turns = (
            Message(role="user", content="before"),
            Message(role="assistant", content="x"),
            Message(role="user", content=text),
        )
        return ServedAnswer(
            id=text, when=datetime(2026, 11, 1, tzinfo=UTC), arm="rag", version="1", messages=turns, passages=(),
            answer="x",
            abstained=False, probability=None, milliseconds=1.0, user=None, share=0.1, masked=False,
        )  # fmt: skip

    (one,) = questions_of_traffic([served("Which lamp?"), served("which lamp")])
    assert (one.text, one.demand) == ("Which lamp?", pytest.approx(20.0))


def _around(*centres: int, each: int = 6, spread: float = 0.05) -> np.ndarray:
    random = np.random.default_rng(0)
    points = np.concatenate([np.eye(8)[[centre] * each] + spread * random.normal(size=(each, 8)) for centre in centres])
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def test_groups_are_those_of_the_vectors_and_stable_where_they_lie_apart() -> None:
    vectors = _around(0, 1, 2)
    texts = list(ascii_letters[:18])
    groups = group_questions(texts, vectors)
    assert sorted(sorted(one.members) for one in groups) == [list(range(start, start + 6)) for start in (0, 6, 12)]
    assert all(one.stability == pytest.approx(1.0) for one in groups)
    assert all(one.name in {texts[place] for place in one.members} for one in groups)


def test_groups_that_hang_together_by_chance_are_not_stable() -> None:
    random = np.random.default_rng(1).normal(size=(60, 3))
    vectors = (random / np.linalg.norm(random, axis=1, keepdims=True)).astype(np.float32)
    groups = group_questions([chr(0x4E00 + n) for n in range(60)], vectors)
    loose = [group.stability for group in groups if group.stability is not None]
    assert np.mean(loose) < 0.85


def test_a_group_has_the_name_of_its_most_asked_question() -> None:
    texts = list(ascii_letters[:6])
    (group,) = group_questions(texts, _around(0), demands=[3, None, 90, 0, 1, None])
    assert group.name == texts[2]


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("When does support of 3.8 end?", "Until when is 3.8 supported?", True),
        ("When does support of 3.8 end?", "When does support of 3.9 end?", False),
        ("When does support end?", "When does support of 3.9 end?", True),
        ("Do you send lamps to Norway?", "Do you send lamps to Sweden?", False),
        ("Do you send lamps to Norway?", "Do you send lamps abroad?", True),
    ],
)
def test_questions_with_other_figures_or_names_are_apart_however_alike(one: str, other: str, together: bool) -> None:
    groups = group_questions([one, other], _around(0, each=2, spread=0.01))
    assert (len(groups) == 1) == together


def _sentence(name: str, probability: float) -> Hit:
    passage = Passage(id=name, document=name, title="", path=(), text=name, source=name)
    return Hit(passage=passage, rank=1, score=probability)


def test_one_answer_brings_questions_together_and_two_sure_ones_set_them_apart() -> None:
    vectors = np.array([[1, 0], [0.5, 0.75**0.5]], dtype=np.float32)  # at a distance of .5
    texts = ["How much is it?", "What is the price?"]
    same, other = _sentence("costs 40 euros", 0.6), _sentence("opens at noon", 0.6)
    assert len(group_questions(texts, vectors)) == 2
    assert len(group_questions(texts, vectors, answers=[same, same])) == 1
    alike = _around(0, each=2, spread=0.01)
    assert len(group_questions(texts, alike, answers=[same, other])) == 2
    assert len(group_questions(texts, alike, answers=[same, _sentence("opens at noon", 0.4)])) == 1


def test_every_question_is_in_one_group() -> None:
    for count_of in (1, 2, 3, 9):
        vectors = np.random.default_rng(count_of).normal(size=(count_of, 4))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        groups = group_questions([str(n) for n in range(count_of)], vectors.astype(np.float32))
        assert sorted(place for one in groups for place in one.members) == list(range(count_of))


@pytest.mark.parametrize(
    ("name", "text", "demand"),
    [
        (
            "planner.csv",
            "Keyword Stats 2026-12-01 at 10_00_00\n1 November 2025 - 31 October 2026\n"
            "Keyword\tCurrency\tAvg. monthly searches\nkayak hire\tEUR\t1K – 10K\nroom for two\tEUR\t1,300\n",
            [1000.0, 1300.0],
        ),
        (
            "semrush.csv",
            'Keyword,Position,Volume,URL\nkayak hire,3,"1,900",https://x.example/a\nroom for two,8,-,https://x.example/b\n',
            [1900.0, 0.0],
        ),
        ("ahrefs.csv", "#,Keyword,Difficulty,Volume\n1,kayak hire,12,1.2K\n2,room for two,0,90\n", [1200.0, 90.0]),
    ],
)
def test_lists_of_keywords_are_read_with_their_volumes(
    tmp_path: Path, name: str, text: str, demand: list[float]
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-16" if "planner" in name else "utf-8")
    found = read_questions(tmp_path / name)
    assert [one.text for one in found] == ["kayak hire", "room for two"]
    assert [one.demand for one in found] == demand
    assert [one.page for one in found] == [None, None], "where a page ranks is not what should answer"
