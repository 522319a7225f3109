"""Tables of passages in LanceDB: in a folder, or in an object store at an address such as `s3://BUCKET/FOLDER`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.base.errors import InputError, RemoteError, TrimtabError
from trimtab.base.files import read_json, sha256_file, write_json
from trimtab.base.object_store import ADDRESSES, CREDENTIALS, scheme_of
from trimtab.retrieval.tables import Found, PassageTable, SearchParams, State

if TYPE_CHECKING:
    import pyarrow as pa

os.environ.setdefault("LANCEDB_LOG", "error")  # lancedb reads it once, when it is imported
_FILES = {".lance", ".manifest", ".idx", ".arrow", ".bin"}  # of rows, versions, indexes and deleted rows
_PIECE = 4096  # names in one condition
_MOST_TABLES = 10_000  # that are listed
_CONNECT_SECONDS, _RETRIES = "5s", "2"  # then a store counts as unreachable
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AZURE_STORAGE_ENDPOINT")  # variables that name another server
_QUOTE = "'"  # doubled, it stands for itself in a condition


class LanceTable:
    """A PassageTable in LanceDB."""

    ladder = tuple(SearchParams(nprobes=n, refine_factor=refine) for n in (4, 8, 16, 32, 64, 128) for refine in (2, 4))
    default = SearchParams(nprobes=32, refine_factor=4)

    def __init__(self, table: Any, place: str) -> None:
        self.name, self._table, self._place = str(table.name), table, place
        self._is_approximate = any("vector" in index.columns for index in table.list_indices())

    @property
    def version(self) -> int:
        """Return LanceDB's version of the table that is read."""
        return int(self._table.version)

    @property
    def count(self) -> int:
        """Return the number of passages."""
        with _in_words(self._place):
            return int(self._table.count_rows())

    @property
    def bytes(self) -> int:
        """Return the size of the rows and indexes."""
        with _in_words(self._place):
            return int(self._table.stats()["total_bytes"])

    def add(self, rows: pa.Table) -> None:
        """Append rows, all or none."""
        with _in_words(self._place):
            self._table.add(rows)

    def delete(self, documents: Sequence[str]) -> None:
        """Delete the rows of these documents."""
        with _in_words(self._place):
            for start in range(0, len(documents), _PIECE):
                self._table.delete(_is_one_of("document", documents[start : start + _PIECE]))

    def restore(self, version: int) -> None:
        """Make an earlier version the newest, if it is not."""
        with _in_words(self._place):
            if self._table.version != version:
                self._table.restore(version)

    def finish(self, *, approximate: bool) -> None:
        """Build the indexes of a table whose rows are complete, after its pieces were made one.

        Vectors are quantised to one bit a dimension (RaBitQ), and those of the best candidates are then compared whole:
        of 100,000 as many were found so as with product quantisation, for a build of 2 seconds of the processor
        instead of 94.
        """
        from lancedb.index import FTS, BTree, IvfRq

        with _in_words(self._place):
            if len(self._table.list_versions()) > 1:
                self._table.optimize(cleanup_older_than=timedelta(milliseconds=1), delete_unverified=True)
            if self.count:
                self._table.create_index("searched", config=FTS(with_position=False), replace=True)
            if approximate:
                for column in ("id", "digest"):
                    self._table.create_index(column, config=BTree(), replace=True)
                self._table.create_index("vector", config=IvfRq(distance_type="cosine"), replace=True)
                self._is_approximate = True

    def select(self, columns: Sequence[str], by: str = "", values: Sequence[str] = ()) -> pa.Table:
        """Return columns of all rows, or of those whose column `by` is one of `values`."""
        import pyarrow as pa

        pieces = [values[start : start + _PIECE] for start in range(0, len(values), _PIECE)] or [()]
        with _in_words(self._place):
            if not by:
                return self._all(columns).to_arrow()
            return pa.concat_tables([self._all(columns).where(_is_one_of(by, piece)).to_arrow() for piece in pieces])

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield columns of all rows, some thousand rows at a time."""
        import pyarrow as pa

        with _in_words(self._place):
            for batch in self._all(columns).to_batches(4096):
                yield pa.Table.from_batches([batch])

    def _all(self, columns: Sequence[str]) -> Any:
        return self._table.search().select(list(columns)).limit(max(1, self.count))

    def nearest(self, vectors: NDArray[np.float32], depth: int, params: SearchParams | None) -> list[Found]:
        """Return the nearest passages of each vector with their distances: all are scanned if `params` is None."""
        query = self._table.search(vectors).distance_type("cosine").limit(depth).select(["id", "_distance"])
        if params is not None:
            query = query.nprobes(params.nprobes).refine_factor(params.refine_factor)
        elif self._is_approximate:
            query = query.bypass_vector_index()
        with _in_words(self._place):
            rows = query.to_arrow()
        has_query_index = "query_index" in rows.column_names  # lancedb leaves it out for a single vector
        numbers = rows["query_index"].to_pylist() if has_query_index else [0] * rows.num_rows
        found: list[Found] = [[] for _ in vectors]
        for number, distance, name in zip(numbers, rows["_distance"].to_pylist(), rows["id"].to_pylist(), strict=True):
            found[number].append((distance, name))
        return found

    def matching(self, question: str, depth: int) -> Found:
        """Return the passages that match the words of a question best, with their scores by BM25."""
        from lancedb.query import MatchQuery

        query = self._table.search(MatchQuery(question, "searched"), query_type="fts").limit(depth)
        with _in_words(self._place):
            rows = query.select(["id", "_score"]).to_arrow()
        return list(zip(rows["_score"].to_pylist(), rows["id"].to_pylist(), strict=True))


def _is_one_of(column: str, values: Sequence[str]) -> str:
    listed = ", ".join(f"'{value.replace(_QUOTE, 2 * _QUOTE)}'" for value in values)
    return f"{column} IN ({listed})" if values else "false"


class LanceStore:
    """A PassageStore in LanceDB.

    In a folder, its records are JSON files with the hashes of everything that a version consists of, so damage counts
    as a missing table. In an object store they are tables of one row, so that LanceDB is its only client.
    """

    def __init__(self, place: str, name: str) -> None:
        """`place`: a folder, or an address; `name`: the beginning of every name."""
        self._root = None if "://" in place else Path(place)
        self._place, self._name = place, name
        self._hashes: dict[tuple[Path, int, int], str] = {}  # by path, time and size; each file is written once
        self._open_database: Any = None
        self._records: _Records = _FileRecords(self._root) if self._root else _TableRecords(self._database)

    def stamp(self) -> object:
        """Return a value that changes with the state; None without one."""
        with _in_words(self._place):
            return self._records.stamp(self._name)

    def read(self) -> State | None:
        """Return the state; None if there is none, or it is damaged."""
        with _in_words(self._place):
            return State.parse(self._records.read(self._name))

    def write(self, state: State) -> None:
        """Replace the state, atomically."""
        with _in_words(self._place):
            self._records.write(self._name, asdict(state))

    def unfinished(self) -> PassageTable | None:
        """Return the table whose rows were not complete when its writer stopped, None without a whole one."""
        with _in_words(self._place):
            record = self._records.read(self._unfinished_name)
            if not isinstance(record, dict) or not {"table", "files"} <= record.keys():
                return None
            whole = isinstance(record["files"], dict) and self._is_intact(record["table"], record["files"])
            return self.latest(record["table"]) if whole else None

    def note_unfinished(self, name: str | None) -> None:
        """Record the table that is being written, with the hashes of its files; None: there is none."""
        with _in_words(self._place):
            value = None if name is None else {"table": name, "files": self.files(name)}
            self._records.write(self._unfinished_name, value)

    def open(self, state: State) -> PassageTable | None:
        """Open the table of a state at its version, to read; None if it is damaged or gone."""
        with _in_words(self._place):
            if not self._is_intact(state.table, state.files):
                return None
            try:
                table = self._database().open_table(state.table)
                table.checkout(state.version)
            except (ValueError, FileNotFoundError):
                if self._root:
                    raise
                return None
            return self._table(table)

    def latest(self, name: str) -> PassageTable:
        """Open the newest version of a table, to write."""
        with _in_words(self._place):
            return self._table(self._database().open_table(name))

    def create(self, name: str, rows: pa.Table) -> PassageTable:
        """Create a table with its first rows, in place of one of this name."""
        self.drop(name)
        with _in_words(self._place):
            return self._table(self._database().create_table(name, rows))

    def files(self, name: str, /) -> dict[str, str]:
        """Return the hashes of a table's files by path; empty in an object store, which checks its own."""
        if self._root is None:
            return {}
        home = self._home(name)
        paths = sorted(path for path in home.rglob("*") if path.suffix in _FILES and path.is_file())
        return {path.relative_to(home).as_posix(): self._hash(path) for path in paths}

    def names(self) -> dict[str, float]:
        """Return the tables with the Unix time of their last change."""
        if self._root is not None:
            homes = self._root.glob(f"{self._name}_*.lance")
            return {home.stem: max(path.stat().st_mtime for path in (home, *home.rglob("*"))) for home in homes}
        with _in_words(self._place):
            database = self._database()
            names = [
                name for name in database.list_tables(limit=_MOST_TABLES).tables if name.startswith(f"{self._name}_")
            ]
            return {
                name: max(version["timestamp"].timestamp() for version in database.open_table(name).list_versions())
                for name in names
                if name != self._unfinished_name
            }

    def copy(self, state: State, folder: Path, name: str, /) -> bool:
        """Copy the files of a state's table to another name in a folder; False in an object store."""
        if self._root is not None:
            shutil.copytree(self._home(state.table), folder / f"{name}.lance")
        return self._root is not None

    def drop(self, name: str) -> None:
        """Delete a table, if it is there."""
        if self._root is not None:
            shutil.rmtree(self._home(name), ignore_errors=True)  # one that is damaged, too
            return
        with _in_words(self._place):
            self._database().drop_table(name, ignore_missing=True)

    @property
    def _unfinished_name(self) -> str:
        return f"{self._name}_unfinished"

    def _home(self, name: str) -> Path:
        return Path(self._place) / f"{name}.lance"

    def _table(self, table: Any) -> PassageTable:
        return LanceTable(table, self._place)

    def _is_intact(self, name: str, files: Mapping[str, str]) -> bool:
        """True if a table has these files, unchanged; always so in an object store."""
        if self._root is None:
            return True
        expected = {self._home(name) / path: sha256 for path, sha256 in files.items()}
        return bool(files) and all(path.is_file() and self._hash(path) == sha256 for path, sha256 in expected.items())

    def _hash(self, path: Path) -> str:
        stat = path.stat()
        key = path, stat.st_mtime_ns, stat.st_size
        if key not in self._hashes:
            self._hashes[key] = sha256_file(path)
        return self._hashes[key]

    def _database(self) -> Any:
        if self._open_database is None:
            import lancedb

            self._open_database = lancedb.connect(self._place, storage_options=_storage_options(self._place))
        return self._open_database


class _Records(Protocol):
    """JSON values by name, each replaced atomically."""

    def stamp(self, name: str) -> object:
        """Return a value that changes with a record; None without one."""

    def read(self, name: str) -> Any:
        """Return a record; None if it is absent or damaged."""

    def write(self, name: str, value: Any) -> None:
        """Replace a record; None deletes it."""


class _FileRecords:
    """Records in JSON files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stamp(self, name: str) -> object:
        try:
            found = self._path(name).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def read(self, name: str) -> Any:
        try:
            return read_json(self._path(name))
        except (OSError, ValueError, RecursionError):
            return None

    def write(self, name: str, value: Any) -> None:
        if value is None:
            self._path(name).unlink(missing_ok=True)
        else:
            write_json(self._path(name), value)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


class _TableRecords:
    """Records in tables of one row and one column of an object store."""

    def __init__(self, database: Callable[[], Any]) -> None:
        self._database = database

    def stamp(self, name: str) -> object:
        table = self._table(name)
        return table and table.version

    def read(self, name: str) -> Any:
        table = self._table(name)
        rows = table.search().limit(1).to_arrow()["value"].to_pylist() if table else []
        try:
            return json.loads(rows[0]) if rows else None
        except (ValueError, RecursionError):
            return None

    def write(self, name: str, value: Any) -> None:
        import pyarrow as pa

        if value is None:
            self._database().drop_table(name, ignore_missing=True)
        else:
            self._database().create_table(name, pa.table({"value": [json.dumps(value)]}), mode="overwrite")

    def _table(self, name: str) -> Any:
        try:
            return self._database().open_table(name)
        except ValueError as error:
            if "was not found" not in str(error):
                raise
            return None


def _storage_options(place: str) -> dict[str, str] | None:
    """Return options of an object store beside those of the environment: limits on waiting, and HTTP where the
    environment names such an endpoint."""
    if "://" not in place:
        return None
    options = {"connect_timeout": _CONNECT_SECONDS, "client_max_retries": _RETRIES}
    if any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS):
        options["allow_http"] = "true"
    return options


@contextmanager
def _in_words(place: str) -> Iterator[None]:
    """Context manager: raises what an object store's client raises as a one-line error."""
    try:
        yield
    except TrimtabError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        if "://" not in place:
            raise
        raise _remote_error(place, " ".join(str(error).split())) from error


_NO_CREDENTIALS = ("no valid credentials are found", "set {credentials}")
_CAUSES = {  # what a client's message holds, what it means, and what to do
    "NoSuchBucket": ("there is no such bucket", "create it, or correct retrieval.store"),
    "ContainerNotFound": ("there is no such container", "create it, or correct retrieval.store"),
    "CredentialsNotLoaded": _NO_CREDENTIALS,
    "no storage account configured": _NO_CREDENTIALS,
    "TokenRequest": _NO_CREDENTIALS,  # without credentials, Google's and Azure's clients ask a server for a token
    "status: 403": ("access is denied", "check {credentials}, and that they may read and write there"),
    "HttpError": ("cannot be reached", "check the network and the endpoint"),
}


def _remote_error(place: str, message: str) -> TrimtabError:
    """Return the error of an object store's client in one line."""
    if "No object store provider" in message:
        return InputError("is no address of an object store", f"name one as {ADDRESSES}", file=place)
    credentials = CREDENTIALS.get(scheme_of(place), "the credentials of your store")
    for sign, (problem, remedy) in _CAUSES.items():
        if sign in message:
            return RemoteError(f"{place}: {problem}; {remedy.format(credentials=credentials)}")
    return RemoteError(f"{place}: {message[:200]}; check that the store is there, and that you may write to it")
