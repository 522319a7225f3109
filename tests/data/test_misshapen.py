"""Shapes of rows and files that the numbered cases do not name: refused with file and line, or skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from written_rows import ASK, CALLS, GOOD, SAY, after_good, chat, csv, lines, read

from trimtab.base.errors import InputError


def called(*calls: Any) -> bytes:
    """A conversation in line 3 whose assistant calls tools as given."""
    return chat(ASK, {"role": "assistant", "content": None, "tool_calls": list(calls)})


def squad(**paragraph: Any) -> bytes:
    """A SQuAD file of one paragraph."""
    return json.dumps({"data": [{"title": "T", "paragraphs": [{"context": "c", "qas": [], **paragraph}]}]}).encode()


# what, file name, bytes, line, a piece of the problem: shapes that the numbered cases do not name
MISSHAPEN: list[tuple[str, str, bytes, int | None, str]] = [
    ("turn no object", "a.jsonl", chat("Hi", SAY), 3, "is text, not an object"),
    ("messages no list", "a.jsonl", lines({"messages": "Hi"}), 1, "is text, not a list of turns"),
    ("no user turn", "a.jsonl", chat({"role": "system", "content": "s"}, SAY), 3, "a turn of assistant follows system"),
    ("content a number", "a.jsonl", chat({"role": "user", "content": 7}, SAY), 3, "is a number, not text"),
    ("calls no list", "a.jsonl", chat(ASK, {**CALLS, "tool_calls": {"a": 1}}), 3, "not a list of calls"),
    ("call without name", "a.jsonl", called({"function": {"arguments": "{}"}}), 3, "without the name"),
    ("arguments a list", "a.jsonl", called({"name": "f", "arguments": "[1]"}), 3, "are a list, not an object"),
    ("arguments twice", "a.jsonl", called({"name": "f", "arguments": "{} {}"}), 3, "more than one JSON value"),
    ("answers no texts", "a.jsonl", after_good({"question": "q", "answer": ["a", 7]}), 41, "not all text"),
    ("weight a word", "a.csv", b"question,answer,weight\na,b,1\nc,d,much\n", 3, "'much' is not a number"),
    ("weight huge", "a.jsonl", after_good({**GOOD[0], "weight": int("9" * 390)}), 41, "is not a number"),
    ("passage a number", "a.jsonl", after_good({**GOOD[0], "passage": 7}), 41, "not text or a list of texts"),
    ("quote after quote", "a.csv", csv("a,b", '"c"d,e'), 3, "closes before the field ends"),
    (
        "two objects a line",
        "a.jsonl",
        after_good('{"question": "a", "answer": "b"} {}'),
        41,
        "more text after the object",
    ),
    ("plain text", "a.jsonl", b"hello\n", 1, "not valid JSON"),
    ("text after SQuAD", "a.json", squad() + b"\n1", 1, "more text after the JSON value"),
    ("paragraphs no list", "a.json", b'{"data": [{"paragraphs": 7}]}', None, "is a number, not a list"),
    ("no context", "a.json", squad(context=None), None, "no text under context"),
    ("questions no list", "a.json", squad(qas=7), None, "not a list of questions"),
    ("no answers", "a.json", squad(qas=[{"id": "i", "question": "q", "answers": []}]), 1, "no answer texts"),
    ("unknown suffix", "a.ods", b"PK", None, "unknown kind of file"),
]


@pytest.mark.parametrize(
    ("name", "data", "line", "problem"), [case[1:] for case in MISSHAPEN], ids=[case[0] for case in MISSHAPEN]
)
def test_misshapen_rows_are_refused(tmp_path: Path, name: str, data: bytes, line: int | None, problem: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=problem) as caught:
        read(tmp_path / name)
    assert caught.value.file == str(tmp_path / name)
    assert caught.value.line == line
    assert caught.value.remedy


def test_one_label_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines({"text": "t", "label": ["a", "b"]}))
    with pytest.raises(InputError, match=r"a\.jsonl:1:label: 2 labels in one row"):
        read(tmp_path / "a.jsonl", "classify")


def test_a_number_that_is_none_in_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["a", "b"], "label": [1.0, float("nan")]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet:2:label: the number nan is not finite"):
        read(tmp_path / "a.parquet", "classify")


def test_22_half_a_surrogate_pair_in_squad(tmp_path: Path) -> None:
    questions = [
        {"id": f"i{n}", "question": text, "answers": [{"text": answer}]}
        for n, (text, answer) in enumerate([("q", "a"), ("r", "b"), ("s\ud800", "c"), ("t", "\udc00d")])
    ]
    (tmp_path / "a.json").write_bytes(squad(qas=questions))
    found = read(tmp_path / "a.json")
    assert [example.id for example in found.examples] == ["i0", "i1"]
    assert [refusal.reason for refusal in found.refusals] == ["holds half a surrogate pair"] * 2
    (tmp_path / "a.json").write_bytes(squad(context="x\ud800", qas=questions))
    with pytest.raises(InputError, match=r"a\.json:data\[0\]\.paragraphs\[0\]: holds half a surrogate pair; remove"):
        read(tmp_path / "a.json")


def test_a_question_without_text_in_squad_is_skipped(tmp_path: Path) -> None:
    questions = [
        {"id": f"i{n}", "question": text, "answers": [{"text": "a"}]} for n, text in enumerate(("q", "r", " "))
    ]
    (tmp_path / "a.json").write_bytes(squad(qas=questions))
    found = read(tmp_path / "a.json")
    assert [example.id for example in found.examples] == ["i0", "i1"]
    assert found.refusals[0].reason == "no text in question"


def _nested() -> Any:
    kind = pyarrow.struct([pyarrow.field("role", pyarrow.string()), pyarrow.field("role", pyarrow.string())])
    turns = pyarrow.list_(kind)
    return pyarrow.schema([pyarrow.field("question", pyarrow.string()), pyarrow.field("answer", turns)])


@pytest.mark.parametrize("nested", [False, True])
def test_17_two_columns_of_one_name_in_parquet(tmp_path: Path, nested: bool) -> None:
    texts = pyarrow.array(["a", "b"])
    if nested:
        schema = _nested()
        table = pyarrow.Table.from_arrays([texts, pyarrow.nulls(2, schema.field("answer").type)], schema=schema)
    else:
        table = pyarrow.Table.from_arrays([texts, texts, texts], names=["question", "answer", "answer"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    name = "role" if nested else "answer"
    with pytest.raises(InputError, match=rf"a\.parquet: two columns are called '{name}'; rename one"):
        read(tmp_path / "a.parquet")
