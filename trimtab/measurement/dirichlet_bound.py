"""Gaffke's one-sided confidence bound of a mean: it adds one unseen item with the worst possible score."""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize, special

from trimtab.measurement.resampling import Array, Curve

STEP, BLOCK, END = 0.05, 20, 14.0  # of the trapezoidal rule
NOTHING = 1e-14
EDGE = 1e-12
UNSEEN = 0.25  # items of the other sign that are added to gaps


def p_without_rare(gaps: Array) -> float:
    """Return the two-sided p-value of "the mean is 0" for gaps in [-1, 1] of which rare and large ones may be missing.

    Forty items on which one arm is always ahead by .05 show nothing if the other may fail once in twenty. The greater
    of two p-values. Few rare items: Gaffke's, with a quarter of the unseen item. None at all: that of an item of the
    other sign that was not drawn, half of which counts (as in Jeffreys' interval), against the mean of the others.
    Both shares are ours, chosen by simulation (benchmarks/bursts_simulation.py): at these the level holds, and gaps
    without rare ones keep their power.
    """
    few = min(mean_above(side, worst=-1.0, unseen=UNSEEN)(0.0) for side in (gaps, -gaps))
    return min(1.0, 2 * max(few, _p_none_drawn(gaps)))


def p_without_rare_normal(gaps: Array) -> float:
    """Return `p_without_rare` for many gaps: the sum of the gaps, each times an exponential number, is normal but for
    its skewness (Edgeworth's first term)."""
    x = gaps if gaps.sum() > 0 else -gaps
    deviation = math.sqrt(float(x @ x) + UNSEEN)
    z = (UNSEEN - float(x.sum())) / deviation
    skewness = 2 * (float((x**3).sum()) - UNSEEN) / deviation**3
    density = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    few = float(special.ndtr(z)) - density * skewness / 6 * (z**2 - 1)
    return min(1.0, 2 * max(few, _p_none_drawn(gaps)))


def _p_none_drawn(gaps: Array) -> float:
    """Return the one-sided p-value of "the mean is 0" if an item of the other sign may not have been drawn."""
    mean = abs(float(gaps.mean()))
    return float(special.betaincc(0.5, len(gaps), mean / (1 + mean)))


def mean_above(x: Array, worst: float, weights: Array | None = None, unseen: float = 1.0) -> Curve:
    """Return the p-value of "the mean is at most `null`", as a function of `null`, for independent scores of at least
    `worst`.

    p = P(D_0 worst + sum D_i x_i <= null), D uniform on the simplex (Gaffke 2005; Learned-Miller and Thomas 2020).
    On right/wrong scores it is the exact binomial p (Clopper and Pearson 1934). That it holds its level for every
    distribution is a conjecture, well tried and not proven.

    `weights`: of each score, where the mean is a weighted one. D_i is then that of exponential variables times the
    weights, and the item that was not drawn has the largest weight (as Fay and Feuer 1997 have it for directly
    standardised rates). That it holds its level then is measured (benchmarks/verdict_simulation.py). `unseen`: how
    many items of the worst score are added, without weights; fewer than one are no bound (`p_without_rare`).
    """
    values, scales = np.append(x, worst), np.ones(1)
    if weights is None:
        values, counts = np.unique(values, return_counts=True)
        counts = counts + (unseen - 1.0) * (values == worst)
    else:
        pairs = np.stack([values, np.append(weights / weights.max(), 1.0)])
        (values, scales), counts = np.unique(pairs, axis=1, return_counts=True)

    def p(null: float) -> float:
        if null >= values[-1]:
            return 1.0
        return 0.0 if null <= worst else _below_zero(scales * (values - null), counts.astype(np.float64))

    return p


def mean_floor(x: Array, worst: float, level: float, weights: Array | None = None) -> float:
    """Return the largest `null` that `mean_above` rejects at `level`: a lower confidence bound of the mean."""
    best = float(x.max())
    floor = _rejected_up_to(mean_above(x, worst, weights), worst, best - EDGE, level, xtol=1e-9)
    return best if floor == best - EDGE else floor  # also where all scores are the worst


def lowered_limit(limit: float, x: Array, worst: float, level: float) -> float:
    """Return the lower of `limit` and the bound of `mean_floor`; costs one evaluation if `limit` is lower."""
    return limit if limit <= worst else _rejected_up_to(mean_above(x, worst), worst, limit, level, xtol=1e-5)


def _rejected_up_to(p: Curve, worst: float, most: float, level: float, xtol: float) -> float:
    """Return the largest `null` from `worst` to `most` whose p-value is at most the level."""
    if p(most) <= level:
        return most
    root: float = optimize.brentq(lambda null: p(null) - level, worst, most, xtol=xtol)
    return root


def _below_zero(weights: Array, counts: Array) -> float:
    """Return P(sum of weight times a sum of `count` exponential variables <= 0): D is these variables divided by their
    sum.

    The inversion integral of the moment generating function prod (1 - weight z)^-count, along the vertical through
    its saddle point (Daniels 1987, "Tail probability approximations"), so that small p-values are as exact as large
    ones. Needs weights of both signs.
    """
    if counts @ weights < 0:  # the other tail is the small one
        return 1 - _below_zero(-weights, counts)
    edge = 1 / weights.min()  # the function is finite from here, below 0, to 0

    def slope(share: float) -> float:
        z = share * edge
        return float(counts @ (weights / (1 - weights * z)) - 1 / z)

    centre = edge * optimize.brentq(slope, EDGE, 1 - EDGE, xtol=EDGE)
    width = 1 / np.sqrt(counts @ (weights / (1 - weights * centre)) ** 2 + 1 / centre**2)
    area, first = 0.0, 0.0
    for start in range(0, round(END / STEP), BLOCK):
        steps = STEP * np.arange(start, start + BLOCK)
        z = centre + 1j * width * np.sinh(steps)
        heights = -(np.exp(-(np.log1p(-np.outer(z, weights)) @ counts)) / z * width * np.cosh(steps)).real
        first = first or float(heights[0])
        area += STEP * float(heights.sum())
        if abs(heights[-1]) < NOTHING * abs(first):  # what is left adds nothing: of many scores after a few steps
            break
    area -= STEP * first / 2
    return float(min(max(area / np.pi, 0.0), 1.0))
