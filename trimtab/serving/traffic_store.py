"""Traffic store: a sample of the questions and answers of arms in use, and the labels that people gave to them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trimtab.arms.workspace import FOLDER
from trimtab.base.errors import InputError
from trimtab.base.files import refuse_links
from trimtab.base.records import Message
from trimtab.base.task import Task
from trimtab.serving.database import (
    Closing,
    Database,
    DatabaseSchema,
    is_address,
    microseconds,
    record_text,
    row_number,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Delete, MetaData, Table

FILE = "traffic.db"
KEY_VOTER = "key:"  # before the hash of a key whose users count as one voter
_NONE_YET = "answers come in while `trimtab serve` runs with a table [traffic] in the task file"
Drawing = Literal["random", "uncertain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAnswer:
    """One answer given in use. `version`: its number in the registry if the server follows an alias, else its study or
    run.

    `passages`: ids of its passages. `probability`: the arm's probability that its answer is right, None without one.
    `user`: a hash of the user, None if unknown; `voter`: who a canary counts, None in older records for
    the user. `share`: the share of all requests that was stored at that time.
    `similarity`: the highest cosine of a passage to the question. `supported`: True if a passage supports the
    answer. The last two are None without passages.
    """

    id: str
    when: datetime
    arm: str
    version: str
    messages: tuple[Message, ...]
    passages: tuple[str, ...]
    answer: str
    abstained: bool
    probability: float | None
    milliseconds: float
    user: str | None
    share: float
    masked: bool
    similarity: float | None = None
    supported: bool | None = None
    voter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A person's judgement of an answer. `right`: True, False, or None for "cannot tell". `correction`: the right
    answer, if given.
    """

    item: str
    by: str
    right: bool | None
    correction: str | None
    when: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelDraw:
    """A draw of answers to label: rows `after_row` < number ≤ `last_row` of the traffic, or of a file (`source`: its
    hash).

    `drawing`: `random`, or `uncertain`: more often where the arm is less confident.
    """

    number: int
    source: str
    drawing: Drawing
    after_row: int
    last_row: int


def user_key(name: str) -> str:
    """Return the SHA-256 of a user's name or key, the stored form; a SHA-256 is returned as it is."""
    is_hash = len(name) == 64 and all(character in "0123456789abcdef" for character in name)
    return name if is_hash else hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def traffic_of(task: Task, where: str | None = None, *, make: bool = True) -> TrafficStore:
    """Return the traffic store of a task: `.trimtab/traffic.db` beside its file.

    `where`: the location of judgements, if another: a `postgresql://` URL holds the traffic too; beside a file lies
    `traffic.db`. Without `make` an absent store raises MissingError.
    """
    if where is not None:
        return TrafficStore(where if is_address(where) else Path(where).absolute().parent / FILE, make=make)
    folder = task.folder / FOLDER
    refuse_links(folder)
    return TrafficStore(folder / FILE, make=make)


class TrafficStore(Closing):
    """Stored answers and labels. Thread-safe, and usable by many processes at once. Raises as `Database`."""

    def __init__(self, where: str | Path, *, make: bool = True) -> None:
        self._database = Database(where, _SCHEMA, make=make)
        self.name = self._database.name

    def add(self, answers: Sequence[ServedAnswer]) -> None:
        """Store answers durably."""
        rows = [
            {"id": answer.id, "at": microseconds(answer.when), "user_key": answer.user, "record": record_text(answer)}
            for answer in answers
        ]
        with self._database.begin() as connection:
            connection.execute(_SCHEMA.table(TRAFFIC).insert(), rows)

    def answers(self, *, after: int = 0, last: int | None = None, since: datetime | None = None) -> list[ServedAnswer]:
        """Return the answers in the order in which they were stored: with numbers after `after` and up to `last`, given
        from `since` on.
        """
        from sqlalchemy import select

        table = _SCHEMA.table(TRAFFIC)
        wanted = select(table.c.id, table.c.record).where(table.c.number > after).order_by(table.c.number)
        if last is not None:
            wanted = wanted.where(table.c.number <= last)
        if since is not None:
            wanted = wanted.where(table.c.at >= microseconds(since))
        with self._database.snapshot() as connection:
            rows = connection.execute(wanted)
            return [self._database.parse(ServedAnswer, f"answer {name}", text) for name, text in rows]

    def first_seen(self, since: datetime) -> dict[str, datetime]:
        """Return when each known user's first answer from `since` on was stored."""
        from sqlalchemy import func, select

        table = _SCHEMA.table(TRAFFIC)
        wanted = (
            select(table.c.user_key, func.min(table.c.at))
            .where(table.c.at >= microseconds(since), table.c.user_key.is_not(None))
            .group_by(table.c.user_key)
        )
        with self._database.snapshot() as connection:
            return {user: datetime.fromtimestamp(at / 1e6, UTC) for user, at in connection.execute(wanted)}

    def expire(self, keep_days: int, now: datetime | None = None) -> int:
        """Delete answers older than `keep_days` days, with their labels. Return the number deleted."""
        oldest = microseconds((now or datetime.now(UTC)) - timedelta(days=keep_days))
        return self._delete(_SCHEMA.table(TRAFFIC).c.at < oldest)

    def forget(self, user: str) -> int:
        """Delete the answers to a user, with their labels. Return the number deleted. `user` as for `user_key`."""
        return self._delete(_SCHEMA.table(TRAFFIC).c.user_key == user_key(user))

    def _delete(self, condition: ColumnElement[bool]) -> int:
        """Delete rows durably, including what the write-ahead log still holds."""
        from sqlalchemy import delete, select

        traffic, labels = _SCHEMA.table(TRAFFIC), _SCHEMA.table(LABELS)
        with self._database.exclusive() as connection:
            gone = select(traffic.c.id).where(condition)
            connection.execute(delete(labels).where(labels.c.item.in_(gone)))
            count = connection.execute(delete(traffic).where(condition)).rowcount
        self._database.truncate_log()
        return int(count)

    def label(self, label: Label) -> None:
        """Store a label; it replaces the same person's label of the same answer."""
        table, row = _SCHEMA.table(LABELS), {"item": label.item, "labeller": label.by, "record": record_text(label)}
        with self._database.exclusive() as connection:
            connection.execute(_delete_of(table, label.item, label.by))
            connection.execute(table.insert(), row)

    def unlabel(self, item: str, by: str) -> None:
        """Remove a label."""
        with self._database.begin() as connection:
            connection.execute(_delete_of(_SCHEMA.table(LABELS), item, by))

    def labels(self) -> list[Label]:
        """Return every label, in the order in which they were given."""
        from sqlalchemy import select

        table = _SCHEMA.table(LABELS)
        with self._database.snapshot() as connection:
            found = connection.execute(select(table.c.item, table.c.record).order_by(table.c.number))
            return [self._database.parse(Label, f"label {name}", text) for name, text in found]

    def draw(self, source: str, drawing: Drawing, *, after: int = 0, last: int | None = None) -> LabelDraw:
        """Return a new draw of what came `after` the previous one, or the one that somebody else began meanwhile.

        `last`: the number of answers of a source other than traffic. Raises InputError if there are none.
        """
        table = _SCHEMA.table(DRAWS)
        with self._database.exclusive() as connection:
            begun = connection.execute(table.select().where(table.c.source == source, table.c.after_row >= after))
            if (row := begun.mappings().first()) is not None:
                return LabelDraw(**row)
            values = self._rows_of(connection, source, drawing, after, last)
            key = connection.execute(table.insert(), values).inserted_primary_key
        return LabelDraw(number=int(key[0]), **values)  # type: ignore[index]  # an insertion of one row has one

    def draw_again(self, draw: LabelDraw, drawing: Drawing, last: int | None = None) -> LabelDraw:
        """Return a draw without labels with another method, or extended to later answers. `last` as for `draw`."""
        table = _SCHEMA.table(DRAWS)
        with self._database.exclusive() as connection:
            row = self._rows_of(connection, draw.source, drawing, draw.after_row, last)
            connection.execute(table.update().where(table.c.number == draw.number), row)
        return LabelDraw(number=draw.number, **row)

    def _rows_of(
        self, connection: Connection, source: str, drawing: Drawing, after: int, last: int | None
    ) -> dict[str, Any]:
        from sqlalchemy import func, select

        if last is None:
            last = int(connection.execute(select(func.max(_SCHEMA.table(TRAFFIC).c.number))).scalar() or 0)
        if last <= after:
            raise InputError("no answer to label" + (" came since the last draw" if after else ""), _NONE_YET)
        return {"source": source, "drawing": drawing, "after_row": after, "last_row": last}

    def draws(self, source: str) -> list[LabelDraw]:
        """Return the draws of a source, oldest first."""
        from sqlalchemy import select

        table = _SCHEMA.table(DRAWS)
        with self._database.snapshot() as connection:
            rows = connection.execute(select(table).where(table.c.source == source).order_by(table.c.number)).mappings()
            return [LabelDraw(**row) for row in rows]

    def close(self) -> None:
        """Close the connections."""
        self._database.close()


TRAFFIC, LABELS, DRAWS = "trimtab_traffic", "trimtab_labels", "trimtab_label_draws"


def _declare(metadata: MetaData) -> None:
    """Add the tables. SQLite never reuses a `number`, so a new row cannot get a deleted row's."""
    from sqlalchemy import BigInteger, Column, Index, String, Table, Text, UniqueConstraint

    Table(
        TRAFFIC,
        metadata,
        row_number(),
        Column("id", String(64), nullable=False, unique=True),
        Column("at", BigInteger, nullable=False),  # microseconds since 1970
        Column("user_key", String(64)),
        Column("record", Text, nullable=False),
        Index("trimtab_traffic_by_time", "at"),
        Index("trimtab_traffic_by_user", "user_key"),
        sqlite_autoincrement=True,
    )
    Table(
        LABELS,
        metadata,
        row_number(),
        Column("item", String(64), nullable=False),
        Column("labeller", String(200), nullable=False),
        Column("record", Text, nullable=False),
        UniqueConstraint("item", "labeller"),
        sqlite_autoincrement=True,
    )
    Table(
        DRAWS,
        metadata,
        row_number(),
        Column("source", String(64), nullable=False),
        Column("drawing", String(16), nullable=False),
        Column("after_row", BigInteger, nullable=False),
        Column("last_row", BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )


def _delete_of(table: Table, item: str, by: str) -> Delete:
    from sqlalchemy import delete

    return delete(table).where(table.c.item == item, table.c.labeller == by)


_SCHEMA = DatabaseSchema(
    what="store of traffic",
    holds="answers in use",
    made_by="collect some: add a table [traffic] to the task file, and run: trimtab serve",
    option="--store",
    form=2,
    form_table="trimtab_traffic_form",
    declare=_declare,
)
