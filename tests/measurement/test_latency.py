"""Percentiles of seconds, and their bound."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trimtab.base.errors import InputError
from trimtab.measurement.latency import latencies_needed, latency_bound, latency_percentiles


def test_latency_needs_sixty_answers_for_its_tail() -> None:
    seconds = np.linspace(0.1, 0.2, 60)
    assert latency_percentiles(list(seconds)) == pytest.approx((150.0, 195.0))
    assert latency_percentiles(list(seconds[:59]))[1] is None
    with pytest.raises(InputError):
        latency_percentiles([])


def test_the_bound_of_the_95th_percentile_is_an_order_statistic() -> None:
    """The largest of 59 to 92, the second largest from 93 on; none of fewer."""
    places = {58: None, 59: 59, 92: 92, 93: 92, 123: 122, 124: 122}
    for n, place in places.items():
        found = latency_bound([rank / 1000 for rank in range(n, 0, -1)])
        assert found == (None if place is None else pytest.approx(place))
    assert latency_bound([]) is None


def test_the_bound_lies_above_the_true_percentile_in_95_of_100_studies() -> None:
    random = np.random.default_rng(2)
    for n in (60, 93, 200):
        held = np.mean(
            [(latency_bound(list(random.exponential(size=n))) or 0) >= 1000 * math.log(20) for _ in range(2000)]
        )
        assert held >= 0.95 - 0.015  # three standard errors


def test_the_bound_of_several_arms_holds_for_all_of_them_together() -> None:
    needed = {arms: latencies_needed(arms) for arms in (1, 2, 3, 5, 8)}
    assert needed == {1: 60, 2: 72, 3: 80, 5: 90, 8: 99}
    for arms in (2, 3, 5, 8):
        assert latency_bound([0.1] * (needed[arms] - 1), arms) is None
        assert latency_bound([0.1] * needed[arms], arms) == pytest.approx(100)
    random = np.random.default_rng(3)
    limit = 1000 * math.log(20)
    times = random.exponential(size=(1000, 5, 90))
    passed = np.mean([any((latency_bound(list(arm), 5) or 0) < limit for arm in study) for study in times])
    assert passed <= 0.05 + 0.021  # three standard errors
