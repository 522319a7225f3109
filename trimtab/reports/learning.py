"""The learning-curve section: dev scores after training on parts of the rows, and the predicted gain of more labels."""

from __future__ import annotations

from trimtab.base.metrics import find_metric, mean_metric
from trimtab.base.results import LearningCurve
from trimtab.measurement.learning_curve import RUN_SD
from trimtab.reports.components import Cell, Column, Grid, Heading, Scored, arm_label
from trimtab.reports.folder import StudyFolder
from trimtab.reports.formatting import format_interval, format_score, format_signed
from trimtab.reports.view import LearningCurves


def learning_section(study: StudyFolder) -> LearningCurves | None:
    """Return the learning curve of every arm that has one."""
    entries = [(one, one.learning) for one in study.done if one.learning is not None]
    if not entries:
        return None
    first = entries[0][1]
    # The curve needs a mean over questions, which macro-F1 is not.
    metric = mean_metric(find_metric(study.metric)).label
    lead = (
        f"{metric[:1].upper()}{metric[1:]} on {first.questions:,} dev questions after training on a part of "
        "the rows with the "
        "chosen settings. The score is taken to follow a power law of the rows; the interval holds the "
        "questions and an assumed spread between runs of "
        f"{RUN_SD:g}."
    )
    columns = (
        Column(title="Arm"),
        *(Column(title=f"{point.rows:,} rows") for point in first.points),
        Column(title=f"{first.more:,} more rows would add", interval="95%"),
    )
    rows: list[tuple[Cell, ...]] = [
        (arm_label(one.arm, study.verdict.arm), *(format_score(point.score) for point in curve.points), _gain(curve))
        for one, curve in entries
    ]
    grid = Grid(label="Learning curves", columns=columns, rows=tuple(rows))
    heading = Heading(id="learning", link="More labels", title="Would more labels help?", lead=lead)
    return LearningCurves(heading=heading, grid=grid)


def _gain(curve: LearningCurve) -> Scored:
    return Scored(value=format_signed(curve.gain), interval=format_interval(curve.low, curve.high))
