"""Follows an alias: loads the version that it names beside the one that answers, checks it, and switches between two requests.

The candidate of a canary is loaded and checked in the same way, and then answers its share of the users.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

from trimtab.base.canary import Canary, CanaryRecord
from trimtab.base.errors import MissingError
from trimtab.base.sanitize import one_line
from trimtab.base.task import Task
from trimtab.base.versions import Release
from trimtab.model.threads import single_thread
from trimtab.serving.dispatcher import Desk, Served
from trimtab.serving.metrics import RequestLog
from trimtab.serving.worker import CLOSE_SECONDS, Room

LOOK_SECONDS = 2.0  # between two looks at what the alias names
CANARY_SECONDS = 60.0  # between two looks at whether a canary is to end
REST = 20  # times what a failed attempt took until the next
LONGEST_LINE = 400  # letters of why a version does not take over


# The version that an alias names now, with its files on this machine; None where it is one of the numbers given.
Follow = Callable[[Collection[int]], Release | None]
# By arm the share of stored answers that came out the same, and why those are silent that did not answer.
SelfCheckResult = tuple[dict[str, float | None], dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A version in a room of its own, ready to answer.

    `self_check` asks it stored questions, and raises InputError where it does not answer as measured.
    """

    served: Served
    task: Task
    self_check: Callable[[Desk], Coroutine[Any, Any, SelfCheckResult]]


Load = Callable[[Release], AbstractContextManager[Loaded]]


class CanarySource(Protocol):
    """The canaries of a task, as `upkeep/canary.py` has them."""

    def current(self) -> Canary | None:
        """Return the canary that is open."""

    def release(self, canary: Canary) -> Release:
        """Return its candidate, with the files on this machine."""

    def reject(self, canary: Canary, why: str) -> CanaryRecord:
        """End it, rolled back: the candidate cannot answer."""

    def look(self, canary: Canary, answers: Mapping[int, int], failed: Mapping[int, int]) -> CanaryRecord | None:
        """Keep what was counted here, by bucket of users; end it where that is due, and return None if it goes on."""


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A loaded candidate, the canary that it is for, and what it holds."""

    canary: Canary
    served: Served
    held: ExitStack


class Follower:
    """Holds the version that answers, and those that it took over from for as long as a request is inside them.

    Where a version cannot be loaded or does not answer as it was measured, the old one goes on and the log says so; it is tried again
    after a while. The candidate of a canary is not tried again: its canary ends. `load` makes a version ready.
    """

    def __init__(self, follow: Follow, load: Load, canaries: CanarySource | None = None) -> None:
        self._follow, self._load, self._canaries = follow, load, canaries
        self._candidate: _Candidate | None = None
        self._decides_at = 0.0
        self._held = ExitStack()  # what the version that answers holds
        self._leaving: list[tuple[Room, ExitStack]] = []
        self._failed: int | None = None
        self._retry_at, self._said = 0.0, ""
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def first(self) -> tuple[Task, list[Served]]:
        """Load the version that the alias names at the start: its task, and its one model; raises what `follow` and `load` raise."""
        release = self._follow(())
        if release is None:
            raise MissingError("the alias names no version")
        loaded = self._held.enter_context(self._load(release))
        self._room, self._untried = loaded.served.room, loaded
        return loaded.task, [loaded.served]

    async def self_check(self, desk: Desk) -> SelfCheckResult:
        """Ask the first version stored questions, once."""
        loaded = self._untried
        del self._untried
        return await loaded.self_check(desk)

    def start(self, desk: Desk, log: RequestLog) -> None:
        """Look from now on, and have what comes take over at the desk; called in the event loop of the server."""
        for one in desk.models.values():
            if one.release:
                log.line("release", alias=one.release.alias, version=one.release.version)
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._watch, args=(desk, log, loop), name="following", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and let go of every version; one that is being loaded ends with the process."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
        for _, held in self._leaving:
            held.close()
        if self._candidate is not None:
            self._candidate.held.close()
        self._held.close()

    def _watch(self, desk: Desk, log: RequestLog, loop: asyncio.AbstractEventLoop) -> None:
        pause = LOOK_SECONDS
        while not self._closing.wait(pause):
            pause, began, release = LOOK_SECONDS, time.monotonic(), None
            try:
                self._let_go(desk)
                # Read before the alias: a canary that ends meanwhile by promotion is then taken over from, not let go of.
                canary = self._canaries.current() if self._canaries is not None else None
                release = self._follow(self._known(desk))
                if release is not None:
                    self._take(release, desk, loop)
                    log.line("release", alias=release.alias, version=release.version)
                    self._failed, self._said, release = None, "", None
                if self._canaries is not None:
                    self._look_at_canary(self._canaries, canary, desk, log, loop)
            except Exception as error:  # noqa: BLE001  (whatever is wrong with a version, the old one goes on)
                rest = REST * (time.monotonic() - began)
                if release is not None:
                    self._failed, self._retry_at = release.version, time.monotonic() + rest
                else:  # the registry is away, or a file of the version is damaged
                    pause = max(LOOK_SECONDS, rest)
                self._say(log, release, one_line(error, LONGEST_LINE))

    def _known(self, desk: Desk) -> list[int]:
        """The version that answers, and one that failed as long as it is not tried again."""
        known = [one.release.version for one in desk.models.values() if one.release]
        rests = self._failed is not None and time.monotonic() < self._retry_at
        return [*known, self._failed] if self._failed is not None and rests else known

    def _take(self, release: Release, desk: Desk, loop: asyncio.AbstractEventLoop) -> None:
        """Load a version, try it, and have it take over; raises what is wrong with it."""
        candidate = self._candidate
        if candidate is not None and candidate.canary.candidate == release.version:
            served, held = replace(candidate.served, release=release), candidate.held
            _in_loop(loop, desk.take_over, served)
            self._candidate = None
        else:
            with ExitStack() as stack, single_thread():
                served = self._loaded(release, stack, desk, loop)
                _in_loop(loop, desk.take_over, served)
                held = stack.pop_all()
        # Requests that found the old version go on with it; the next look is the first that lets it go.
        self._leaving.append((self._room, self._held))
        self._room, self._held = served.room, held

    def _loaded(self, release: Release, stack: ExitStack, desk: Desk, loop: asyncio.AbstractEventLoop) -> Served:
        """Load a version and ask it stored questions; raises what is wrong with it. What it holds goes onto the stack."""
        loaded = stack.enter_context(self._load(release))
        equal, _ = asyncio.run_coroutine_threadsafe(loaded.self_check(desk), loop).result()
        return replace(loaded.served, equal=equal.get(loaded.served.arm))

    def _look_at_canary(
        self, source: CanarySource, canary: Canary | None, desk: Desk, log: RequestLog, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Have the candidate of an open canary answer beside the version that it would replace, and end the canary where that is due."""
        production = next(iter(desk.models.values())).release
        wanted = canary if canary and production and canary.production == production.version else None
        if self._candidate is not None and (wanted is None or wanted.number != self._candidate.canary.number):
            self._end_canary(desk, loop)
        if wanted is not None and self._candidate is None:
            why = self._begin_canary(source, wanted, desk, loop)
            if why is not None:
                _say_end(log, source.reject(wanted, why))
                return
            log.line("canary", number=wanted.number, version=wanted.candidate, share=wanted.share)
            self._decides_at = 0.0
        active = desk.canary
        if active is not None and not active.served.room.is_alive:
            _say_end(log, source.reject(active.canary, "its engine room fell"))
            self._end_canary(desk, loop)
        elif canary is not None and time.monotonic() >= self._decides_at:
            # A canary that is not this server's to answer (production was moved) is to end, too.
            counted = (dict(active.answers), dict(active.failed)) if active is not None else ({}, {})
            record = source.look(canary, *counted)
            self._decides_at = time.monotonic() + CANARY_SECONDS
            if record is not None:
                _say_end(log, record)

    def _begin_canary(
        self, source: CanarySource, canary: Canary, desk: Desk, loop: asyncio.AbstractEventLoop
    ) -> str | None:
        """Load a candidate, check it, and have it answer its users; return None, or why it cannot.

        Raises what is no fault of the candidate: a registry or files that are away, a full disk, a server that ends meanwhile.
        """
        try:
            with ExitStack() as stack, single_thread():
                served = self._loaded(source.release(canary), stack, desk, loop)
                _in_loop(loop, desk.begin_canary, canary, served)
                self._candidate = _Candidate(canary=canary, served=served, held=stack.pop_all())
        except Exception as error:
            is_here = isinstance(error, OSError) and not isinstance(error, MissingError)
            if is_here or isinstance(error, CancelledError) or not loop.is_running():
                raise
            return one_line(error, LONGEST_LINE)
        return None

    def _end_canary(self, desk: Desk, loop: asyncio.AbstractEventLoop) -> None:
        """Have production answer everybody; the candidate is let go of once no request is inside."""
        if self._candidate is not None:
            _in_loop(loop, desk.end_canary)
            self._leaving.append((self._candidate.served.room, self._candidate.held))
            self._candidate = None

    def _let_go(self, desk: Desk) -> None:
        """Let go of the versions that no request is inside any more."""
        for one in [one for one in self._leaving if desk.forget(one[0])]:
            self._leaving.remove(one)
            one[1].close()

    def _say(self, log: RequestLog, release: Release | None, why: str) -> None:
        """Write why nothing takes over, once as long as it stays the same."""
        version = release.version if release is not None else None
        if (line := f"{version}: {why}") != self._said and not self._closing.is_set():
            self._said = line
            log.line("release_failed", version=version, why=why)


def _in_loop(loop: asyncio.AbstractEventLoop, work: Callable[..., None], *given: object) -> None:
    """Do something within the event loop, so that no request is between two looks at the models."""

    async def done() -> None:
        work(*given)

    asyncio.run_coroutine_threadsafe(done(), loop).result()


def _say_end(log: RequestLog, record: CanaryRecord) -> None:
    log.line("canary_ended", number=record.canary.number, outcome=record.outcome, why=record.why)
