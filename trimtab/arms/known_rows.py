"""Registry of the rows that an arm was made from (id, split and digest), to recognise later rows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from trimtab.base.errors import InputError
from trimtab.base.files import PARQUET_FORM, require_parquet_form, sha256_text, write_atomic
from trimtab.base.records import Example, Split
from trimtab.data.row_store import BLOCK

ROWS_FILE = "rows.parquet"
_COLUMNS = ("id", "split", "digest")


@dataclass(frozen=True, slots=True)
class KnownRow:
    """The split of a row, and a digest of its question and right answers."""

    split: str
    digest: str


def digest_of_row(row: Example) -> str:
    """Return a digest of a row's question and right answers."""
    turns = (part for message in row.messages for part in (message.role, message.content))
    return sha256_text(*turns, "", *row.references)[:16]


def write_known_rows(folder: Path, splits: Mapping[Split, Sequence[Example]]) -> None:
    """Write id, split and digest of every row to `rows.parquet` in a folder, atomically."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(name, pyarrow.string()) for name in _COLUMNS], PARQUET_FORM)
    rows = ((row.id, split, digest_of_row(row)) for split, part in splits.items() for row in part)
    batches = []
    while some := list(islice(rows, BLOCK)):
        columns = [pyarrow.array(column, pyarrow.string()) for column in zip(*some, strict=True)]
        batches.append(pyarrow.record_batch(columns, schema=schema))
    table = pyarrow.Table.from_batches(batches, schema)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    write_atomic(folder / ROWS_FILE, buffer.getvalue())


def read_known_rows(folder: Path) -> dict[str, KnownRow] | None:
    """Return the rows that `write_known_rows` saved, by id; None without any. Raises InputError for a damaged file."""
    file = folder / ROWS_FILE
    if not file.is_file():
        return None
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(file.read_bytes()))
        require_parquet_form(table.schema.metadata, file)
        rows = table.select(_COLUMNS).to_pylist()
    except (pyarrow.ArrowInvalid, KeyError, OSError) as error:
        raise InputError(
            f"cannot be read ({error})", "restore it from a copy, or make the study again", file=file
        ) from None
    return {row["id"]: KnownRow(row["split"], row["digest"]) for row in rows}
