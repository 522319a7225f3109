"""From a file to raw rows with their line numbers: JSON lines, JSON, CSV, TSV, Parquet, a dataset of the hub."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError, PackageError
from trimtab.base.records import Refusal
from trimtab.data.nested import is_by_id, is_by_split, members, skip_blanks, split_of
from trimtab.data.sources import LINE_CAP, MB, TOTAL_CAP, open_checked, read_lines, read_text

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
DEPTH_CAP = 64
DIGITS_CAP = 400
"""Longest integer that is read, in digits."""

PAIR = ("first", "second")
"""The fields of a row that is written as a pair."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands in the file. `line` is that of its beginning (Parquet and hub: its number, from 1).

    `part`: the name of the split that it stands under, where the file is a dictionary of splits.
    """

    file: str
    line: int
    fields: Mapping[str, Any]
    part: str = ""

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
        return _parquet(path)
    raise InputError("unknown kind of file", f"use one of: {', '.join(SUFFIXES)}", file=path)


class _StrictError(ValueError):
    """JSON that Python would accept and that we do not; `remedy` says what to do."""

    def __init__(self, problem: str, remedy: str, field: str | None = None) -> None:
        super().__init__(problem)
        self.remedy, self.field = remedy, field


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
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


def _row(value: Any, text: str, path: Path, line: int, part: str = "") -> RawRow | Refusal:
    if not isinstance(value, dict):
        raise InputError(
            f"the row is {type_name(value)}, not an object", 'write {"field": value, …}', file=path, line=line
        )
    row = RawRow(str(path), line, value, part)
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


def read_json_value(path: Path, encoding: str) -> tuple[Any, str]:
    """The one JSON value of a file, with the text it was read from."""
    text = read_text(path, encoding)
    start = skip_blanks(text, 0)
    value, end = parse_json(text, path, 1 + text.count("\n", 0, start), start)
    if skip_blanks(text, end) < len(text):
        raise InputError(
            "more text after the JSON value", "write one value", file=path, line=1 + text.count("\n", 0, end)
        )
    return value, text


def _json(path: Path, encoding: str) -> Rows:
    """An array of rows, a dictionary of them by id or by split; JSON lines under a .json name are read as such; one object is one row."""
    text = read_text(path, encoding)
    at = skip_blanks(text, 0)
    if at == len(text):
        raise InputError("the file holds nothing but space", "put rows in it, or leave it out", file=path)
    line = 1 + text.count("\n", 0, at)
    if text[at] == "[":
        yield from _rows_in(text, at, path, line)
        return
    value, end = parse_json(text, path, line, at)
    if skip_blanks(text, end) < len(text):
        yield from _json_lines(path, encoding)
    elif is_by_split(value):
        for part in members(text, at, path, line, parse_json):
            if split_of(part.key):
                yield from _rows_in(text, part.start, path, part.line, part.key)
            else:
                reason = printable(f"the part {part.key!r} is no split by its name")
                yield Refusal(file=str(path), line=part.line, reason=reason, remedy="call it train, dev or test")
    elif is_by_id(value):
        yield from _rows_in(text, at, path, line)
    else:
        yield _row(value, text, path, line)


def _rows_in(text: str, at: int, path: Path, line: int, part: str = "") -> Rows:
    """The rows of the array or object that opens at `at`: objects, and in an array pairs too; a key is the row's id."""
    for member in members(text, at, path, line, parse_json):
        if member.end - member.start > LINE_CAP:
            problem, remedy = f"the row is longer than {LINE_CAP // MB} MB", "split the row, or leave it out"
            raise InputError(problem, remedy, file=path, line=member.line)
        value = member.value
        if isinstance(value, list) and len(value) == 2:
            value = dict(zip(PAIR, value, strict=True))
        if isinstance(value, dict) and member.key:
            value = {"id": member.key, **value}
        yield _row(value, text[member.start : member.end], path, member.line, part)


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
    for name in header:
        if header.count(name) > 1:
            raise InputError(f"two columns are called {name[:80]!r}", "rename one", file=path, line=line)
    return header


def _parquet(path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    with open_checked(path):
        pass  # a FIFO or device never reaches the library
    number = total = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _require_one_of_each(file.schema_arrow, path)
            for batch in file.iter_batches(batch_size=1024):
                total += batch.nbytes
                if total > TOTAL_CAP or batch.nbytes > 32 * LINE_CAP:
                    raise InputError(f"unpacks to more than {total // MB:,} MB", "split it", file=path)
                for fields in batch.to_pylist():
                    number += 1
                    yield RawRow(str(path), number, fields)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        problem = printable(str(error), 200)
        raise InputError(f"not readable as Parquet ({problem})", "write the file again", file=path) from None


def _require_one_of_each(fields: Any, path: Path) -> None:
    """Refuse a schema with two columns, or two fields of a nested one, of one name: of their values only one would be read."""
    left = [fields]
    while left:
        inner = list(left.pop())
        names = [field.name for field in inner]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"two columns are called {printable(twice, 80)!r}", "rename one", file=path)
        for kind in (field.type for field in inner):
            left.append([kind.field(place) for place in range(kind.num_fields)])


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
