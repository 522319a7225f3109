"""A real PostgreSQL server for tests, started where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

USER = "keeper"


def _programs(extension: str, without: str) -> Path | None:
    """Return the programs of a server that has an extension, or lacks one; each "" for any."""
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next(
        (
            place
            for place in places
            if (place / "initdb").is_file()
            and (not extension or _has(place, extension))
            and (not without or not _has(place, without))
        ),
        None,
    )


def _has(programs: Path, extension: str) -> bool:
    """True if a server's files include an extension: as Debian lays them out, or as PostgreSQL itself does."""
    shares = [programs.parents[3] / "share" / "postgresql" / programs.parent.name, programs.parent / "share"]
    shares.append(programs.parent / "share" / "postgresql")
    return any((share / "extension" / f"{extension}.control").is_file() for share in shares)


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
    yield from server_of()


def server_of(extension: str = "", *, without: str = "") -> Generator[str, None, None]:
    """Yield the address of such a server, one that has an extension, or one that lacks it."""
    programs = _programs(extension, without)
    if programs is None:
        wanted = f" with {extension}" if extension else f" without {without}" if without else ""
        pytest.skip(f"no PostgreSQL{wanted} is installed here")
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
