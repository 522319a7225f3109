"""The store of judgements: SQLite beside the task file, or PostgreSQL for several servers. What `add` returned from is kept."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from trimtab.arms.workspace import FOLDER
from trimtab.base.codec import from_plain, to_plain
from trimtab.base.errors import (
    BusyError,
    InputError,
    MissingError,
    PackageError,
    RemoteError,
    TrimtabError,
    VersionError,
)
from trimtab.base.files import refuse_links, sync
from trimtab.base.task import Task
from trimtab.base.visible import printable
from trimtab.serving.judgement import Judgement, JudgementKind, ShownAnswer

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, Table
    from sqlalchemy.exc import DBAPIError

__all__ = ["FILE", "Judgement", "JudgementKind", "ShownAnswer", "Store", "store_of"]

FILE = "feedback.db"
FORM = 1  # of the tables; raised whenever they change their meaning
BUSY_SECONDS = 30.0  # how long a writer waits for the others
_SETUP_LOCK = 0x7472696D  # any number: servers that make the tables at once wait for each other
_SIDE_FILES = ("", "-wal", "-shm", "-journal")  # what SQLite opens with a database
_FOREIGN = "name another place with --store, or move it away"


def store_of(task: Task, where: str | None = None, *, make: bool = True) -> Store:
    """The store at `where` (a file, or a `postgresql://` URL), else `.trimtab/feedback.db` beside the task file; `make` as for Store."""
    if where:
        return Store(where, make=make)
    folder = task.folder / FOLDER
    refuse_links(folder)
    return Store(folder / FILE, make=make)


class Store:
    """Judgements by time. Safe to share between threads, and to open in many processes at once.

    Raises PackageError where SQLAlchemy or psycopg is not installed, InputError for a place that holds something else or is damaged,
    VersionError for what another version wrote, MissingError where nothing is there and `make` is False. From then on BusyError where
    others write for too long, RemoteError where a server cannot be reached, OSError for a full disk.
    """

    def __init__(self, where: str | Path, *, make: bool = True) -> None:
        url = _url(str(where))
        if url.get_backend_name() == "sqlite":
            self.name = str(url.database)
            _make_file(Path(self.name), make)
        else:
            self.name = url.set(drivername="postgresql").render_as_string(hide_password=True)
        self._engine = _engine(url)
        self._make = make
        try:
            with self._in_words(), self._engine.begin() as connection:
                self._prepare(connection)
        except (TrimtabError, OSError):
            self.close()
            raise

    def add(self, judgement: Judgement) -> None:
        """Keep a judgement: when this returns it is on the disk. Raises InputError where its id is there already."""
        from sqlalchemy.exc import IntegrityError

        text = json.dumps(to_plain(judgement), allow_nan=False)  # ASCII, which every encoding of a database has
        row = {"id": judgement.id, "at": _microseconds(judgement.when), "record": text}
        try:
            with self._in_words(), self._engine.begin() as connection:
                connection.execute(_judgements().insert(), row)
        except IntegrityError:
            raise InputError("is kept already", "give every judgement an id of its own", field=judgement.id) from None

    def __iter__(self) -> Iterator[Judgement]:
        """Every judgement, the oldest first; those that are added meanwhile may be left out."""
        from sqlalchemy import select

        table = _judgements()
        wanted = select(table.c.id, table.c.record).order_by(table.c.at, table.c.number)
        with self._in_words(), self._engine.connect() as connection:
            for name, text in connection.execution_options(yield_per=500).execute(wanted):
                try:
                    judgement = from_plain(Judgement, json.loads(text))
                except ValueError as error:
                    raise InputError(f"judgement {name} is damaged ({error})", "take it out", file=self.name) from None
                yield judgement

    def all(self) -> tuple[Judgement, ...]:
        """Every judgement, the oldest first."""
        return tuple(self)

    def count(self) -> int:
        """How many there are."""
        from sqlalchemy import func, select

        with self._in_words(), self._engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(_judgements())).scalar_one()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, connection: Connection) -> None:
        """Refuse what is not ours, and make the tables in a database that has none: a file has been made with them."""
        from sqlalchemy import func, inspect, select

        form, ours = _form(), _judgements()
        strange: list[tuple[str, str]] = []
        if connection.dialect.name == "sqlite":
            found, made = _schema(connection), _own_schema()
            strange = [one for one in found if found[one] != made.get(one)]
        elif self._make:
            connection.execute(select(func.pg_advisory_xact_lock(_SETUP_LOCK)))
        there = set(inspect(connection).get_table_names()) & {form.name, ours.name}
        if not there and connection.dialect.name == "postgresql":
            if not self._make:
                raise MissingError(f"{self.name}: no judgements are kept there")
            _make_tables(connection)
            return
        if len(there) < 2:
            raise InputError("is no store of judgements", _FOREIGN, file=self.name)
        number = None if ("table", form.name) in strange else connection.execute(select(form.c.number)).scalar()
        if isinstance(number, int) and number != FORM:
            raise VersionError(
                f"was written by another version of Trimtab (form {number}, this one reads {FORM})",
                "go on with that version, or name another place with --store",
                file=self.name,
            )
        if strange:
            kind, name = strange[0]
            problem = f"holds the {printable(kind, 40)} {printable(name, 80)}, which Trimtab did not make"
            raise InputError(problem, _FOREIGN, file=self.name)
        if number is None:
            raise InputError("is no store of judgements", _FOREIGN, file=self.name)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """What a database says, as an error of ours on one line; that an id is there twice is left to `add`."""
        from sqlalchemy.exc import DBAPIError, IntegrityError, TimeoutError

        try:
            yield
        except IntegrityError:
            raise
        except TimeoutError as error:  # of the pool: every connection is in use
            raise _busy(self.name) from error
        except DBAPIError as error:
            raise _told(error, self.name) from error


def _url(where: str) -> URL:
    """A place as SQLAlchemy has it: what has no scheme is a file."""
    try:
        from sqlalchemy import URL, make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError:
        raise PackageError("sqlalchemy", "serve", "keeping judgements") from None

    scheme = where.partition("://")[0] if "://" in where else ""
    try:
        url = make_url(where) if scheme else URL.create("sqlite", database=where)
        known = url.get_backend_name() in ("sqlite", "postgresql") and bool(url.database)
    except (ArgumentError, ValueError):
        known = False
    if not known:  # never with the address itself, which may hold a password
        raise InputError(
            f"no place for judgements{f', of the scheme {scheme[:20]!r}' if scheme else ''}",
            "name a file, or postgresql://USER@HOST/DATABASE",
            field="--store",
        )
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    return URL.create("sqlite", database=os.path.abspath(str(url.database)))


def _engine(url: URL) -> Engine:
    from sqlalchemy import create_engine, event

    settings: dict[str, Any] = {"hide_parameters": True, "pool_timeout": BUSY_SECONDS}
    if url.get_backend_name() == "postgresql":
        try:
            return create_engine(url, pool_pre_ping=True, **settings)
        except ImportError:
            raise PackageError("psycopg", "postgres", "a store in PostgreSQL") from None
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, **settings)

    @event.listens_for(engine, "connect")
    def synchronous(connection: Any, _: object) -> None:
        connection.execute("PRAGMA synchronous=FULL")  # what is committed outlives a loss of power
        connection.execute("PRAGMA trusted_schema=OFF")  # a file from elsewhere calls no function that has an effect
        connection.execute("PRAGMA cell_size_check=ON")  # damage is seen before it is followed

    return engine


@cache
def _form() -> Table:
    """One row: the form of the tables."""
    from sqlalchemy import Column, Integer, MetaData, Table

    return Table("trimtab_form", MetaData(), Column("number", Integer, nullable=False))


@cache
def _judgements() -> Table:
    """A row each: the record as JSON, and what it is found and ordered by (`at`: microseconds since 1970)."""
    from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

    number = BigInteger().with_variant(Integer, "sqlite")
    return Table(
        "trimtab_judgements",
        MetaData(),
        Column("number", number, primary_key=True, autoincrement=True),
        Column("id", String(64), nullable=False, unique=True),
        Column("at", BigInteger, nullable=False),
        Column("record", Text, nullable=False),
        Index("trimtab_judgements_by_time", "at", "number"),
    )


def _make_tables(connection: Connection) -> None:
    for table in (_judgements(), _form()):
        table.create(connection)
    connection.execute(_form().insert(), {"number": FORM})


def _schema(connection: Connection) -> dict[tuple[str, str], str]:
    """Everything that an SQLite database declares, by kind and name: its SQL, without blanks, quotes and case.

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
def _own_schema() -> dict[tuple[str, str], str]:
    """What `_make_tables` declares."""
    from sqlalchemy import create_engine

    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        _make_tables(connection)
        found = _schema(connection)
    engine.dispose()
    return found


def _make_file(path: Path, make: bool) -> None:
    """A new database where there is none: made beside, readable by its owner alone, and linked into place whole.

    Who comes second finds the first one's. Raises InputError for a link in its place, and for what is no file.
    """
    for link in (path.with_name(path.name + end) for end in _SIDE_FILES):
        if link.is_symlink():
            raise InputError("is a symbolic link, and Trimtab made none", "take it away", file=link)
    if path.exists():
        if not path.is_file():
            raise InputError("is no file", _FOREIGN, file=path)
        return
    if not make:
        raise MissingError(f"{path}: no judgements are kept there")
    from sqlalchemy.exc import DBAPIError

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        engine = _engine(_url(str(beside)))
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(
                    "PRAGMA journal_mode=WAL"
                )  # readers and the writer do not wait for each other
                _make_tables(connection)
        finally:
            engine.dispose()
        sync(beside)
        with suppress(FileExistsError):
            os.link(beside, path)
        sync(path.parent)
    except DBAPIError as error:
        raise _told(error, str(path)) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        for end in _SIDE_FILES:
            beside.with_name(beside.name + end).unlink(missing_ok=True)


def _microseconds(when: datetime) -> int:
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _busy(name: str) -> BusyError:
    return BusyError(f"{name}: others have been at it for {BUSY_SECONDS:.0f} s; try again")


_OF_THE_DISK = {"SQLITE_FULL": errno.ENOSPC, "SQLITE_READONLY": errno.EROFS, "SQLITE_CANTOPEN": errno.EACCES}


def _told(error: DBAPIError, name: str) -> Exception:
    """What a database said, as the error that it is here."""
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
    return InputError(f"is damaged, or no store of judgements ({said})", _FOREIGN, file=name)
