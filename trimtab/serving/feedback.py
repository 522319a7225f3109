"""The store of feedback: SQLite beside the task file, or PostgreSQL for several servers; `add` returns once a record is
durable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.arms.workspace import FOLDER
from trimtab.base.codec import from_plain, to_plain
from trimtab.base.errors import InputError
from trimtab.base.files import refuse_links
from trimtab.base.task import Task
from trimtab.serving.database import Closing, Database, DatabaseSchema
from trimtab.serving.feedback_schema import JudgedAnswer, Judgement, JudgementKind
from trimtab.serving.traffic_store import user_key

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

__all__ = ["FILE", "FeedbackStore", "JudgedAnswer", "Judgement", "JudgementKind", "open_feedback_store"]

FILE = "feedback.db"
FORM = 2  # version of the tables' schema; since 2 a judgement may name its user


def open_feedback_store(task: Task, where: str | None = None, *, make: bool = True) -> FeedbackStore:
    """Open the store at `where` (a file or a `postgresql://` URL), by default `.trimtab/feedback.db` beside the task
    file.

    `make` as for `FeedbackStore`.
    """
    if where:
        return FeedbackStore(where, make=make)
    folder = task.folder / FOLDER
    refuse_links(folder)
    return FeedbackStore(folder / FILE, make=make)


class FeedbackStore(Closing):
    """Judgements in order of time, shared safely between threads and processes; raises as `Database`."""

    def __init__(self, where: str | Path, *, make: bool = True) -> None:
        self._database = Database(where, _SCHEMA, make=make)
        self.name = self._database.name

    def add(self, judgement: Judgement) -> None:
        """Store a judgement; it is on the disk when this returns. Raises InputError if its id exists."""
        from sqlalchemy.exc import IntegrityError

        text = json.dumps(to_plain(judgement), allow_nan=False)  # ASCII, which every database encoding can store
        row = {"id": judgement.id, "at": _microseconds(judgement.when), "record": text}
        try:
            with self._database.begin() as connection:
                connection.execute(_judgement_table().insert(), row)
        except IntegrityError:
            raise InputError("is kept already", "give every judgement an id of its own", field=judgement.id) from None

    def __iter__(self) -> Iterator[Judgement]:
        """Yield every judgement, the oldest first; those added meanwhile may be missing."""
        return self._judgements_since()

    def _judgements_since(self, since: datetime | None = None) -> Iterator[Judgement]:
        from sqlalchemy import select

        table = _judgement_table()
        wanted = select(table.c.id, table.c.record).order_by(table.c.at, table.c.number)
        if since is not None:
            wanted = wanted.where(table.c.at >= _microseconds(since))
        with self._database.snapshot() as connection:
            for name, text in connection.execution_options(yield_per=500).execute(wanted):
                try:
                    judgement = from_plain(Judgement, json.loads(text))
                except ValueError as error:
                    raise InputError(f"judgement {name} is damaged ({error})", "take it out", file=self.name) from None
                yield judgement

    def of_single_answers(self, since: datetime | None = None) -> Iterator[Judgement]:
        """Yield the judgements of single answers, the oldest first, from `since` on if it is given.

        Of several judgements of one answer by one user or in one session the last counts. Comparisons of several
        answers are left out.
        """
        last: dict[object, Judgement] = {}
        for one in self._judgements_since(since):
            if one.kind != "prefer":
                known = one.user or one.session
                key = (one.user, one.session, one.messages, one.answers) if known else one.id
                last.pop(key, None)
                last[key] = one
        yield from last.values()

    def all(self) -> tuple[Judgement, ...]:
        """Return every judgement, the oldest first."""
        return tuple(self)

    def count(self) -> int:
        """Return the number of judgements."""
        from sqlalchemy import func, select

        with self._database.snapshot() as connection:
            return connection.execute(select(func.count()).select_from(_judgement_table())).scalar_one()

    def forget(self, user: str) -> int:
        """Delete a user's judgements and return their number. `user` as for `user_key`."""
        from sqlalchemy import delete

        key, table = user_key(user), _judgement_table()
        own = [judgement.id for judgement in self if judgement.user == key]
        with self._database.begin() as connection:
            for start in range(0, len(own), 500):  # SQLite takes a bounded number of parameters
                connection.execute(delete(table).where(table.c.id.in_(own[start : start + 500])))
        self._database.truncate_log()
        return len(own)

    def close(self) -> None:
        """Close the database connections."""
        self._database.close()


@cache
def _version_table() -> Table:
    """Return the table with one row, the schema version."""
    from sqlalchemy import Column, Integer, MetaData, Table

    return Table("trimtab_form", MetaData(), Column("number", Integer, nullable=False))


@cache
def _judgement_table() -> Table:
    """Return the table of judgements: a JSON record each, with its id and time (`at`, microseconds since 1970)."""
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
    """Create the tables, or set the present schema version: version 1 had the same tables."""
    for table in (_judgement_table(), _version_table()):
        table.create(connection, checkfirst=True)
    connection.execute(_version_table().delete())
    connection.execute(_version_table().insert(), {"number": FORM})


def _schema_version(connection: Connection) -> int | None:
    from sqlalchemy import select

    return connection.execute(select(_version_table().c.number)).scalar()


def _microseconds(when: datetime) -> int:
    return (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


_SCHEMA = DatabaseSchema(
    what="store of judgements",
    holds="judgements",
    option="--store",
    tables=("trimtab_form", "trimtab_judgements"),
    form=FORM,
    readable=range(1, FORM + 1),
    make=_make_tables,
    form_of=_schema_version,
)
