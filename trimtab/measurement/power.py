"""Statistical power: the items needed to show a difference, and the smallest difference that a number of items
shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from trimtab.base.errors import InputError
from trimtab.measurement.clusters import ItemGroups, clustered_error, degrees_of_freedom, group_codes
from trimtab.measurement.resampling import Array
from trimtab.measurement.statistics import look_level

POWER = 0.8
FIRST_LEVEL = look_level(1)  # of a study on questions that no former one has opened
GUESSED_DISCORDANCE = 0.3  # share of items on which two arms differ, until answers say better
# of two questions of a group, in how far one arm is ahead of another, until answers say better
GUESSED_CORRELATION = 0.1

PowerSource = Literal["assumed", "test answers"]


@dataclass(frozen=True, kw_only=True)
class Variation:
    """The variation of the difference of two arms from question to question, and its source.

    `discordance`: its mean square. `difference`: its mean, by which two arms that are closer disagree less. `effect`:
    by how many times questions of one group, which differ alike, raise the variance of a mean over questions (the
    design effect, Kish 1965).
    """

    discordance: float
    effect: float
    source: PowerSource
    difference: float = 0.0

    def discordance_at(self, difference: float) -> float:
        """Return the mean square if the arms differed by less, at the same variance; by as much or more, as it is."""
        less = max(0.0, self.difference**2 - difference**2)
        return max(self.discordance - less, difference)


def assumed_variation(groups: ItemGroups | None = None) -> Variation:
    """Return the variation assumed before there are answers: effect = 1 + (m - 1) rho, m the mean size of the group of
    a question."""
    codes = None if groups is None else group_codes(groups)
    sizes = np.ones(1) if codes is None else np.bincount(codes)
    effect = 1 + (float(sizes @ sizes) / float(sizes.sum()) - 1) * GUESSED_CORRELATION
    return Variation(discordance=GUESSED_DISCORDANCE, effect=effect, source="assumed")


def observed_variation(scores: Sequence[Array], groups: ItemGroups, source: PowerSource) -> Variation:
    """Return the variation of the two arms that need most questions to tell apart; `scores`: each arm's, of the same
    items.

    Without two arms, or with questions of a single group, what is assumed.
    """
    codes = group_codes(groups)
    pairs = list(combinations(scores, 2))
    if not pairs or (codes is not None and codes.max() < 1):
        return assumed_variation(groups)
    variations = [
        Variation(
            discordance=discordance(a, b) or 1 / len(groups),
            effect=_design_effect(a - b, codes),
            source=source,
            difference=abs(float(np.mean(a - b))),
        )
        for a, b in pairs
    ]
    return max(variations, key=lambda pair: (pair.discordance - pair.difference**2) * pair.effect)


def _design_effect(gaps: Array, codes: np.ndarray[tuple[int], np.dtype[np.intp]] | None) -> float:
    independent = float(gaps.var(ddof=1)) / len(gaps) if len(gaps) > 1 else 0.0
    return 1.0 if codes is None or independent == 0 else clustered_error(gaps, codes) ** 2 / independent


def discordance(a: ArrayLike, b: ArrayLike) -> float:
    """Return the mean squared difference of two arms' scores: for right/wrong the share of items that only one has
    right."""
    return float(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2))


def items_for_difference(difference: float, discordance: float, comparisons: int) -> int:
    """Return the items that show `difference` with 80% power, two-sided at .03 / comparisons (Miettinen 1968, for
    McNemar's test).

    n = (z(1 - .03/2m) sqrt(d) + z(.8) sqrt(d - delta^2))^2 / delta^2; a discordance below the difference is raised
    to it.
    """
    delta = abs(difference)
    if not 0 < delta <= 1:
        raise InputError(f"no number of items shows a difference of {difference}", "give one in (0, 1]")
    return math.ceil(_items(delta, max(discordance, delta), comparisons) - 1e-9)


def groups_needed(comparisons: int, level: float = FIRST_LEVEL) -> int:
    """Return the fewest groups with which any difference can be shown at level / comparisons.

    The sign flips of G groups give p >= 2 / 2^G (Fisher 1935), so G = ceil(log2(2 comparisons / level)).
    """
    return math.ceil(math.log2(2 * comparisons / level) - 1e-9)


def smallest_difference(n: float, variation: Variation, comparisons: int, groups: ItemGroups | None = None) -> float:
    """Return the smallest difference that `n` items show with 80% power at the corrected level; 1.0 if they show none.

    `groups`: of each item. Where they repeat, n counts as n / effect, quantiles are those of t with
    `degrees_of_freedom`, and fewer groups than `groups_needed` show nothing.
    """
    codes, degrees = None if groups is None else group_codes(groups), math.inf
    if codes is not None:
        if int(codes.max()) + 1 < groups_needed(comparisons):
            return 1.0
        degrees = degrees_of_freedom(codes)

    def lacking(delta: float) -> float:
        return _items(delta, variation.discordance_at(delta), comparisons, degrees) - n / variation.effect

    if lacking(1.0) >= 0:
        return 1.0
    root: float = optimize.brentq(lacking, 1e-6, 1.0)
    return root


def _items(delta: float, discordance: float, comparisons: int, degrees: float = math.inf) -> float:
    d, t = discordance, stats.t(degrees)
    root = t.isf(FIRST_LEVEL / (2 * comparisons)) * math.sqrt(d) + t.ppf(POWER) * math.sqrt(d - delta**2)
    return float((root / delta) ** 2)
