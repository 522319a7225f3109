"""Reads Excel sheets as raw rows: the first sheet, a named one, or all if their names are those of splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from trimtab.base.errors import InputError
from trimtab.base.files import split_sheet
from trimtab.base.records import Refusal
from trimtab.base.sanitize import printable
from trimtab.data.nested import split_of
from trimtab.data.raw_rows import RawRow, RawRows, column_names
from trimtab.data.sources import read_bytes
from trimtab.data.text_extraction import extract_content

Line = tuple[int, list[str]]


def read_excel(path: Path) -> RawRows:
    """Read the rows of a workbook, every value as text; `book.xlsx#Sheet` selects a sheet.

    If all sheets have names of splits, they are the splits. Else the first sheet with a header and a row is read, and
    each other one is reported as a Refusal. Raises InputError for unreadable files.
    """
    file, sheet = split_sheet(path)
    sheets_read: list[tuple[str, list[Line]]] = extract_content(
        "Excel", file, read_bytes(file), sheet=sheet, what="rows"
    )["sheets"]
    sheets = [(name, lines) for name, lines in sheets_read if len(lines) > 1]
    if not sheets:
        raise InputError("no sheet has a header and a row below it", "put rows in it, or leave it out", file=path)
    if len(sheets) > 1 and all(split_of(name) for name, _ in sheets):
        for name, lines in sheets:
            yield from _rows(lines, f"{path}#{name}", name)
        return
    (_, lines), *others = sheets
    for name, _ in others:
        reason = printable(f"its sheet {name!r} is not read")
        remedy = printable(f'to read it name "{file.name}#{name}"')
        yield Refusal(file=str(path), line=0, reason=reason, remedy=remedy)
    yield from _rows(lines, str(path))


def _rows(lines: Sequence[Line], file: str, part: str = "") -> Iterator[RawRow]:
    """Yield the rows below the header, which is the first line with several cells if any line has several."""
    width = max(len(cells) for _, cells in lines)
    header_index = next(i for i, (_, cells) in enumerate(lines) if sum(map(bool, cells)) > 1 or width == 1)
    number, names = lines[header_index]
    header = column_names([*names, *[""] * (width - len(names))], Path(file), number)
    for number, cells in lines[header_index + 1 :]:
        yield RawRow(file, number, dict(zip(header, [*cells, *[""] * (width - len(cells))], strict=True)), part)
