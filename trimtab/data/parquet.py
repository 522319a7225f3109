"""Reads Parquet files as raw rows; the unpacked size is checked before rows are built, as few bytes can stand for
gigabytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.sanitize import one_line, printable
from trimtab.data.raw_rows import RawRow, RawRows
from trimtab.data.sources import LINE_CAP, TOTAL_CAP, is_bomb, open_checked
from trimtab.data.strict_json import first_duplicate

_FEWEST_ROWS, _MOST_ROWS, _MOST_BYTES = 8, 1024, 32 * LINE_CAP  # of a batch
_ROW_BYTES = 64  # counted for a row beside its values
_UNREADABLE_VALUE = (
    OverflowError,
    LookupError,
    ValueError,
)  # a time outside Python's years, an unknown zone, bytes that are no text
_WIDEST = 1024  # most bytes of a fixed-width value; numbers and identifiers take up to 32


def read_parquet(path: Path) -> RawRows:
    """Yield the rows of a Parquet file; raises InputError if it is damaged, has duplicate column names, or is a
    bomb."""
    import pyarrow
    import pyarrow.parquet

    with open_checked(path):
        pass  # a FIFO or device never reaches the library
    size = path.stat().st_size
    number = total = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _refuse_duplicate_names(file.schema_arrow, path)
            texts = _refuse_bomb(file.metadata, size, path)
            batch_rows = _batch_rows(file.schema_arrow, file.metadata)
        # A repeated text is stored once and read as a dictionary, so its size is known before rows are built.
        with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as file:
            # In one thread: with several, a damaged file sometimes ended the process (an exception in a thread of
            # pyarrow).
            for batch in file.iter_batches(batch_size=batch_rows, use_threads=False):
                batch_bytes = sum(map(_unpacked_bytes, batch.columns)) + _ROW_BYTES * batch.num_rows
                total += batch_bytes
                if batch_bytes > _MOST_BYTES or total > TOTAL_CAP or is_bomb(total, size):
                    raise _parquet_bomb(path, size, total)
                for fields in _rows_of(batch, path, number):
                    number += 1
                    yield RawRow(str(path), number, fields)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        problem = printable(str(error), 200)
        raise InputError(f"not readable as Parquet ({problem})", "write the file again", file=path) from None


def _rows_of(batch: Any, path: Path, before: int) -> list[dict[str, Any]]:
    """Return the rows of a batch as Python values; `before`: rows of the file before it."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except _UNREADABLE_VALUE:
        for line, name, value in _cells(batch, before):
            try:
                value.as_py()
            except _UNREADABLE_VALUE as error:
                kind, reason = printable(str(value.type), 80), one_line(error)
                problem = f"a value of type {kind} that cannot be read ({reason})"
                remedy = "write the column as text, or leave it out"
                raise InputError(problem, remedy, file=path, line=line, field=printable(name, 80)) from None
        raise
    return rows


def _cells(batch: Any, before: int) -> Iterator[tuple[int, str, Any]]:
    """Yield every value of a batch with its row number and column name."""
    for line, values in enumerate(zip(*batch.columns, strict=True), start=before + 1):
        for name, value in zip(batch.schema.names, values, strict=True):
            yield line, name, value


def _refuse_bomb(metadata: Any, size: int, path: Path) -> list[str]:
    """Refuse a file whose metadata declares far too much, before unpacking; return the columns that hold text."""
    unpacked = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    columns = range(metadata.num_columns)
    if is_bomb(max(unpacked, metadata.num_rows), size):
        raise _parquet_bomb(path, size, max(unpacked, metadata.num_rows))
    widest = max((metadata.schema.column(index).length for index in columns), default=0)
    if widest > _WIDEST:
        raise InputError(f"has a column of {widest:,} bytes a value", "write it as text, or leave it out", file=path)
    kinds = ((metadata.schema.column(index).path, metadata.schema.column(index).physical_type) for index in columns)
    return [name for name, kind in kinds if kind == "BYTE_ARRAY"]


def _batch_rows(fields: Any, metadata: Any) -> int:
    """Return the rows to read at once: fewer for extension types, whose repeated values pyarrow materialises for every
    row."""
    import pyarrow

    if not any(isinstance(kind, pyarrow.BaseExtensionType) for kind in _nested_types(fields)):
        return _MOST_ROWS
    largest = max((metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)), default=0)
    return max(_FEWEST_ROWS, min(_MOST_ROWS, 4 * LINE_CAP // max(1, largest)))


def _nested_types(fields: Any) -> Iterator[Any]:
    """Yield the types of all columns, including nested ones."""
    pending = [field.type for field in fields]
    while pending:
        kind = pending.pop()
        yield kind
        pending += [kind.field(index).type for index in range(kind.num_fields)]


def _parquet_bomb(path: Path, size: int, unpacked: int) -> InputError:
    problem = f"{size:,} bytes unpack to more than {unpacked:,}: a decompression bomb"
    return InputError(problem, "write its rows as JSON lines if you trust it", file=path)


def _unpacked_bytes(column: Any) -> int:
    """Return the bytes of a column once every row holds its own values."""
    import pyarrow.compute as compute
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind) and not types.is_primitive(kind.value_type):
        lengths = compute.take(compute.binary_length(column.dictionary), column.indices)
        return int(compute.sum(lengths).as_py() or 0)
    if types.is_map(kind):
        return _unpacked_bytes(column.keys) + _unpacked_bytes(column.items)
    if types.is_struct(kind):
        return sum(map(_unpacked_bytes, column.flatten()))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _unpacked_bytes(column.flatten())
    return int(column.nbytes)


def _refuse_duplicate_names(fields: Any, path: Path) -> None:
    """Refuse duplicate names of columns or nested fields: only one of their values would be read."""
    pending = [fields]
    while pending:
        inner = list(pending.pop())
        duplicate = first_duplicate(field.name for field in inner)
        if duplicate is not None:
            raise InputError(f"two columns are called {printable(duplicate, 80)!r}", "rename one", file=path)
        for kind in (field.type for field in inner):
            pending.append([kind.field(index) for index in range(kind.num_fields)])
