"""Reads and writes the split ledger `splits.parquet`: which split each row is in, so that no row ever moves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from trimtab.base.errors import InputError
from trimtab.base.files import PARQUET_FORM, replacing, require_parquet_form
from trimtab.base.records import Split

SPLITS: tuple[Split, ...] = get_args(Split)
_COLUMNS = ("id", "group", "stratum", "split")
ROWS_AT_ONCE = 100_000  # rows of a Parquet row group


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A row of the ledger: an example's id, the name of its unit (its group and its duplicates), stratum and split."""

    id: str
    group: str
    stratum: str
    split: Split


def read_ledger(ledger: Path) -> dict[str, LedgerRow]:
    """Return the ledger's rows by example id, empty if it does not exist; raises InputError if it is damaged."""
    return {row["id"]: LedgerRow(**row) for row in read_ledger_table(ledger).to_pylist()}


def read_ledger_table(ledger: Path) -> Any:
    """Return the ledger as an Arrow table, empty if it does not exist; raises InputError if it is damaged."""
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    if not ledger.exists():
        return pyarrow.table({name: pyarrow.array([], pyarrow.large_string()) for name in _COLUMNS})
    remedy = "restore it from a copy, or delete it to split anew (earlier scores are then not comparable)"
    try:
        # An Arrow file, since an Arrow thread that reads a Python file can abort the process at its exit.
        with pyarrow.OSFile(str(ledger)) as file:
            table = pyarrow.parquet.read_table(file, columns=list(_COLUMNS), read_dictionary=["stratum", "split"])
        require_parquet_form(table.schema.metadata, ledger)
        table = table.select(_COLUMNS)
        for at in (0, 1):
            table = table.set_column(at, _COLUMNS[at], table.column(at).cast(pyarrow.large_string()))
        splits = set(pyarrow.compute.unique(table.column("split")).to_pylist())
    except (pyarrow.ArrowException, KeyError, OSError) as error:
        raise InputError(f"the split ledger cannot be read ({error})", remedy, file=ledger) from None
    unknown_splits = splits - set(SPLITS)
    if unknown_splits:
        raise InputError(
            f"the split ledger names unknown splits: {sorted(map(str, unknown_splits))}", remedy, file=ledger
        )
    return table


def find_ledger_rows(table: Any, ids: Iterable[str]) -> dict[str, LedgerRow]:
    """Return the rows of a ledger's table with these ids, by id."""
    import pyarrow
    import pyarrow.compute

    searched = pyarrow.array(list(ids), pyarrow.large_string())
    rows = table.filter(pyarrow.compute.is_in(table.column("id"), value_set=searched))
    return {row["id"]: LedgerRow(**row) for row in rows.to_pylist()}


def write_ledger(ledger: Path, rows: Iterable[LedgerRow]) -> None:
    """Write all rows, atomically."""
    write_ledger_tables(ledger, [_as_table(rows)])


def update_ledger(ledger: Path, table: Any, rows: Iterable[LedgerRow]) -> None:
    """Write the rows of a ledger's table, atomically, with these ones in the place of those of their ids, or at the
    end."""
    import pyarrow
    import pyarrow.compute

    new = _as_table(rows)
    old = table.cast(new.schema)
    place = pyarrow.compute.index_in(old.column("id"), value_set=new.column("id").combine_chunks())
    kept = pyarrow.array(np.arange(len(old)))
    numbers = pyarrow.compute.if_else(pyarrow.compute.is_valid(place), pyarrow.compute.add(place, len(old)), kept)
    is_known = pyarrow.compute.is_in(new.column("id"), value_set=old.column("id").combine_chunks())
    added = np.flatnonzero(~is_known.to_numpy()) + len(old)
    order = np.concatenate([numbers.to_numpy(), added])
    write_ledger_tables(ledger, [pyarrow.concat_tables([old, new]).take(pyarrow.array(order))])


def _as_table(rows: Iterable[LedgerRow]) -> Any:
    import pyarrow

    columns = list(zip(*((row.id, row.group, row.stratum, row.split) for row in rows), strict=True)) or [()] * 4
    text = pyarrow.large_string()
    return pyarrow.table({name: pyarrow.array(values, text) for name, values in zip(_COLUMNS, columns, strict=True)})


def write_ledger_tables(ledger: Path, tables: Iterable[Any]) -> None:
    """Write the rows of Arrow tables into the ledger, atomically and one row group at a time."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(name, pyarrow.string()) for name in _COLUMNS], PARQUET_FORM)
    with (
        replacing(ledger) as beside,
        pyarrow.OSFile(str(beside), "wb") as file,
        pyarrow.parquet.ParquetWriter(file, schema) as writer,
    ):
        for table in tables:
            for start in range(0, table.num_rows, ROWS_AT_ONCE):
                writer.write_table(table.slice(start, ROWS_AT_ONCE).cast(schema))
