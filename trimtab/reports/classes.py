"""A classifier's classes: what is mistaken for what, each class, and what is gained where unsure answers go to a person."""

from __future__ import annotations

from trimtab.base.records import Calibration, Way
from trimtab.measurement.calibration import reliability
from trimtab.measurement.error_analysis import mistakes
from trimtab.reports.components import Cell, Column, Grid, Heading, Reliability, label
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.formatting import NOTHING, count, plain, score, shorten
from trimtab.reports.labels import family
from trimtab.reports.view import ByClass, Sureness

MOST_MISTAKES, FOLD_FROM = 10, 13
WAYS: dict[Way, str] = {
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


def by_class(study: StudyFolder) -> ByClass | None:
    """The chosen arm's classes, the best arm's where none is chosen; and how sure all arms are."""
    entry = study.arm(study.verdict.arm) or next(iter(study.done), None)
    if entry is None or not entry.classes:
        return None
    lead = f"Of {entry.name}. A class of few questions decides nothing."
    folded = len(entry.classes) >= FOLD_FROM
    whose = f"All {count(len(entry.classes), 'class', 'classes')}" if folded else "Every class"
    return ByClass(
        heading=Heading(id="classes", link="Classes", title="Class by class", lead=lead),
        mistakes=_mistakes(entry),
        title=f"{whose}, weakest first",
        grid=_grid(entry),
        folded=folded,
        surest=_surest(study),
        surest_title="Unsure answers left to a person",
        surest_note="Accuracy where only the surest share is answered by the machine and the rest goes to a person.",
        sureness=_sureness(study),
    )


def _mistakes(entry: ArmEntry) -> Grid | None:
    """The pairs that are confused most often."""
    rows = [
        (shorten(right, 80), shorten(said, 80) or "(empty)", plain(times))
        for right, said, times in mistakes(entry.answers, MOST_MISTAKES)
    ]
    columns = (Column(title="Right"), Column(title="Answered", text=True), Column(title="Times"))
    return Grid(label="Most frequent mistakes", columns=columns, rows=tuple(rows)) if rows else None


def _grid(entry: ArmEntry) -> Grid:
    rows = [
        (shorten(one.label, 80), plain(one.support), score(one.precision), score(one.recall), score(one.f1))
        for one in sorted(entry.classes, key=lambda one: (one.f1, -one.support))
    ]
    columns = tuple(Column(title=title) for title in ("Class", "Questions", "Precision", "Recall", "F1"))
    return Grid(label="Classes", columns=columns, rows=tuple(rows))


def _surest(study: StudyFolder) -> Grid | None:
    """Accuracy on the surest share of the answers, for every arm that gives probabilities."""
    entries = [one for one in study.done if one.selective]
    shares = sorted({share for one in entries for share in one.selective})
    rows: list[tuple[Cell, ...]] = [
        (
            label(one.arm, study.verdict.arm),
            *(score(one.selective[share]) if share in one.selective else NOTHING for share in shares),
        )
        for one in entries
    ]
    columns = (Column(title="Arm"), *(Column(title=f"{share:.0%}") for share in shares))
    return Grid(label="Accuracy by share answered", columns=columns, rows=tuple(rows)) if rows else None


def _sureness(study: StudyFolder) -> Sureness | None:
    """Every arm whose answers have probabilities: how its labels are weighed, its calibration error, how often it is right."""
    sure = [one for one in study.done if one.answers and all(answer.probability is not None for answer in one.answers)]
    if not sure:
        return None
    titles = ("Arm", "Labels weighed", "Temperature", *ECE.values())
    return Sureness(
        title="What a probability is worth",
        note="ECE: mean distance between the probability of an answer and the share of such answers that is right, on test. "
        "Expected if calibrated: the ECE that calibrated probabilities would show on as many answers; excess: the ECE beyond that. "
        "How labels are weighed, and the temperature, were chosen on dev; what is served is what came after. "
        "In the charts the dashed line is where both are equal; the numbers above are answers.",
        grid=Grid(
            label="Calibration",
            columns=tuple(Column(title=title, text=title == titles[1]) for title in titles),
            rows=tuple(_weighed(one, study.verdict.arm) for one in sure),
        ),
        charts=tuple(_chart(one) for one in sure),
    )


def _weighed(entry: ArmEntry, chosen: str | None) -> tuple[Cell, ...]:
    """One row of the table; of several seeds every way that was chosen, and the span of their temperatures."""
    made: tuple[Calibration, ...] = entry.calibrations
    heat = sorted({f"{one.temperature:.2f}" for one in made}, key=float)
    return (
        label(entry.arm, chosen),
        ", ".join(dict.fromkeys(WAYS[one.way] for one in made)) or WAYS["raw"],
        " to ".join(dict.fromkeys([heat[0], heat[-1]])) if heat else NOTHING,
        *(score(entry.extras[name]) if name in entry.extras else NOTHING for name in ECE),
    )


def _chart(entry: ArmEntry) -> Reliability:
    bins = reliability(
        [answer.probability or 0.0 for answer in entry.answers], [answer.score == 1.0 for answer in entry.answers]
    )
    return Reliability(
        title=f"{entry.name}: share right by probability",
        y_title=f"{label(entry.arm).short}: share right",
        family=family(entry.arm),
        bins=tuple((one.count, one.probability, one.right) for one in bins),
    )
