"""The same store in a real PostgreSQL server, which the test starts where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from judged import judgement

from trimtab.base.errors import InputError, MissingError, RemoteError, VersionError
from trimtab.serving.feedback import Store

USER = "keeper"


def _programs() -> Path | None:
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").is_file()), None)


def _owner() -> dict[str, Any]:
    """Whom the server runs as: it refuses root."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    name = next((name for name in ("postgres", "nobody") if name in names), None)
    if name is None:
        pytest.skip("PostgreSQL refuses root, and there is no other user here")
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server on a free port of this machine, with nothing in it."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL is installed here")
    owner = _owner()
    with TemporaryDirectory(prefix="pg") as home, socket.socket() as probe:  # short: it holds a socket's path
        if owner:
            shutil.chown(home, owner["user"])
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        data = f"{home}/data"
        made = [programs / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, cwd=home, **owner)
        begun = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", port, "-k", home, "-F"]
        process = subprocess.Popen(begun, stderr=subprocess.DEVNULL, cwd=home, **owner)
        try:
            ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", port]
            until = time.monotonic() + 60
            while subprocess.run(ready, capture_output=True).returncode != 0:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
            yield f"postgresql://{USER}:secret@127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def place(server: str) -> Iterator[str]:
    """A database of its own."""
    import psycopg

    def run(words: str) -> None:
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(words)

    run("CREATE DATABASE judged")
    yield f"{server}/judged"
    run("DROP DATABASE judged WITH (FORCE)")


def execute(place: str, words: str) -> None:
    import psycopg

    with psycopg.connect(place) as connection:
        connection.execute(words)


def test_judgements_come_back_whole_and_by_time(place: str) -> None:
    later, first = judgement(at=9, session="ünï\n🙂"), judgement("like", "'; DROP TABLE x; --", at=1)
    with Store(place) as store:
        store.add(later)
        store.add(first)
        with pytest.raises(InputError, match="is kept already"):
            store.add(first)
        assert store.all() == (first, later)
    with Store(place, make=False) as again:
        assert again.count() == 2


def test_several_servers_make_and_fill_one_store(place: str) -> None:
    def server(name: str) -> None:
        with Store(place) as store:
            for number in range(25):
                store.add(judgement(id=f"{name}-{number}"))

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(server, "abcdef"))
    with Store(place) as store:
        assert {one.id for one in store} == {f"{name}-{number}" for name in "abcdef" for number in range(25)}


def test_a_database_may_hold_other_things_and_only_a_store_is_read(place: str) -> None:
    execute(place, "CREATE TABLE bookmarks (place TEXT)")
    with pytest.raises(MissingError, match="no judgements are kept there"):
        Store(place, make=False)
    with Store(place) as store:
        store.add(judgement())
    execute(place, "UPDATE trimtab_form SET number = 7")
    with pytest.raises(VersionError, match="form 7"):
        Store(place)
    execute(place, "DROP TABLE trimtab_form")
    with pytest.raises(InputError, match="is no store of judgements"):
        Store(place)


def test_a_server_that_is_away_is_told_without_the_password(server: str) -> None:
    nowhere = server.rpartition(":")[0] + ":9/judged"
    with pytest.raises(RemoteError, match="is the server running") as told:
        Store(nowhere)
    assert "secret" not in str(told.value)
    assert "\n" not in str(told.value)
    with pytest.raises(RemoteError, match='database "absent" does not exist'):
        Store(f"{server}/absent")


def test_a_server_that_went_away_and_came_back_is_found_again(place: str, server: str) -> None:
    with Store(place) as store:
        store.add(judgement(id="before"))
        execute(
            f"{server}/postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'judged' AND pid <> pg_backend_pid()",
        )
        store.add(judgement(id="after"))
        assert store.count() == 2
