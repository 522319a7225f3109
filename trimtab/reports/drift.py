"""Drift on one HTML page: what was found and what to do, every window with its signals, the questions, the quality, the documents."""

from __future__ import annotations

from datetime import datetime
from math import log10

from trimtab.base.drift import SIGNALS, DriftReport, DriftWindow, QualityWatch, Signal
from trimtab.reports.components import Column, Curves, Grid, Sentence, Series
from trimtab.reports.formatting import NOTHING, shorten
from trimtab.reports.page import filled

_LONGEST = 300  # letters of a question or an answer


def render(found: DriftReport) -> str:
    """Return the page as HTML, without a script and without a request."""
    names: list[Signal] = [name for name in SIGNALS if any(name in one.signals for one in found.windows)]
    windows = Grid(
        label="Windows",
        columns=(
            Column(title="Window"),
            Column(title="Answers kept", text=True),
            Column(title="p of all"),
            *(Column(title=SIGNALS[name]) for name in names),
        ),
        rows=tuple(_window(one, names, 1 / found.alarm_free) for one in reversed(found.windows)),
    )
    examples = Grid(
        label="Questions",
        columns=(Column(title="Question"), Column(title="Answer", text=True)),
        rows=tuple((shorten(one.question, _LONGEST), shorten(one.answer, _LONGEST)) for one in found.examples),
    )
    documents = Grid(
        label="Documents",
        columns=(Column(title="Document"), Column(title="What happened", text=True), Column(title="Passages gone")),
        rows=tuple((one.document, one.change, f"{one.passages:,}") for one in found.documents or ()),
    )
    affected = Grid(
        label="Affected questions",
        columns=(
            Column(title="Question"),
            Column(title="From", text=True),
            Column(title="Document", text=True),
            Column(title="Answer", text=True),
            Column(title="Answer now", text=True),
        ),
        rows=tuple(
            (
                shorten(one.question, _LONGEST),
                one.source,
                one.document,
                shorten(one.answer, _LONGEST),
                NOTHING if one.now is None else shorten(one.now, _LONGEST),
            )
            for one in found.affected
        ),
    )
    return filled(
        "drift.html.j2",
        title=f"Drift of {found.task}",
        script="",
        found=found,
        windows=windows,
        examples=examples,
        documents=documents,
        affected=affected,
        curve=_curve(found) if len(found.windows) > 1 else None,
        quality=_quality(found.quality) if found.quality and len(found.quality.points) > 1 else None,
    )


def _window(one: DriftWindow, names: list[Signal], alpha: float) -> tuple[str | Sentence, ...]:
    own = (one.signals.get(name) for name in names)
    return (
        str(one.number),
        f"{_time(one.began)} to {_time(one.ended)}",
        Sentence(text=_p(one.p), tone="no" if one.drifted else ""),
        *(NOTHING if p is None else Sentence(text=_p(p), tone="no" if p <= alpha else "") for p in own),
    )


def _curve(found: DriftReport) -> Curves:
    """Draw -log10 p of each window, and where an alarm begins."""
    last = max(5.0, float(len(found.windows)))
    return Curves(
        title="Evidence of drift by window",
        y_title="-log10 of p",
        x_title="window",
        series=(
            Series(
                name="all signals together",
                style="base",
                points=tuple((float(one.number), abs(log10(one.p))) for one in found.windows),
            ),
            Series(
                name="alarm", style="train", points=((0.0, log10(found.alarm_free)), (last, log10(found.alarm_free)))
            ),
        ),
    )


def _quality(watch: QualityWatch) -> Curves:
    """Draw the share right by the labels of each batch, the upper bound of the quality, and the floor."""
    last = max(5.0, float(watch.points[-1].window))
    return Curves(
        title="Quality in use",
        y_title="share right",
        x_title="window",
        series=(
            Series(
                name="at most", style="base", points=tuple((float(one.window), one.at_most) for one in watch.points)
            ),
            Series(
                name="labels of a batch",
                style="tuned",
                points=tuple((float(one.window), one.quality) for one in watch.points),
            ),
            Series(name="floor", style="train", points=((0.0, watch.floor), (last, watch.floor))),
        ),
    )


def _p(value: float) -> str:
    return f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def _time(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M}"
