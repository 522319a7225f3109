"""Keeps the answers of a crawl in one SQLite file, so that a killed crawl goes on and a later one asks only for
changes."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from trimtab.base.errors import InputError
from trimtab.base.files import FORM, other_form
from trimtab.publishing.records import Fetched

RESUMABLE_FOR = timedelta(days=1)  # a crawl that was stopped longer ago begins anew, with conditional requests
_COMMIT_EVERY = 1.0  # seconds of work that a kill may lose
_TABLES = """
create table if not exists run (id integer primary key, started text not null, finished text);
create table if not exists answer (
    asked text primary key, run integer not null, url text not null, status integer not null, headers text not null,
    content blob not null, at text not null, redirects text not null, cut integer not null, statuses text not null,
    seconds real not null
) without rowid;
"""


class CrawlStore:
    """A store of answers by the address that was asked for. A run is one crawl; one that did not finish is resumed.

    Raises InputError where the file is damaged, VersionError where it has another form number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._committed = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # one thread at a time, not always the first
            self._database = sqlite3.connect(path, check_same_thread=False)
            tables, form = (
                self._database.execute(query).fetchone()[0]
                for query in ("select count(*) from sqlite_master", "pragma user_version")
            )
            if tables and form != FORM:
                self._database.close()
                raise other_form(path, form, FORM, "take it away; the crawl then begins anew")
            self._database.execute("pragma journal_mode = wal")
            self._database.execute("pragma synchronous = off")  # a killed process loses nothing by it
            self._database.executescript(f"pragma user_version = {FORM}; {_TABLES}")
            self._run = self._begin()
        except sqlite3.DatabaseError as error:
            raise InputError(f"is damaged ({error})", "take it away; the crawl then begins anew", file=path) from None

    def _begin(self) -> int:
        row = self._database.execute("select id, started, finished from run order by id desc limit 1").fetchone()
        if row and row[2] is None and datetime.now(UTC) - datetime.fromisoformat(row[1]) < RESUMABLE_FOR:
            return int(row[0])
        cursor = self._database.execute("insert into run (started) values (?)", (datetime.now(UTC).isoformat(),))
        self._database.commit()
        return int(cursor.lastrowid or 0)

    def __enter__(self) -> CrawlStore:
        return self

    def __exit__(self, *_: object) -> None:
        with closing(self._database):
            self._database.commit()

    def fresh(self, asked: str) -> Fetched | None:
        """Return the answer that this run got before it was stopped, None without one."""
        return self._stored(asked, "and run = ?", self._run)

    def earlier(self, asked: str) -> Fetched | None:
        """Return the newest answer of any run, None without one."""
        return self._stored(asked, "")

    def _stored(self, asked: str, condition: str, *values: int) -> Fetched | None:
        columns = "url, status, headers, content, at, redirects, cut, statuses, seconds"
        query = f"select {columns} from answer where asked = ? {condition}"  # noqa: S608 (no value is in it)
        row = self._database.execute(query, (asked, *values)).fetchone()
        if row is None:
            return None
        url, status, headers, content, at, redirects, cut, statuses, seconds = row
        return Fetched(
            url=url,
            asked=asked,
            status=status,
            headers=json.loads(headers),
            content=content,
            when=datetime.fromisoformat(at),
            redirects=tuple(json.loads(redirects)),
            cut=bool(cut),
            statuses=tuple(json.loads(statuses)),
            seconds=seconds,
        )

    def keep(self, answer: Fetched) -> Fetched:
        """Keep an answer for this run and return it; for status 304 that is the earlier answer with the present
        time."""
        if answer.status == 304:
            before = self.earlier(answer.asked)
            if before is not None:
                answer = replace(before, when=answer.when)
        row = (
            answer.asked,
            self._run,
            answer.url,
            answer.status,
            json.dumps(dict(answer.headers)),
            answer.content,
            answer.when.isoformat(),
            json.dumps(answer.redirects),
            answer.cut,
            json.dumps(answer.statuses),
            answer.seconds,
        )
        self._database.execute("insert or replace into answer values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        if time.monotonic() - self._committed > _COMMIT_EVERY:
            self.commit()
        return answer

    def commit(self) -> None:
        """Commit, so that what was kept survives a kill."""
        self._database.commit()
        self._committed = time.monotonic()

    def finish(self) -> None:
        """End the run: the next crawl asks for changes only. Answers that neither this run nor the one before asked
        for are deleted."""
        self._database.execute("update run set finished = ? where id = ?", (datetime.now(UTC).isoformat(), self._run))
        self._database.execute("delete from answer where run < ?", (self._run - 1,))
        self.commit()
