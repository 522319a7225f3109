"""JSON files of many rows: where each stands in an array, in a dictionary by id, or in one of splits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.records import Split
from trimtab.data.strict_json import parse_json, trailing_comma

BLANKS = " \t\r\n"
_SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "development": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}


_ROW_LIST_KEYS = frozenset(("data", "rows", "examples", "items", "records", "questions"))
_FIELD_NAMES = _ROW_LIST_KEYS | frozenset(
    ("messages", "conversations", "text", "input", "question", "prompt", "label", "output", "answer", "answers")
)
"""Keys that are no classes."""


def split_of(part: str) -> Split | None:
    """The split that a part of a file is by its name (`val`, `oos_test`); None for a name that says none."""
    return next((_SPLIT_NAMES[word] for word in re.split(r"[^a-z]+", part.lower()) if word in _SPLIT_NAMES), None)


def is_by_split(value: Any) -> bool:
    """Whether a JSON value is a dictionary of splits: lists of rows, or rows by id, under their names."""
    if not isinstance(value, dict):
        return False
    named = [part for name, part in value.items() if split_of(name)]
    return bool(named) and all(is_by_id(part) or _is_list_of_rows(part) for part in named)


def is_by_class(value: Any) -> bool:
    """Whether a JSON value is a dictionary of lists of rows, or of texts, under the names of their classes."""
    if not isinstance(value, dict) or not value or not _FIELD_NAMES.isdisjoint(name.lower() for name in value):
        return False
    return all(
        isinstance(part, list) and part and all(isinstance(row, (dict, str)) for row in part) for part in value.values()
    )


def is_one_list(value: Any) -> bool:
    """Whether a JSON value is an object with one list of rows under a word such as `data`."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    ((name, part),) = value.items()
    return name.lower() in _ROW_LIST_KEYS and _is_list_of_rows(part)


def with_text(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose text stands in pieces (`data: [{"text": …}, …]`, as Snips has it) with the whole of it as `text`."""
    pieces = row.get("data")
    if "text" in row or not isinstance(pieces, list) or not pieces:
        return row
    texts = [piece.get("text") if isinstance(piece, dict) else None for piece in pieces]
    if not all(isinstance(text, str) for text in texts):
        return row
    return {**{name: value for name, value in row.items() if name != "data"}, "text": "".join(map(str, texts))}


def is_by_id(value: Any) -> bool:
    """Whether a JSON value is a dictionary of nothing but objects: rows under their ids."""
    return isinstance(value, dict) and bool(value) and all(isinstance(row, dict) for row in value.values())


def _is_list_of_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, (dict, list)) for row in value)


@dataclass(frozen=True, slots=True)
class Member:
    """A value of a JSON array or object: its key ("" in an array), and where it stands in the text."""

    key: str
    value: Any
    start: int
    end: int
    line: int


def members(text: str, at: int, path: Path, line: int) -> Iterator[Member]:
    """The values of the array or object that opens at `at`, on `line`.

    Only an array is looked at for the first time here, so only one can be broken: InputError names the line.
    """
    keyed, nested, counted_to = text[at] == "{", bool(text[:at].strip(BLANKS)), at
    at, first = at + 1, True
    while True:
        at = skip_blanks(text, at)
        line, counted_to = line + text.count("\n", counted_to, at), at
        if text[at : at + 1] == ("}" if keyed else "]"):
            break
        if not first:
            if text[at : at + 1] != ",":
                problem = "the array is cut off" if at == len(text) else "a comma is missing between two rows"
                raise InputError(problem, "mend the file", file=path, line=line)
            comma, at = at, skip_blanks(text, at + 1)
            if text[at : at + 1] == "]":
                raise trailing_comma(text, comma, path, line)
            line, counted_to = line + text.count("\n", counted_to, at), at
        key = ""
        if keyed:
            key, at = parse_json(text, path, line, at)
            at = skip_blanks(text, skip_blanks(text, at) + 1)  # past the colon
        value, end = parse_json(text, path, line, at)
        yield Member(key, value, at, end, line)
        at, first = end, False
    if not nested and skip_blanks(text, at + 1) < len(text):
        raise InputError("more text after the array", "remove it", file=path, line=line)


def skip_blanks(text: str, at: int) -> int:
    """The first place from `at` on that is no blank of JSON."""
    while at < len(text) and text[at] in BLANKS:
        at += 1
    return at
