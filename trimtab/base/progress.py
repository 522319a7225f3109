"""Progress events: one JSON line per step, the only source of the progress display and of the report's curves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trimtab.base.files import append_own

ProgressEvent = dict[str, Any]
Listener = Callable[[ProgressEvent], None]

# These signals request a stop with everything saved. A closed terminal sends SIGHUP, which Windows lacks.
STOP_SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
stop_asked = threading.Event()  # set by the command line when a signal arrives


@dataclass
class Progress:
    """Writes progress events to `path`, if given, and passes each to the listeners.

    An event has `time` (UTC, ISO 8601), `stage` (data, index, train, answer, verdict …), `arm`, `seed`, `step`,
    `of`, and what the stage adds. `worker`: the name of the process on another machine that does the work, which its
    events then have too.
    """

    path: Path | None = None
    listeners: list[Listener] = field(default_factory=list)
    arm: str | None = None
    seed: int | None = None
    worker: str | None = None

    def emit(self, stage: str, *, step: int = 0, of: int = 0, **more: Any) -> None:
        """Record that `stage` has done `step` of `of`; `more` must be JSON values.

        Raises KeyboardInterrupt after a signal whose own exception was lost: Python drops exceptions in the callback
        of a weak reference.
        """
        if stop_asked.is_set():
            raise KeyboardInterrupt
        event: ProgressEvent = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "stage": stage,
            "arm": self.arm,
            "seed": self.seed,
            "step": step,
            "of": of,
            **({} if self.worker is None else {"worker": self.worker}),
            **more,
        }
        self.relay(event)

    def relay(self, event: ProgressEvent) -> None:
        """Write an event that is complete, such as one of another process, and pass it to the listeners."""
        if self.path is not None:
            append_own(self.path, event)
        for listener in self.listeners:
            listener(event)

    def for_run(self, arm: str, seed: int) -> Progress:
        """Return the same stream with its events marked with an arm and a seed."""
        return Progress(path=self.path, listeners=self.listeners, arm=arm, seed=seed, worker=self.worker)
