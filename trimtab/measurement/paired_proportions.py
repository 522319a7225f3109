"""Paired proportions: tests and intervals of a difference, from the items that only one of two arms has right."""

from __future__ import annotations

import math

from scipy import optimize, special, stats

from trimtab.measurement.resampling import Curve

Z = float(stats.norm.isf(0.025))


def mcnemar(wins: int, losses: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947) from the counts of items that only one of two arms
    has right."""
    if wins == losses:
        return 1.0
    return min(1.0, 2 * float(special.bdtrc(max(wins, losses) - 1, wins + losses, 0.5)))


def tango_interval(wins: float, losses: float, n: float) -> tuple[float, float]:
    """Return the 95% interval of the paired difference (wins - losses) / n by inverting Tango's (1998) score test."""
    difference, edge, z = (wins - losses) / n, 1 - 1e-9, Z

    def limit(end: float, at: float) -> float:
        if abs(difference - end) < 1e-8 or (tango(wins, losses, n, end) - at) * at < 0:
            return end
        root: float = optimize.brentq(lambda delta: tango(wins, losses, n, delta) - at, end, difference, xtol=1e-10)
        return root

    return limit(-edge, z), limit(edge, -z)


def tango(wins: float, losses: float, n: float, delta: float) -> float:
    """Return Tango's (1998) score statistic for the difference `delta` of paired shares; 0 if nothing differs and
    `delta` is 0."""
    linear = -wins - losses + (2 * n - wins + losses) * delta
    root = math.sqrt(max(linear * linear + 8 * n * losses * delta * (1 - delta), 0.0))
    variance = n * ((root - linear) / (2 * n) + delta * (1 - delta))
    above = wins - losses - n * delta
    return above / math.sqrt(variance) if variance > 0 else (0.0 if above == 0 else math.copysign(math.inf, above))


def tango_above(wins: float, losses: float, n: float) -> Curve:
    """Return the one-sided p-value of "behind by the margin or more"."""
    return lambda margin: float(special.ndtr(-tango(wins, losses, n, -margin)))
