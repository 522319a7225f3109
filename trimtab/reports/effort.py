"""Whether more would help: the search effort of every arm, and the learning curves of trained ones."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.base.metrics import mean_metric
from trimtab.base.results import ArmEffort, Cost, Reflection, Trial
from trimtab.measurement.learning_curve import RUN_SD
from trimtab.reports.components import (
    ArmLabel,
    Cell,
    Column,
    Grid,
    Heading,
    Scored,
    StyledText,
    TableSection,
    arm_label,
)
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.formatting import (
    DASH,
    format_interval,
    format_number,
    format_score,
    format_seconds,
    format_signed,
    plural,
    shorten,
)
from trimtab.reports.labels import settings_text

ENDED = {
    "no trial was better": "nothing tried was better",
    "budget": "its time was over",
    "edge of the ladder": "the best stood at the edge of what was tried",
}
MOST_STEPS = 5  # improvements listed in a cell


@dataclass(frozen=True, slots=True, kw_only=True)
class EffortTrials:
    """Every trial of one arm, what another model's rewriting of its instruction came to, and the instruction in full.

    `reflection`: empty without one; `instruction`: empty if it is that of the task file.
    """

    arm: ArmLabel
    title: str
    grid: Grid
    reflection: str = ""
    instruction: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EffortView:
    """The search effort of every arm, and its trials."""

    heading: Heading
    grid: Grid
    arms: tuple[EffortTrials, ...]


def effort_section(study: StudyFolder) -> EffortView | None:
    """Return the search of every arm that made one; None if nothing was searched."""
    entries = [(entry, entry.result.effort) for entry in study.done if entry.result.effort is not None]
    if not entries:
        return None
    lead = (
        "Every arm could search its own settings for the same time, on train and dev alone; the test questions had no "
        "part in it. Shown is the best so far with the number of trials after which it was found."
    )
    columns = ("Arm", "Spent", "Trials", "Best on dev as it grew", "Ended")
    rows: list[tuple[Cell, ...]] = [
        (
            arm_label(entry.arm, study.result.verdict.use),
            format_seconds(effort.seconds),
            format_number(len(effort.trials)),
            _growth(effort),
            _ended(effort),
        )
        for entry, effort in entries
    ]
    return EffortView(
        heading=Heading(id="effort", link="Effort", title="Effort: what was tried", lead=lead),
        grid=Grid(
            label="Effort by arm",
            columns=tuple(Column(title=title, text=title in ("Best on dev as it grew", "Ended")) for title in columns),
            rows=tuple(rows),
        ),
        arms=tuple(_trials(entry, effort, study) for entry, effort in entries),
    )


def _ended(effort: ArmEffort) -> Cell:
    words = ENDED[effort.stopped]
    return StyledText(text=f"{words}, and it was still improving", tone="no") if effort.improving else words


def _growth(effort: ArmEffort) -> str:
    """Return the successive best values, each with its trial number: the loss (lower is better) if there is one."""
    by_loss = any(trial.dev_loss is not None for trial in effort.trials)
    steps: list[tuple[float, int]] = []
    for number, trial in enumerate(effort.trials, 1):
        value = trial.dev_loss if by_loss else trial.dev_metric
        better = value is not None and (not steps or (value < steps[-1][0] if by_loss else value > steps[-1][0]))
        if value is not None and better:
            steps.append((value, number))
    steps_text = ", ".join(f"{format_score(value)} ({number})" for value, number in steps[-MOST_STEPS:])
    return f"loss {steps_text}" if by_loss and steps_text else steps_text or DASH


def _trials(entry: ArmEntry, effort: ArmEffort, study: StudyFolder) -> EffortTrials:
    """Return the trials of one arm as a table, the kept one marked."""
    has_retrieval = any(trial.found is not None for trial in effort.trials)
    has_final_score = any(trial.at_end is not None for trial in effort.trials)
    # instruction variants and linear fits are compared question by question, which macro-F1 does not allow
    metric = study.metric
    by_question = metric.by_class and all(trial.dev_loss is None for trial in effort.trials)
    columns = (
        Column(title="Tried"),
        *((Column(title="Right passage shown"),) if has_retrieval else ()),
        Column(title="Dev loss"),
        Column(title=f"Dev {(mean_metric(metric) if by_question else metric).label}"),
        *((Column(title="At the end"),) if has_final_score else ()),
        Column(title="Rows"),
        Column(title="Took"),
    )
    kept_first = sorted(effort.trials, key=lambda trial: not trial.kept)
    rows = [_row(trial, has_retrieval=has_retrieval, has_final_score=has_final_score) for trial in kept_first]
    return EffortTrials(
        arm=arm_label(entry.arm),
        title=plural(len(rows), "trial"),
        grid=Grid(label=f"Trials of {entry.name}", columns=columns, rows=tuple(rows)),
        reflection=_reflection(effort.reflection, entry.result.cost) if effort.reflection else "",
        instruction=str(entry.result.chosen.get("instruction", "")),
    )


def _reflection(found: Reflection, cost: Cost | None) -> str:
    """Return what another model's rewriting of the instruction came to, in words."""
    calls = plural(found.calls, "rewriting")
    fee = f", for {found.fee:.2g} {cost.currency}" if found.fee and cost else ""
    refused = f"{format_number(found.refused)} refused for repeating rows, being empty or too long"
    kept = "one of them is kept" if found.kept else "none was clearly better across folds of dev, so none is kept"
    return (
        f"{found.by} read answers to {plural(found.questions, 'training question')} and wrote {calls} in "
        f"{format_seconds(found.seconds)}{fee}: {refused}, {format_number(found.compared)} compared on dev; {kept}."
    )


def _row(trial: Trial, *, has_retrieval: bool, has_final_score: bool) -> tuple[Cell, ...]:
    what = shorten(settings_text(trial.what), 160)
    found = DASH if trial.found is None else format_score(trial.found)
    return (
        StyledText(text=what, tone="strong", soft="kept") if trial.kept else what,
        *((found,) if has_retrieval else ()),
        DASH if trial.dev_loss is None else format_score(trial.dev_loss),
        DASH if trial.dev_metric is None else format_score(trial.dev_metric),
        *((DASH if trial.at_end is None else format_score(trial.at_end),) if has_final_score else ()),
        format_number(trial.rows),
        format_seconds(trial.seconds),
    )


def learning_section(study: StudyFolder) -> TableSection | None:
    """Return the learning curve of every arm that has one."""
    entries = [(entry, entry.result.learning) for entry in study.done if entry.result.learning is not None]
    if not entries:
        return None
    first = entries[0][1]
    # The curve needs a mean over questions, which macro-F1 is not.
    metric = mean_metric(study.metric).label
    lead = (
        f"{metric[:1].upper()}{metric[1:]} on {first.questions:,} dev questions after training on a part of the "
        "rows with the chosen settings. The score is taken to follow a power law of the rows; the interval holds the "
        f"questions and an assumed spread between runs of {RUN_SD:g}."
    )
    columns = (
        Column(title="Arm"),
        *(Column(title=f"{point.rows:,} rows") for point in first.points),
        Column(title=f"{first.more:,} more rows would add", interval="95%"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            arm_label(entry.arm, study.result.verdict.use),
            *(format_score(point.score) for point in curve.points),
            Scored(value=format_signed(curve.gain), interval=format_interval(curve.low, curve.high)),
        )
        for entry, curve in entries
    ]
    grid = Grid(label="Learning curves", columns=columns, rows=tuple(rows))
    heading = Heading(id="learning", link="More labels", title="Would more labels help?", lead=lead)
    return TableSection(heading=heading, grid=grid)
