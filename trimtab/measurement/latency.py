"""How long answers take, given one at a time: percentiles, and the bound that a limit is held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from trimtab.base.errors import InputError
from trimtab.measurement.statistics import LEVEL

MIN_LATENCIES = 60  # 0.95 ** 59 < 0.05: with 59 the largest bounds the 95th percentile
TAIL = 0.95  # the percentile that a latency limit is about


def latency_percentiles(seconds: Sequence[float]) -> tuple[float, float | None]:
    """Median and 95th percentile in milliseconds of answers given one at a time; the latter needs 60 of them."""
    if not seconds:
        raise InputError("no latencies were measured", "time at least one answer")
    p50, p95 = (float(value) * 1000 for value in np.quantile(np.asarray(seconds, float), (0.5, 0.95)))
    return p50, p95 if len(seconds) >= MIN_LATENCIES else None


def latency_bound(seconds: Sequence[float]) -> float | None:
    """Upper one-sided 95% bound of the 95th percentile in milliseconds, whatever the distribution; None below 59 answers.

    The order statistic r with P(Binomial(n, .95) < r) >= .95 (Hahn and Meeker 1991, section 5.2): of 59 to 92 the largest.
    """
    place = int(stats.binom.ppf(1 - LEVEL, len(seconds), TAIL)) if len(seconds) else 0
    return sorted(seconds)[place] * 1000 if place < len(seconds) else None
