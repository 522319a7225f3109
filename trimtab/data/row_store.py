"""Stores the rows of a task: up to `IN_MEMORY` rows as objects, more in a temporary file from which they are decoded on
access.

Either way the rows are a `Sequence[Example]`; `select_rows` and `join_rows` select rows and concatenate sequences.
"""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from trimtab.base.errors import InputError
from trimtab.base.records import Example, Message


class TextColumn:
    """A growing column of texts: their UTF-8 bytes end to end, and where each ends."""

    def __init__(self) -> None:
        self._text, self._ends = bytearray(), array("q", [0])

    def append(self, text: str) -> None:
        """Add a text."""
        self._text += text.encode()
        self._ends.append(len(self._text))

    def finish(self) -> Any:
        """Return the texts as an Arrow array (large_string) over the collected bytes; no more can be added."""
        import pyarrow

        buffers = [None, pyarrow.py_buffer(self._ends), pyarrow.py_buffer(self._text)]
        return pyarrow.Array.from_buffers(pyarrow.large_string(), len(self._ends) - 1, buffers)


RowNumbers = NDArray[np.signedinteger[Any]]

IN_MEMORY = 100_000
"""The most rows of a set of files that are held as objects. Of rows in a file offset, id and row number stay in memory:
36 bytes a row with ids of 16 characters. What all of `open_workspace` takes stands in
`benchmarks/results/rows_stream.json`."""
BLOCK = 4096  # rows that are decoded at once

_FIELDS = ("group", "slice", "weight", "source", "licence", "passages", "tests", "time", "split")
_fields_of = attrgetter(*_FIELDS)
_DEFAULTS = tuple(Example.__dataclass_fields__[name].default for name in _FIELDS)
_from_json = json.JSONDecoder().raw_decode
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


class RowWriter:
    """A collector of examples in order; beyond `IN_MEMORY` examples it writes all to a temporary file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[Example] = []
        self._file: RowFile | None = None

    def __len__(self) -> int:
        return len(self._rows) if self._file is None else len(self._file)

    def append(self, example: Example) -> None:
        """Add a row; raises InputError if the temporary file cannot be written."""
        if self._file is not None:
            self._file.append(example)
            return
        self._rows.append(example)
        if len(self._rows) > IN_MEMORY:
            self._file = RowFile(self._folder)
            for row in self._rows:
                self._file.append(row)
            self._rows.clear()

    def finish(self) -> Sequence[Example]:
        """Return the rows; no more can be added."""
        if self._file is None:
            return tuple(self._rows)
        self._file.finish()
        return RowView(self._file, np.arange(len(self._file), dtype=np.int32))

    def rename(self, new_ids: Mapping[int, str]) -> Sequence[Example]:
        """Give rows new ids, by row number, and return all rows. `finish` must have been called."""
        if self._file is not None:
            self._file.rename(new_ids)
        else:
            for number, name in new_ids.items():
                self._rows[number] = replace(self._rows[number], id=name)
        return self.finish()


class StoredRows(Sequence[Example], ABC):
    """Rows that are decoded when they are asked for, many of them at once by `read`."""

    @abstractmethod
    def read(self, numbers: RowNumbers) -> list[Example]:
        """Return the rows at these positions."""

    @overload
    def __getitem__(self, at: int) -> Example: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Example]: ...
    def __getitem__(self, at: int | slice) -> Example | Sequence[Example]:
        if isinstance(at, slice):
            return RowView(self, np.arange(*at.indices(len(self)), dtype=np.int32))
        return self.read(np.array([range(len(self))[at]]))[0]


class RowFile(StoredRows):
    """Examples in an unnamed temporary file, each as one JSON list; their offsets and ids are in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 -- open for as long as the rows are
        except OSError as error:
            raise self._unwritable(error) from error
        weakref.finalize(self, self._file.close)
        self._starts: Any = array("q", [0])
        self._new_ids = TextColumn()
        self._ids: Any = None

    def __len__(self) -> int:
        return len(self._starts) - 1

    def append(self, example: Example) -> None:
        """Write a row at the end."""
        line = _row_bytes(example)
        try:
            self._file.write(line)
        except OSError as error:
            raise self._unwritable(error) from error
        self._starts.append(self._starts[-1] + len(line))
        self._new_ids.append(example.id)

    def finish(self) -> None:
        """Flush the file; rows can be read from now on, and no more can be appended."""
        if self._ids is None:
            try:
                self._file.flush()
            except OSError as error:
                raise self._unwritable(error) from error
            self._ids = self._new_ids.finish()
            self._starts = np.frombuffer(self._starts, np.int64)

    def rename(self, new_ids: Mapping[int, str]) -> None:
        """Give rows new ids, by row number."""
        import pyarrow
        import pyarrow.compute

        if new_ids:
            where = np.zeros(len(self), bool)
            where[list(new_ids)] = True
            names = pyarrow.array([new_ids[number] for number in sorted(new_ids)], pyarrow.large_string())
            self._ids = pyarrow.compute.replace_with_mask(self._ids, pyarrow.array(where), names)

    def read(self, numbers: RowNumbers) -> list[Example]:
        """Return the rows with these numbers; rows that are close together in the file are read at once."""
        starts, ends = self._starts[numbers], self._starts[numbers + 1]
        ids = self._ids.take(_as_arrow(numbers)).to_pylist()
        first, last = int(starts.min()), int(ends.max())
        source, places = self._file.fileno(), zip(starts.tolist(), ends.tolist(), strict=True)
        if last - first <= 4 * int((ends - starts).sum()):
            span = os.pread(source, last - first, first)
            lines = (span[start - first : end - first] for start, end in places)
        else:
            lines = (os.pread(source, end - start, start) for start, end in places)
        return [_row_of(line, name) for line, name in zip(lines, ids, strict=True)]

    def _unwritable(self, error: OSError) -> InputError:
        problem = f"rows beyond {IN_MEMORY:,} are kept in a file here, which cannot be written ({error.strerror})"
        return InputError(problem, "make room there, or let this user write there", file=self._folder)


@dataclass(frozen=True, slots=True, eq=False)
class RowChanges:
    """Changes of id and group for rows of a sequence, by row number.

    `renamed` [N]: True if the id gets the suffix `-test`. `named_by` [N]: the row whose group name becomes the row's
    group, or -1.
    """

    renamed: NDArray[np.bool_]
    named_by: RowNumbers

    def apply(self, rows: Sequence[Example], numbers: RowNumbers) -> list[Example]:
        """Return the rows with these numbers, changed. `rows`: all rows."""
        changed, leaders = read_rows(rows, numbers), self.named_by[numbers]
        named = np.unique(leaders[leaders >= 0])
        groups = {
            number: f"row:{self._id(leader, number)}" if leader.group is None else leader.group
            for number, leader in zip(named.tolist(), read_rows(rows, named), strict=True)
        }
        for at in np.flatnonzero(self.renamed[numbers] | (leaders >= 0)).tolist():
            row, number = changed[at], int(numbers[at])
            changed[at] = replace(row, id=self._id(row, number), group=groups.get(int(leaders[at]), row.group))
        return changed

    def _id(self, row: Example, number: int) -> str:
        return f"{row.id}-test" if self.renamed[number] else row.id


class RowView(StoredRows):
    """A view of some rows of a sequence, by their `numbers` [N] in any order; decoded once if up to `IN_MEMORY`."""

    def __init__(self, rows: Sequence[Example], numbers: RowNumbers, changes: RowChanges | None = None) -> None:
        self.rows, self.numbers, self.changes = rows, numbers, changes
        self._decoded: tuple[Example, ...] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> Example: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Example]: ...
    def __getitem__(self, at: int | slice) -> Example | Sequence[Example]:
        if self._decoded is not None:
            return self._decoded[at]
        numbers = self.numbers[at]
        if isinstance(at, slice):
            return RowView(self.rows, numbers, self.changes)
        return self._read(numbers.reshape(1))[0]

    def __iter__(self) -> Iterator[Example]:
        if len(self) <= IN_MEMORY:
            self._decoded = self._decoded or tuple(self._stream())
            return iter(self._decoded)
        return self._stream()

    def read(self, numbers: RowNumbers) -> list[Example]:
        """Return the rows at these positions of the view."""
        return self._read(self.numbers[numbers])

    def _stream(self) -> Iterator[Example]:
        for start in range(0, len(self.numbers), BLOCK):
            yield from self._read(self.numbers[start : start + BLOCK])

    def _read(self, numbers: RowNumbers) -> list[Example]:
        return self.changes.apply(self.rows, numbers) if self.changes else read_rows(self.rows, numbers)


class JoinedRows(StoredRows):
    """The concatenation of two sequences of rows."""

    def __init__(self, first: Sequence[Example], second: Sequence[Example]) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def read(self, numbers: RowNumbers) -> list[Example]:
        """Return the rows with these numbers."""
        count = len(self._first)
        is_first = numbers < count
        first = iter(read_rows(self._first, numbers[is_first]))
        second = iter(read_rows(self._second, numbers[~is_first] - count))
        return [next(first if side else second) for side in is_first.tolist()]

    def __iter__(self) -> Iterator[Example]:
        yield from self._first
        yield from self._second


def read_rows(rows: Sequence[Example], numbers: RowNumbers) -> list[Example]:
    """Return the rows with these numbers; stored rows are read and decoded as one batch."""
    if isinstance(rows, StoredRows):
        return rows.read(numbers) if len(numbers) else []
    return [rows[number] for number in numbers.tolist()]


def are_stored(rows: Sequence[Example]) -> bool:
    """True if rows are decoded on access; False if they are objects in memory."""
    return isinstance(rows, StoredRows)


def select_rows(rows: Sequence[Example], numbers: RowNumbers, changes: RowChanges | None = None) -> Sequence[Example]:
    """Return the rows with these numbers: a tuple of rows in memory, a view of stored ones.

    `changes`: changes of the rows, by their number; without them a view keeps the changes that it has.
    """
    if isinstance(rows, RowView) and changes is None:
        return RowView(rows.rows, rows.numbers[numbers], rows.changes)
    view = RowView(rows, numbers, changes)
    return view if are_stored(rows) else tuple(view)


def join_rows(first: Sequence[Example], second: Sequence[Example]) -> Sequence[Example]:
    """Return the rows of both: a tuple if all are in memory, else a sequence that reads them on access."""
    return JoinedRows(first, second) if are_stored(first) or are_stored(second) else (*first, *second)


def split_off_test(rows: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
    """Return the rows that the data do not declare as test, and those that the data do."""
    is_test = np.fromiter((row.split == "test" for row in rows), bool, len(rows))
    sides = (np.flatnonzero(side).astype(np.int32) for side in (~is_test, is_test))
    examples, test = (select_rows(rows, side) for side in sides)
    return examples, test


def repeated_positions(keys: NDArray[Any]) -> RowNumbers:
    """Return the positions of keys [N] that occur more than once, ascending."""
    order = np.argsort(keys, kind="stable")
    same = np.zeros(len(keys) + 1, bool)  # True if equal to the key before
    same[1:-1] = keys[order[1:]] == keys[order[:-1]]
    return np.sort(order[same[1:] | same[:-1]]).astype(np.int32)


def _as_arrow(numbers: RowNumbers) -> Any:
    import pyarrow

    return pyarrow.array(numbers)


def _row_bytes(example: Example) -> bytes:
    """Encode a row without its id as JSON: turns, answers, file, line, and the other fields unless all are default."""
    turns = [part for message in example.messages for part in (message.role, message.content)]
    values = _fields_of(example)
    more = {} if values == _DEFAULTS else dict(zip(_FIELDS, values, strict=True))
    return _to_json([turns, example.references, example.file, example.line, more]).encode("utf-8", "surrogatepass")


def _row_of(line: bytes, name: str) -> Example:
    """Return the row that `_row_bytes` encoded. `name`: its id."""
    (turns, references, file, number, more), _ = _from_json(line.decode("utf-8", "surrogatepass"), 0)
    if more:
        more["passages"] = tuple(more["passages"])
    return Example(
        id=name,
        messages=tuple(Message(role=role, content=text) for role, text in zip(turns[::2], turns[1::2], strict=True)),
        references=tuple(references),
        file=file,
        line=number,
        **more,
    )
