"""The registry: immutable versions of a task's arms, aliases that name one of them with every move, and canaries
with their ends."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, TypeVar

from trimtab.arms.workspace import FOLDER
from trimtab.base.errors import EXIT_NO, InputError, MissingError, TrimtabError
from trimtab.base.files import refuse_links, write_atomic
from trimtab.base.machine import user_name
from trimtab.base.progress import Listener
from trimtab.base.sanitize import printable
from trimtab.base.task import TASK_FILE, Task, as_task
from trimtab.serving.database import Closing, Database, is_address, record_text
from trimtab.serving.releases import Canary, Release
from trimtab.studies.consent import require_store_consent
from trimtab.upkeep.artifacts import Artifacts
from trimtab.upkeep.canary_records import CanaryRecord, CanaryTally
from trimtab.upkeep.config import upkeep_of
from trimtab.upkeep.tables import (
    CANARIES,
    CANARY_ENDS,
    CANARY_TALLIES,
    COLLECTED,
    MOVES,
    SCHEMA,
    VERSIONS,
)
from trimtab.upkeep.versions import Collected, GateRecord, Lineage, ListedVersion, Move, Version

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from trimtab.upkeep.register import Measurement

FILE, ARTIFACTS, SERVED = "registry.db", "artifacts", "served"
PRODUCTION, CANDIDATE = "production", "candidate"  # aliases that commands know
KEEP = 5  # moves of each alias, and newest versions, whose files `gc` leaves
_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,63}")
_LONGEST = 2000  # letters of why
Numbered = TypeVar("Numbered", Version, Move, Canary)


class GateClosedError(TrimtabError, ValueError):
    """Error of a promotion whose evidence does not show the candidate to be good enough."""

    exit_code = EXIT_NO


def registry(
    task: str | Path | Task = TASK_FILE,
    address: str | Path | None = None,
    *,
    artifacts: str | Path | None = None,
    make: bool = True,
) -> Registry:
    """Open the registry of a task: at `address`, a file or a `postgresql://` URL, else where `[upkeep] registry`
    says, else `.trimtab/registry.db`.

    `artifacts`: where the files of versions lie, a folder or an address that fsspec opens (`s3://…`); the folder
    `artifacts` beside an SQLite file unless it is named, while with PostgreSQL it has to be named where files are
    read or written. Without `make` nothing is made where there is no registry, and MissingError is raised. Raises as
    `Database` does.
    """
    own = as_task(task)
    home = own.folder / FOLDER
    stated_address = upkeep_of(own).registry.removeprefix("sqlite:///") if address is None else ""
    stated_artifacts = upkeep_of(own).artifacts if artifacts is None else ""
    stated = ((stated_address, "--registry"), (stated_artifacts, "--artifacts"))
    require_store_consent(own, [(place, option) for place, option in stated if place])
    if stated_address:
        address = _below(own.folder, stated_address)
    if stated_artifacts:
        artifacts = _below(own.folder, stated_artifacts)
    place = str(address) if address is not None else str(home / FILE)
    if address is None:
        refuse_links(home)
    if artifacts is None and not is_address(place):
        artifacts = Path(place).absolute().parent / ARTIFACTS
    return Registry(place, artifacts, task=own, make=make)


def _below(folder: Path, place: str) -> str:
    """Return a place that a task file names: an address unchanged, a path relative to the file's folder."""
    return place if "://" in place else str(folder / place)


class Registry(Closing):
    """Versions of one task's arms, their files, and the aliases that point to them. Several processes may write at
    once.

    A number is given by the database, once. What a method returned is on the disk. The order of moves is the
    database's own: where two move one alias, the later of them there holds, and each says from which version it
    moved.
    """

    def __init__(self, address: str | Path, artifacts: str | Path | None, *, task: Task, make: bool = True) -> None:
        self.task, self._name, self._place = task, task.task.name, artifacts
        self._database = Database(address, SCHEMA, make=make)
        self.name = self._database.name

    @cached_property
    def artifacts(self) -> Artifacts:
        """Return the store of the versions' files; raises InputError if its place is not known."""
        if self._place is None:
            problem = "a registry in PostgreSQL, and no place for the files of its versions"
            raise InputError(problem, "name a folder that all share, or s3://BUCKET/FOLDER", field="--artifacts")
        return Artifacts(self._place)

    def register(
        self,
        arm: str | None = None,
        *,
        run: str | None = None,
        parent: int | None = None,
        by: str | None = None,
        allow: Sequence[str] = (),
        listeners: Sequence[Listener] | None = None,
        dry_run: bool = False,
        measured: Measurement | None = None,
    ) -> Version:
        """Register a version of an arm as measured or trained: the winner of the newest study unless one is named.

        `run`: the study or run to take its weights from. `parent`: the version it follows, the one in production
        unless another is named. `measured`: since that study or run. The arm is written as a bundle and asked back
        before it counts. `allow` and `listeners` are those of `study`. Raises InputError where it does not answer as it
        did, and where it would answer from other documents or shots than it was measured with; MissingError where there
        is no such arm.
        """
        from trimtab.upkeep.register import described, written

        draft = described(self.task, arm, run, measured)
        draft = replace(draft, parent=self._parent(parent), created=_now(), by=by or user_name())
        if dry_run:
            return draft
        with written(self.task, draft, run, allow, listeners, measured) as (folder, whole):
            return self.add(whole, folder)

    def add(self, draft: Version, folder: Path) -> Version:
        """Add a version that was made: first every file of `folder` to the store of artifacts, then the row that
        names them."""
        with TemporaryDirectory() as scratch:
            artifact = self.artifacts.put(folder, Path(scratch))
            with self._database.exclusive() as connection:
                if self.artifacts.lacks(artifact):  # a `gc` that ran meanwhile took files that no version named yet
                    self.artifacts.put(folder, Path(scratch))
                kept = replace(draft, artifact_sha256=artifact, task=self._name)
                row = {"task": self._name, "record": record_text(replace(kept, number=None))}
                number = connection.execute(SCHEMA.table(VERSIONS).insert(), row).inserted_primary_key[0]  # type: ignore[index]
        return replace(kept, number=int(number))

    def promote(
        self,
        version: int,
        alias: str = PRODUCTION,
        *,
        why: str,
        evidence: GateRecord | None = None,
        by: str | None = None,
        dry_run: bool = False,
    ) -> Move:
        """Point an alias to a version, after reading all its files.

        `evidence`: what a gate found; GateClosedError unless it was passed, and "not shown" is no pass. Raises
        MissingError for a version that is not there, InputError for one whose files are gone or damaged, and where
        the alias names it already.
        """
        _require_why(why)
        _require_alias(alias)
        if evidence is not None and evidence.passed is not True:
            why_not = "was not passed" if evidence.passed is False else "shows nothing (passed: null), which is no pass"
            raise GateClosedError(f"{alias} stays as it is: the gate for version {version} {why_not}")
        with self._database.snapshot() as connection:
            found = self._whole(connection, version)
        self.artifacts.check(_artifact_of(found))
        with self._database.exclusive() as connection:
            self._whole(connection, version)  # not collected meanwhile
            before = self._moves(connection, alias)
            if before and before[-1].version == version:
                raise InputError(f"{alias} names version {version} already", "there is nothing to do", file=self.name)
            return self._move(connection, alias, version, before, "promote", why, by, evidence, dry_run=dry_run)

    def rollback(self, alias: str = PRODUCTION, *, why: str, by: str | None = None, dry_run: bool = False) -> Move:
        """Point an alias back to the version before its last promotion that stands.

        A second rollback goes one promotion further back. Where the version that production is taken back from is
        also the `candidate`, that alias moves to production's version, too. Raises MissingError where there is
        nothing to go back to, InputError where the files of that version are gone or damaged.
        """
        _require_why(why)
        _require_alias(alias)
        with self._database.exclusive() as connection:
            before = self._moves(connection, alias)
            standing = _standing(before)
            if len(standing) < 2:
                named = f"has named version {standing[0]} alone" if standing else "names no version"
                problem = f"{alias} {named}, so that there is nothing to go back to"
                raise MissingError(f"{self.name}: {problem}; {self._promote_to(connection, alias, standing)}")
            version = standing[-2]
            self.artifacts.check(_artifact_of(self._whole(connection, version)))
            moved = self._move(connection, alias, version, before, "rollback", why, by, None, dry_run=dry_run)
            if alias == PRODUCTION and not dry_run:
                self._withdraw(connection, standing[-1], why, by)
            return moved

    def current(self, alias: str = PRODUCTION) -> Version:
        """Return the version that an alias points to; raises MissingError if there is no such alias."""
        _require_alias(alias)
        with self._database.snapshot() as connection:
            moves = self._moves(connection, alias)
            if not moves:
                known = ", ".join(dict.fromkeys(move.alias for move in self._moves(connection))) or "none yet"
                problem = f"no alias {alias} of {self._name} (there are: {known})"
                raise MissingError(f"{self.name}: {problem}; {self._promote_to(connection, alias, ())}")
            return self._version(connection, moves[-1].version)

    def show(self, version: int | str) -> Version:
        """Return a version by its number, or by an alias that points to it."""
        if isinstance(version, str) and not version.isdigit():
            return self.current(version)
        with self._database.snapshot() as connection:
            return self._version(connection, int(version))

    def list(self) -> tuple[ListedVersion, ...]:
        """Return every version, the newest first, with the aliases that point to it now."""
        found = self.lineage()
        named = found.aliases
        return tuple(
            ListedVersion(
                version=one.number or 0,
                arm=one.arm,
                aliases=", ".join(alias for alias, number in named.items() if number == one.number),
                score=one.score.value if one.score else None,
                created=one.created,
                by=one.by,
                source=one.source,
                collected=one.number in found.collected,
            )
            for one in reversed(found.versions)
        )

    def history(self, alias: str | None = None) -> tuple[Move, ...]:
        """Return every move of an alias, or of all, the newest first."""
        if alias is not None:
            _require_alias(alias)
        with self._database.snapshot() as connection:
            return self._moves(connection, alias)[::-1]

    def lineage(self, page: str | Path | None = None) -> Lineage:
        """Return the lineage from rows and judgements to what is served: every version with its origins, and every
        move.

        `page`: a file for the same as an HTML page.
        """
        from sqlalchemy import select

        versions = SCHEMA.table(VERSIONS)
        wanted = (
            select(versions.c.number, versions.c.record)
            .where(versions.c.task == self._name)
            .order_by(versions.c.number)
        )
        with self._database.snapshot() as connection:
            found = tuple(self._read(Version, number, text) for number, text in connection.execute(wanted))
            moves, gone = self._moves(connection), self._collected(connection)
        collected = tuple(one.number for one in found if one.number is not None and one.number in gone)
        drawn = Lineage(task=self._name, versions=found, moves=moves, collected=collected)
        if page is None:
            return drawn
        from trimtab.upkeep.lineage_page import render_lineage

        write_atomic(Path(page), render_lineage(drawn))
        return replace(drawn, page=str(page))

    def gc(self, keep: int = KEEP, *, dry_run: bool = False, by: str | None = None) -> Collected:
        """Delete the files of versions that are no longer needed; their records stay.

        Whole stay the versions that an alias names, those that the last `keep` moves of each alias went to or came
        from, and the `keep` newest. Files that versions share stay as long as one of these is whole.
        """
        if keep < 1:
            raise InputError("keeps nothing to go back to", "give at least 1", field="--keep")
        found = self.lineage()
        with self._database.exclusive() as connection:
            gone, taken = self._collected(connection), self._dispensable(connection, keep)
            if not dry_run:  # on the disk before a file goes: no alias can be moved to one of them from here on
                record = json.dumps({"when": _now().isoformat(), "who": by or user_name()})
                for version in taken:
                    connection.execute(SCHEMA.table(COLLECTED).insert(), {"version": version, "record": record})
        with self._database.exclusive() as connection:
            live = self._live_artifacts(connection, () if not dry_run else taken)
            garbage = self.artifacts.garbage(live)
            if not dry_run:
                self.artifacts.remove(garbage)
        numbers = (one.number for one in found.versions if one.number is not None)
        return Collected(
            dry_run=dry_run,
            versions=taken,
            kept=tuple(number for number in numbers if number not in {*gone, *taken}),
            files=len(garbage),
            bytes=sum(garbage.values()),
        )

    def follow(self, alias: str = PRODUCTION) -> Callable[[Collection[int]], Release | None]:
        """Return a function that `serve` calls for the version that an alias points to now, with its files on this
        machine.

        The function takes the numbers of the versions that a server has already, and returns None for one of these.
        """
        _require_alias(alias)

        def release(known: Collection[int] = ()) -> Release | None:
            version = self.current(alias)
            if version.number is None or version.number in known:
                return None
            return self.release(version.number, alias)

        return release

    def release(self, version: int, alias: str = PRODUCTION) -> Release:
        """Return a version with its files on this machine, to be served under an alias."""
        artifact = _artifact_of(self.show(version))
        home = self.task.folder / FOLDER / SERVED
        home.mkdir(parents=True, exist_ok=True)
        return Release(alias=alias, version=version, folder=self.artifacts.get(artifact, home / artifact[:16]))

    def begin_canary(self, canary: Canary) -> Canary:
        """Begin a canary of a candidate whose files are whole.

        Raises InputError where one is open, or production has moved meanwhile.
        """
        with self._database.snapshot() as connection:
            found = self._whole(connection, canary.candidate)
        self.artifacts.check(_artifact_of(found))
        with self._database.exclusive() as connection:
            self._whole(connection, canary.candidate)
            if (other := self._open_canary(connection)) is not None:
                remedy = f"wait for its end, or run: {self.task.command('canary stop')}"
                problem = f"canary {other.number} of version {other.candidate} is open already"
                raise InputError(problem, remedy, file=self.name)
            moves = self._moves(connection, PRODUCTION)
            if not moves or moves[-1].version != canary.production:
                problem = f"{PRODUCTION} does not name version {canary.production} any more"
                raise InputError(problem, "begin again", file=self.name)
            row = {"task": self._name, "record": record_text(replace(canary, number=None))}
            number = connection.execute(SCHEMA.table(CANARIES).insert(), row).inserted_primary_key[0]  # type: ignore[index]
        return replace(canary, number=int(number))

    def canary(self) -> Canary | None:
        """Return the canary that is open, if any."""
        with self._database.snapshot() as connection:
            return self._open_canary(connection)

    def canary_records(self) -> tuple[CanaryRecord, ...]:
        """Return the records of all canaries of the task that ended, the newest first."""
        with self._database.snapshot() as connection:
            return self._ended_canaries(connection)[::-1]

    def end_canary(self, record: CanaryRecord) -> CanaryRecord:
        """End a canary; where the candidate is promoted, production moves in the same transaction.

        Where it is rolled back, the alias `candidate` moves to production's version, if it named this one. Returns
        how it ended: as somebody else ended it, where that came first. Where production was moved by hand meanwhile,
        it ends undecided and production stays as it is. Raises as `promote` for a candidate whose files are gone or
        damaged.
        """
        canary = record.canary
        if record.passed:
            with self._database.snapshot() as connection:
                found = self._whole(connection, canary.candidate)
            self.artifacts.check(_artifact_of(found))
        with self._database.exclusive() as connection:
            ended = (other for other in self._ended_canaries(connection) if other.canary.number == canary.number)
            if (first := next(ended, None)) is not None:
                return first
            before = self._moves(connection, PRODUCTION)
            if before[-1].version != canary.production:
                why = f"{PRODUCTION} was moved to version {before[-1].version} meanwhile"
                record = replace(record, outcome="undecided", why=why)
            if record.passed:
                why = f"canary {canary.number}: {record.why}"[:_LONGEST]
                self._move(
                    connection, PRODUCTION, canary.candidate, before, "promote", why, record.who, record, dry_run=False
                )
            row = {"canary": canary.number, "record": record_text(record)}
            connection.execute(SCHEMA.table(CANARY_ENDS).insert(), row)
            if record.outcome == "rolled_back":
                self._withdraw(connection, canary.candidate, f"canary {canary.number}: {record.why}", record.who)
        return record

    def keep_tally(self, canary: int, server: str, tally: CanaryTally) -> None:
        """Store what a server has counted of a canary so far, in place of its earlier tally."""
        from sqlalchemy import delete

        tallies = SCHEMA.table(CANARY_TALLIES)
        with self._database.exclusive() as connection:
            connection.execute(delete(tallies).where(tallies.c.canary == canary, tallies.c.server == server))
            row = {"canary": canary, "server": server, "record": record_text(tally)}
            connection.execute(tallies.insert(), row)

    def tallies(self, canary: int) -> tuple[CanaryTally, ...]:
        """Return what each server has counted of a canary."""
        from sqlalchemy import select

        tallies = SCHEMA.table(CANARY_TALLIES)
        with self._database.snapshot() as connection:
            texts = connection.execute(select(tallies.c.record).where(tallies.c.canary == canary)).scalars()
            what = f"what a server counted of canary {canary}"
            return tuple(self._database.parse(CanaryTally, what, text) for text in texts)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def _parent(self, parent: int | None) -> int | None:
        """Return the number of the version that a new one follows."""
        with self._database.snapshot() as connection:
            if parent is not None:
                return self._version(connection, parent).number
            moves = self._moves(connection, PRODUCTION)
            return moves[-1].version if moves else None

    def _promote_to(self, connection: Connection, alias: str, standing: Sequence[int]) -> str:
        """Return how an alias gets a version, other than those that it has named."""
        named = "" if alias == PRODUCTION else f" --alias {alias}"
        promote = self.task.command(f'registry promote VERSION{named} --why "…"')
        other = "another" if standing else "a"
        if not self._numbers(connection):
            return f"make a version of a measured arm first: {self.task.command('registry register')}"
        if alias == CANDIDATE:
            try_it = self.task.command("canary start --version VERSION")
            return f"make a candidate with: {self.task.command('refresh')}, or try a version with: {try_it}"
        versions = f"{self.task.command('registry list')} lists the versions"
        return f"give it {other} version with: {promote} ({versions})"

    def _version(self, connection: Connection, number: int) -> Version:
        from sqlalchemy import select

        versions = SCHEMA.table(VERSIONS)
        wanted = select(versions.c.record).where(versions.c.number == number, versions.c.task == self._name)
        text = connection.execute(wanted).scalar() if 0 < number < 2**63 else None
        if text is None:
            raise MissingError(
                f"{self.name}: no version {number} of {self._name}; {self.task.command('registry list')} lists them"
            )
        return self._read(Version, number, text)

    def _whole(self, connection: Connection, number: int) -> Version:
        """Return a version whose files are there; raises InputError if `gc` has deleted them."""
        found = self._version(connection, number)
        if number in self._collected(connection):
            remedy = f"register that arm again: {self.task.command(f'registry register {found.arm}')}"
            raise InputError(f"the files of version {number} were collected", remedy, file=self.name)
        return found

    def _collected(self, connection: Connection) -> set[int]:
        from sqlalchemy import select

        return set(connection.execute(select(SCHEMA.table(COLLECTED).c.version)).scalars())

    def _moves(self, connection: Connection, alias: str | None = None) -> tuple[Move, ...]:
        """Return the moves of an alias, or of all, in the database's order."""
        from sqlalchemy import select

        moves = SCHEMA.table(MOVES)
        wanted = select(moves.c.number, moves.c.record).where(moves.c.task == self._name).order_by(moves.c.number)
        if alias is not None:
            wanted = wanted.where(moves.c.alias == alias)
        return tuple(self._read(Move, number, text) for number, text in connection.execute(wanted))

    def _open_canary(self, connection: Connection) -> Canary | None:
        """Return the one canary that has begun and not ended."""
        from sqlalchemy import select

        canaries, ends = SCHEMA.table(CANARIES), SCHEMA.table(CANARY_ENDS)
        wanted = (
            select(canaries.c.number, canaries.c.record)
            .outerjoin(ends, ends.c.canary == canaries.c.number)
            .where(canaries.c.task == self._name, ends.c.canary.is_(None))
        )
        found = connection.execute(wanted).first()
        return None if found is None else self._read(Canary, *found)

    def _ended_canaries(self, connection: Connection) -> tuple[CanaryRecord, ...]:
        """Return the records of all canaries of the task that ended, the oldest first."""
        from sqlalchemy import select

        canaries, ends = SCHEMA.table(CANARIES), SCHEMA.table(CANARY_ENDS)
        wanted = (
            select(ends.c.canary, ends.c.record)
            .join(canaries, ends.c.canary == canaries.c.number)
            .where(canaries.c.task == self._name)
            .order_by(canaries.c.number)
        )
        return tuple(
            self._database.parse(CanaryRecord, f"the end of canary {number}", text)
            for number, text in connection.execute(wanted)
        )

    def _move(
        self,
        connection: Connection,
        alias: str,
        version: int,
        before: Sequence[Move],
        kind: Literal["promote", "rollback"],
        why: str,
        by: str | None,
        evidence: GateRecord | CanaryRecord | None,
        *,
        dry_run: bool,
    ) -> Move:
        move = Move(
            number=None,
            alias=alias,
            version=version,
            previous=before[-1].version if before else None,
            when=_now(),
            who=by or user_name(),
            why=why.strip(),
            kind=kind,
            evidence=evidence,
        )
        if dry_run:
            return move
        row = {"task": self._name, "alias": alias, "version": version, "record": record_text(move)}
        number = connection.execute(SCHEMA.table(MOVES).insert(), row).inserted_primary_key[0]  # type: ignore[index]
        return replace(move, number=int(number))

    def _withdraw(self, connection: Connection, rejected: int, why: str, by: str | None) -> None:
        """Point `candidate` to production's version, if it points to a version that was just rolled back."""
        moves = self._moves(connection, CANDIDATE)
        if not moves or moves[-1].version != rejected:
            return
        production = self._moves(connection, PRODUCTION)[-1].version
        if production != rejected:
            why = f"version {rejected} was taken back: {why.strip()}"[:_LONGEST]
            self._move(connection, CANDIDATE, production, moves, "promote", why, by, None, dry_run=False)

    def _dispensable(self, connection: Connection, keep: int) -> tuple[int, ...]:
        """Return the versions of this task whose files are there and not needed."""
        numbers = self._numbers(connection)
        needed = set(numbers[-keep:])
        by_alias: dict[str, list[Move]] = {}
        for move in self._moves(connection):
            by_alias.setdefault(move.alias, []).append(move)
        for moves in by_alias.values():
            needed |= {number for move in moves[-keep:] for number in (move.version, move.previous) if number}
        if (canary := self._open_canary(connection)) is not None:
            needed |= {canary.candidate, canary.production}
        gone = self._collected(connection)
        return tuple(number for number in numbers if number not in needed and number not in gone)

    def _numbers(self, connection: Connection) -> tuple[int, ...]:
        """Return the numbers of the task's versions."""
        from sqlalchemy import select

        versions = SCHEMA.table(VERSIONS)
        wanted = select(versions.c.number).where(versions.c.task == self._name).order_by(versions.c.number)
        return tuple(connection.execute(wanted).scalars())

    def _live_artifacts(self, connection: Connection, without: Sequence[int]) -> set[str]:
        """Return the artifacts of every version of every task whose files are kept."""
        from sqlalchemy import select

        versions = SCHEMA.table(VERSIONS)
        gone = {*self._collected(connection), *without}
        rows = connection.execute(select(versions.c.number, versions.c.record)).all()
        return {_artifact_of(self._read(Version, number, text)) for number, text in rows if number not in gone}

    def _read(self, kind: type[Numbered], number: int, text: str) -> Numbered:
        what = f"the record of {kind.__name__.lower()} {number}"
        return replace(self._database.parse(kind, what, text), number=number)


def _standing(moves: Sequence[Move]) -> list[int]:
    """Return the versions that an alias was promoted to and not rolled back from, the present one last."""
    standing: list[int] = []
    for move in moves:
        if move.kind == "rollback":
            standing = standing[:-1]
        else:
            standing.append(move.version)
    return standing


def _artifact_of(version: Version) -> str:
    return version.artifact_sha256 or ""


def _require_why(why: str) -> None:
    if not why.strip():
        raise InputError("no reason is given", "say why in a few words", field="--why")
    if len(why) > _LONGEST:
        raise InputError(f"a reason of {len(why):,} letters", f"say it in {_LONGEST:,}", field="--why")


def _require_alias(alias: str) -> None:
    if not _ALIAS.fullmatch(alias):
        problem = f"{printable(alias, 40)!r} is no name of an alias"
        raise InputError(problem, "begin with a letter; a-z, 0-9 and - follow", field="--alias")


def _now() -> datetime:
    return datetime.now(UTC)
