"""Events: one JSON line for each step of the work, the only source of the progress display and of the report's curves."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.base.files import append_line
from trimtab.base.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

Event = dict[str, Any]
Listener = Callable[[Event], None]

# Ask for a stop with everything saved; a terminal that goes away sends SIGHUP, which Windows does not have.
STOP_SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
stop_asked = threading.Event()  # set by the command line when a signal has come


@dataclass
class Progress:
    """Writes events to `path` (when given) and hands each to the listeners.

    An event has `time` (UTC, ISO 8601), `stage` (data, index, train, answer, verdict …), `arm`, `seed`, `step`, `of`, and what the stage adds.
    """

    path: Path | None = None
    listeners: list[Listener] = field(default_factory=list)
    arm: str | None = None
    seed: int | None = None

    def emit(self, stage: str, *, step: int = 0, of: int = 0, **more: Any) -> None:
        """Record that `stage` has done `step` of `of`; `more` must be JSON values.

        Raises KeyboardInterrupt after a signal whose own was lost: Python drops what is raised in the callback of a weak reference.
        """
        if stop_asked.is_set():
            raise KeyboardInterrupt
        event: Event = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "stage": stage,
            "arm": self.arm,
            "seed": self.seed,
            "step": step,
            "of": of,
            **more,
        }
        if self.path is not None:
            append_line(self.path, event)
        for listener in self.listeners:
            listener(event)

    def within(self, arm: str, seed: int) -> Progress:
        """The same stream, its events marked with an arm and a seed."""
        return Progress(path=self.path, listeners=self.listeners, arm=arm, seed=seed)


class Display:
    """Shows events on standard error: one line that is rewritten on a terminal, a line now and then elsewhere.

    `seconds_left` is set from outside (the study's plan); it is the only time figure shown.
    """

    def __init__(self, *, every: float = 10.0) -> None:
        self.seconds_left: Callable[[], float | None] = lambda: None
        self._console = _terminal()
        self._live: Live | None = None
        self._every = 0.2 if self._console else every
        self._last = 0.0
        self._shown: tuple[Any, ...] = ()

    def __call__(self, event: Event) -> None:
        """Show an event, unless one of its kind was shown a moment ago; the note of one with `stays` is a line of its own."""
        if event.get("stays"):
            self.close()
            _line(event["note"])
            return
        now = time.monotonic()
        key = (event["arm"], event["stage"])
        if key == self._shown and now - self._last < self._every:
            return
        self._last, self._shown = now, key
        text = "  ".join(self._parts(event))
        if not self._console:
            _line(text)
            return
        with suppress(OSError):  # the terminal has gone away
            self._rewrite(self._console, text)

    def _rewrite(self, console: Console, text: str) -> None:
        from rich.live import Live
        from rich.text import Text

        if self._live is None:  # what libraries write beside it must not be held back, so no stream is redirected
            self._live = Live(
                console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        self._live.update(Text(visible(text), no_wrap=True, overflow="ellipsis"), refresh=True)

    def _parts(self, event: Event) -> list[str]:
        parts = [f"{event['arm'] or '':<10} {event['stage']:<10}"]
        if event["of"] and event.get("unit") == "bytes":
            parts.append(f"{event['step'] / 1e6:.0f} of {event['of'] / 1e6:.0f} MB")
        elif event["of"]:
            parts.append(f"{event['step']}/{event['of']}")
        parts += [f"{key} {event[key]:.3g}" for key in ("loss", "dev_loss", "dev_metric") if event.get(key) is not None]
        if event.get("note"):
            parts.append(str(event["note"]))
        left = self.seconds_left()
        if left is not None:
            parts.append(f"about {max(1, round(left / 60))} min left")
        return parts

    def close(self) -> None:
        """Clear the rewritten line, so that what follows starts on a line of its own."""
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()
            self._live = None


def _line(text: str) -> None:
    """A line, where there is still somebody to read it: what was to be saved must not be lost with the terminal."""
    with suppress(OSError):
        sys.stderr.write(f"{visible(text)}\n")
        sys.stderr.flush()


def _terminal() -> Console | None:
    """Standard error as a console that can rewrite a line, None where it cannot."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console

    console = Console(stderr=True)
    return console if console.is_terminal and not console.is_dumb_terminal else None
