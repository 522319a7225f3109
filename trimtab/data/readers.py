"""From a file to raw rows with their line numbers: JSON lines, JSON, CSV, TSV, Parquet, a dataset of the hub."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError, PackageError
from trimtab.base.records import Refusal
from trimtab.data.sources import LINE_CAP, MB, read_lines, read_text

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
DEPTH_CAP = 64
VALUES_CAP = 10_000_000
"""Most values in a JSON file that is read whole, by its commas and brackets: each takes some 60 bytes of memory."""
DIGITS_CAP = 400
"""Longest integer that is read, in digits."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands in the file. `line` is that of its beginning (Parquet and hub: its number, from 1)."""

    file: str
    line: int
    fields: Mapping[str, Any]

    def error(self, problem: str, remedy: str, field: str | None = None) -> InputError:
        """An InputError at this row, on one printable line whatever the file holds."""
        return InputError(
            printable(problem), printable(remedy), file=self.file, line=self.line, field=field and printable(field, 80)
        )

    def refusal(self, reason: str, remedy: str) -> Refusal:
        """A line for the ledger about this row."""
        return Refusal(file=self.file, line=self.line, reason=printable(reason), remedy=printable(remedy))


def printable(text: str, limit: int = 400) -> str:
    """Text from a file fit for one line of a terminal: control characters escaped, long text cut."""
    short = text if len(text) <= limit else f"{text[:limit]}…"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in short)


Rows = Iterator[RawRow | Refusal]


def read_rows(path: Path, encoding: str = "utf-8") -> Rows:
    """The rows of a file, by its suffix, lazily. A row that must be skipped comes as a Refusal.

    Raises InputError with file, line and remedy for what cannot be read.
    """
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson")):
        return _json_lines(path, encoding)
    if name.endswith(".json"):
        return _json(path, encoding)
    if name.endswith((".csv", ".tsv")):
        return _table(path, encoding, "\t" if name.endswith(".tsv") else ",")
    if name.endswith(".parquet"):
        from trimtab.data.parquet import read_parquet

        return read_parquet(path)
    raise InputError("unknown kind of file", f"use one of: {', '.join(SUFFIXES)}", file=path)


class _StrictError(ValueError):
    """JSON that Python would accept and that we do not; `remedy` says what to do."""

    def __init__(self, problem: str, remedy: str, field: str | None = None) -> None:
        super().__init__(problem)
        self.remedy, self.field = remedy, field


def first_twice(names: Iterable[str]) -> str | None:
    """The first of the names that comes a second time."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    twice = first_twice(key for key, _ in pairs) if len(value) < len(pairs) else None
    if twice is not None:
        raise _StrictError(f"the key {twice[:80]!r} stands twice in one object", "keep one of them", twice)
    return value


def _integer(digits: str) -> int:
    if len(digits) > DIGITS_CAP:
        raise _StrictError(f"an integer of {len(digits):,} digits", "write it as text, in quotes")
    return int(digits)


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _StrictError(f"the number {text[:20]} is too large", "write it as text, in quotes")
    return value


def _constant(text: str) -> float:
    raise _StrictError(f"{text} is not JSON", "write null, or leave the field out")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def parse_json(text: str, file: Path | str, line: int, start: int = 0) -> tuple[Any, int]:
    """One strict JSON value that begins at `start` of `text`, and where it ends.

    Refused with InputError: NaN, numbers beyond a double, integers over DIGITS_CAP, a key twice, nesting beyond DEPTH_CAP.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
    except _StrictError as error:
        raise InputError(
            str(error), error.remedy, file=file, line=line, field=error.field and printable(error.field, 80)
        ) from None
    except json.JSONDecodeError as error:
        at = line + text.count("\n", start, error.pos)
        raise InputError(
            f"not valid JSON ({error.msg} at column {error.colno})", "mend the line", file=file, line=at
        ) from None
    except RecursionError:
        raise _too_deep(file, line) from None
    if text.count("{", start, end) + text.count("[", start, end) > DEPTH_CAP and _depth(value) > DEPTH_CAP:
        raise _too_deep(file, line)
    return value, end


def _too_deep(file: Path | str, line: int) -> InputError:
    return InputError(f"nested deeper than {DEPTH_CAP} levels", "flatten the row", file=file, line=line)


def _depth(value: Any) -> int:
    """Levels of nesting, found level by level so that depth costs no stack."""
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
        if depth > DEPTH_CAP:
            break
    return depth


HALF_PAIR = "holds half a surrogate pair", "remove or complete the \\ud… escape"


def holds_half_pair(value: Any) -> bool:
    """Whether a string in a JSON value holds half a surrogate pair, which no text file can."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _row(value: Any, text: str, path: Path, line: int) -> RawRow | Refusal:
    if not isinstance(value, dict):
        raise InputError(
            f"the row is {type_name(value)}, not an object", 'write {"field": value, …}', file=path, line=line
        )
    row = RawRow(str(path), line, value)
    return row.refusal(*HALF_PAIR) if _SURROGATE.search(text) and holds_half_pair(value) else row


def type_name(value: Any) -> str:
    """The JSON name of a value's type, with its article."""
    names = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), f"of type {type(value).__name__}")


def _json_lines(path: Path, encoding: str) -> Rows:
    for number, line in enumerate(read_lines(path, encoding), start=1):
        text = line.strip(" \t\r\n")
        if not text:
            continue
        if text.startswith("[") and number == 1:
            raise InputError(
                "a JSON array, and the name says JSON lines",
                "rename it to .json, or write one object a line",
                file=path,
                line=number,
            )
        try:
            value, end = parse_json(text, path, number)
        except InputError as error:
            if line.endswith("\n") or not error.problem.startswith("not valid JSON"):
                raise
            raise InputError("the last line is cut off", "copy the file again", file=path, line=number) from None
        if text[end:]:
            raise InputError(
                f"more text after the object ({text[end : end + 20]!r})",
                "write one object a line",
                file=path,
                line=number,
            )
        yield _row(value, text, path, number)


def _json_text(path: Path, encoding: str) -> str:
    text = read_text(path, encoding)
    if sum(map(text.count, ",[{")) > VALUES_CAP:
        problem, remedy = f"holds more than {VALUES_CAP:,} values", "write its rows as JSON lines"
        raise InputError(problem, remedy, file=path)
    return text


def read_json_value(path: Path, encoding: str) -> tuple[Any, str]:
    """The one JSON value of a file, with the text it was read from."""
    text = _json_text(path, encoding)
    start = _skip(text, 0)
    value, end = parse_json(text, path, 1 + text.count("\n", 0, start), start)
    if _skip(text, end) < len(text):
        raise InputError(
            "more text after the JSON value", "write one value", file=path, line=1 + text.count("\n", 0, end)
        )
    return value, text


def _json(path: Path, encoding: str) -> Rows:
    """A JSON array of rows; JSON lines under a .json name are read as such; one object is one row."""
    text = _json_text(path, encoding)
    at = _skip(text, 0)
    if at == len(text):
        raise InputError("the file holds nothing but space", "put rows in it, or leave it out", file=path)
    if text[at] == "[":
        yield from _array(text, at + 1, path)
        return
    value, end = parse_json(text, path, 1 + text.count("\n", 0, at), at)
    if _skip(text, end) == len(text):
        yield _row(value, text, path, 1 + text.count("\n", 0, at))
    else:
        yield from _json_lines(path, encoding)


def _array(text: str, at: int, path: Path) -> Rows:
    line, counted = 1, 0
    first = True
    while True:
        at = _skip(text, at)
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] == "]":
            if _skip(text, at + 1) < len(text):
                raise InputError("more text after the array", "remove it", file=path, line=line)
            return
        if not first:
            if text[at : at + 1] != ",":
                problem = "the array is cut off" if at == len(text) else "a comma is missing between two rows"
                raise InputError(problem, "mend the file", file=path, line=line)
            at = _skip(text, at + 1)
            line, counted = line + text.count("\n", counted, at), at
        value, end = parse_json(text, path, line, at)
        if end - at > LINE_CAP:
            problem, remedy = f"the row is longer than {LINE_CAP // MB} MB", "split the row, or leave it out"
            raise InputError(problem, remedy, file=path, line=line)
        yield _row(value, text[at:end], path, line)
        at, first = end, False


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _table(path: Path, encoding: str, delimiter: str) -> Rows:
    """CSV or TSV with a header; quotes and line breaks inside fields as RFC 4180 has them."""
    csv.field_size_limit(LINE_CAP)
    lines = read_lines(path, encoding)
    first = next(lines, "")
    if delimiter == "," and "," not in first:
        delimiter = next((other for other in (";", "\t") if other in first), ",")

    def rejoined() -> Iterator[str]:
        yield first
        yield from lines

    reader = csv.reader(rejoined(), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise _csv_error(error, path, start) from None
        if not cells:
            continue
        if not header:
            header = _header(cells, path, start)
            continue
        if len(cells) != len(header):
            raise InputError(
                f"{len(cells)} field{'s' * (len(cells) != 1)} where the header has {len(header)}",
                "put text that holds the separator or a line break in double quotes",
                file=path,
                line=start,
            )
        yield RawRow(str(path), start, dict(zip(header, cells, strict=True)))


def _csv_error(error: csv.Error, path: Path, line: int) -> InputError:
    text = str(error)
    if "unexpected end of data" in text or "field limit" in text:
        return InputError(
            "a double quote opens here and never closes",
            'close it, or double the quote inside ("")',
            file=path,
            line=line,
        )
    if "expected after" in text:
        text = "a double quote opens a field in this row and closes before the field ends"
        return InputError(text, 'close it at the end, and write a quote inside as ""', file=path, line=line)
    return InputError(f"not valid CSV ({text})", 'write a quote inside a quoted field as ""', file=path, line=line)


def _header(cells: list[str], path: Path, line: int) -> list[str]:
    header = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, start=1)]
    twice = first_twice(header)
    if twice is not None:
        raise InputError(f"two columns are called {twice[:80]!r}", "rename one", file=path, line=line)
    return header


def read_hub(name: str, split: str) -> Rows:
    """Rows of a Hugging Face dataset; class numbers become class names. Needs the optional package `datasets`."""
    try:
        import datasets
    except ImportError:
        raise PackageError("datasets", "hub", f"the dataset {name}") from None
    loaded = datasets.load_dataset(name, split=split)
    classes = {key: kind for key, kind in loaded.features.items() if isinstance(kind, datasets.ClassLabel)}
    for number, fields in enumerate(loaded, start=1):
        for key, kind in classes.items():
            fields[key] = kind.int2str(fields[key]) if fields[key] is not None and fields[key] >= 0 else None
        yield RawRow(name, number, fields)
