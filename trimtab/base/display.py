"""Progress display of a terminal: one line that is rewritten, with a sparkline of the training loss."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from trimtab.base.progress import ProgressEvent
from trimtab.base.sanitize import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

# From low to high; letters if the terminal's encoding has no blocks.
BLOCKS, LETTERS = "▁▂▃▄▅▆▇█", "_.-=*#"
LEAST_SPARK, MOST_SPARK = 4, 24  # columns
MOST_POINTS = 1024  # points of a curve; beyond that, neighbours are averaged


class Display:
    """Shows progress events on standard error: one rewritten line on a terminal, a line now and then elsewhere.

    `seconds_left` is set from outside (the study's plan). Without it, the end of training is predicted from its own
    steps.
    """

    def __init__(self, *, every: float = 10.0) -> None:
        self.seconds_left: Callable[[], float | None] = lambda: None
        self._console = _terminal()
        self._live: Live | None = None
        self._every = 0.2 if self._console else every
        # by the worker whose events these are; all of one machine have none
        self._shown: dict[str | None, tuple[tuple[Any, ...], float]] = {}
        self._trainings: dict[str | None, _Training] = {}
        self._training: _Training | None = None  # of the event that is shown

    def __call__(self, event: ProgressEvent) -> None:
        """Show an event, unless one of its kind was shown a moment ago; a note that `stays` gets its own line."""
        if event.get("stays"):
            self.close()
            _line(event["note"])
            return
        now = time.monotonic()
        self._follow(event, now)
        worker, key = event.get("worker"), (event["arm"], event["stage"])
        shown, last = self._shown.get(worker, ((), 0.0))
        # the end of a download is always drawn: its last line would otherwise stay below 100%
        whole = event.get("unit") == "bytes" and event["step"] == event["of"] > 0
        if key == shown and now - last < self._every and not whole:
            return
        self._shown[worker] = key, now
        if not self._console:
            _line("  ".join(self._parts(event, now)))
            return
        with suppress(OSError):  # the terminal has gone away
            self._rewrite(self._console, self._on_one_line(self._console, self._parts(event, now)))

    def _follow(self, event: ProgressEvent, now: float) -> None:
        """Update the loss curve; start a new one for another run or a stage without training."""
        worker, run = event.get("worker"), (event["arm"], event["seed"], event.get("run"))
        before, self._training = self._trainings.pop(worker, None), None
        if event["stage"] not in ("train", "dev"):
            return
        self._training = before if before is not None and before.run == run else _Training(run, event["step"], now)
        self._trainings[worker] = self._training
        self._training.add(event)

    def _on_one_line(self, console: Console, parts: Sequence[str]) -> str:
        """Return the parts, with as much of the loss curve as there is room for."""
        text = "  ".join(parts)
        room = min(MOST_SPARK, console.width - len(text) - 3)
        if self._training is None or room < LEAST_SPARK:
            return text
        marks = LETTERS if console.options.ascii_only else BLOCKS
        curve = sparkline(self._training.losses, room, marks)
        return "  ".join(f"{part} {curve}" if curve and part.startswith("loss ") else part for part in parts)

    def _rewrite(self, console: Console, text: str) -> None:
        from rich.live import Live
        from rich.text import Text

        if self._live is None:  # no stream is redirected: output of libraries must not be held back
            self._live = Live(
                console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        self._live.update(Text(visible(text), no_wrap=True, overflow="ellipsis"), refresh=True)

    def _parts(self, event: ProgressEvent, now: float) -> list[str]:
        """Return the texts for an event, the most important first: a narrow terminal shows the beginning."""
        parts = [f"{event['arm'] or '':<10} {event['stage']:<6}"]
        if event["of"] and event.get("unit") == "bytes":
            parts.append(f"{event['step'] / 1e6:.0f} of {event['of'] / 1e6:.0f} MB")
        elif event["of"]:
            parts.append(f"{event['step']}/{event['of']}")
        training, left = self._training, self.seconds_left()
        if training is not None:
            parts += [f"{name} {value:.3g}" for name, value in training.figures.items()]
        if left is not None:
            parts.append(f"about {duration_in_words(left)} left")
        elif training is not None and (rest := training.seconds_left(event, now)) is not None:
            parts.append(f"ends in about {duration_in_words(rest)}")
        if event.get("note"):
            parts.append(str(event["note"]))
        return parts

    def close(self) -> None:
        """Clear the rewritten line, so that later output starts on a line of its own."""
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()
            self._live = None


class _Training:
    """State of one training run as displayed: losses, newest figures, and the step and time of the first event."""

    def __init__(self, run: tuple[Any, ...], step: int, now: float) -> None:
        self.run, self._step, self._began = run, step, now
        self.losses: list[float] = []
        self.figures: dict[str, float] = {}

    def add(self, event: ProgressEvent) -> None:
        """Add the figures of an event."""
        for key, name in (("loss", "loss"), ("dev_loss", "dev loss"), ("dev_metric", "dev metric")):
            if event.get(key) is not None:
                self.figures[name] = event[key]
        if event.get("loss") is not None:
            self.losses.append(event["loss"])
            if len(self.losses) > MOST_POINTS:
                self.losses = _means(self.losses, MOST_POINTS // 2)

    def seconds_left(self, event: ProgressEvent, now: float) -> float | None:
        """Return the predicted seconds of the remaining steps at the pace so far; None before there is one."""
        seen = event["step"] - self._step
        return (event["of"] - event["step"]) * (now - self._began) / seen if seen > 0 and event["of"] else None


def sparkline(values: Sequence[float], columns: int, marks: str = BLOCKS) -> str:
    """Return values as at most `columns` marks, scaled from the lowest to the highest; empty for fewer than two."""
    if len(values) < 2 or columns < 1:
        return ""
    shown = _means(values, columns)
    low, high = min(shown), max(shown)
    scale = (len(marks) - 1) / (high - low) if high > low else 0.0
    return "".join(marks[round((value - low) * scale)] for value in shown)


def _means(values: Sequence[float], count: int) -> list[float]:
    """Return at most `count` values, each the mean of its share of the values, in order."""
    count = min(count, len(values))
    ends = [len(values) * place // count for place in range(count + 1)]
    parts = [values[start:end] for start, end in pairwise(ends)]
    return [sum(part) / len(part) for part in parts]


def duration_in_words(seconds: float) -> str:
    """Return a duration in words: whole minutes, or tens of seconds if a minute would be too coarse."""
    return f"{seconds / 60:.0f} min" if seconds >= 150 else f"{max(10, round(seconds, -1)):.0f} s"


def _line(text: str) -> None:
    """Print a line if standard error is still open: results must not be lost because the terminal is gone."""
    with suppress(OSError):
        sys.stderr.write(f"{visible(text)}\n")
        sys.stderr.flush()


def _terminal() -> Console | None:
    """Return a console for standard error if it can rewrite a line, else None."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console

    console = Console(stderr=True)
    return console if console.is_terminal and not console.is_dumb_terminal else None
