"""Two studies on one HTML page: both verdicts, what changed, and the difference of every arm."""

from __future__ import annotations

from trimtab.base.results import ArmDifference, StudyComparison
from trimtab.reports.components import Column, Grid, Scored
from trimtab.reports.formatting import NOTHING, interval, score, signed
from trimtab.reports.labels import metric_called
from trimtab.reports.page import filled


def render(found: StudyComparison) -> str:
    """The page as HTML, without a script and without a request."""
    changes = Grid(
        label="What changed",
        columns=(Column(title="What"), Column(title=found.first, text=True), Column(title=found.second, text=True)),
        rows=tuple((one.what, one.first or NOTHING, one.second or NOTHING) for one in found.changes),
    )
    arms = Grid(
        label="Arms",
        columns=(
            Column(title="Arm"),
            Column(title=found.first),
            Column(title=found.second),
            Column(title="First minus second", interval="95%"),
            Column(title="Questions in both"),
        ),
        rows=tuple(
            (
                one.arm,
                _score(one.score),
                _score(one.other),
                _difference(one),
                f"{one.questions:,}" if one.questions else NOTHING,
            )
            for one in found.arms
        ),
    )
    title, metric = f"{found.first} and {found.second}", metric_called(found.metric)
    return filled("compared.html.j2", title=title, script="", found=found, metric=metric, changes=changes, arms=arms)


def _score(value: float | None) -> str:
    return NOTHING if value is None else score(value)


def _difference(one: ArmDifference) -> Scored | str:
    if one.difference is None or one.low is None or one.high is None:
        return NOTHING
    return Scored(value=signed(one.difference), interval=interval(one.low, one.high))
