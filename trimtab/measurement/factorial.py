"""2 x 2 factorial analysis on the same questions: the effect of each factor alone, of both, and their interaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.base.records import Answer
from trimtab.base.results import Estimate
from trimtab.measurement.clusters import clustered_error, degrees_of_freedom, group_codes
from trimtab.measurement.figures import scores_of
from trimtab.measurement.statistics import t_quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class Factorial:
    """Effects on the mean item score against neither factor: `first` and `second` alone, and `both`.

    `interaction` = both − first − second + neither: what the two give beyond the sum of theirs. `groups` is the
    number of groups of questions that the intervals were worked out by, None where no group repeats.
    """

    first: Estimate
    second: Estimate
    both: Estimate
    interaction: Estimate
    groups: int | None


def factorial(
    neither: Sequence[Answer], first: Sequence[Answer], second: Sequence[Answer], both: Sequence[Answer]
) -> Factorial | None:
    """Return the effects over the items that all four answered, with 95% t intervals of the mean contrast, by group
    where groups repeat.

    By group as in comparisons: leave-one-group-out errors (CR3) with t of `degrees_of_freedom`.
    Several seeds of an item count as their mean. None for fewer than two items or groups, which have no spread.
    """
    four = [scores_of(answers) for answers in (neither, first, second, both)]
    shared = sorted(set.intersection(*(set(scores.items) for scores in four)))
    by_item = [dict(zip(scores.items, scores.values_N, strict=True)) for scores in four]
    groups = dict(zip(four[0].items, four[0].groups, strict=True))
    codes_N = group_codes([groups[item] for item in shared]) if shared else None
    repeated = codes_N is not None
    units_N = np.arange(len(shared)) if codes_N is None else codes_N
    units = int(units_N.max(initial=-1)) + 1
    if units < 2:
        return None
    quantile = t_quantile(degrees_of_freedom(units_N))
    scores_4N = np.array([[values[item] for item in shared] for values in by_item])

    def effect(*signs: int) -> Estimate:
        contrast_N = np.array(signs) @ scores_4N
        mean, half = float(contrast_N.mean()), quantile * clustered_error(contrast_N, units_N)
        return Estimate(value=mean, low=mean - half, high=mean + half, n=len(shared))

    return Factorial(
        first=effect(-1, 1, 0, 0),
        second=effect(-1, 0, 1, 0),
        both=effect(-1, 0, 0, 1),
        interaction=effect(1, -1, -1, 1),
        groups=units if repeated else None,
    )
