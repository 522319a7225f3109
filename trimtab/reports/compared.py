"""The HTML page that compares two studies: both verdicts, what changed, and the difference of every arm."""

from __future__ import annotations

from trimtab.base.metrics import find_metric
from trimtab.base.results import ArmDifference, StudyComparison
from trimtab.reports.components import Column, Grid, Scored
from trimtab.reports.formatting import DASH, format_interval, format_score, format_signed
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
        rows=tuple((change.what, change.first or DASH, change.second or DASH) for change in comparison.changes),
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
                arm.arm,
                _score(arm.score),
                _score(arm.other),
                _difference(arm),
                f"{arm.questions:,}" if arm.questions else DASH,
            )
            for arm in comparison.arms
        ),
    )
    title, metric = f"{comparison.first} and {comparison.second}", find_metric(comparison.metric).label
    return render_page(
        "compared.html.j2", title=title, script="", comparison=comparison, metric=metric, changes=changes, arms=arms
    )


def _score(value: float | None) -> str:
    return DASH if value is None else format_score(value)


def _difference(arm: ArmDifference) -> Scored | str:
    if arm.difference is None or arm.low is None or arm.high is None:
        return DASH
    return Scored(value=format_signed(arm.difference), interval=format_interval(arm.low, arm.high))
