"""The store of feedback: SQLite beside the task file, or PostgreSQL for several servers; `add` returns once a record is
durable."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.arms.workspace import FOLDER
from trimtab.base.errors import InputError
from trimtab.base.files import refuse_links
from trimtab.base.task import Task
from trimtab.serving.database import Closing, Database, DatabaseSchema, microseconds, record_text, row_number
from trimtab.serving.feedback_schema import JudgedAnswer, Judgement, JudgementKind, latest_judgements
from trimtab.serving.traffic_store import user_key

if TYPE_CHECKING:
    from sqlalchemy import MetaData

__all__ = ["FILE", "FeedbackStore", "JudgedAnswer", "Judgement", "JudgementKind", "open_feedback_store"]

FILE = "feedback.db"
_JUDGEMENTS, _SECRET = "trimtab_judgements", "trimtab_receipt_secret"


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

        row = {"id": judgement.id, "at": microseconds(judgement.when), "record": record_text(judgement)}
        try:
            with self._database.begin() as connection:
                connection.execute(_SCHEMA.table(_JUDGEMENTS).insert(), row)
        except IntegrityError:
            raise InputError("is kept already", "give every judgement an id of its own", field=judgement.id) from None

    def __iter__(self) -> Iterator[Judgement]:
        """Yield every judgement, the oldest first; those added meanwhile may be missing."""
        return self._judgements_since()

    def _judgements_since(self, since: datetime | None = None) -> Iterator[Judgement]:
        from sqlalchemy import select

        table = _SCHEMA.table(_JUDGEMENTS)
        wanted = select(table.c.id, table.c.record).order_by(table.c.at, table.c.number)
        if since is not None:
            wanted = wanted.where(table.c.at >= microseconds(since))
        with self._database.snapshot() as connection:
            for name, text in connection.execution_options(yield_per=500).execute(wanted):
                yield self._database.parse(Judgement, f"judgement {name}", text)

    def of_single_answers(self, since: datetime | None = None) -> Iterator[Judgement]:
        """Yield the judgements of single answers, the oldest first, from `since` on if it is given.

        Of several judgements of one answer the last counts. Comparisons of several answers are left out.
        """
        yield from latest_judgements(one for one in self._judgements_since(since) if one.kind != "prefer")

    def all(self) -> tuple[Judgement, ...]:
        """Return every judgement, the oldest first."""
        return tuple(self)

    def receipt_secret(self) -> bytes:
        """Return the secret that all servers of this store sign receipts with (`receipts.py`); it is made once."""
        table = _SCHEMA.table(_SECRET)
        with self._database.exclusive() as connection:
            kept = connection.execute(table.select()).scalar()
            if kept is None:
                kept = secrets.token_hex(32)
                connection.execute(table.insert(), {"secret": kept})
        return bytes.fromhex(kept)

    def count(self) -> int:
        """Return the number of judgements."""
        from sqlalchemy import func, select

        with self._database.snapshot() as connection:
            return connection.execute(select(func.count()).select_from(_SCHEMA.table(_JUDGEMENTS))).scalar_one()

    def forget(self, user: str) -> int:
        """Delete a user's judgements and return their number. `user` as for `user_key`."""
        from sqlalchemy import delete

        key, table = user_key(user), _SCHEMA.table(_JUDGEMENTS)
        own = [judgement.id for judgement in self if judgement.user == key]
        with self._database.begin() as connection:
            for start in range(0, len(own), 500):  # SQLite takes a bounded number of parameters
                connection.execute(delete(table).where(table.c.id.in_(own[start : start + 500])))
        self._database.truncate_log()
        return len(own)

    def close(self) -> None:
        """Close the database connections."""
        self._database.close()


def _declare(metadata: MetaData) -> None:
    """Add the table of judgements: a JSON record each, with its id and time (`at`, microseconds since 1970); and that
    of the receipts' secret, in hex."""
    from sqlalchemy import BigInteger, Column, Index, String, Table, Text

    Table(
        _JUDGEMENTS,
        metadata,
        row_number(),
        Column("id", String(64), nullable=False, unique=True),
        Column("at", BigInteger, nullable=False),
        Column("record", Text, nullable=False),
        Index("trimtab_judgements_by_time", "at", "number"),
    )
    Table(_SECRET, metadata, Column("secret", String(64), nullable=False))


_SCHEMA = DatabaseSchema(
    what="store of judgements",
    holds="judgements",
    made_by="collect some on the page of: trimtab serve",
    option="--store",
    form=3,
    form_table="trimtab_form",
    declare=_declare,
)
