"""Resampling: bootstrap draws, BCa limits (Efron 1987), sign-flip tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
Statistic = Callable[[Indices], float]
Curve = Callable[[float], float]  # a p-value as a function of the value that is tested

RESAMPLES, STATISTIC_RESAMPLES, FLIPS = 4_000, 2_000, 9_999
EXACT_FLIPS = 14  # 2 ** 14 sign patterns are enumerated rather than sampled
CHUNK = 2_000_000  # numbers drawn at a time


@runtime_checkable
class BatchStatistic(Protocol):
    """A statistic that is also computed for many samples at once."""

    def __call__(self, indices: Indices) -> float:
        """Return the statistic of these items."""

    def of_rows(self, draws_RN: Indices) -> Array:
        """Return the statistic of each row of item indices: `[rows]`."""


def _mean_draws(x: Array, seed: int) -> Array:
    """Return the means of bootstrap samples."""
    random, n = np.random.default_rng(seed), len(x)
    means, rows = np.empty(RESAMPLES), max(1, CHUNK // n)
    for start in range(0, RESAMPLES, rows):
        part = slice(start, min(start + rows, RESAMPLES))
        means[part] = x[random.integers(0, n, (part.stop - start, n))].mean(1)
    return means


def bca_mean(x: Array, seed: int) -> tuple[float, float]:
    """Return the 95% BCa interval of a mean of independent items."""
    return bca(float(x.mean()), _mean_draws(x, seed), (x.sum() - x) / (len(x) - 1))


def bias_and_acceleration(value: float, boots: Array, left_out: Array) -> tuple[float, float]:
    """Return the two constants of BCa from the draws and the leave-one-out values (Efron 1987, sections 3, 6)."""
    below = np.count_nonzero(boots < value - 1e-12) + 0.5 * np.count_nonzero(np.abs(boots - value) <= 1e-12)
    bias = float(stats.norm.ppf(min(max(below, 0.5), len(boots) - 0.5) / len(boots)))
    influence = left_out.mean() - left_out
    spread = float(influence @ influence) ** 1.5
    return bias, float((influence**3).sum()) / (6 * spread) if spread > 0 else 0.0


def bca(value: float, boots: Array, left_out: Array) -> tuple[float, float]:
    """Return the 95% BCa limits, with normal quantiles widened to those of t on the number of units (Hesterberg
    2015)."""
    bias, acceleration = bias_and_acceleration(value, boots, left_out)
    units = len(left_out)
    wide = math.sqrt(units / (units - 1)) * float(stats.t.isf(0.025, units - 1))
    levels = []
    for z in (-wide, wide):
        shifted = bias + z
        levels.append(stats.norm.cdf(bias + shifted / max(1 - acceleration * shifted, 0.1)))
    low, high = np.quantile(boots, levels)
    return float(low), float(high)


def sampling_units(n: int, codes: Indices | None) -> list[Indices]:
    """Return the units that are drawn together: single items, or the items of a group."""
    everything = np.arange(n)
    if codes is None:
        return list(everything[:, None])
    order = np.argsort(codes, kind="stable")
    return np.split(everything[order], np.cumsum(np.bincount(codes))[:-1])


def statistic_draws(statistic: Statistic, units: list[Indices], seed: int) -> Array:
    """Return the statistic of bootstrap samples of units."""
    random = np.random.default_rng(seed)
    draws = random.integers(0, len(units), (STATISTIC_RESAMPLES, len(units)))
    flat = np.concatenate(units)
    if len(flat) == len(units):  # single items
        if isinstance(statistic, BatchStatistic):
            rows = max(1, CHUNK // (8 * len(units)))
            parts = [flat[draws[start : start + rows]] for start in range(0, len(draws), rows)]
            return np.concatenate([statistic.of_rows(part) for part in parts])
        return np.array([statistic(flat[draw]) for draw in draws])
    return np.array([statistic(np.concatenate([units[place] for place in draw])) for draw in draws])


def jackknife(statistic: Statistic, units: list[Indices]) -> Array:
    """Return the statistic with each unit left out in turn."""
    flat, ends = np.concatenate(units), np.cumsum([len(unit) for unit in units])
    left_out = (np.concatenate([flat[: end - len(unit)], flat[end:]]) for unit, end in zip(units, ends, strict=True))
    return np.array([statistic(kept) for kept in left_out])


def p_sign_flip(differences: Array, seed: int) -> float:
    """Return the two-sided p-value of a zero sum if both signs of each difference are equally likely (Fisher 1935)."""
    gaps: Array = np.asarray(differences, np.float64)
    gaps = gaps[np.abs(gaps) > 1e-12]
    count, total = len(gaps), float(gaps.sum())
    edge = abs(total) - 1e-9
    if count <= EXACT_FLIPS:
        patterns = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        return float(np.mean(np.abs(2 * (patterns @ gaps) - total) >= edge))
    random, rows, beyond = np.random.default_rng(seed), max(1, CHUNK // count), 0
    for start in range(0, FLIPS, rows):
        positive = random.random((min(rows, FLIPS - start), count)) < 0.5
        beyond += int(np.count_nonzero(np.abs(2 * (positive @ gaps) - total) >= edge))
    return (1 + beyond) / (FLIPS + 1)


def p_flip_normal(differences: Array) -> float:
    """Return the limit of `p_sign_flip` for many differences: the sum is normal with the variance under sign flips.

    Flips change a sum of whole numbers in steps of two, so that half a step is taken off (continuity correction).
    """
    spread, total = math.sqrt(float(differences @ differences)), abs(float(differences.sum()))
    if (differences == np.round(differences)).all():
        total = max(total - 1.0, 0.0)
    return float(2 * special.ndtr(-total / spread)) if spread > 0 else 1.0
