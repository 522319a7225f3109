"""Limits per key that hold over all servers of one PostgreSQL store: every server tells the others what it has let
through, and takes what they have from its own buckets.

No request waits for the database. Between two exchanges each server knows its own requests alone, so that a burst may
be let through by each of them; over longer times the limit holds exactly. While the database cannot be reached, limits
are those of each server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from trimtab.base.errors import TrimtabError
from trimtab.base.sanitize import one_line
from trimtab.serving.access import ApiKeys
from trimtab.serving.database import Database, DatabaseSchema, is_address
from trimtab.serving.metrics import RequestLog
from trimtab.serving.worker import CLOSE_SECONDS

if TYPE_CHECKING:
    from sqlalchemy import MetaData

EXCHANGE_SECONDS = 1.0  # between two exchanges
# Rows of servers that were killed go after a day; servers that run tell theirs anew each hour. Clocks decide no more.
KEPT_SECONDS, ANEW_SECONDS = 86_400, 3_600
LONGEST_LINE = 400  # characters of a logged reason
_USE = "trimtab_limits"


@contextmanager
def shared_limits(store: str | None, keys: ApiKeys, log: RequestLog) -> Iterator[None]:
    """Context manager: a thread keeps the limits of keys common to all servers of a store; none for a store that is a
    file.

    Raises as `Database` if the store cannot be opened. Later errors are logged, once as long as the reason stays the
    same.
    """
    if store is None or not is_address(store):
        yield
        return
    from sqlalchemy.exc import SQLAlchemyError

    ending = threading.Event()
    with Database(store, _SCHEMA) as database:
        exchange = LimitExchange(database, keys)
        exchange.run()  # now, so that what the others let through from here on is deducted

        def work() -> None:
            last = ""
            while not ending.wait(EXCHANGE_SECONDS):
                try:
                    exchange.run()
                    last = ""
                except (TrimtabError, OSError, SQLAlchemyError) as error:  # limits are then those of this server
                    why = one_line(error, LONGEST_LINE)
                    if why != last:
                        log.line("limits_not_shared", why=why)
                    last = why

        thread = threading.Thread(target=work, name="limits", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join(CLOSE_SECONDS)


class LimitExchange:
    """The exchange, among the servers of one store, of how many requests of each key they let through."""

    def __init__(self, database: Database, keys: ApiKeys) -> None:
        self._database, self._keys, self._name = database, keys, uuid4().hex
        self._told: dict[str, int] = {}  # by key, what the others have been told
        self._anew_at = time.monotonic() + ANEW_SECONDS
        self._known: dict[tuple[str, str], int] | None = None  # by key and server, what has been deducted

    def run(self) -> None:
        """Tell what this server has let through, and deduct what the others have since the last time.

        What they had let through before the first time is not deducted.
        """
        if time.monotonic() >= self._anew_at:
            self._told, self._anew_at = {}, time.monotonic() + ANEW_SECONDS
        taken = {key: count for key, count in self._keys.taken().items() if count}
        found = self._read_and_write({key: count for key, count in taken.items() if count != self._told.get(key)})
        self._told = taken
        if self._known is not None:
            for (key, server), count in found.items():
                more = count - self._known.get((key, server), 0)
                if more > 0:
                    self._keys.deduct(key, more)
        self._known = found

    def _read_and_write(self, changed: dict[str, int]) -> dict[tuple[str, str], int]:
        """Store this server's counts that have changed; return those of the others."""
        from sqlalchemy import delete, select

        table, now = _SCHEMA.table(_USE), int(time.time())
        with self._database.begin() as connection:
            if self._known is None:
                connection.execute(delete(table).where(table.c.at < now - KEPT_SECONDS))
            if changed:
                own = table.c.server == self._name
                connection.execute(delete(table).where(own, table.c.key.in_(changed)))
                rows = [{"key": key, "server": self._name, "taken": count, "at": now} for key, count in changed.items()]
                connection.execute(table.insert(), rows)
            others = select(table.c.key, table.c.server, table.c.taken).where(table.c.server != self._name)
            return {(key, server): taken for key, server, taken in connection.execute(others)}


def _declare(metadata: MetaData) -> None:
    """Add the table: by key (its SHA-256) and server how many requests were let through."""
    from sqlalchemy import BigInteger, Column, String, Table

    Table(
        _USE,
        metadata,
        Column("key", String(64), primary_key=True),
        Column("server", String(32), primary_key=True),
        Column("taken", BigInteger, nullable=False),
        Column("at", BigInteger, nullable=False),  # seconds since 1970
    )


_SCHEMA = DatabaseSchema(
    what="store of limits",
    holds="limits of keys",
    made_by="make them with: trimtab serve",
    option="--store",
    form=1,
    form_table="trimtab_limits_form",
    declare=_declare,
)
