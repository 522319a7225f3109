"""Follows a registry alias: loads the version it names beside the running one, checks it, and switches between two
requests.

The candidate of a canary is loaded and checked in the same way, and then answers its share of the users.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any

from trimtab.base.errors import MissingError
from trimtab.base.sanitize import one_line
from trimtab.base.task import Task
from trimtab.model.threads import single_thread
from trimtab.serving.dispatcher import Dispatcher
from trimtab.serving.metrics import RequestLog
from trimtab.serving.releases import Canary, CanarySource, EndedCanary, FollowAlias, Release
from trimtab.serving.served_model import SelfCheck, ServedModel
from trimtab.serving.worker import CLOSE_SECONDS, ModelWorker

POLL_SECONDS = 2.0  # between two reads of the alias
CANARY_POLL_SECONDS = 60.0  # between two checks whether a canary has a result
RETRY_FACTOR = 20  # a failed attempt is repeated after this many times its duration
LONGEST_LINE = 400  # characters of a logged reason


# By arm, its self-check; and by arm, why it did not answer.
SelfCheckResult = tuple[dict[str, SelfCheck | None], dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class LoadedRelease:
    """A version in a worker of its own, ready to answer.

    `self_check` asks it stored questions, and raises InputError if it does not answer as measured.
    """

    served: ServedModel
    task: Task
    self_check: Callable[[Dispatcher], Coroutine[Any, Any, SelfCheckResult]]


LoadRelease = Callable[[Release], AbstractContextManager[LoadedRelease]]


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A loaded candidate with its canary and its resources."""

    canary: Canary
    served: ServedModel
    resources: ExitStack


class Follower:
    """Keeps the version that answers, and each replaced one for as long as a request uses it.

    If a version cannot be loaded or does not answer as measured, the old one stays, the log says why, and it is tried
    again later. The candidate of a canary is not tried again: its canary ends. `load` prepares a version.
    """

    def __init__(self, follow: FollowAlias, load: LoadRelease, canaries: CanarySource | None = None) -> None:
        self._follow, self._load, self._canaries = follow, load, canaries
        self._candidate: _Candidate | None = None
        self._next_canary_check = 0.0
        self._resources = ExitStack()  # resources of the version that answers
        self._retiring: list[tuple[ModelWorker, ExitStack]] = []
        self._failed_version: int | None = None
        self._retry_at, self._last_line = 0.0, ""
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def first(self) -> tuple[Task, list[ServedModel]]:
        """Load the version that the alias names at the start; return its task and its model. Raises as `follow` and
        `load`."""
        release = self._follow(())
        if release is None:
            raise MissingError("the alias names no version")
        loaded = self._resources.enter_context(self._load(release))
        self._room, self._unchecked = loaded.served.worker, loaded
        return loaded.task, [loaded.served]

    async def self_check(self, dispatcher: Dispatcher) -> SelfCheckResult:
        """Ask the first version stored questions, once."""
        loaded = self._unchecked
        del self._unchecked
        return await loaded.self_check(dispatcher)

    def start(self, dispatcher: Dispatcher, log: RequestLog) -> None:
        """Start to poll the alias, and switch the dispatcher when it changes; call it in the server's event loop."""
        for one in dispatcher.models.values():
            if one.release:
                log.line("release", alias=one.release.alias, version=one.release.version)
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._poll, args=(dispatcher, log, loop), name="following", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and release every version; one that is being loaded ends with the process."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
        for _, resources in self._retiring:
            resources.close()
        if self._candidate is not None:
            self._candidate.resources.close()
        self._resources.close()

    def _poll(self, dispatcher: Dispatcher, log: RequestLog, loop: asyncio.AbstractEventLoop) -> None:
        pause = POLL_SECONDS
        while not self._closing.wait(pause):
            pause, began, release = POLL_SECONDS, time.monotonic(), None
            try:
                self._release_retired(dispatcher)
                # Read before the alias: the candidate of a canary that is promoted meanwhile is then reused, not
                # released.
                canary = self._canaries.current() if self._canaries is not None else None
                release = self._follow(self._skipped_versions(dispatcher))
                if release is not None:
                    self._switch_to(release, dispatcher, loop)
                    log.line("release", alias=release.alias, version=release.version)
                    self._failed_version, self._last_line, release = None, "", None
                if self._canaries is not None:
                    self._update_canary(self._canaries, canary, dispatcher, log, loop)
            except Exception as error:  # noqa: BLE001  (the old version goes on, whatever the error)
                rest = RETRY_FACTOR * (time.monotonic() - began)
                if release is not None:
                    self._failed_version, self._retry_at = release.version, time.monotonic() + rest
                else:  # the registry is unreachable, or a file of the version is damaged
                    pause = max(POLL_SECONDS, rest)
                self._log_failure(log, release, one_line(error, LONGEST_LINE))

    def _skipped_versions(self, dispatcher: Dispatcher) -> list[int]:
        """Return the version that answers, and a failed one while it is not to be tried again."""
        known = [one.release.version for one in dispatcher.models.values() if one.release]
        is_resting = self._failed_version is not None and time.monotonic() < self._retry_at
        return [*known, self._failed_version] if self._failed_version is not None and is_resting else known

    def _switch_to(self, release: Release, dispatcher: Dispatcher, loop: asyncio.AbstractEventLoop) -> None:
        """Load a version, check it, and make it answer; raises what is wrong with it."""
        candidate = self._candidate
        if candidate is not None and candidate.canary.candidate == release.version:
            served, resources = replace(candidate.served, release=release), candidate.resources
            _run_in_loop(loop, dispatcher.replace_model, served)
            self._candidate = None
        else:
            with ExitStack() as stack, single_thread():
                served = self._load_and_check(release, stack, dispatcher, loop)
                _run_in_loop(loop, dispatcher.replace_model, served)
                resources = stack.pop_all()
        # Running requests keep the old version; it is released at the next poll at the earliest.
        self._retiring.append((self._room, self._resources))
        self._room, self._resources = served.worker, resources

    def _load_and_check(
        self, release: Release, stack: ExitStack, dispatcher: Dispatcher, loop: asyncio.AbstractEventLoop
    ) -> ServedModel:
        """Load a version and ask it stored questions; its resources go onto `stack`. Raises what is wrong with it."""
        loaded = stack.enter_context(self._load(release))
        checks, _ = asyncio.run_coroutine_threadsafe(loaded.self_check(dispatcher), loop).result()
        return replace(loaded.served, check=checks.get(loaded.served.arm))

    def _update_canary(
        self,
        source: CanarySource,
        canary: Canary | None,
        dispatcher: Dispatcher,
        log: RequestLog,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Make the candidate of an open canary answer its users, and end the canary when it is due."""
        production = next(iter(dispatcher.models.values())).release
        open_canary = canary if canary and production and canary.production == production.version else None
        if self._candidate is not None and (open_canary is None or open_canary.number != self._candidate.canary.number):
            self._end_canary(dispatcher, loop)
        if open_canary is not None and self._candidate is None:
            why = self._start_canary(source, open_canary, dispatcher, loop)
            if why is not None:
                _log_canary_end(log, source.reject(open_canary, why))
                return
            log.line("canary", number=open_canary.number, version=open_canary.candidate, share=open_canary.share)
            self._next_canary_check = 0.0
        active = dispatcher.canary
        if active is not None and not active.served.worker.is_alive:
            _log_canary_end(log, source.reject(active.canary, "its model thread has crashed"))
            self._end_canary(dispatcher, loop)
        elif canary is not None and time.monotonic() >= self._next_canary_check:
            # A canary of another production version must end, too.
            counts = (dict(active.answers), dict(active.failed)) if active is not None else ({}, {})
            record = source.look(canary, *counts)
            self._next_canary_check = time.monotonic() + CANARY_POLL_SECONDS
            if record is not None:
                _log_canary_end(log, record)

    def _start_canary(
        self, source: CanarySource, canary: Canary, dispatcher: Dispatcher, loop: asyncio.AbstractEventLoop
    ) -> str | None:
        """Load a candidate, check it, and make it answer its users; return None, or why it cannot.

        Raises what the candidate did not cause: an unreachable registry, missing files, a full disk, a server that
        ends.
        """
        try:
            with ExitStack() as stack, single_thread():
                served = self._load_and_check(source.release(canary), stack, dispatcher, loop)
                _run_in_loop(loop, dispatcher.start_canary, canary, served)
                self._candidate = _Candidate(canary=canary, served=served, resources=stack.pop_all())
        except Exception as error:
            is_local_fault = isinstance(error, OSError) and not isinstance(error, MissingError)
            if is_local_fault or isinstance(error, CancelledError) or not loop.is_running():
                raise
            return one_line(error, LONGEST_LINE)
        return None

    def _end_canary(self, dispatcher: Dispatcher, loop: asyncio.AbstractEventLoop) -> None:
        """Make production answer everybody; the candidate is released once no request uses it."""
        if self._candidate is not None:
            _run_in_loop(loop, dispatcher.end_canary)
            self._retiring.append((self._candidate.served.worker, self._candidate.resources))
            self._candidate = None

    def _release_retired(self, dispatcher: Dispatcher) -> None:
        """Release the versions that no request uses any more."""
        for one in [one for one in self._retiring if dispatcher.forget_worker(one[0])]:
            self._retiring.remove(one)
            one[1].close()

    def _log_failure(self, log: RequestLog, release: Release | None, why: str) -> None:
        """Log why no version takes over, once as long as the reason stays the same."""
        version = release.version if release is not None else None
        if (line := f"{version}: {why}") != self._last_line and not self._closing.is_set():
            self._last_line = line
            log.line("release_failed", version=version, why=why)


def _run_in_loop(loop: asyncio.AbstractEventLoop, work: Callable[..., None], *arguments: object) -> None:
    """Run a function within the event loop, where no request is between two reads of the models."""

    async def call() -> None:
        work(*arguments)

    asyncio.run_coroutine_threadsafe(call(), loop).result()


def _log_canary_end(log: RequestLog, record: EndedCanary) -> None:
    log.line("canary_ended", number=record.canary.number, outcome=record.outcome, why=record.why)
