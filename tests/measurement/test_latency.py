"""Percentiles of seconds, and their bound."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trimtab.base.errors import InputError
from trimtab.measurement.latency import (
    PASSES,
    bounds_in_turn,
    independent_timings,
    is_timed_enough,
    latencies_needed,
    latency_bound,
    latency_percentiles,
    timing_seconds,
)


def test_latency_needs_sixty_answers_for_its_tail() -> None:
    seconds = np.linspace(0.1, 0.2, 60)
    assert latency_percentiles(list(seconds)) == pytest.approx((150.0, 195.0))
    assert latency_percentiles(list(seconds[:59]))[1] is None
    with pytest.raises(InputError):
        latency_percentiles([])


def test_the_bound_of_the_95th_percentile_is_an_order_statistic() -> None:
    """The largest of 59 to 92, the second largest from 93 on; none of fewer."""
    random = np.random.default_rng(0)  # of orders in which no neighbours are alike
    places = {58: None, 59: 59, 92: 92, 93: 92, 123: 122, 124: 122}
    for n, place in places.items():
        found = latency_bound(list(random.permutation(np.arange(1, n + 1)) / 1000))
        assert found == (None if place is None else pytest.approx(place))
    assert latency_bound([]) is None


def test_the_bound_lies_above_the_true_percentile_in_95_of_100_studies() -> None:
    random = np.random.default_rng(2)
    for n in (60, 93, 200):
        found = [bound for _ in range(2000) if (bound := latency_bound(list(random.exponential(size=n)))) is not None]
        assert len(found) > 2000 * 0.8  # of the others the ranks show neighbours that are alike, by chance
        assert np.mean([bound >= 1000 * math.log(20) for bound in found]) >= 0.95 - 0.017  # three standard errors


def test_the_bound_of_several_arms_holds_for_all_of_them_together() -> None:
    needed = {arms: latencies_needed(arms) for arms in (1, 2, 3, 5, 8)}
    assert needed == {1: 60, 2: 72, 3: 80, 5: 90, 8: 99}
    for arms in (2, 3, 5, 8):
        assert latency_bound([0.1] * (needed[arms] - 1), arms) is None
        assert latency_bound([0.1] * needed[arms], arms) == pytest.approx(100)
    random = np.random.default_rng(3)
    limit = 1000 * math.log(20)
    times = random.exponential(size=(1000, 5, 90))
    passed = np.mean([any((latency_bound(list(arm), 5) or limit) < limit for arm in study) for study in times])
    assert passed <= 0.05 + 0.021  # three standard errors


def alike(random: np.random.Generator, n: int, correlation: float) -> np.ndarray:
    """A Gaussian series whose neighbours are correlated."""
    noise = random.standard_normal(n)
    for place in range(1, n):
        noise[place] = correlation * noise[place - 1] + math.sqrt(1 - correlation**2) * noise[place]
    return noise


def test_timings_like_the_ones_before_them_count_as_fewer() -> None:
    random = np.random.default_rng(4)
    counts = {
        correlation: [independent_timings(list(np.exp(alike(random, 200, correlation)))) for _ in range(50)]
        for correlation in (0.0, 0.3, 0.6, 0.9)
    }
    assert np.median(counts[0.0]) == 200
    assert 165 <= np.mean(counts[0.3]) <= 195
    assert 120 <= np.mean(counts[0.6]) <= 150
    assert np.mean(counts[0.9]) <= 80
    assert independent_timings([0.1] * 80) == 80
    assert independent_timings([0.1]) == 1
    sorted_ones = list(np.linspace(0.1, 0.2, 99))
    assert latency_bound(sorted_ones) is None
    assert latency_bound(list(random.permutation(sorted_ones))) is not None


def test_the_bound_holds_for_timings_like_the_ones_before_them() -> None:
    """With a correlation of .6 the largest of 60 alone lies below the true percentile in about 10 of 100 studies."""
    random = np.random.default_rng(5)
    limit = 1000 * math.exp(1.6448536)
    bounds = [latency_bound(list(np.exp(alike(random, 120, 0.6)))) for _ in range(600)]
    assert np.mean([bound is not None and bound < limit for bound in bounds]) <= 0.05 + 0.02
    assert np.mean([bound is None for bound in bounds]) < 0.2


@pytest.mark.parametrize("each", [0.001, 0.4, 1.0, 5.0])
def test_without_a_limit_timing_ends_when_it_is_enough_and_takes_what_is_predicted(each: float) -> None:
    questions, seconds = 62, list[float]()
    while len(seconds) < questions and not is_timed_enough(seconds):
        seconds.append(each)
    assert sum(seconds) - 1e-9 <= timing_seconds(each, questions) <= sum(seconds) + each + 1e-9
    assert len(seconds) >= 12


def test_a_slow_spell_that_falls_on_one_arm_bounds_all_that_were_timed_in_turn() -> None:
    """A spell of twenty, each four times as slow, while the third of five arms is timed; each arm has its own pace."""
    random = np.random.default_rng(0)
    paces = (0.1, 0.2, 0.5, 1.0, 2.0)
    passes = {str(pace): list(pace * random.uniform(0.9, 1.1, (PASSES, 30))) for pace in paces}
    own = {arm: latency_bound(np.concatenate(parts).tolist(), 5) for arm, parts in passes.items()}
    assert bounds_in_turn(passes, 5) == own
    passes["0.5"][1][5:25] *= 4
    bounds = bounds_in_turn(passes, 5)
    assert bounds.pop("0.5") is None  # it is timed in further passes
    assert all(bound is not None and bound > 3 * float(arm) * 1000 for arm, bound in bounds.items())
    assert bounds_in_turn({"one": [[0.1] * 20] * 3, "two": [[0.1] * 30] * 3}, 5)["one"] is None  # too few of its own


def test_arms_whose_timings_are_independent_keep_their_own_bounds() -> None:
    """One in twenty such studies of five arms is taken for one with spells, at most 12 of 100 by chance."""
    random = np.random.default_rng(1)
    changed = 0
    for _ in range(100):
        passes = {str(arm): list(random.exponential(size=(PASSES, 30))) for arm in range(5)}
        own = {arm: latency_bound(np.concatenate(parts).tolist(), 5) for arm, parts in passes.items()}
        changed += bounds_in_turn(passes, 5) != own
    assert changed <= 12
