"""The HTML page of a drift report: the finding and the advice, every window with its signals, questions, quality,
documents."""

from __future__ import annotations

from datetime import datetime
from math import log10

from trimtab.reports.components import Column, Curves, Grid, Series, StyledText
from trimtab.reports.formatting import DASH, shorten
from trimtab.reports.page import render_page
from trimtab.upkeep.drift_report import SIGNALS, DriftReport, DriftWindow, QualityWatch, Signal

_LONGEST = 300  # characters of a question or an answer


def render_drift(report: DriftReport) -> str:
    """Return the page as HTML, without scripts and requests."""
    names: list[Signal] = [name for name in SIGNALS if any(name in one.signals for one in report.windows)]
    windows = Grid(
        label="Windows",
        columns=(
            Column(title="Window"),
            Column(title="Answers kept", text=True),
            Column(title="p of all"),
            *(Column(title=SIGNALS[name]) for name in names),
        ),
        rows=tuple(_window(one, names, 1 / report.alarm_free) for one in reversed(report.windows)),
    )
    examples = Grid(
        label="Questions",
        columns=(Column(title="Question"), Column(title="Answer", text=True)),
        rows=tuple((shorten(one.question, _LONGEST), shorten(one.answer, _LONGEST)) for one in report.examples),
    )
    documents = Grid(
        label="Documents",
        columns=(Column(title="Document"), Column(title="What happened", text=True), Column(title="Facts gone")),
        rows=tuple((one.document, one.change, f"{one.facts:,}") for one in report.documents or ()),
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
                DASH if one.now is None else shorten(one.now, _LONGEST),
            )
            for one in report.affected
        ),
    )
    return render_page(
        "drift.html.j2",
        package="trimtab.upkeep",
        title=f"Drift of {report.task}",
        script="",
        report=report,
        windows=windows,
        examples=examples,
        documents=documents,
        affected=affected,
        curve=_curve(report) if len(report.windows) > 1 else None,
        quality=_quality(report.quality) if report.quality and len(report.quality.points) > 1 else None,
    )


def _window(one: DriftWindow, names: list[Signal], alpha: float) -> tuple[str | StyledText, ...]:
    p_values = (one.signals.get(name) for name in names)
    return (
        str(one.number),
        f"{_time(one.began)} to {_time(one.ended)}",
        DASH if one.why_not else StyledText(text=_format_p(one.p), tone="no" if one.drifted else ""),
        *(DASH if p is None else StyledText(text=_format_p(p), tone="no" if p <= alpha else "") for p in p_values),
    )


def _curve(report: DriftReport) -> Curves:
    """Draw -log10 p of each window, and the threshold of an alarm."""
    last = max(5.0, float(len(report.windows)))
    return Curves(
        title="Evidence of drift by window",
        y_title="-log10 of p",
        x_title="window",
        series=(
            Series(
                name="all signals together",
                style="base",
                points=tuple((float(one.number), abs(log10(one.p))) for one in report.windows),
            ),
            Series(
                name="alarm", style="train", points=((0.0, log10(report.alarm_free)), (last, log10(report.alarm_free)))
            ),
        ),
    )


def _quality(watch: QualityWatch) -> Curves:
    """Draw the accuracy by the labels of each batch, the upper bound of the quality, and the floor."""
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


def _format_p(value: float) -> str:
    return f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def _time(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M}"
