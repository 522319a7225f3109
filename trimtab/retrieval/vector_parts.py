"""Stores vectors that other processes computed for an index, in Parquet files, until an update takes them."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trimtab.base.files import sha256_file, sha256_text, write_atomic

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = ("digest", "vector", "seconds")
_SUFFIX = ".parquet"


class VectorParts:
    """A store of text vectors by the digest of the text, with one Parquet file per batch, each written atomically.

    A file's name holds a hash of its digests and the SHA-256 of its bytes; a damaged file counts as missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, set[str]] = {}  # the digests in each file
        self._places: dict[str, str] = {}  # the file of each digest

    def write(self, digests: Sequence[str], vectors: NDArray[np.float32], seconds: Sequence[float]) -> None:
        """Write the vectors [N, D] of one batch, and the seconds that each took."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = pa.table(
            {
                "digest": pa.array(digests, pa.string()),
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1]),
                "seconds": pa.array(seconds, pa.float64()),
            }
        )
        written = io.BytesIO()
        pq.write_table(rows, written)
        content = written.getvalue()
        name = f"{sha256_text(*sorted(digests))[:32]}_{hashlib.sha256(content).hexdigest()}{_SUFFIX}"
        write_atomic(self._folder / name, content)

    def digests(self) -> Collection[str]:
        """Return the digests of all texts whose vectors are stored."""
        self._refresh()
        return self._places.keys()

    def select(self, columns: Sequence[str], by: str, values: Sequence[str]) -> pa.Table:
        """Return columns of the rows whose digest is one of `values`, as `PassageTable.select` does."""
        import pyarrow as pa

        if by != "digest":
            raise ValueError(by)
        self._refresh()
        wanted: dict[str, set[str]] = {}
        for digest in values:
            if digest in self._places:
                wanted.setdefault(self._places[digest], set()).add(digest)
        found = [_rows_of(self._folder / name, asked) for name, asked in wanted.items()]
        return pa.concat_tables(found).select(list(columns)) if found else _empty_table().select(list(columns))

    def remove(self) -> None:
        """Delete all vectors."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._files, self._places = {}, {}

    def _refresh(self) -> None:
        """Read the digests of files that are new, and forget those of files that are gone."""
        there = {path.name: path for path in self._folder.glob(f"*{_SUFFIX}")}
        if there.keys() == self._files.keys():
            return
        self._files = {name: self._files.get(name) or _digests_in(path) for name, path in there.items()}
        self._places = {digest: name for name, digests in self._files.items() for digest in digests}


def _digests_in(file: Path) -> set[str]:
    """Return the digests in a file. A damaged file is deleted, and gives none."""
    import pyarrow.parquet as pq

    if sha256_file(file) != file.stem.rpartition("_")[2]:
        file.unlink()
        return set()
    return set(pq.read_table(file, columns=["digest"])["digest"].to_pylist())


def _rows_of(file: Path, digests: Collection[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows = pq.read_table(file, columns=list(_COLUMNS))
    return rows.filter(pc.is_in(rows["digest"], pa.array(list(digests), pa.string())))


def _empty_table() -> pa.Table:
    import pyarrow as pa

    kinds: Mapping[str, pa.DataType] = {
        "digest": pa.string(),
        "vector": pa.list_(pa.float32(), 1),
        "seconds": pa.float64(),
    }
    return pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
