"""Kills writers of a registry with SIGKILL at random moments, and checks each time that everything acknowledged is
there.

Run: python benchmarks/registry_crashes.py  →  benchmarks/results/registry_crashes.json

In a cycle several processes register versions, move aliases, roll back and collect files, all in one registry, until
each is killed: by a clock, after some acknowledgements, or at one of its own writes (before it or after it). A process
writes down every call that returned. Then, from outside: every version and move that was acknowledged is there as it
was acknowledged; no number was given twice; every move says from which version the one before it had moved; every
version that was not collected is whole, by the hashes of its files, and so is the version that every alias names.
After ROTATE cycles a registry is read through (SQLite's own check too) and the next begins with none there, so that
making it is killed, too. With --postgres ADDRESS the same on a PostgreSQL server, in databases that are made there
and dropped.

The result is written after every registry. A run goes on from the result in --out, up to --cycles in all; delete that
file to begin anew. Writers are forked from a process that has used a registry before, so that a cycle spends its time
on writes, not on imports. A killed process leaves the system standing: what a power cut does is not shown. It forks:
Linux or macOS.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Engine, event

from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import read_json, write_atomic, write_json
from trimtab.base.machine import describe_machine
from trimtab.base.task import Task, load_task
from trimtab.upkeep.registry import Registry, registry
from trimtab.upkeep.versions import Lineage, Version

RESULT = Path(__file__).resolve().parent / "results" / "registry_crashes.json"
ALIASES = ("production", "candidate")
ROTATE = 10  # cycles of one registry; each of its records is read again after every cycle
DEATHS = (1, 3, 3)  # shares of deaths: by a clock from the start, after acknowledgements, at a write of its own
LONGEST, PATIENCE = 0.2, 60.0  # seconds of that clock at most, and after which every writer is dead
MOST_TOLD = 24  # acknowledgements of a cycle, after which every writer is dead
MOST_WRITES = 60  # of its own, at one of which a process dies
FILES = ("bundle.json", "run/adapter/weights")
DRAFT = Version(
    number=None,
    task="crashes",
    arm="lora",
    parent=None,
    created=datetime(2026, 1, 1, tzinfo=UTC),
    by="nobody",
    source="made",
    artifact_sha256=None,
    weights_sha256=None,
    index_sha256=None,
    base=None,
    settings={},
)


class Dying:
    """Kills this process at its `write`-th write that Python sees: files synced, renamed, linked or deleted, and
    commits."""

    def __init__(self, write: int, late: bool) -> None:
        self.left, self.late = write, late
        for name in ("fsync", "replace", "link", "unlink", "mkdir"):
            setattr(os, name, self.counted(getattr(os, name)))
        event.listen(Engine, "commit", lambda _: self.counted(lambda: None)())

    def counted(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            self.left -= 1
            if not self.left and not self.late:
                os.kill(os.getpid(), signal.SIGKILL)
            found = write(*given, **named)
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return call


def write_for_ever(
    open_it: Callable[[], Registry], file: Path, folder: Path, draw: random.Random, told: Any, place: int
) -> None:
    """Register, promote, roll back and collect without end; write each acknowledgement as a line of `file`, and count
    it in `told`.

    Ends where the process that would kill it is gone.
    """
    parent = os.getppid()
    acknowledged = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    mine = open_it()
    known: list[int] = []
    for turn in range(1_000_000):
        if os.getppid() != parent:
            return
        act = draw.random()
        try:
            if act < 0.45 or not known:
                made = bundle(folder, f"{os.getpid()}-{turn}-{draw.random()}")
                version = mine.add(replace(DRAFT, source=made.name), made)
                known.append(version.number or 0)
                line = f"version {version.number} {version.artifact_sha256}"
            elif act < 0.8:
                move = mine.promote(draw.choice(known[-8:]), draw.choice(ALIASES), why=f"turn {turn}", by="writer")
                line = f"move {move.number} {move.alias} {move.previous} {move.version}"
            elif act < 0.94:
                move = mine.rollback(draw.choice(ALIASES), why=f"turn {turn}", by="writer")
                line = f"move {move.number} {move.alias} {move.previous} {move.version}"
            else:
                mine.gc(draw.randint(1, 4))
                known = [one.version for one in mine.list() if not one.collected][:8] or known
                line = "gc"
        except (InputError, MissingError) as error:  # named already, collected, nothing to go back to
            line = f"refused {type(error).__name__}"
        os.write(acknowledged, f"{line}\n".encode())
        told[place] += 1


def bundle(folder: Path, text: str) -> Path:
    """Return a folder to register: one file of its own, and one that versions share."""
    made = folder / str(os.getpid())
    shutil.rmtree(made, ignore_errors=True)
    for name, content in zip(FILES, (text, f"shared {len(text) % 3}" * 2000), strict=True):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(content)
    return made


def cycle(open_it: Callable[[], Registry], home: Path, writers: int, draw: random.Random) -> int:
    """Start writers and kill them; return the number that ended by an error instead.

    Some die by a clock that begins with them, so while they open the registry; some once so many acknowledgements
    were given in all, however long that takes on a busy machine; some at a write of their own, or with the last of
    the others.
    """
    told = RawArray("q", writers)
    deaths: dict[int, tuple[float, int]] = {}  # seconds from the start, acknowledgements
    begun = time.monotonic()
    for number in range(writers):
        seed, how = draw.random(), draw.choices(("clock", "told", "write"), DEATHS)[0]
        dies = (draw.randint(1, MOST_WRITES), draw.random() < 0.5)
        child = os.fork()
        if not child:
            try:
                if how == "write":
                    Dying(*dies)
                write_for_ever(open_it, home / f"told-{number}", home / "made", random.Random(seed), told, number)
            finally:
                traceback.print_exc()
                os._exit(1)
        after = draw.random() * LONGEST if how == "clock" else PATIENCE
        deaths[child] = (after, draw.randint(1, MOST_TOLD) if how == "told" else MOST_TOLD)
    fallen = 0
    while deaths:
        since, given = time.monotonic() - begun, sum(told)
        for child, (after, count) in list(deaths.items()):
            if since >= after or given >= count:
                os.kill(child, signal.SIGKILL)
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                fallen += os.waitstatus_to_exitcode(status) != -signal.SIGKILL
                del deaths[child]
        time.sleep(0.002)
    return fallen


def lost(found: Lineage, home: Path, counts: Counter[str]) -> Iterator[str]:
    """Yield what writers were told is registered and is not, or was told to two of them."""
    versions = {one.number: one for one in found.versions}
    moves = {one.number: one for one in found.moves}
    seen: Counter[str] = Counter()
    for line in (line for file in home.glob("told-*") for line in file.read_text().splitlines()):
        kind, *words = line.split()
        counts[kind] += 1
        if kind == "version":
            seen[f"version {words[0]}"] += 1
            kept = versions.get(int(words[0]))
            if kept is None or kept.artifact_sha256 != words[1]:
                yield f"acknowledged version {words[0]} is lost"
        elif kind == "move":
            seen[f"move {words[0]}"] += 1
            move = moves.get(int(words[0]))
            if move is None or [move.alias, str(move.previous), str(move.version)] != words[1:]:
                yield f"acknowledged move {words[0]} is lost"
    yield from (f"{name} was told twice" for name, times in seen.items() if times > 1)


def wrong(mine: Registry, home: Path, counts: Counter[str]) -> Iterator[str]:
    """Yield the faults of a registry after a cycle."""
    found = mine.lineage()
    yield from lost(found, home, counts)
    yield from unsound(found)
    whole = [one for one in found.versions if one.number not in found.collected]
    for one in whole:
        try:
            mine.artifacts.check(one.artifact_sha256 or "")
        except (InputError, MissingError) as error:
            yield f"version {one.number} is not whole: {error}"
    versions = {one.number for one in found.versions}
    for alias, number in found.aliases.items():
        if number in found.collected or number not in versions:
            yield f"{alias} names version {number}, which is not whole"
    counts["versions found"], counts["moves found"] = len(versions), len({one.number for one in found.moves})


def unsound(found: Lineage) -> Iterator[str]:
    """Yield the moves that do not say from where the one before them had moved."""
    named: dict[str, int] = {}
    for move in found.moves:
        if move.previous != named.get(move.alias):
            yield f"move {move.number} of {move.alias} says it was {move.previous}, and it was {named.get(move.alias)}"
        named[move.alias] = move.version


@contextmanager
def place(postgres: str | None, home: Path, number: int) -> Iterator[str]:
    """Context manager: yields the address of a registry: a file, or a database of its own."""
    if postgres is None:
        yield str(home / "registry.db")
        return
    import psycopg

    name = f"crashes_{os.getpid()}_{number}"
    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    try:
        yield f"{postgres}/{name}"
    finally:
        with psycopg.connect(f"{postgres}/postgres", autocommit=True) as server:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


def warm_up() -> None:
    """Use a registry once, so that processes forked from here have every module and cache."""
    with tempfile.TemporaryDirectory(prefix="crashes-") as scratch:
        home = Path(scratch)
        # Where a registry is wrong, it is the cycles that tell.
        with suppress(InputError, MissingError), registry(laid_out(home), home / "registry.db") as mine:
            for text in ("first", "second"):
                version = mine.add(DRAFT, bundle(home / "made", text))
                mine.promote(version.number or 0, why="warm", by="nobody")
            mine.rollback(why="warm", by="nobody")
            mine.gc(1)
            mine.list()
    gc.freeze()  # a collection in a child would copy the pages of all that it inherits


def laid_out(home: Path) -> Task:
    """Write a task into a folder and load it."""
    write_atomic(home / "trimtab.toml", TASK)
    write_atomic(home / "rows.jsonl", '{"input": "a", "output": "b"}\n')
    return load_task(home)


def crashes(
    cycles: int,
    writers: int,
    postgres: str | None,
    seed: int,
    say: Callable[[str], None],
    before: dict[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Run cycles until there are so many, including those of `before`; yield the figures so far after every
    registry."""
    before = before or {}
    total = Counter[str]({**before.get("acknowledged", {}), "fell": before.get("writers_that_fell_by_themselves", 0)})
    total.update({f"{kind} found": count for kind, count in before.get("found", {}).items()})
    done, faults, registries = (before.get(name, 0) for name in ("cycles", "faults", "registries"))
    draw = random.Random(f"{seed} {done}")
    began = time.monotonic() - before.get("seconds", 0.0)
    warm_up()
    while done < cycles:
        registries += 1
        with (
            tempfile.TemporaryDirectory(prefix="crashes-") as scratch,
            place(postgres, Path(scratch), registries) as where,
        ):
            home = Path(scratch)
            open_it = partial(registry, laid_out(home), where, artifacts=home / "artifacts")
            counts: Counter[str] = Counter()
            for _ in range(min(ROTATE, cycles - done)):
                total["fell"] += cycle(open_it, home, writers, draw)
                counts = Counter()
                with open_it() as mine:
                    for fault in wrong(mine, home, counts):
                        faults += 1
                        say(f"cycle {done}: {fault}")
                done += 1
            total += counts
            if postgres is None and (said := checked(Path(where))) != "ok":
                faults += 1
                say(f"SQLite says: {said}")
        say(f"{done} cycles, {faults} faults, {time.monotonic() - began:.0f} s")
        yield {
            "cycles": done,
            "writers": writers,
            "kills": done * writers - total["fell"],
            "registries": registries,
            "acknowledged": {kind: total[kind] for kind in ("version", "move", "gc", "refused")},
            "found": {kind: total[f"{kind} found"] for kind in ("versions", "moves")},
            "writers_that_fell_by_themselves": total["fell"],
            "faults": faults,
            "seconds": time.monotonic() - began,
        }


TASK = """[task]
name = "crashes"
kind = "answer"
[data]
examples = ["rows.jsonl"]
[base]
model = "smollm2-135m-q4"
"""


def checked(file: Path) -> str:
    """Return what SQLite finds wrong with a file of its own; "ok" for nothing."""
    database = sqlite3.connect(file)
    try:
        return str(database.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument(
        "--postgres", metavar="ADDRESS", help="postgresql://USER@HOST:PORT, where databases may be made"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    store = "postgresql" if given.postgres else "sqlite"
    libraries = {"sqlite": sqlite3.sqlite_version, "sqlalchemy": sqlalchemy.__version__}
    before = (read_json(given.out) if given.out.is_file() else {}).get(store, {})
    if before.get("writers") not in (None, given.writers):
        parser.error(f"{given.out} holds cycles of {before['writers']} writers")
    found: dict[str, Any] = before
    for found in crashes(
        given.cycles, given.writers, given.postgres, given.seed, lambda line: print(line, flush=True), before
    ):
        others = read_json(given.out) if given.out.is_file() else {}
        told = {"machine": describe_machine(), "versions": libraries, **found}
        write_json(given.out, {**others, store: told})  # whenever it is stopped, what was done stands there
    print(found)
    sys.exit(bool(found["faults"] or found["writers_that_fell_by_themselves"]))


if __name__ == "__main__":
    main()
