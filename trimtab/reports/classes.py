"""A classifier's classes: what is mistaken for what, each class, and what is gained where unsure answers go to a person."""

from __future__ import annotations

from trimtab.measurement.inspection import mistakes
from trimtab.reports.folder import ArmEntry, StudyFolder
from trimtab.reports.pieces import Cell, Column, Grid, Heading, label
from trimtab.reports.view import ByClass
from trimtab.reports.writing import NOTHING, count, plain, score, shorten

MOST_MISTAKES, FOLD_FROM = 10, 13


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
