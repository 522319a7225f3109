"""RawRow: a row as it is in its file, before its columns are known; and the column names of a header."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.records import Refusal
from trimtab.base.sanitize import printable
from trimtab.data.strict_json import first_duplicate


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it is in the file.

    `line` is its first line; in Parquet, datasets of the hub and one-line JSON files its number from 1. `part`: the
    name of its split, if the file is a dictionary of splits.
    """

    file: str
    line: int
    fields: Mapping[str, Any]
    part: str = ""

    def error(self, problem: str, remedy: str, field: str | None = None) -> InputError:
        """Return an InputError at this row, on one printable line."""
        return InputError(
            printable(problem), printable(remedy), file=self.file, line=self.line, field=field and printable(field, 80)
        )

    def refusal(self, reason: str, remedy: str) -> Refusal:
        """Return the ledger line about this row."""
        return Refusal(file=self.file, line=self.line, reason=printable(reason), remedy=printable(remedy))


RawRows = Iterator[RawRow | Refusal]


def column_names(cells: Sequence[str], path: Path, line: int) -> list[str]:
    """Return the names of the columns, `column N` for an empty one; raises InputError for duplicates."""
    header = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, start=1)]
    duplicate = first_duplicate(header)
    if duplicate is not None:
        raise InputError(f"two columns are called {duplicate[:80]!r}", "rename one", file=path, line=line)
    return header
