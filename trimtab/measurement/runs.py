"""What training again adds to the error of a score: the variance between runs, beside that between items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from trimtab.measurement.resampling import Curve


class RunError(NamedTuple):
    """Variance of a mean over runs that comes from the runs, and the degrees of freedom that it was estimated with."""

    variance: float
    degrees: float


def run_error(figures: Sequence[float]) -> RunError:
    """From each run's figure; of a single run nothing is known, and what is said is about that run alone.

    The items' error that it is added to holds the part of single answers that changes from run to run already, so
    that part counts twice: a little on the safe side.
    """
    if len(figures) < 2:
        return RunError(0.0, math.inf)
    return RunError(float(np.var(figures, ddof=1)) / len(figures), len(figures) - 1)


def of_both(one: RunError, other: RunError) -> RunError:
    """Of the difference of two arms that were trained apart (Welch 1947)."""
    variance = one.variance + other.variance
    spread = one.variance**2 / one.degrees + other.variance**2 / other.degrees
    return RunError(variance, variance**2 / spread if spread > 0 else math.inf)


def widened(value: float, limit: float, runs: RunError, level: float = 0.025) -> float:
    """The limit of an interval, `level` of the chance beyond it, with the runs' variance added to that of the items."""
    if runs.variance == 0:
        return limit
    error, degrees = _together(abs(limit - value) / float(stats.norm.isf(level)), runs)
    return value + math.copysign(float(stats.t.isf(level, degrees)) * error, limit - value)


def raised(p: float, distance: float, runs: RunError) -> float:
    """A one-sided p-value with the runs' variance added, for what was measured `distance` beyond the value tested."""
    if runs.variance == 0 or distance <= 0 or p >= 0.5:
        return p
    error, degrees = _together(distance / float(stats.norm.isf(max(p, 1e-300))), runs)
    return max(p, float(stats.t.sf(distance / error, degrees)))


def raised_curve(curve: Curve, value: float, runs: RunError) -> Curve:
    """The same of every value tested, for one-sided p-values of "the true value is at most that"."""
    return lambda tested: raised(curve(tested), value - tested, runs)


def _together(items: float, runs: RunError) -> tuple[float, float]:
    """Standard error of items and runs, and its degrees of freedom (Satterthwaite 1946), those of the items not
    counted."""
    variance = items**2 + runs.variance
    return math.sqrt(variance), variance**2 / (runs.variance**2 / runs.degrees)
