"""A real PostgreSQL server for tests, started where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

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


def execute(place: str, words: str, *, autocommit: bool = False) -> None:
    """Run a statement in a database."""
    import psycopg

    with psycopg.connect(place, autocommit=autocommit) as connection:
        connection.execute(words)
