"""Several training runs of an arm, one a seed: their means, and their variance as part of the error of a score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy import stats

from trimtab.base.records import Answer
from trimtab.base.results import Classes
from trimtab.measurement.resampling import Curve


def by_seed(answers: Sequence[Answer]) -> list[list[Answer]]:
    """Return the answers of each seed, the seeds in order."""
    runs: dict[int, list[Answer]] = {}
    for answer in answers:
        runs.setdefault(answer.seed, []).append(answer)
    return [runs[seed] for seed in sorted(runs)]


def mean_figures(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of every figure that all runs have."""
    shared = [name for name in (runs[0] if runs else ()) if all(name in run for run in runs)]
    return {name: fmean([run[name] for run in runs]) for name in shared}


def mean_classes(runs: Sequence[Classes]) -> Classes:
    """Return each class's means over runs on the same questions, so that its support is that of one; and the mean
    curve."""
    named = [{row.label: row for row in run.rows} for run in runs]
    rows = tuple(
        replace(
            first,
            precision=fmean([run[first.label].precision for run in named]),
            recall=fmean([run[first.label].recall for run in named]),
            f1=fmean([run[first.label].f1 for run in named]),
        )
        for first in runs[0].rows
    )
    shared = [share for share in runs[0].selective if all(share in run.selective for run in runs)]
    return Classes(rows=rows, selective={share: fmean([run.selective[share] for run in runs]) for share in shared})


class RunError(NamedTuple):
    """Variance of a mean over runs that comes from the runs, and the degrees of freedom of its estimate."""

    variance: float
    degrees: float


def run_error(figures: Sequence[float]) -> RunError:
    """Estimate the error from each run's figure; zero variance for a single run, which then stands for itself alone.

    The items' error that it is added to holds the part of single answers that changes from run to run already, so
    that part counts twice: a little on the safe side.
    """
    if len(figures) < 2:
        return RunError(0.0, math.inf)
    return RunError(float(np.var(figures, ddof=1)) / len(figures), len(figures) - 1)


def of_both(one: RunError, other: RunError) -> RunError:
    """Return the run error of the difference of two arms that were trained independently (Welch 1947)."""
    variance = one.variance + other.variance
    spread = one.variance**2 / one.degrees + other.variance**2 / other.degrees
    return RunError(variance, variance**2 / spread if spread > 0 else math.inf)


def widened(value: float, limit: float, runs: RunError, level: float = 0.025) -> float:
    """Return the limit of an interval, with probability `level` beyond it, with the runs' variance added to that of the
    items."""
    if runs.variance == 0:
        return limit
    error, degrees = _together(abs(limit - value) / float(stats.norm.isf(level)), runs)
    return value + math.copysign(float(stats.t.isf(level, degrees)) * error, limit - value)


def raised(p: float, distance: float, runs: RunError) -> float:
    """Return a one-sided p-value with the runs' variance added, for a value measured `distance` beyond the tested
    one."""
    if runs.variance == 0 or distance <= 0 or p >= 0.5:
        return p
    error, degrees = _together(distance / float(stats.norm.isf(max(p, 1e-300))), runs)
    return max(p, float(stats.t.sf(distance / error, degrees)))


def raised_curve(curve: Curve, value: float, runs: RunError) -> Curve:
    """Return the same as `raised` for every tested value, given the one-sided p-values of "the true value is at most
    that"."""
    return lambda tested: raised(curve(tested), value - tested, runs)


def _together(items: float, runs: RunError) -> tuple[float, float]:
    """Return the standard error of items and runs, and its degrees of freedom (Satterthwaite 1946), those of the items
    not counted."""
    variance = items**2 + runs.variance
    return math.sqrt(variance), variance**2 / (runs.variance**2 / runs.degrees)
