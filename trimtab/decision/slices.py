"""Finds slices of the questions on which the chosen arm is worse than another one, though not on all questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trimtab.base.metrics import find_metric
from trimtab.base.records import Answer
from trimtab.base.task import Task
from trimtab.decision.summary import MOST_NAMED, in_metric, way
from trimtab.measurement.figures import behind_curve
from trimtab.measurement.statistics import holm

LEAST = 10  # questions of a slice, below which it is not tested


def slices_sentence(chosen: str | None, answers: Mapping[str, Sequence[Answer]], task: Task, level: float) -> str:
    """Return the slices on which another arm is shown to be better than the chosen one by more than the margin, or that
    there are none.

    One-sided tests at `level`, corrected by Holm over all slices and other arms. Empty without a chosen arm or slices
    that are large enough, and for macro-F1, which means little within a slice.
    """
    if chosen is None or find_metric(task.metric).by_class:
        return ""
    parts = {arm: _by_slice(own) for arm, own in answers.items()}
    pairs = [(name, arm) for name in parts[chosen] for arm in answers if arm != chosen and name in parts[arm]]
    if not pairs:
        return ""
    margin = task.target.margin
    chances = [behind_curve(parts[arm][name], parts[chosen][name], task)(-margin) for name, arm in pairs]
    found = [f"{way(arm)} on {name}" for (name, arm), p in zip(pairs, holm(chances), strict=True) if p <= level]
    better = f"shown to be better by more than {in_metric(task, margin)}"
    if found:
        return f"On some slices of the questions another one is {better}: {', '.join(found)}."
    names = list(parts[chosen])
    which = f"the {len(names)} slices of the questions" if len(names) > MOST_NAMED else ", ".join(names)
    return f"Looked at separately ({which}), no other way is {better} on any."


def _by_slice(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Return the answers of each slice with enough questions."""
    found: dict[str, list[Answer]] = {}
    for row in answers:
        if row.slice is not None:
            found.setdefault(row.slice, []).append(row)
    return {name: rows for name, rows in sorted(found.items()) if len({row.item_id for row in rows}) >= LEAST}
