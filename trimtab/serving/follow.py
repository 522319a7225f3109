"""Follows an alias: loads the version that it names beside the one that answers, checks it, and switches between two requests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace

from trimtab.base.errors import MissingError
from trimtab.base.task import Task
from trimtab.base.versions import Release
from trimtab.base.visible import said
from trimtab.model.threads import beside_another
from trimtab.serving.desk import Desk, Served
from trimtab.serving.meters import Log
from trimtab.serving.room import CLOSE_SECONDS, Room

LOOK_SECONDS = 2.0  # between two looks at what the alias names
REST = 20  # times what a failed attempt took until the next
LONGEST_LINE = 400  # letters of why a version does not take over


# The version that an alias names now, with its files on this machine; None where it is one of the numbers given.
Follow = Callable[[Collection[int]], Release | None]
# By arm the share of stored answers that came out the same, and why those are silent that did not answer.
SelfCheckResult = tuple[dict[str, float | None], dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A version in a room of its own, ready to answer. `self_check` asks it stored questions, and raises InputError where it does not answer as measured."""

    served: Served
    task: Task
    self_check: Callable[[Desk], Awaitable[SelfCheckResult]]


Load = Callable[[Release], AbstractContextManager[Loaded]]


class Follower:
    """Holds the version that answers, and those that it took over from for as long as a request is inside them.

    Where a version cannot be loaded or does not answer as it was measured, the old one goes on and the log says so; it is tried again
    after a while. `load` makes a version ready.
    """

    def __init__(self, follow: Follow, load: Load) -> None:
        self._follow, self._load = follow, load
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

    def start(self, desk: Desk, log: Log) -> None:
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
        self._held.close()

    def _watch(self, desk: Desk, log: Log, loop: asyncio.AbstractEventLoop) -> None:
        pause = LOOK_SECONDS
        while not self._closing.wait(pause):
            pause, began, release = LOOK_SECONDS, time.monotonic(), None
            try:
                self._let_go(desk)
                release = self._follow(self._known(desk))
                if release is not None:
                    self._take(release, desk, loop)
                    log.line("release", alias=release.alias, version=release.version)
                    self._failed, self._said = None, ""
            except Exception as error:  # noqa: BLE001  (whatever is wrong with a version, the old one goes on)
                rest = REST * (time.monotonic() - began)
                if release is not None:
                    self._failed, self._retry_at = release.version, time.monotonic() + rest
                else:  # the registry is away, or a file of the version is damaged
                    pause = max(LOOK_SECONDS, rest)
                self._say(log, release, said(error, LONGEST_LINE))

    def _known(self, desk: Desk) -> list[int]:
        """The version that answers, and one that failed as long as it is not tried again."""
        known = [one.release.version for one in desk.models.values() if one.release]
        rests = self._failed is not None and time.monotonic() < self._retry_at
        return [*known, self._failed] if self._failed is not None and rests else known

    def _take(self, release: Release, desk: Desk, loop: asyncio.AbstractEventLoop) -> None:
        """Load a version, try it, and have it take over; raises what is wrong with it."""
        with ExitStack() as stack, beside_another():
            loaded = stack.enter_context(self._load(release))
            asyncio.run_coroutine_threadsafe(_tried_and_over(loaded, desk), loop).result()
            held = stack.pop_all()
        # Requests that found the old version go on with it; the next look is the first that lets it go.
        self._leaving.append((self._room, self._held))
        self._room, self._held = loaded.served.room, held

    def _let_go(self, desk: Desk) -> None:
        """Let go of the versions that no request is inside any more."""
        for one in [one for one in self._leaving if desk.forget(one[0])]:
            self._leaving.remove(one)
            one[1].close()

    def _say(self, log: Log, release: Release | None, why: str) -> None:
        """Write why nothing takes over, once as long as it stays the same."""
        version = release.version if release is not None else None
        if (line := f"{version}: {why}") != self._said and not self._closing.is_set():
            self._said = line
            log.line("release_failed", version=version, why=why)


async def _tried_and_over(loaded: Loaded, desk: Desk) -> None:
    """Ask a version stored questions, and have it take over: within the event loop, so that no request is between two looks at the models."""
    equal, _ = await loaded.self_check(desk)
    desk.take_over(replace(loaded.served, equal=equal.get(loaded.served.arm)))
