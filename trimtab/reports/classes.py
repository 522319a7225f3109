"""The section of a classifier: confused pairs, scores per class, and selective accuracy if unsure answers go to a
person."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.base.records import CalibrationMethod
from trimtab.measurement.calibration import reliability
from trimtab.measurement.error_analysis import mistakes
from trimtab.reports.components import Cell, Column, Grid, Heading, ReliabilityDiagram, arm_label
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.formatting import DASH, format_number, format_score, plural, shorten
from trimtab.reports.labels import arm_family

MOST_MISTAKES, FOLD_FROM = 10, 13
WAYS: dict[CalibrationMethod, str] = {
    "raw": "as scored",
    "mean": "mean per token",
    "pmi": "less the score for an empty question",
    "batch": "less the mean over training inputs",
}

ECE = {
    "ece_before": "ECE before",
    "ece": "ECE after",
    "ece_by_chance": "Expected if calibrated",
    "ece_debiased": "Excess",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationView:
    """The calibration of each arm's probabilities, before and after, with a chart each."""

    title: str
    note: str
    grid: Grid
    charts: tuple[ReliabilityDiagram, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ByClass:
    """One arm's classes, its confusions, selective accuracy, and calibration; many classes are `folded`."""

    heading: Heading
    mistakes: Grid | None
    title: str
    grid: Grid
    folded: bool
    surest: Grid | None
    surest_title: str
    surest_note: str
    calibration: CalibrationView | None


def classes_section(study: StudyFolder) -> ByClass | None:
    """Return the classes of the chosen arm, or of the best arm if none is chosen, and the calibration of all arms."""
    entry = study.arm(study.result.verdict.use) or next(iter(study.done), None)
    if entry is None or not entry.classes:
        return None
    lead = f"Of {entry.name}. A class of few questions decides nothing."
    folded = len(entry.classes) >= FOLD_FROM
    whose = f"All {plural(len(entry.classes), 'class', 'classes')}" if folded else "Every class"
    return ByClass(
        heading=Heading(id="classes", link="Classes", title="Class by class", lead=lead),
        mistakes=_mistakes(entry),
        title=f"{whose}, weakest first",
        grid=_grid(entry),
        folded=folded,
        surest=_selective_grid(study),
        surest_title="Unsure answers left to a person",
        surest_note="Accuracy where only the surest share is answered by the machine and the rest goes to a person.",
        calibration=_calibration_view(study),
    )


def _mistakes(entry: ArmEntry) -> Grid | None:
    """Return the pairs of labels that are confused most often."""
    rows = [
        (shorten(right, 80), shorten(said, 80) or "(empty)", format_number(times))
        for right, said, times in mistakes(entry.answers, MOST_MISTAKES)
    ]
    columns = (Column(title="Right"), Column(title="Answered", text=True), Column(title="Times"))
    return Grid(label="Most frequent mistakes", columns=columns, rows=tuple(rows)) if rows else None


def _grid(entry: ArmEntry) -> Grid:
    rows = [
        (
            shorten(figures.label, 80),
            format_number(figures.support),
            format_score(figures.precision),
            format_score(figures.recall),
            format_score(figures.f1),
        )
        for figures in sorted(entry.classes, key=lambda figures: (figures.f1, -figures.support))
    ]
    columns = tuple(Column(title=title) for title in ("Class", "Questions", "Precision", "Recall", "F1"))
    return Grid(label="Classes", columns=columns, rows=tuple(rows))


def _selective_grid(study: StudyFolder) -> Grid | None:
    """Return the accuracy on the surest share of the answers, for every arm with probabilities."""
    entries = [entry for entry in study.done if entry.selective]
    shares = sorted({share for entry in entries for share in entry.selective})
    rows: list[tuple[Cell, ...]] = [
        (
            arm_label(entry.arm, study.result.verdict.use),
            *(format_score(entry.selective[share]) if share in entry.selective else DASH for share in shares),
        )
        for entry in entries
    ]
    columns = (Column(title="Arm"), *(Column(title=f"{share:.0%}") for share in shares))
    return Grid(label="Accuracy by share answered", columns=columns, rows=tuple(rows)) if rows else None


def _calibration_view(study: StudyFolder) -> CalibrationView | None:
    """Return how the labels of every arm with probabilities are scored, its calibration error, and its reliability
    diagram."""
    with_probabilities = [
        entry
        for entry in study.done
        if entry.answers and all(answer.probability is not None for answer in entry.answers)
    ]
    if not with_probabilities:
        return None
    titles = ("Arm", "Labels weighed", "Temperature", *ECE.values())
    return CalibrationView(
        title="What a probability is worth",
        note="ECE: mean distance between the probability of an answer and the share of such answers that is "
        "right, on test. "
        "Expected if calibrated: the ECE that calibrated probabilities would show on as many answers; excess: "
        "the ECE beyond that. "
        "How labels are weighed, and the temperature, were chosen on dev; what is served is what came after. "
        "In the charts the dashed line is where both are equal; the numbers above are answers.",
        grid=Grid(
            label="Calibration",
            columns=tuple(Column(title=title, text=title == titles[1]) for title in titles),
            rows=tuple(_calibration_row(entry, study.result.verdict.use) for entry in with_probabilities),
        ),
        charts=tuple(_chart(entry) for entry in with_probabilities),
    )


def _calibration_row(entry: ArmEntry, chosen: str | None) -> tuple[Cell, ...]:
    """Return a row of the calibration table; for several seeds all methods, and the range of their temperatures."""
    temperatures = sorted({f"{calibration.temperature:.2f}" for calibration in entry.calibrations}, key=float)
    return (
        arm_label(entry.arm, chosen),
        ", ".join(dict.fromkeys(WAYS[calibration.way] for calibration in entry.calibrations)) or WAYS["raw"],
        " to ".join(dict.fromkeys([temperatures[0], temperatures[-1]])) if temperatures else DASH,
        *(format_score(entry.result.extras[name]) if name in entry.result.extras else DASH for name in ECE),
    )


def _chart(entry: ArmEntry) -> ReliabilityDiagram:
    bins = reliability(
        [answer.probability or 0.0 for answer in entry.answers], [answer.score == 1.0 for answer in entry.answers]
    )
    return ReliabilityDiagram(
        title=f"{entry.name}: share right by probability",
        y_title=f"{arm_label(entry.arm).short}: share right",
        family=arm_family(entry.arm),
        bins=tuple((group.count, group.probability, group.right) for group in bins),
    )
