"""Files made to be slow: eight times the bytes take about eight times the work, where the square would take
sixty-four."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written_rows import GOOD, lines, read

from trimtab.base.errors import InputError
from trimtab.base.records import Document, Section
from trimtab.data.audit import find_quotes
from trimtab.data.checks import _NUMBER
from trimtab.data.markdown import parse_markdown

Write = Callable[[Path, int], None]


def _wide_table(folder: Path, count: int) -> None:
    names = ",".join(f"c{n}" for n in range(count))
    (folder / "a.csv").write_text(f"question,answer,{names}\n" + f"q,a{',x' * count}\n" * 2)


def _two_keys(folder: Path, count: int) -> None:
    keys = ", ".join(f'"k{n}": 1' for n in [*range(count), count - 1])
    (folder / "a.jsonl").write_bytes(lines(*GOOD, f"{{{keys}}}"))


def _many_turns(folder: Path, count: int) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * count
    (folder / "a.jsonl").write_bytes(lines({"messages": turns}, {"messages": turns[:2]}))


def _squad_of(name: Callable[[int], Any]) -> Write:
    def write(folder: Path, count: int) -> None:
        questions = [{"id": name(n), "question": f"q{n}", "answers": [{"text": "a"}]} for n in range(count)]
        article = {"title": "T", "paragraphs": [{"context": "c", "qas": questions}]}
        (folder / "a.json").write_text(json.dumps({"data": [article]}))

    return write


def seconds(work: Callable[[], object]) -> float:
    """The least processor time of two, so that what else the machine does counts little."""
    taken = []
    gc.disable()  # it would look through the heap of the whole test run
    try:
        for _ in range(2):
            began = time.process_time()
            work()
            taken.append(time.process_time() - began)
    finally:
        gc.enable()
    return min(taken)


def grows_like_its_bytes(work: Callable[[int], object], size: int) -> None:
    small, large = (seconds(lambda count=count: work(count)) for count in (size, 8 * size))  # type: ignore[misc]
    assert large < 3 * 8 * small + 0.05


@pytest.mark.parametrize(
    ("write", "size"),
    [
        (_wide_table, 1000),
        (_two_keys, 1000),
        (_squad_of(lambda n: n), 400),
        (_squad_of(lambda n: f"é{n}"), 400),
        (_many_turns, 400),
    ],
    ids=["columns of a header", "keys of an object", "numbers as ids of SQuAD", "ids of SQuAD in escapes", "turns"],
)
def test_reading(tmp_path: Path, write: Write, size: int) -> None:
    files = {}
    for count in (size, 8 * size):
        (tmp_path / str(count)).mkdir()
        write(tmp_path / str(count), count)
        (files[count],) = (tmp_path / str(count)).iterdir()

    def work(count: int) -> None:
        try:
            read(files[count])
        except InputError as error:
            assert write is _two_keys and "stands twice" in error.problem  # noqa: PT017, PT018  the one that is refused

    grows_like_its_bytes(work, size)


def test_a_label_of_digits_is_told_from_a_number() -> None:
    grows_like_its_bytes(lambda count: _NUMBER.fullmatch("1" * count + "x"), 2000)
    for text in ("1", "-1.5", "+.5", "7.", "1e9", "2.E-3"):
        assert _NUMBER.fullmatch(text)
    for text in ("", ".", "1x", "e9", "1.2.3"):
        assert not _NUMBER.fullmatch(text)


def test_blanks_in_titles_and_headings() -> None:
    def work(count: int) -> None:
        assert parse_markdown(f"---\ntitle: a{' ' * count}b\n---\nx", "t")[0].endswith(" b")
        assert parse_markdown(f"# a{' ' * count}b\n\n# {' ' * count}\nx", "t")[0].endswith(" b")

    grows_like_its_bytes(work, 5000)


def test_questions_that_begin_alike_are_looked_for_in_documents() -> None:
    def work(count: int) -> None:
        questions = [f"a a a a a {n}" for n in range(count)]
        text = "a a a a a. " * count
        document = Document(id="d", title="", source="d", sections=(Section(path=(), text=text),), digest="")
        assert find_quotes(questions, [document]) == []

    grows_like_its_bytes(work, 200)
