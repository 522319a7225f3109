"""The HTML page that compares two studies: both verdicts, what changed, and the difference of every arm."""

from __future__ import annotations

from trimtab.base.results import ArmDifference, StudyComparison
from trimtab.reports.components import Column, Grid, Scored
from trimtab.reports.formatting import DASH, format_interval, format_score, format_signed
from trimtab.reports.labels import metric_label
from trimtab.reports.page import render_page


def render_comparison(comparison: StudyComparison) -> str:
    """Return the page as HTML, without scripts and requests."""
    changes = Grid(
        label="What changed",
        columns=(
            Column(title="What"),
            Column(title=comparison.first, text=True),
            Column(title=comparison.second, text=True),
        ),
        rows=tuple((one.what, one.first or DASH, one.second or DASH) for one in comparison.changes),
    )
    arms = Grid(
        label="Arms",
        columns=(
            Column(title="Arm"),
            Column(title=comparison.first),
            Column(title=comparison.second),
            Column(title="First minus second", interval="95%"),
            Column(title="Questions in both"),
        ),
        rows=tuple(
            (
                one.arm,
                _score(one.score),
                _score(one.other),
                _difference(one),
                f"{one.questions:,}" if one.questions else DASH,
            )
            for one in comparison.arms
        ),
    )
    title, metric = f"{comparison.first} and {comparison.second}", metric_label(comparison.metric)
    return render_page(
        "compared.html.j2", title=title, script="", comparison=comparison, metric=metric, changes=changes, arms=arms
    )


def _score(value: float | None) -> str:
    return DASH if value is None else format_score(value)


def _difference(one: ArmDifference) -> Scored | str:
    if one.difference is None or one.low is None or one.high is None:
        return DASH
    return Scored(value=format_signed(one.difference), interval=format_interval(one.low, one.high))
