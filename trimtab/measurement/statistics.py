"""Confidence intervals and tests of a score, and of a difference of scores.

Scores lie in [0, 1], one an item. `groups` names each item's group (None: a group of its own); where groups repeat,
items of one group are not independent and everything is computed by group. `p_reaches_curve` and
`p_noninferior_curve` also take an array of group numbers from 0, for scores that are known to be in order. `weights` of
the items (None: all count alike) make every mean a weighted one, and each item then counts as a group as large as its
weight, unless it is said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from trimtab.base.errors import InputError
from trimtab.base.results import Estimate
from trimtab.measurement.clusters import (
    ItemGroups,
    clustered_error,
    degrees_of_freedom,
    effective_groups,
    group_codes,
    left_out_error,
)
from trimtab.measurement.dirichlet_bound import lowered_limit, mean_above, mean_floor, p_without_rare
from trimtab.measurement.mix import effective_number
from trimtab.measurement.paired_proportions import Z, mcnemar, tango, tango_above, tango_interval
from trimtab.measurement.resampling import (
    Array,
    Curve,
    Indices,
    Statistic,
    bca,
    bca_mean,
    bias_and_acceleration,
    jackknife,
    p_sign_flip,
    sampling_units,
    statistic_draws,
)

MOST_WIDENED = 1000  # items: of more, one that was not drawn moves a mean by less than .001
FEW = 10  # with fewer items that differ, a bootstrap has too little to draw from
LEVEL = 0.05
NOTHING = 1e-12  # an error below this is rounding


class Difference(NamedTuple):
    """Score of a minus score of b, its two-sided 95% interval, and the two-sided p-value of "no difference"."""

    difference: float
    low: float
    high: float
    p: float


def estimate(
    scores: ArrayLike,
    groups: ItemGroups | None = None,
    *,
    weights: Array | None = None,
    statistic: Statistic | None = None,
    seed: int = 0,
) -> Estimate:
    """Return the mean score with its two-sided 95% interval, or that of `statistic`, a function of item indices
    (macro-F1).

    Right/wrong: Wilson (1927). Graded: BCa bootstrap (Efron 1987), its normal quantiles widened to t (Hesterberg
    2015), and widened to Gaffke's bounds, since a sample without a failure knows of none. Groups that repeat and
    weights, for either: Wilson at the effective number of items (Dean and Pagano 2015) by the leave-one-group-out
    error (CR3), with t of `degrees_of_freedom`. Fewer than 10 scores unlike the rest: Wilson, which is wide enough
    for any scores in [0, 1]. A `statistic` of items that are not grouped knows their weights itself.
    """
    x, codes = _checked(scores, groups)
    value = _mean(x, weights, statistic)
    if codes is not None or (weights is not None and statistic is None):
        codes = _codes(x, codes)
        items = _effective_items(x, codes, weights, statistic)
        limits = _wilson(min(max(value, 0.0), 1.0), items, t_quantile(degrees_of_freedom(codes, weights)))
    elif statistic is not None:
        units = sampling_units(len(x), None)
        boots = statistic_draws(statistic, units, seed)
        if np.ptp(boots) > 0:
            limits = bca(value, boots, jackknife(statistic, units))
        else:
            whole = _whole_items(len(units), weights)
            limits = _wilson(min(max(value, 0.0), 1.0), whole, t_quantile(whole - 1))
    elif _right_wrong(x) or _few(x):
        limits = _wilson(value, len(x), Z)
    else:
        limits = _graded_interval(x, 0.0, 1.0, seed)
    effective = None if weights is None else _whole_items(len(x), weights)
    return Estimate(value=value, low=min(limits[0], value), high=max(limits[1], value), n=len(x), n_effective=effective)


def p_reaches(
    scores: ArrayLike,
    target: float,
    groups: ItemGroups | None = None,
    *,
    weights: Array | None = None,
    statistic: Statistic | None = None,
    seed: int = 0,
) -> float:
    """Return the one-sided p-value of "the true score is at most `target`": small if the target is reached
    (`p_reaches_curve` at one target)."""
    return p_reaches_curve(scores, groups, weights=weights, statistic=statistic, seed=seed)(target)


def p_reaches_curve(
    scores: ArrayLike,
    groups: ItemGroups | Indices | None = None,
    *,
    weights: Array | None = None,
    statistic: Statistic | None = None,
    seed: int = 0,
) -> Curve:
    """Return the one-sided p-value of "the true score is at most the target", as a function of the target.

    Right/wrong: exact binomial. Graded, and weighted: Gaffke's bound with 0 as the worst score, which on right/wrong
    scores is the exact binomial. By group: t of the score statistic at the effective number of items. `statistic`:
    BCa limit solved for its level.
    """
    x, codes = _checked(scores, groups)
    if codes is not None:
        return _reaching_by_group(x, codes, weights, statistic)
    if statistic is not None:
        return _statistic_above(statistic, len(x), weights, seed)
    if _right_wrong(x) and weights is None:
        total, count = float(x.sum()), len(x)
        return lambda target: float(special.betainc(total, count - total + 1, min(target, 1.0))) if total > 0 else 1.0
    return mean_above(x, worst=0.0, weights=weights)


def lower_bound(
    scores: ArrayLike,
    groups: ItemGroups | None = None,
    *,
    weights: Array | None = None,
    statistic: Statistic | None = None,
    seed: int = 0,
) -> float:
    """Return the lower one-sided 95% bound of the score: the largest target that `p_reaches` rejects at .05, by the
    same methods.

    Right/wrong: Clopper and Pearson (1934). By group: Wilson's lower limit with the one-sided quantile of t.
    """
    x, codes = _checked(scores, groups)
    if codes is not None:
        if codes.max() < 1:
            return 0.0
        value = _mean(x, weights, statistic)
        quantile = min(float(stats.t.isf(LEVEL, degrees_of_freedom(codes, weights))), 1e9)
        items = _effective_items(x, codes, weights, statistic)
        return min(value, _wilson(min(max(value, 0.0), 1.0), items, quantile)[0])
    if statistic is not None:
        return _statistic_floor(statistic, len(x), weights, seed)
    if _right_wrong(x) and weights is None:
        total = float(x.sum())
        return float(special.betaincinv(total, len(x) - total + 1, LEVEL)) if total > 0 else 0.0
    return mean_floor(x, worst=0.0, level=LEVEL, weights=weights)


def compare_paired(
    a: ArrayLike,
    b: ArrayLike,
    groups: ItemGroups | None = None,
    *,
    weights: Array | None = None,
    statistic: Statistic | None = None,
    seed: int = 0,
) -> Difference:
    """Compare two arms on the same items; `statistic`, if given, is the difference as a function of item indices.

    Right/wrong: exact McNemar test, Tango's (1998) score interval. Graded: sign-flip test, exact up to 14 items that
    differ, and BCa interval of the paired differences, widened to Gaffke's bounds. By group: sign flips of whole
    groups, t interval with the leave-one-group-out error (CR3); for a `statistic` by group, and weighted, the test
    is that t too. Sign flips take both signs for equally likely; where a steady arm meets one with rare zeros they are
    not, so p is at least that of `p_without_rare`. Fewer than 10 items (or groups) that differ: Tango's interval at
    the sums of gains and losses (at G* pairs), conservative. Where test and interval disagree at the edge, the test
    decides.
    """
    x, y, codes = _paired(a, b, groups)
    gaps = x - y
    mean = float(gaps.mean())
    if codes is not None or (weights is not None and statistic is None):
        return _compare_by_group(gaps, _codes(gaps, codes), weights, statistic, seed)
    if statistic is not None:
        return _compare_statistic(statistic, len(gaps), weights, seed)
    wins, losses = float(gaps[gaps > 0].sum()), -float(gaps[gaps < 0].sum())
    plain = _right_wrong(x) and _right_wrong(y)
    few = np.count_nonzero(gaps) < FEW
    low, high = tango_interval(wins, losses, len(gaps)) if plain or few else _graded_interval(gaps, -1.0, 1.0, seed)
    p = mcnemar(round(wins), round(losses)) if plain else max(p_sign_flip(gaps, seed), p_without_rare(gaps))
    return Difference(mean, max(min(low, mean), -1.0), min(max(high, mean), 1.0), p)


def p_noninferior(
    a: ArrayLike,
    b: ArrayLike,
    margin: float,
    groups: ItemGroups | None = None,
    *,
    weights: Array | None = None,
    statistic: Statistic | None = None,
    seed: int = 0,
) -> float:
    """Return the one-sided p-value of "a is worse than b by `margin` or more": small if a is shown not to be
    (`p_noninferior_curve` at one margin)."""
    return p_noninferior_curve(a, b, groups, weights=weights, statistic=statistic, seed=seed)(margin)


def p_noninferior_curve(
    a: ArrayLike,
    b: ArrayLike,
    groups: ItemGroups | Indices | None = None,
    *,
    weights: Array | None = None,
    statistic: Statistic | None = None,
    seed: int = 0,
) -> Curve:
    """Return the one-sided p-value of "a is behind b by the margin or more", as a function of the margin; at -margin of
    "a is not ahead by more".

    Right/wrong: Tango's (1998) score test at -margin. Graded: Gaffke's bound of the paired differences, -1 as the
    worst. By group, and right/wrong weighted: t with the leave-one-group-out error; with fewer than 10 groups that
    differ Tango's test at the sums of gains and losses, at G* pairs.
    """
    x, y, codes = _paired(a, b, groups)
    gaps = x - y
    if codes is not None:
        return _behind_by_group(gaps, codes, weights, statistic)
    if statistic is not None:
        above = _statistic_above(statistic, len(gaps), weights, seed)
        return lambda margin: above(-margin)
    if _right_wrong(x) and _right_wrong(y):
        if weights is not None:
            return _behind_by_group(gaps, _codes(gaps, None), weights, None)
        return tango_above(float(gaps[gaps > 0].sum()), -float(gaps[gaps < 0].sum()), len(gaps))
    above = mean_above(gaps, worst=-1.0, weights=weights)
    return lambda margin: above(-margin)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the family-wise error rate (Holm 1979), in the given order."""
    adjusted, running = [0.0] * len(p), 0.0
    for done, place in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        running = max(running, min(1.0, (len(p) - done) * p[place]))
        adjusted[place] = running
    return adjusted


def look_level(look: int) -> float:
    """Return the level for the `look`-th study of the same questions: .05 * 6 / (pi^2 look^2), which sums to .05 over
    all looks."""
    return LEVEL * 6 / (math.pi * look) ** 2


# ---- inputs


def _checked(scores: ArrayLike, groups: ItemGroups | Indices | None) -> tuple[Array, Indices | None]:
    x = np.asarray(scores, dtype=np.float64)
    if isinstance(groups, np.ndarray):
        return x, groups
    if x.ndim != 1 or not len(x):
        raise InputError("no scores", "give one score an item")
    if not ((x >= 0) & (x <= 1)).all():
        raise InputError("a score outside [0, 1]", "scale scores to [0, 1]")
    if groups is None:
        return x, None
    if len(groups) != len(x):
        raise InputError(f"{len(groups)} groups for {len(x)} scores", "give each item its group, or None")
    return x, group_codes(groups)


def _paired(a: ArrayLike, b: ArrayLike, groups: ItemGroups | Indices | None) -> tuple[Array, Array, Indices | None]:
    x, codes = _checked(a, groups)
    y, _ = _checked(b, None)
    if len(x) != len(y):
        raise InputError(f"{len(x)} scores against {len(y)}", "compare arms on the same items")
    return x, y, codes


def _codes(x: Array, codes: Indices | None) -> Indices:
    """Return each item's group; if none repeats, each item is a group of its own."""
    return np.arange(len(x)) if codes is None else codes


def _mean(x: Array, weights: Array | None, statistic: Statistic | None) -> float:
    """Return the mean, or the statistic, of all items."""
    return float(np.average(x, weights=weights) if statistic is None else statistic(np.arange(len(x))))


def _whole_items(n: int, weights: Array | None) -> float:
    """Return the effective number of independent items: all of them if they have equal weights."""
    return n if weights is None else effective_number(weights)


def _right_wrong(x: Array) -> bool:
    return bool(((x == 0) | (x == 1)).all())


def _few(x: Array) -> bool:
    """True if fewer than 10 scores differ from the most common one."""
    _, counts = np.unique(x, return_counts=True)
    return int(len(x) - counts.max()) < FEW


def _graded_interval(x: Array, worst: float, best: float, seed: int) -> tuple[float, float]:
    """Return the BCa interval of a mean, widened to Gaffke's bounds for values from `worst` to `best`, by which claims
    are tested."""
    low, high = bca_mean(x, seed)
    if len(x) > MOST_WIDENED:
        return low, high
    return lowered_limit(low, x, worst, LEVEL / 2), -lowered_limit(-high, -x, -best, LEVEL / 2)


def t_quantile(degrees: float) -> float:
    """Return the two-sided 95% quantile of Student's t, infinite for no degrees; at most 1e9, so that a zero error
    stays zero."""
    return min(float(stats.t.isf(LEVEL / 2, degrees)), 1e9) if degrees > 0 else math.inf


# ---- one mean


def _wilson(p: float, n: float, z: float) -> tuple[float, float]:
    if not math.isfinite(z):
        return 0.0, 1.0
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def _by_group(x: Array, codes: Indices, weights: Array | None, statistic: Statistic | None) -> tuple[float, float]:
    """Return the mean, or the statistic, and its leave-one-group-out error, at least that of independent items."""
    if statistic is None:
        return _mean(x, weights, None), clustered_error(x, codes, weights)
    value = float(statistic(np.arange(len(x))))
    units = (sampling_units(len(x), each) for each in (codes, None))
    return value, max(left_out_error(value, jackknife(statistic, each)) for each in units)


def _effective_items(x: Array, codes: Indices, weights: Array | None, statistic: Statistic | None) -> float:
    """Return the effective number of independent right/wrong items; the effective number of groups if too few
    differ."""
    values, counts = np.unique(x, return_counts=True)
    differing = len(np.unique(codes[x != values[counts.argmax()]]))
    if differing >= FEW:
        value, error = _by_group(x, codes, weights, statistic)
        if 0 < value < 1 and error > NOTHING:
            return value * (1 - value) / error**2
    return effective_groups(codes, weights)


def _t_above(ratio: float, codes: Indices, weights: Array | None) -> float:
    """Return the upper tail of t with the degrees of freedom of the groups."""
    return float(special.stdtr(degrees_of_freedom(codes, weights), -ratio))


def _reaching_by_group(x: Array, codes: Indices, weights: Array | None, statistic: Statistic | None) -> Curve:
    if codes.max() < 1:
        return lambda _target: 1.0
    value = _mean(x, weights, statistic)
    items = _effective_items(x, codes, weights, statistic)

    def p(target: float) -> float:
        if not 0 < target < 1:
            return float(target >= 1)
        return _t_above((value - target) / math.sqrt(target * (1 - target) / items), codes, weights)

    return p


def _statistic_above(statistic: Statistic, n: int, weights: Array | None, seed: int) -> Curve:
    """Return the p-value of "the statistic is at most `null`": the level at which the BCa limit meets it."""
    units, value = sampling_units(n, None), float(statistic(np.arange(n)))
    if len(units) < 2:
        return lambda _null: 1.0
    boots = statistic_draws(statistic, units, seed)
    if np.ptp(boots) == 0:
        whole = _whole_items(n, weights)
        return lambda null: 1.0 if value <= null else _p_all_alike(value, null, whole)
    return _level_at(value, boots, jackknife(statistic, units))


def _level_at(value: float, boots: Array, left_out: Array) -> Curve:
    bias, acceleration = bias_and_acceleration(value, boots, left_out)

    def p(null: float) -> float:
        share = (np.count_nonzero(boots <= null) + 0.5) / (len(boots) + 1)
        shifted = float(stats.norm.ppf(share)) - bias
        return float(stats.norm.cdf(shifted / (1 + acceleration * shifted) - bias))

    return p


def _statistic_floor(statistic: Statistic, n: int, weights: Array | None, seed: int) -> float:
    """Return the largest `null` that `_statistic_above` rejects: the one-sided BCa limit."""
    units, value = sampling_units(n, None), float(statistic(np.arange(n)))
    if n < 2:
        return 0.0
    boots = statistic_draws(statistic, units, seed)
    if np.ptp(boots) == 0:
        return min(value, float(LEVEL ** (1 / _whole_items(n, weights))))
    bias, acceleration = bias_and_acceleration(value, boots, jackknife(statistic, units))
    wanted = float(stats.norm.ppf(LEVEL)) + bias
    share = float(stats.norm.cdf(wanted / max(1 - acceleration * wanted, 0.1) + bias))
    return min(value, float(np.quantile(boots, share)))


def _p_all_alike(value: float, null: float, units: float) -> float:
    """Return the p-value if every draw is the same: that of as many right/wrong items, or pairs if `null` is a
    difference."""
    if null >= 0:
        return float(null**units)
    return float(stats.norm.sf(tango(max(value, 0.0) * units, max(-value, 0.0) * units, units, null)))


def _compare_statistic(statistic: Statistic, n: int, weights: Array | None, seed: int) -> Difference:
    units, value = sampling_units(n, None), float(statistic(np.arange(n)))
    if len(units) < 2:
        return Difference(value, -1.0, 1.0, 1.0)
    boots = statistic_draws(statistic, units, seed)
    if np.ptp(boots) == 0:
        whole = _whole_items(n, weights)
        low, high = tango_interval(max(value, 0.0) * whole, max(-value, 0.0) * whole, whole)
        return Difference(value, low, high, 1.0)
    left_out = jackknife(statistic, units)
    low, high = bca(value, boots, left_out)
    above = _level_at(value, boots, left_out)(0.0)
    return Difference(value, min(low, value), max(high, value), min(1.0, 2 * min(above, 1 - above)))


# ---- paired differences


def _behind_by_group(gaps: Array, codes: Indices, weights: Array | None, statistic: Statistic | None) -> Curve:
    if codes.max() < 1:
        return lambda _margin: 1.0
    value, error = _by_group(gaps, codes, weights, statistic)
    if _differing(gaps, codes) < FEW or error <= NOTHING:
        return tango_above(*_pairs_of_groups(gaps, codes, weights, statistic))
    return lambda margin: _t_above((value + margin) / error, codes, weights)


def _compare_by_group(
    gaps: Array, codes: Indices, weights: Array | None, statistic: Statistic | None, seed: int
) -> Difference:
    sums = np.bincount(codes, weights=gaps).astype(np.float64)
    several = len(sums) > 1
    value, error = _by_group(gaps, codes, weights, statistic) if several else (_mean(gaps, weights, None), math.inf)
    if not math.isfinite(error):
        return Difference(value, -1.0, 1.0, 1.0)
    if _differing(gaps, codes) < FEW or error < NOTHING:
        pairs = _pairs_of_groups(gaps, codes, weights, statistic)
        low, high = tango_interval(*pairs)
        p = 2 * float(stats.norm.sf(abs(tango(*pairs, 0.0))))
    else:
        half = t_quantile(degrees_of_freedom(codes, weights)) * error
        low, high = value - half, value + half
        p = 2 * _t_above(abs(value) / error, codes, weights)
    if statistic is None and weights is None:
        p = max(p_sign_flip(sums, seed), p_without_rare(sums * len(sums) / len(gaps)))
    return Difference(value, max(min(low, value), -1.0), min(max(high, value), 1.0), p)


def _differing(gaps: Array, codes: Indices) -> int:
    """Return the number of groups in which anything differs."""
    return int(np.count_nonzero(np.bincount(codes, np.abs(gaps))))


def _pairs_of_groups(
    gaps: Array, codes: Indices, weights: Array | None, statistic: Statistic | None
) -> tuple[float, float, float]:
    """Return gains, losses and number as if each group were one pair: G* of them."""
    value, groups = _mean(gaps, weights, statistic), effective_groups(codes, weights)
    differ = max(_mean(np.abs(gaps), weights, None), abs(value))
    return groups * (differ + value) / 2, groups * (differ - value) / 2, groups
