"""Tables of passages in PostgreSQL with pgvector, for corpora that one machine does not hold.

Words are ranked by `ts_rank_cd`, not by BM25, which PostgreSQL does not have. There are no old versions: an index that
stays on its version reads the newest rows, whole.
"""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import numpy as np
from numpy.typing import NDArray

from trimtab.base.errors import InputError, PackageError, RemoteError
from trimtab.retrieval.tables import Found, PassageTable, SearchParams, State

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa
    from psycopg import sql

_TEXTS = ("id", "document", "title", "text", "source", "digest", "searched")
_MOST_DIMENSIONS = 2000  # that pgvector can index; more are scanned
_SECONDS = 10  # for a connection
_BATCH = 4096

_RECORDS: LiteralString = (
    "CREATE TABLE IF NOT EXISTS trimtab_passage_records (name text PRIMARY KEY, value text NOT NULL)"
)
_TABLE: LiteralString = """
    CREATE TABLE {table} (
        id text NOT NULL, document text NOT NULL, title text NOT NULL, path text[] NOT NULL, text text NOT NULL,
        source text NOT NULL, digest text NOT NULL, searched text NOT NULL, vector vector({size}) NOT NULL,
        seconds double precision NOT NULL, number bigint GENERATED ALWAYS AS IDENTITY,
        words tsvector GENERATED ALWAYS AS (to_tsvector('english', searched)) STORED
    )
"""
# Every lexeme of the question, each quoted, so that none is syntax; passages with any of them are ranked.
_MATCHING: LiteralString = r"""
    WITH asked AS (
        SELECT to_tsquery('simple', string_agg(
            '''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''', ' | ')) AS query
        FROM unnest(to_tsvector('english', %s))
    )
    SELECT ts_rank_cd(words, query)::double precision, id FROM {table}, asked WHERE words @@ query
    ORDER BY 1 DESC, 2 LIMIT %s
"""


class PostgresTable:
    """A PassageTable in PostgreSQL. What `latest` opened is changed when its store's state is written, not before."""

    ladder = tuple(SearchParams(ef=ef) for ef in (50, 100, 200, 400))
    default = SearchParams(ef=200)

    def __init__(self, store: PostgresStore, name: str, version: int) -> None:
        self.name, self._store, self._version = name, store, version

    @property
    def version(self) -> int:
        """Return the number of the transaction that wrote what is read."""
        return self._version

    @property
    def count(self) -> int:
        """Return the number of passages."""
        return int(self._one(_sql("SELECT count(*) FROM {table}", table=self.name)))

    @property
    def bytes(self) -> int:
        """Return the size of the rows and indexes."""
        return int(self._one(_sql("SELECT pg_total_relation_size(%s::regclass)"), f'"{self.name}"'))

    def add(self, rows: pa.Table) -> None:
        """Append rows, all or none."""
        columns = (*_TEXTS, "path", "vector", "seconds")
        copy = _sql("COPY {table} ({columns}) FROM STDIN", table=self.name, columns=columns)
        with self._store.cursor() as cursor, cursor.copy(copy) as writer:
            for row in rows.select(columns).to_pylist():
                writer.write_row([*(_without_nul(row[name]) for name in _TEXTS), *_of_row(row)])

    def delete(self, documents: Sequence[str]) -> None:
        """Delete the rows of these documents."""
        with self._store.cursor() as cursor:
            query = _sql("DELETE FROM {table} WHERE document = ANY(%s)", table=self.name)
            cursor.execute(query, [[_without_nul(one) for one in documents]])

    def restore(self, version: int) -> None:
        """Do nothing: rows change together with the state, so there is nothing to restore."""

    def finish(self, *, approximate: bool) -> None:
        """Build the indexes of a table whose rows are complete. `approximate`: also a graph (HNSW) over the vectors."""
        indexes: list[LiteralString] = ["USING gin (words)", "(id)", "(digest)", "(document)"]
        query = _sql("SELECT coalesce(max(vector_dims(vector)), 0) FROM {table}", table=self.name)
        dimensions = int(self._one(query))
        if approximate and dimensions <= _MOST_DIMENSIONS:
            indexes.append("USING hnsw (vector vector_cosine_ops)")
        with self._store.cursor() as cursor:
            for index in indexes:
                cursor.execute(_sql("CREATE INDEX ON {table} " + index, table=self.name))
            cursor.execute(_sql("ANALYZE {table}", table=self.name))
            self._version = self._store.commit()

    def select(self, columns: Sequence[str], by: str = "", values: Sequence[str] = ()) -> pa.Table:
        """Return columns of all rows, or of those whose column `by` is one of `values`."""
        query = _sql("SELECT {columns} FROM {table}", table=self.name, columns=columns)
        if by:
            query += _sql(" WHERE {columns} = ANY(%s)", columns=[by])
        with self._store.cursor() as cursor:
            arguments = [[_without_nul(one) for one in values]] if by else []
            cursor.execute(query + _sql(" ORDER BY number"), arguments)
            return _as_table(columns, cursor.fetchall())

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield columns of all rows, some thousand rows at a time."""
        after = 0
        words: LiteralString = "SELECT {columns} FROM {table} WHERE number > %s ORDER BY number LIMIT %s"
        query = _sql(words, table=self.name, columns=["number", *columns])
        while True:
            with self._store.cursor() as cursor:
                cursor.execute(query, [after, _BATCH])
                rows = cursor.fetchall()
            if not rows:
                return
            after = rows[-1][0]
            yield _as_table(columns, [row[1:] for row in rows])

    def nearest(self, vectors: NDArray[np.float32], depth: int, params: SearchParams | None) -> list[Found]:
        """Return the nearest passages of each vector with their distances: all are scanned if `params` is None."""
        query = _sql("SELECT vector <=> %s::vector, id FROM {table} ORDER BY 1 LIMIT %s", table=self.name)
        name, value = ("enable_indexscan", "off") if params is None else ("hnsw.ef_search", str(max(params.ef, depth)))
        found = []
        with self._store.cursor() as cursor:
            cursor.execute("SELECT set_config(%s, %s, true)", [name, value])  # until the end of the transaction
            for vector in vectors:
                cursor.execute(query, [_vector_text(vector), depth])
                found.append([(float(distance), str(name)) for distance, name in cursor.fetchall()])
        return found

    def matching(self, question: str, depth: int) -> Found:
        """Return the passages that match the words of a question best, with their scores by `ts_rank_cd`."""
        with self._store.cursor() as cursor:
            cursor.execute(_sql(_MATCHING, table=self.name), [_without_nul(question), depth])
            return [(float(score), str(name)) for score, name in cursor.fetchall()]

    def _one(self, query: sql.Composed, *arguments: Any) -> Any:
        with self._store.cursor() as cursor:
            found = cursor.execute(query, arguments).fetchone()
            return found[0] if found else None


class PostgresStore:
    """A PassageStore in PostgreSQL."""

    def __init__(self, place: str, name: str) -> None:
        """`place`: `postgresql://USER@HOST/DATABASE`; `name`: the beginning of every name."""
        self._place, self._name = place, name
        self._is_changing = False
        with _in_words(place):
            self._connection = _connect(place)
            weakref.finalize(self, self._connection.close)
            with self.cursor() as cursor:
                cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
                cursor.execute(_RECORDS)

    @contextmanager
    def cursor(self) -> Iterator[psycopg.Cursor[Any]]:
        """Context manager: yields a cursor in a transaction, which is committed at the end of the block, unless a
        table is being changed."""
        with _in_words(self._place), self._connection.cursor() as cursor:
            try:
                yield cursor
            except BaseException:
                self._connection.rollback()
                self._is_changing = False
                raise
            if not self._is_changing:
                self._connection.commit()

    def commit(self) -> int:
        """Commit what was changed; return the number of the transaction."""
        with self._connection.cursor() as cursor:
            found = cursor.execute("SELECT txid_current()").fetchone()
        self._connection.commit()
        self._is_changing = False
        return int(found[0]) if found else 0

    def stamp(self) -> object:
        """Return the transaction that wrote the state; None without a state."""
        with self.cursor() as cursor:
            words: LiteralString = "SELECT xmin::text FROM trimtab_passage_records WHERE name = %s"
            return cursor.execute(words, [self._name]).fetchone()

    def read(self) -> State | None:
        """Return the state; None if there is none, or it is damaged."""
        return State.parse(_parsed(self._read(self._name)))

    def write(self, state: State) -> None:
        """Replace the state, and commit the changes of the table that `latest` opened with it."""
        with _in_words(self._place), self._connection.cursor() as cursor:
            self._record(cursor, self._name, asdict(state))
            self.commit()

    def unfinished(self) -> PassageTable | None:
        """Return the table whose rows were not complete when its writer stopped, None without one."""
        found = _parsed(self._read(f"{self._name} unfinished"))
        name = found.get("table") if isinstance(found, dict) else None
        return self._table(name) if isinstance(name, str) else None

    def note_unfinished(self, name: str | None) -> None:
        """Record the table that is being written; None: there is none."""
        with self.cursor() as cursor:
            self._forget(cursor, f"{self._name} unfinished")
            if name is not None:
                self._record(cursor, f"{self._name} unfinished", {"table": name})
                self._record(cursor, name, time.time())

    def open(self, state: State) -> PassageTable | None:
        """Open the table of a state, to read; None if it is gone."""
        return self._table(state.table, state.version)

    def latest(self, name: str) -> PassageTable:
        """Open a table to write; its changes are committed when the state is written."""
        with self.cursor() as cursor:
            found = cursor.execute("SELECT txid_current()").fetchone()
            self._is_changing = True
        return PostgresTable(self, name, int(found[0]) if found else 0)

    def create(self, name: str, rows: pa.Table) -> PassageTable:
        """Create a table with its first rows, in place of one of this name."""
        self.drop(name)
        table = PostgresTable(self, name, 0)
        with self.cursor() as cursor:
            size = rows.schema.field("vector").type.list_size
            cursor.execute(_sql(_TABLE, table=name, size=size))
        table.add(rows)
        return table

    def files(self, _name: str, /) -> dict[str, str]:
        """Return no hashes: PostgreSQL checks its own files."""
        return {}

    def names(self) -> dict[str, float]:
        """Return the tables with the Unix time of their last change."""
        with self.cursor() as cursor:
            words: LiteralString = "SELECT name, value FROM trimtab_passage_records WHERE starts_with(name, %s)"
            cursor.execute(words, [f"{self._name}_"])
            return {str(name): float(value) for name, value in cursor.fetchall()}

    def copy(self, _state: State, _folder: Path, _name: str, /) -> bool:
        """Return False: there are no files to copy."""
        return False

    def drop(self, name: str) -> None:
        """Delete a table, if it is there."""
        with self.cursor() as cursor:
            cursor.execute(_sql("DROP TABLE IF EXISTS {table}", table=name))
            self._forget(cursor, name)

    def _table(self, name: str, version: int = 0) -> PassageTable | None:
        with self.cursor() as cursor:
            found = cursor.execute("SELECT to_regclass(%s)", [f'"{name}"']).fetchone()
        return PostgresTable(self, name, version) if found and found[0] else None

    def _read(self, name: str) -> str | None:
        with self.cursor() as cursor:
            words: LiteralString = "SELECT value FROM trimtab_passage_records WHERE name = %s"
            found = cursor.execute(words, [name]).fetchone()
        return str(found[0]) if found else None

    def _record(self, cursor: psycopg.Cursor[Any], name: str, value: Any) -> None:
        words: LiteralString = (
            "INSERT INTO trimtab_passage_records VALUES (%s, %s) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        )
        cursor.execute(words, [name, json.dumps(value)])

    def _forget(self, cursor: psycopg.Cursor[Any], name: str) -> None:
        cursor.execute("DELETE FROM trimtab_passage_records WHERE name = %s", [name])


def _connect(place: str) -> psycopg.Connection[Any]:
    try:
        import psycopg
    except ImportError:
        raise PackageError("psycopg", "postgres", "a store of passages in PostgreSQL") from None
    return psycopg.connect(place, connect_timeout=_SECONDS)


def _sql(words: LiteralString, *, table: str = "", columns: Sequence[str] = (), size: int = 0) -> sql.Composed:
    """Return a statement with the quoted name of a table, the names of columns, and the dimensions of a vector."""
    from psycopg import sql

    names = [
        sql.SQL("{}::real[]" if name == "vector" and words.startswith("SELECT") else "{}").format(sql.Identifier(name))
        for name in columns
    ]
    listed = sql.SQL(", ").join(names)
    return sql.SQL(words).format(table=sql.Identifier(table or "none"), columns=listed, size=sql.Literal(size))


def _as_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    import pyarrow as pa

    kinds: Mapping[str, Any] = {"path": pa.list_(pa.string()), "seconds": pa.float64()}
    found = {}
    for column, values in zip(columns, zip(*rows, strict=True) if rows else [()] * len(columns), strict=True):
        if column == "vector":
            vectors = np.array(values, dtype=np.float32).reshape(len(values), -1 if values else 1)
            found[column] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        else:
            found[column] = pa.array(values, kinds.get(column, pa.string()))
    return pa.table(found)


def _of_row(row: Mapping[str, Any]) -> list[Any]:
    return [[_without_nul(one) for one in row["path"]], _vector_text(row["vector"]), row["seconds"]]


def _vector_text(vector: Any) -> str:
    return f"[{','.join(map(str, np.asarray(vector, dtype=np.float32).tolist()))}]"


def _without_nul(text: str) -> str:
    """Return a text without NUL, which PostgreSQL does not store."""
    return text.replace("\0", "\ufffd")


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        return None


@contextmanager
def _in_words(place: str) -> Iterator[None]:
    """Context manager: raises what PostgreSQL answers as a one-line error."""
    import psycopg

    shown = place.partition("://")[0] + "://" + place.partition("://")[2].rpartition("@")[2]
    try:
        yield
    except psycopg.errors.ProgrammingError as error:
        if error.sqlstate is None:
            raise InputError(_line(error), "name it as postgresql://USER@HOST/DATABASE", file=shown) from error
        raise RemoteError(f"{shown}: {_line(error)}; check that you may create tables there") from error
    except psycopg.errors.FeatureNotSupported as error:
        problem = "this server has no pgvector"
        raise RemoteError(f"{shown}: {problem}; install it there (Debian: postgresql-17-pgvector)") from error
    except psycopg.Error as error:
        raise RemoteError(f"{shown}: {_line(error)}; check the server, its address and the password") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
