"""Finds the rows of a JSON file: in an array, in a dictionary by id or class, or in a dictionary of splits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.records import Split
from trimtab.data.column_names import ANSWERS, INPUTS, LABELS
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
    "validate": "dev",
    "test": "test",
}


_ROW_LIST_KEYS = frozenset(
    (
        *("data", "rows", "examples", "common_examples", "items", "records", "questions"),
        *("entries", "samples", "instances", "results", "intents", "utterances"),
    )
)
_FIELD_NAMES = _ROW_LIST_KEYS | frozenset(
    ("messages", "conversations", "text", "input", "question", "prompt", "label", "output", "answer", "answers")
)
"""Keys that are not class names."""
_COLUMN_NAMES = frozenset((*INPUTS, *LABELS, *ANSWERS))


def split_of(part: str) -> Split | None:
    """Return the split that a part's name stands for (`val`, `oos_test`), None if there is none."""
    return next((_SPLIT_NAMES[word] for word in re.split(r"[^a-z]+", part.lower()) if word in _SPLIT_NAMES), None)


def is_by_split(value: Any) -> bool:
    """True if a JSON value is a dictionary of splits, each a list of rows or rows by id."""
    if not isinstance(value, dict):
        return False
    named = [part for name, part in value.items() if split_of(name)]
    return bool(named) and all(is_by_id(part) or _is_list_of_rows(part) for part in named)


def is_by_class(value: Any) -> bool:
    """True if a JSON value is a dictionary of classes, each a list of rows or of texts."""
    if not isinstance(value, dict) or not value or not _FIELD_NAMES.isdisjoint(name.lower() for name in value):
        return False
    return all(
        isinstance(part, list) and part and all(isinstance(row, (dict, str)) for row in part) for part in value.values()
    )


def row_list_key(value: Any) -> str:
    """Return the key, such as `data`, of the only list in a JSON object if it is one of rows, else ""."""
    lists = [name for name, part in value.items() if isinstance(part, list)] if isinstance(value, dict) else []
    if len(lists) != 1 or lists[0].lower() not in _ROW_LIST_KEYS:
        return ""
    rows = value[lists[0]]
    return lists[0] if _is_list_of_rows(rows) and (len(value) == 1 or is_by_id(dict(enumerate(rows)))) else ""


def rows_of_table(value: Any) -> list[dict[str, Any]]:
    """Return the rows of a JSON value that holds a table by columns, as `DataFrame.to_json` writes it, else nothing.

    The forms are `columns` beside `data`, `schema` beside `data`, columns of values by row number, and columns of
    equally long lists (of known names, as lists of texts may be classes).
    """
    if not isinstance(value, dict) or not value:
        return []
    data = value.get("data")
    if isinstance(data, list) and value.keys() - {"index", "schema"} == {"columns", "data"}:
        return _rows_under(value["columns"], data)
    if isinstance(data, list) and value.keys() == {"schema", "data"}:
        return data if all(isinstance(row, dict) for row in data) else []
    columns = list(value.values())
    if all(isinstance(column, dict) and column and all(map(str.isdigit, column)) for column in columns):
        cells = (list(column.values()) for column in columns)
        numbers = dict.fromkeys(number for column in columns for number in column)
        rows = [{name: column.get(number) for name, column in value.items()} for number in numbers]
        return rows if any(_is_flat(column) for column in cells) else []
    if len(columns) > 1 and any(name.lower() in _COLUMN_NAMES for name in value):
        is_table = all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns)
        return _rows_under(list(value), list(zip(*columns, strict=True))) if is_table and _is_flat(columns[0]) else []
    return []


def is_table_by_number(value: Any) -> bool:
    """True if a JSON value is an object of columns, each with its values by row number."""
    return isinstance(value, dict) and is_by_id(value) and bool(rows_of_table(value))


def _rows_under(names: Any, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Return lists of values as rows with names; nothing if one does not have as many values as there are names."""
    if not isinstance(names, list) or any(not isinstance(row, (list, tuple)) or len(row) != len(names) for row in rows):
        return []
    return [dict(zip(map(str, names), row, strict=True)) for row in rows]


def _is_flat(cells: Sequence[Any]) -> bool:
    return not any(isinstance(cell, (dict, list)) for cell in cells)


def with_text(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose text is in pieces (`data: [{"text": …}, …]`, as in Snips) with the joined text as `text`."""
    pieces = row.get("data")
    if "text" in row or not isinstance(pieces, list) or not pieces:
        return row
    texts = [piece.get("text") if isinstance(piece, dict) else None for piece in pieces]
    if not all(isinstance(text, str) for text in texts):
        return row
    return {**row, "text": "".join(map(str, texts))}


def is_by_id(value: Any) -> bool:
    """True if a JSON value is a dictionary of objects, which are rows by id."""
    return isinstance(value, dict) and bool(value) and all(isinstance(row, dict) for row in value.values())


def _is_list_of_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, (dict, list)) for row in value)


@dataclass(frozen=True, slots=True)
class Member:
    """A value of a JSON array or object: its key ("" in an array), and its position in the text."""

    key: str
    value: Any
    start: int
    end: int
    line: int


def members(text: str, at: int, path: Path, line: int) -> Iterator[Member]:
    """Yield the values of the array or object that opens at `at`, on `line`.

    Objects were parsed before, so only an array can be malformed; InputError names the line.
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
    """Return the first position from `at` on that is not JSON white space."""
    while at < len(text) and text[at] in BLANKS:
        at += 1
    return at
