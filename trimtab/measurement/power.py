"""How many items a finding needs, and what a number of items can show."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from trimtab.base.errors import InputError
from trimtab.measurement.statistics import LEVEL

POWER = 0.8


def discordance(a: ArrayLike, b: ArrayLike) -> float:
    """Mean squared difference of two arms' scores: for right/wrong the share of items that only one has right."""
    return float(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2))


def items_for_difference(difference: float, discordance: float, comparisons: int) -> int:
    """Items that show `difference` with 80% power, two-sided at .05 / comparisons (Miettinen 1968, for McNemar's test).

    n = (z(1 - .05/2m) sqrt(d) + z(.8) sqrt(d - delta^2))^2 / delta^2; a discordance below the difference is raised to it.
    """
    delta = abs(difference)
    if not 0 < delta <= 1:
        raise InputError(f"no number of items shows a difference of {difference}", "give one in (0, 1]")
    return math.ceil(_items(delta, discordance, comparisons) - 1e-9)


def groups_needed(comparisons: int) -> int:
    """Groups with fewer of which no difference is ever shown, whatever is answered, at .05 / comparisons.

    The sign flips of G groups give p >= 2 / 2^G (Fisher 1935), so G = ceil(log2(2 comparisons / .05)).
    """
    return math.ceil(math.log2(2 * comparisons / LEVEL) - 1e-9)


def smallest_difference(n: int, discordance: float, comparisons: int, groups: int | None = None) -> float:
    """The smallest difference that `n` items show with 80% power at the corrected level; 1.0 where they show none.

    `groups`: how many they form, None where none repeats; fewer than `groups_needed` show none.
    """
    if groups is not None and groups < groups_needed(comparisons):
        return 1.0
    if _items(1.0, discordance, comparisons) >= n:
        return 1.0
    root: float = optimize.brentq(lambda delta: _items(delta, discordance, comparisons) - n, 1e-6, 1.0)
    return root


def items_for_target(score: float, target: float, arms: int, variance: float | None = None) -> int | None:
    """Items that show `target` reached with 80% power at .05 / arms if `score` is the true one; None: none would.

    `variance` is that of one item's score, clustering included; without it that of right/wrong scores.
    """
    if score <= target:
        return None
    at_target, at_score = (target * (1 - target), score * (1 - score)) if variance is None else (variance, variance)
    root = stats.norm.isf(LEVEL / arms) * math.sqrt(at_target) + stats.norm.ppf(POWER) * math.sqrt(at_score)
    return max(1, math.ceil(float(root / (score - target)) ** 2))


def _items(delta: float, discordance: float, comparisons: int) -> float:
    d = max(discordance, delta)
    root = stats.norm.isf(LEVEL / (2 * comparisons)) * math.sqrt(d) + stats.norm.ppf(POWER) * math.sqrt(d - delta**2)
    return float((root / delta) ** 2)
