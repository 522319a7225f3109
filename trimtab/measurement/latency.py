"""Latency of answers given one at a time: percentiles, and the upper bound that is compared with a limit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import numpy as np
from scipy import stats

from trimtab.base.errors import InputError
from trimtab.measurement.statistics import LEVEL

MIN_LATENCIES = 60  # 0.95 ** 59 < 0.05: with 59 the largest bounds the 95th percentile
# in which questions are timed where a limit is stated, the arms in turn: timings that follow one another are alike
PASSES = 3
MORE_PASSES = 3  # at most, where the timings of an arm resemble the ones before them
TAIL = 0.95  # the percentile that a latency limit is about
# Without a limit no percentile is decided on: a slow arm is timed until both are reached.
FEW_TIMINGS, FEW_SECONDS = 12, 20.0


def latency_percentiles(seconds: Sequence[float]) -> tuple[float, float | None]:
    """Return median and 95th percentile in milliseconds of answers given one at a time; the latter needs 60 of them."""
    if not seconds:
        raise InputError("no latencies were measured", "time at least one answer")
    p50, p95 = (float(value) * 1000 for value in np.quantile(np.asarray(seconds, float), (0.5, 0.95)))
    return p50, p95 if len(seconds) >= MIN_LATENCIES else None


def is_timed_enough(seconds: Sequence[float]) -> bool:
    """True if these timings suffice where no latency limit is stated."""
    return len(seconds) >= FEW_TIMINGS and sum(seconds) >= FEW_SECONDS


def timing_seconds(each: float, questions: int) -> float:
    """Predict the seconds of timing `questions` alone where no latency limit is stated; `each`: of one."""
    return min(questions * each, max(FEW_SECONDS, FEW_TIMINGS * each) + each)


def latencies_needed(arms: int) -> int:
    """Return the timings needed of each of `arms` arms so that the largest bounds the 95th percentile: 72, 80, 90, 99
    for 2, 3, 5, 8."""
    return max(MIN_LATENCIES, math.ceil(math.log(LEVEL / max(1, arms)) / math.log(TAIL)))


def latency_bound(seconds: Sequence[float], arms: int = 1) -> float | None:
    """Return an upper bound of the 95th percentile in milliseconds, for any distribution; None if there are too few
    answers.

    `seconds` in the order in which they were timed: where each is like the one before it, they count as fewer
    (`independent_timings`). It bounds the minutes timed: of slow spells none may have come
    (benchmarks/bursts_simulation.py). One-sided at .05 / arms (Bonferroni), since any of
    the `arms` that are held against the limit may be the one that is chosen. The order statistic r with
    P(Binomial(n, .95) < r) >= 1 - .05 / arms (Hahn and Meeker 1991, section 5.2): for one arm of 59 to 92 the largest.
    """
    if not seconds:
        return None
    count = independent_timings(seconds)
    beyond = count - 1 - int(stats.binom.ppf(1 - LEVEL / max(1, arms), count, TAIL))  # timings above the bound
    return sorted(seconds)[-1 - beyond] * 1000 if beyond >= 0 else None


def independent_timings(seconds: Sequence[float]) -> int:
    """Return the effective number of timings: how many independent ones bound the 95th percentile as well as these
    correlated ones.

    n ln P(X2 < u | X1 < u) / ln P(X < u), u the 95th percentile of a Gaussian series whose neighbours are as
    correlated as the ranks show, and one standard error (1 / sqrt(n)) more; all n where the ranks show no more than
    one standard error. About 2/3 of n at .6.
    """
    n, correlation = len(seconds), _correlation(seconds)
    if correlation <= n**-0.5:
        return n
    u, upper = float(stats.norm.ppf(TAIL)), min(correlation + n**-0.5, 0.99)
    both = float(stats.multivariate_normal.cdf([u, u], cov=[[1.0, upper], [upper, 1.0]]))
    return max(1, int(n * math.log(both / TAIL) / math.log(TAIL)))


def bounds_in_turn(passes: Mapping[str, Sequence[Sequence[float]]], arms: int) -> dict[str, float | None]:
    """Return the bound of each arm (`latency_bound`) where all were timed on one machine in turn, each pass of one
    after that of the other.

    A slow spell of the machine falls on the arm that is timed just then. So where the timings of any arm come in
    spells (neighbours correlated beyond chance, at .05 / `arms`), what an arm may take is also bounded by its median
    times the bound of all arms' timings in the order in which they were made, each in units of its arm's median.
    """
    whole = {arm: [second for part in parts for second in part] for arm, parts in passes.items()}
    bounds = {arm: latency_bound(seconds, arms) for arm, seconds in whole.items()}
    certain = float(stats.norm.isf(LEVEL / max(1, arms)))
    if not any(_correlation(seconds) > certain * len(seconds) ** -0.5 for seconds in whole.values() if seconds):
        return bounds
    medians = {arm: float(np.median(seconds)) for arm, seconds in whole.items() if seconds}
    turns = zip_longest(*([(arm, part) for part in parts] for arm, parts in passes.items() if arm in medians))
    in_order = [second / medians[arm] for turn in turns for arm, part in filter(None, turn) for second in part]
    common = latency_bound(in_order, arms)
    return {
        arm: None if bound is None or common is None else max(bound, common * medians[arm])
        for arm, bound in bounds.items()
    }


def _correlation(seconds: Sequence[float]) -> float:
    """Return how correlated neighbouring timings are, by the normal scores of their ranks."""
    z = stats.norm.ppf((stats.rankdata(seconds) - 0.5) / len(seconds))
    total = float(z @ z)
    return float(z[1:] @ z[:-1]) / total if total > 0 else 0.0
