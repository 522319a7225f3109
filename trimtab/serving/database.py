"""Database access: an SQLite file or a PostgreSQL URL, created whole, checked when opened, with errors of one line."""

from __future__ import annotations

import errno
import json
import os
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import uuid4

from trimtab.base.codec import from_plain, to_plain
from trimtab.base.errors import (
    BusyError,
    InputError,
    MissingError,
    PackageError,
    RemoteError,
    TrimtabError,
)
from trimtab.base.files import other_form, sync
from trimtab.base.sanitize import one_line, printable

if TYPE_CHECKING:
    from sqlalchemy import URL, Column, Connection, Engine, MetaData, Table
    from sqlalchemy.exc import DBAPIError

BUSY_SECONDS = 30.0  # how long a writer waits for other writers
_SIDE_FILES = ("", "-wal", "-shm", "-journal")  # what SQLite opens with a database
Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class DatabaseSchema:
    """The tables of one kind of database, their form number, and the words for its messages.

    `what`: the kind in words. `holds`: its content in words. `made_by`: what makes it, for whoever looks for it in
    vain. `option`: the command-line option that names its location. `form`: increased whenever the tables, or the
    records in them, change; `form_table` stores it. `declare(metadata)` adds the other tables.
    """

    what: str
    holds: str
    made_by: str
    option: str
    form: int
    form_table: str
    declare: Callable[[MetaData], None]

    def table(self, name: str) -> Table:
        """Return one of the tables."""
        return _metadata(self).tables[name]

    def missing(self, place: str | Path) -> MissingError:
        """Return the error for a location without such a database."""
        problem = f"no {self.holds} are kept there"
        return MissingError(f"{place}: {problem}; name another place with {self.option}, or {self.made_by}")

    @property
    def elsewhere(self) -> str:
        """Return the advice for a location that holds something else."""
        return f"name another place with {self.option}, or move it away"


class Closing(ABC):
    """Base class of resources that close at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None:
        """Release the resources."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Database(Closing):
    """A database of one schema. Thread-safe, and usable by many processes at once.

    `where`: a file, or a `postgresql://` URL. Raises PackageError if SQLAlchemy or psycopg is not installed,
    InputError for a location that has other content or is damaged, VersionError for a database of another version,
    MissingError if it is absent and `make` is False. Later BusyError if other processes write for too long,
    RemoteError if a server cannot be reached, OSError for a full disk. An IntegrityError of SQLAlchemy is raised to
    the caller that violates a constraint.
    """

    def __init__(self, where: str | Path, schema: DatabaseSchema, *, make: bool = True) -> None:
        url = _url(str(where), schema)
        self._schema, self._make = schema, make
        if url.get_backend_name() == "sqlite":
            self.name = str(url.database)
            _make_file(Path(self.name), schema, make)
        else:
            self.name = url.set(drivername="postgresql").render_as_string(hide_password=True)
        self._engine = _engine(url, schema)
        try:
            with self.exclusive() if make else self.begin() as connection:
                self._prepare(connection)
        except (TrimtabError, OSError):
            self.close()
            raise

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Context manager: a transaction, committed durably at the end of the block."""
        with self._translated_errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def exclusive(self) -> Iterator[Connection]:
        """Context manager: a transaction as of `begin` that excludes all others, so that what it reads first still
        holds at the commit.
        """
        from sqlalchemy import func, select

        with self.begin() as connection:
            if self.is_file:
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # sqlite3 alone would begin with the first change
            else:
                connection.execute(select(func.pg_advisory_xact_lock(zlib.crc32(self._schema.what.encode()))))
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Context manager: a connection whose statements all read the same moment."""
        with self._translated_errors(), self._engine.connect() as connection:
            if self.is_file:
                connection.exec_driver_sql("BEGIN")
                yield connection
            else:
                yield connection.execution_options(isolation_level="REPEATABLE READ")

    def truncate_log(self) -> None:
        """Empty the write-ahead log of an SQLite file, which holds deleted rows; while others are reading, the next
        call does it.
        """
        if self.is_file:
            with self._translated_errors(), self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    @property
    def is_file(self) -> bool:
        """True for SQLite, False for PostgreSQL."""
        return self._engine.dialect.name == "sqlite"

    def parse(self, kind: type[Record], what: str, text: str) -> Record:
        """Return the record of a row that `record_text` wrote; raises InputError, with `what`, if it is damaged."""
        try:
            return from_plain(kind, json.loads(text))
        except (ValueError, RecursionError) as error:
            problem = f"{what} is damaged ({one_line(error)})"
            raise InputError(problem, "restore it from a copy, or take that row out", file=self.name) from None

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _prepare(self, connection: Connection) -> None:
        """Refuse a database of another kind, and create the tables in an empty one."""
        from sqlalchemy import inspect, select

        schema = self._schema
        tables = _metadata(schema).tables
        there = set(inspect(connection).get_table_names()) & set(tables)
        if not there and not self.is_file:
            if not self._make:
                raise schema.missing(self.name)
            _make_tables(connection, schema)
            return
        strange = _unexpected_sql(connection, schema) if self.is_file else []
        is_ours = schema.form_table in there and ("table", schema.form_table) not in strange
        form = connection.execute(select(schema.table(schema.form_table).c.number)).scalar() if is_ours else None
        if form is not None and form != schema.form:
            raise other_form(self.name, form, schema.form, f"use the one that wrote it, or {schema.elsewhere}")
        if strange and schema.form_table in there:
            kind, name = strange[0]
            problem = f"holds the {printable(kind, 40)} {printable(name, 80)}, which Trimtab did not make"
            raise InputError(problem, schema.elsewhere, file=self.name)
        if form is None or len(there) < len(tables):
            raise InputError(f"is no {schema.what}", schema.elsewhere, file=self.name)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Context manager: raises database errors as Trimtab's errors of one line."""
        from sqlalchemy.exc import DBAPIError, IntegrityError, TimeoutError

        try:
            yield
        except IntegrityError:
            raise
        except TimeoutError as error:  # of the pool: every connection is in use
            raise _busy(self.name) from error
        except DBAPIError as error:
            raise _translated(error, self.name, self._schema) from error


def is_address(where: str) -> bool:
    """True for a `postgresql://` URL, False for a file."""
    return where.partition("://")[0].partition("+")[0] == "postgresql" and "://" in where


def record_text(record: Any) -> str:
    """Return a record as it is stored in a row: JSON in ASCII, which every encoding of a database has."""
    return json.dumps(to_plain(record), allow_nan=False)


def microseconds(when: datetime) -> int:
    """Return a time as it is stored in a row: microseconds since 1970."""
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def row_number() -> Column[int]:
    """Return a new primary key `number`, which the database assigns and which orders rows."""
    from sqlalchemy import BigInteger, Column, Integer

    return Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


@cache
def _metadata(schema: DatabaseSchema) -> MetaData:
    """Return all tables of a schema."""
    from sqlalchemy import Column, Integer, MetaData, Table

    metadata = MetaData()
    Table(schema.form_table, metadata, Column("number", Integer, nullable=False))
    schema.declare(metadata)
    return metadata


def _make_tables(connection: Connection, schema: DatabaseSchema) -> None:
    _metadata(schema).create_all(connection)
    connection.execute(schema.table(schema.form_table).insert(), {"number": schema.form})


def _url(where: str, schema: DatabaseSchema) -> URL:
    """Return the SQLAlchemy URL of a location; a location without a scheme is a file."""
    try:
        from sqlalchemy import URL, make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError:
        raise PackageError("sqlalchemy", "serve", f"a {schema.what}") from None

    scheme = where.partition("://")[0] if "://" in where else ""
    try:
        url = make_url(where) if scheme else URL.create("sqlite", database=where)
        known = url.get_backend_name() in ("sqlite", "postgresql") and bool(url.database)
    except (ArgumentError, ValueError):
        known = False
    if not known:  # never with the address itself, which may hold a password
        raise InputError(
            f"no place for {schema.holds}{f', of the scheme {scheme[:20]!r}' if scheme else ''}",
            "name a file, or postgresql://USER@HOST/DATABASE",
            field=schema.option,
        )
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    return URL.create("sqlite", database=os.path.abspath(str(url.database)))


def _engine(url: URL, schema: DatabaseSchema) -> Engine:
    from sqlalchemy import create_engine, event

    settings: dict[str, Any] = {"hide_parameters": True, "pool_timeout": BUSY_SECONDS}
    if url.get_backend_name() == "postgresql":
        try:
            return create_engine(url, pool_pre_ping=True, **settings)
        except ImportError:
            raise PackageError("psycopg", "postgres", f"a {schema.what} in PostgreSQL") from None
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, **settings)

    @event.listens_for(engine, "connect")
    def synchronous(connection: Any, _: object) -> None:
        connection.execute("PRAGMA synchronous=FULL")  # commits survive a loss of power
        connection.execute("PRAGMA trusted_schema=OFF")  # a foreign file can call no function with side effects
        connection.execute("PRAGMA cell_size_check=ON")  # detect damaged cells before following them
        connection.execute("PRAGMA secure_delete=ON")  # overwrite deleted content with zeros

    return engine


def _unexpected_sql(connection: Connection, schema: DatabaseSchema) -> list[tuple[str, str]]:
    """Return kind and name of what an SQLite database declares beyond the schema."""
    expected = _made_sql(schema)
    return [key for key, sql in _declared_sql(connection).items() if sql != expected.get(key)]


def _declared_sql(connection: Connection) -> dict[tuple[str, str], str]:
    """Return everything that an SQLite database declares, by kind and name: its SQL without blanks, quotes and case.

    SQLite's own indexes and statistics are left out.
    """
    from sqlalchemy import text

    rows = connection.execute(text("SELECT type, name, sql FROM sqlite_master")).all()
    own = {("index", None), ("table", "sqlite_stat1"), ("table", "sqlite_stat4")}
    return {
        (str(kind), str(name)): re.sub(r'[\s"`\[\]]+', "", str(sql)).lower()
        for kind, name, sql in rows
        if (kind, sql) not in own and (kind, name) not in own
    }


@cache
def _made_sql(schema: DatabaseSchema) -> dict[tuple[str, str], str]:
    """Return the SQL that `_make_tables` declares."""
    from sqlalchemy import create_engine

    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        _make_tables(connection, schema)
        declared = _declared_sql(connection)
    engine.dispose()
    return declared


def _make_file(path: Path, schema: DatabaseSchema, make: bool) -> None:
    """Create a new database file if there is none: in a folder beside, readable by its owner alone, then linked into
    place whole.

    A process that comes second finds the file of the first. Raises InputError for a symbolic link in its place, and
    for anything that is not a file.
    """
    for link in (path.with_name(path.name + end) for end in _SIDE_FILES):
        if link.is_symlink():
            raise InputError("is a symbolic link, and Trimtab made none", "delete it", file=link)
    if path.exists():
        if not path.is_file():
            raise InputError("is no file", schema.elsewhere, file=path)
        return
    if not make:
        raise schema.missing(path)
    from sqlalchemy.exc import DBAPIError

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        engine = _engine(_url(str(beside), schema), schema)
        try:
            with engine.begin() as connection:
                # readers and the writer do not wait for each other
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                _make_tables(connection, schema)
        finally:
            engine.dispose()
        sync(beside)
        with suppress(FileExistsError):
            os.link(beside, path)
        sync(path.parent)
    except DBAPIError as error:
        raise _translated(error, str(path), schema) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        for end in _SIDE_FILES:
            beside.with_name(beside.name + end).unlink(missing_ok=True)


def _busy(name: str) -> BusyError:
    return BusyError(f"{name}: others have been at it for {BUSY_SECONDS:.0f} s; try again")


_OF_THE_DISK = {"SQLITE_FULL": errno.ENOSPC, "SQLITE_READONLY": errno.EROFS, "SQLITE_CANTOPEN": errno.EACCES}


def _translated(error: DBAPIError, name: str, schema: DatabaseSchema) -> Exception:
    """Return the error of Trimtab for an error of the database."""
    said = next(iter(str(error.orig).splitlines()), type(error.orig).__name__)
    code = getattr(error.orig, "sqlite_errorname", "")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return _busy(name)
    if code.startswith("SQLITE_IOERR"):
        return OSError(errno.EIO, said, name)
    for beginning, number in _OF_THE_DISK.items():
        if code.startswith(beginning):
            return OSError(number, said, name)
    if error.connection_invalidated or (not code and type(error).__name__ == "OperationalError"):
        return RemoteError(f"{name}: {said}; is the server running, and may this user connect?")
    return InputError(f"is damaged, or no {schema.what} ({said})", schema.elsewhere, file=name)
