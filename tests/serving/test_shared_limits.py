"""Limits of keys over several servers of one store: exact over time, whoever comes, ends or fails."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from postgres_server import execute, server
from serving_tasks import serving_apart, wait_until
from study_tasks import write_task

from trimtab.base.files import write_json
from trimtab.serving import shared_limits as limits
from trimtab.serving.access import ApiKey, ApiKeys, key_digest
from trimtab.serving.database import Database
from trimtab.serving.metrics import RequestLog
from trimtab.serving.shared_limits import LimitExchange, shared_limits

__all__ = ["server"]

PER_MINUTE = 60  # so that one request comes back each second, and a bucket holds ten


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of its own. A file holds nothing else, which the exchange itself does not mind."""
    if request.param == "sqlite":
        yield str(tmp_path / "limits.db")
        return
    address = request.getfixturevalue("server")
    execute(f"{address}/postgres", "CREATE DATABASE limited", autocommit=True)
    yield f"{address}/limited"
    execute(f"{address}/postgres", "DROP DATABASE limited WITH (FORCE)", autocommit=True)


class Clock:
    def __init__(self) -> None:
        self.now = 1.0

    def __call__(self) -> float:
        return self.now


class Server:
    """The keys of one server, and its exchange with the others."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.key = ApiKey(name="team-a", sha256="a" * 64, per_minute=PER_MINUTE)
        self.keys = ApiKeys([self.key], clock)
        self.exchange = LimitExchange(database, self.keys)

    def asked(self, times: int) -> int:
        """How many of so many requests are let through now."""
        return sum(not self.keys.seconds_to_wait(self.key) for _ in range(times))


@contextmanager
def servers(store: str, clock: Clock, count: int = 2) -> Iterator[list[Server]]:
    with Database(store, limits._SCHEMA) as database:
        found = [Server(database, clock) for _ in range(count)]
        for one in found:
            one.exchange.run()
        yield found


def test_what_one_server_lets_through_another_does_not(store: str) -> None:
    clock = Clock()
    with servers(store, clock) as (one, two):
        assert one.asked(20) == 10  # the whole bucket
        for each in (one, two):
            each.exchange.run()
        assert two.asked(20) == 0
        clock.now += 5
        assert two.asked(20) == 5


def test_over_two_minutes_the_limit_holds_however_many_servers_are_asked(store: str) -> None:
    clock = Clock()
    with servers(store, clock, 3) as found:
        through = 0
        for _ in range(120):
            clock.now += 1
            through += sum(one.asked(5) for one in found)
            for one in found:
                one.exchange.run()
        initial = sum(10 for _ in found)  # each has a full bucket before it knows of the others
        assert 120 <= through <= 120 + initial


def test_a_server_that_comes_later_owes_nothing_of_before_and_one_that_ends_takes_nothing_back(store: str) -> None:
    clock = Clock()
    with servers(store, clock, 1) as (one,), Database(store, limits._SCHEMA) as database:
        assert one.asked(10) == 10
        one.exchange.run()
        later = Server(database, clock)
        later.exchange.run()
        assert later.asked(3) == 3
        later.exchange.run()
        del later
        clock.now += 60
        one.exchange.run()
        assert one.asked(20) == 7  # a full bucket, less the three
        clock.now += 60
        one.exchange.run()
        assert one.asked(20) == 10


def test_rows_of_servers_that_were_killed_go(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    with servers(store, clock) as (one, _):
        one.asked(1)
        one.exchange.run()
        monkeypatch.setattr(limits, "KEPT_SECONDS", -10)
        with servers(store, clock, 1) as (new,):
            assert new.exchange._known == {}


def test_rows_of_a_server_that_runs_stay_though_nobody_asks_it(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANEW_SECONDS", 0)
    clock = Clock()
    with servers(store, clock) as (one, two), Database(store, limits._SCHEMA) as database:
        one.asked(3)
        one.exchange.run()
        with database.begin() as connection:
            connection.execute(limits._SCHEMA.table(limits._USE).update().values(at=0))
        one.exchange.run()
        with servers(store, clock, 1) as (new,):
            assert list((new.exchange._known or {}).values()) == [3]
            assert new.asked(20) == 10
        two.exchange.run()
        assert two.asked(20) == 7


def test_a_database_that_fails_is_told_once_and_the_server_keeps_its_own_limit(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "EXCHANGE_SECONDS", 0.02)
    execute(f"{server}/postgres", "CREATE DATABASE failing", autocommit=True)
    stream, clock = io.StringIO(), Clock()
    key = ApiKey(name="team-a", sha256="a" * 64, per_minute=PER_MINUTE)
    keys = ApiKeys([key], clock)
    with shared_limits(f"{server}/failing", keys, RequestLog(stream)):
        execute(f"{server}/failing", "DROP TABLE trimtab_limits")
        wait_until(lambda: "limits_not_shared" in stream.getvalue(), 60)
        assert sum(not keys.seconds_to_wait(key) for _ in range(20)) == 10
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [one["what"] for one in lines] == ["limits_not_shared"]
    execute(f"{server}/postgres", "DROP DATABASE failing WITH (FORCE)", autocommit=True)


@pytest.mark.parametrize("place", [None, "judgements.db"])
def test_without_a_common_database_nothing_is_made(
    place: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with shared_limits(place, ApiKeys([]), RequestLog(io.StringIO())):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_real_servers_of_one_database_share_the_limit_of_a_key(
    server: str, tmp_path: Path, tiny_model_folder: Path
) -> None:
    execute(f"{server}/postgres", "CREATE DATABASE served", autocommit=True)
    keys = tmp_path / "keys.json"
    # Six requests at once, and then one in ten seconds: what comes back while the test runs is little.
    write_json(keys, {"keys": [{"name": "team-a", "sha256": key_digest("tt-known"), "per_minute": 36}]})
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    options = ["prompt", "--keys", str(keys), "--store", f"{server}/served"]
    with serving_apart(task, *options) as one, serving_apart(task, *options) as two:

        def status(url: str) -> int:
            return httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer tt-known"}, timeout=60).status_code

        wait_until(lambda: status(one.url) == 429, 60)
        wait_until(lambda: max(_taken(f"{server}/served"), default=0) >= 6, 60)
        assert status(two.url) == 200  # it may not know of the other yet
        wait_until(lambda: len(_taken(f"{server}/served")) == 2, 60)  # now it does
        through = 0
        while status(two.url) == 200:
            through += 1
        assert through < 4  # of the five that its own bucket still held
    execute(f"{server}/postgres", "DROP DATABASE served WITH (FORCE)", autocommit=True)


def _taken(place: str) -> list[int]:
    import psycopg

    with psycopg.connect(place) as connection:
        return [int(row[0]) for row in connection.execute("SELECT taken FROM trimtab_limits")]
