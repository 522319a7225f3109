"""Reads files as raw rows with line numbers: JSON lines, JSON, CSV, TSV, Parquet, Excel, and datasets of the hub."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError, PackageError
from trimtab.base.files import split_sheet
from trimtab.base.records import Refusal
from trimtab.base.sanitize import one_line, printable
from trimtab.base.tables import resolve
from trimtab.data.nested import (
    is_by_class,
    is_by_id,
    is_by_split,
    is_table_by_number,
    members,
    row_list_key,
    rows_of_table,
    skip_blanks,
    split_of,
    with_text,
)
from trimtab.data.raw_rows import RawRow, RawRows, column_names
from trimtab.data.sources import LINE_CAP, MB, kind_of_file, read_text, read_text_lines
from trimtab.data.strict_json import LONE_SURROGATE, has_lone_surrogate, parse_json, type_name

VALUES_CAP = 10_000_000
"""Most values in a JSON file that is read whole, counted by commas and brackets; each takes about 60 bytes of memory.
"""
PAIR = ("first", "second")
"""The field names of a row that is written as a pair."""

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind:
    """A kind of file that holds rows. `suffixes`: those under which a folder is searched for it, in lower case.

    `read`: from the path, and of text the encoding, to the rows; or "package.module:function", imported when such a
    file is read. `is_text`: False for a kind that has no encoding; one of the names that `kind_of_file` gives is then
    recognised by its first bytes under any suffix.
    """

    suffixes: tuple[str, ...]
    read: Callable[..., RawRows] | str
    is_text: bool = True


_HERE = "trimtab.data.readers"
# By the name of the kind; `add_row` adds to it.
FILE_KINDS: dict[str, FileKind] = {
    "JSON lines": FileKind(suffixes=(".jsonl", ".jsonl.gz", ".ndjson"), read=f"{_HERE}:json_line_rows"),
    "JSON": FileKind(suffixes=(".json", ".json.gz"), read=f"{_HERE}:json_rows"),
    "CSV": FileKind(suffixes=(".csv", ".csv.gz"), read=f"{_HERE}:csv_rows"),
    "TSV": FileKind(suffixes=(".tsv", ".tsv.gz"), read=f"{_HERE}:tsv_rows"),
    "Parquet": FileKind(suffixes=(".parquet",), read="trimtab.data.parquet:read_parquet", is_text=False),
    "Excel": FileKind(suffixes=(".xlsx",), read="trimtab.data.excel:read_excel", is_text=False),
}


def row_suffixes(*, text_only: bool = False) -> tuple[str, ...]:
    """Return the suffixes of files that hold rows."""
    kinds = (kind for kind in FILE_KINDS.values() if kind.is_text or not text_only)
    return tuple(suffix for kind in kinds for suffix in kind.suffixes)


def read_raw_rows(path: Path, encoding: str = "utf-8") -> RawRows:
    """Yield the rows of a file by its suffix; a row to skip comes as a Refusal.

    Parquet and Excel are recognised by their first bytes under any suffix. `book.xlsx#Sheet` is one sheet of a
    workbook. Raises InputError with file, line and remedy for unreadable content.
    """
    file, _ = split_sheet(path)
    name = file.name.lower().removesuffix(".gz")
    kind = next((kind for kind in FILE_KINDS.values() if name.endswith(kind.suffixes)), None)
    if kind is None or kind.is_text:
        by_content = FILE_KINDS.get(kind_of_file(file))
        kind = kind if by_content is None or by_content.is_text else by_content
    if kind is None:
        raise InputError("unknown kind of file", f"use one of: {', '.join(row_suffixes())}", file=path)
    rows: RawRows = resolve(kind.read)(path, encoding) if kind.is_text else resolve(kind.read)(path)
    return rows


def _row(value: Any, text: str, path: Path, line: int, part: str = "") -> RawRow | Refusal:
    if not isinstance(value, dict):
        raise InputError(
            f"the row is {type_name(value)}, not an object", 'write {"field": value, …}', file=path, line=line
        )
    row = RawRow(str(path), line, value, part)
    return row.refusal(*LONE_SURROGATE) if _SURROGATE_ESCAPE.search(text) and has_lone_surrogate(value) else row


def json_line_rows(path: Path, encoding: str) -> RawRows:
    """Yield the rows of JSON lines; empty lines are skipped."""
    for number, line in enumerate(read_text_lines(path, encoding), start=1):
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
        if number == 1 and not text[end:] and is_table_by_number(value):
            raise InputError(
                "a table by columns, and the name says JSON lines",
                'rename it to .json, or write it by df.to_json(path, orient="records", lines=True)',
                file=path,
                line=number,
            )
        if text[end:] == ",":
            raise InputError(
                f"a comma at column {len(text)} behind the object",
                "take the commas at the ends of lines out",
                file=path,
                line=number,
            )
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
    """Return the single JSON value of a file, and the text it was read from."""
    text = _json_text(path, encoding)
    start = skip_blanks(text, 0)
    value, end = parse_json(text, path, 1 + text.count("\n", 0, start), start)
    if skip_blanks(text, end) < len(text):
        raise InputError(
            "more text after the JSON value", "write one value", file=path, line=1 + text.count("\n", 0, end)
        )
    return value, text


def _rows_of_splits(text: str, at: int, path: Path, line: int) -> RawRows:
    """Yield the rows of a dictionary by split; a part that is no split is refused."""
    for part in members(text, at, path, line):
        if split_of(part.key):
            yield from _rows_at(text, part.start, path, part.line, part.key)
        else:
            reason = printable(f"the part {part.key!r} is no split by its name")
            yield Refusal(file=str(path), line=part.line, reason=reason, remedy="call it train, dev or test")


def json_rows(path: Path, encoding: str) -> RawRows:
    """Yield the rows of an array, of a dictionary by id, class, split or column, or of JSON lines named .json; one
    object is one row."""
    text = _json_text(path, encoding)
    at = skip_blanks(text, 0)
    if at == len(text):
        raise InputError("the file holds nothing but space", "put rows in it, or leave it out", file=path)
    line = 1 + text.count("\n", 0, at)
    if text[at] == "[":
        yield from _rows_at(text, at, path, line)
        return
    value, end = parse_json(text, path, line, at)
    if skip_blanks(text, end) < len(text):
        yield from json_line_rows(path, encoding)
    elif rows := rows_of_table(value):
        escape = _SURROGATE_ESCAPE.search(text)
        for number, row in enumerate(rows, start=1):
            yield _row(row, escape[0] if escape else "", path, number)
    else:
        yield from _rows_of_object(value, text, at, path, line)


def _rows_of_object(value: Any, text: str, at: int, path: Path, line: int) -> RawRows:
    """Yield the rows of a dictionary by split, class or id, or of the one list in it; else it is itself the row."""
    if is_by_split(value):
        yield from _rows_of_splits(text, at, path, line)
    elif key := row_list_key(value):
        for part in members(text, at, path, line):
            if part.key == key:
                yield from _rows_at(text, part.start, path, part.line)
    elif is_by_class(value):
        for part in members(text, at, path, line):
            yield from _rows_at(text, part.start, path, part.line, label=part.key)
    elif is_by_id(value):
        yield from _rows_at(text, at, path, line)
    else:
        yield _row(value, text, path, line)


def _rows_at(text: str, at: int, path: Path, line: int, part: str = "", label: str = "") -> RawRows:
    """Yield the rows of the array or object that opens at `at`: objects, and in an array also pairs; a key is the row's
    id.

    `label`: the class of all rows of a list, which may then be texts.
    """
    one_line = "\n" not in text.strip()
    for number, member in enumerate(members(text, at, path, line), start=1):
        if member.end - member.start > LINE_CAP:
            problem, remedy = f"the row is longer than {LINE_CAP // MB} MB", "split the row, or leave it out"
            raise InputError(problem, remedy, file=path, line=member.line)
        value = member.value
        if isinstance(value, list) and len(value) == 2:
            value = dict(zip(PAIR, value, strict=True))
        if label and isinstance(value, str):
            value = {"text": value}
        if isinstance(value, dict):
            value = {**({"id": member.key} if member.key else {}), **with_text(value)}
            value = {**value, "label": value.get("label", label)} if label else value
        yield _row(value, text[member.start : member.end], path, number if one_line else member.line, part)


def tsv_rows(path: Path, encoding: str) -> RawRows:
    """Yield the rows of TSV with a header, as `csv_rows` does."""
    return csv_rows(path, encoding, "\t")


def csv_rows(path: Path, encoding: str, delimiter: str = ",") -> RawRows:
    """Yield the rows of CSV or TSV with a header; quotes and line breaks inside fields follow RFC 4180."""
    csv.field_size_limit(LINE_CAP)
    lines = read_text_lines(path, encoding)
    first = next(lines, "")
    if delimiter == "," and "," not in first:
        delimiter = next((other for other in (";", "\t") if other in first), ",")

    reader = csv.reader(chain((first,), lines), delimiter=delimiter, strict=True)
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
            header = column_names(cells, path, start)
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


def has_hub_test(name: str) -> bool:
    """True if a Hugging Face dataset has a split called `test`."""
    import datasets

    return "test" in datasets.get_dataset_split_names(name)


def read_hub(name: str, split: str) -> RawRows:
    """Yield the rows of a Hugging Face dataset; class numbers become class names. Needs the optional package
    `datasets`."""
    try:
        import datasets
    except ImportError:
        raise PackageError("datasets", "hub", f"the dataset {name}") from None
    try:
        loaded = datasets.load_dataset(name, split=split)
    except (OSError, ValueError) as error:
        problem = printable(f"the dataset {name} cannot be read ({one_line(error)})", 300)
        raise InputError(problem, "check the name and the connection, or save it as a file", field="data") from error
    classes = {key: kind for key, kind in loaded.features.items() if isinstance(kind, datasets.ClassLabel)}
    for number, fields in enumerate(loaded, start=1):
        for key, kind in classes.items():
            fields[key] = kind.int2str(fields[key]) if fields[key] is not None and fields[key] >= 0 else None
        yield RawRow(name, number, fields)
