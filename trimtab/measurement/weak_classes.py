"""Finds the frequent classes whose recall is far below that of the other classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trimtab.base.metrics import default_metric
from trimtab.base.records import Answer
from trimtab.base.results import WeakClass
from trimtab.base.task import Task
from trimtab.measurement.clusters import clustered_error, group_codes
from trimtab.measurement.figures import Scores, score_estimate, scores_of
from trimtab.measurement.metrics import fold_label
from trimtab.measurement.statistics import FEW, LEVEL, holm

FREQUENT = 0.05  # share of the questions from which on a class is looked at
FAR_BELOW = 0.1  # least distance of its recall from that of the others


def weak_classes(answers: Sequence[Answer], task: Task) -> tuple[WeakClass, ...]:
    """Return the classes with at least FREQUENT of the questions whose recall is shown to be below that of all other
    questions, and is so by at least FAR_BELOW, the farthest first; none but of a closed set of labels.

    One-sided tests of two proportions with their pooled variance, of as many questions as count alike where groups
    repeat; p after Holm over the frequent classes. Every question counts alike, whatever the mix of slices.
    """
    if task.task.kind != "classify":
        return ()
    spelled = {answer.item_id: answer.reference[0].strip() for answer in answers}
    scores = scores_of(answers)
    labels_N = np.array([fold_label(spelled[item]) for item in scores.items])
    names, counts = np.unique(labels_N, return_counts=True)
    least = max(FEW, FREQUENT * len(labels_N))
    frequent = [name for name, count in zip(names, counts, strict=True) if least <= count <= len(labels_N) - FEW]
    adjusted = holm([_p_below(scores, labels_N == name) for name in frequent])
    plain = task.scored_by(default_metric("classify").name)
    plain = plain.model_copy(update={"data": plain.data.model_copy(update={"mix": {}})})
    found = []
    for name, p in zip(frequent, adjusted, strict=True):
        inside = {item for item, label in zip(scores.items, labels_N, strict=True) if label == name}
        own, others = ([row for row in answers if (row.item_id in inside) is of_it] for of_it in (True, False))
        recall, rest = score_estimate(own, plain), score_estimate(others, plain)
        if p < LEVEL and rest.value - recall.value >= FAR_BELOW:
            label = spelled[next(iter(inside))]
            found.append(WeakClass(label=label, share=len(inside) / len(labels_N), recall=recall, rest=rest, p_holm=p))
    return tuple(sorted(found, key=lambda weak: weak.recall.value - weak.rest.value))


def _p_below(scores: Scores, inside_N: NDArray[np.bool_]) -> float:
    """Return the one-sided p of "the recall of these questions is not below that of the others"."""
    pooled = float(scores.values_N.mean())
    error = math.sqrt(pooled * (1 - pooled) * sum(1 / _independent(scores, mask) for mask in (inside_N, ~inside_N)))
    gap = float(scores.values_N[inside_N].mean() - scores.values_N[~inside_N].mean())
    return float(stats.norm.cdf(gap / error)) if error else 1.0


def _independent(scores: Scores, mask_N: NDArray[np.bool_]) -> float:
    """Return the number of questions, or where groups of them repeat, of those that would be as sure (Kish 1965)."""
    values = scores.values_N[mask_N]
    codes = group_codes([group for group, inside in zip(scores.groups, mask_N, strict=True) if inside])
    alone = float(values.var(ddof=1)) / len(values)
    if codes is None:
        return len(values)
    if codes.max() < 1:
        return 1.0
    if alone == 0:
        return int(codes.max()) + 1
    return len(values) / max(1.0, clustered_error(values, codes) ** 2 / alone)
