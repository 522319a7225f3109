"""The always-valid bound: looking after every batch raises a false alarm with at most its probability, and a worse
arm is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.upkeep.sequential import (
    RiskBatch,
    independent_batches,
    joined_batches,
    mixture_boundary,
    mixture_rho_squared,
    risk_bounds,
)

RUNS, STEPS, DELTA = 150, 100, 0.05


def batches_of(random: np.random.Generator, risks: list[float], labels: int) -> list[RiskBatch]:
    """Batches of so many labels, each answer wrong with the risk of its batch."""
    found = []
    for risk in risks:
        wrong = int(random.binomial(labels, risk))
        smooth = (wrong + 1) / (labels + 2)
        found.append(RiskBatch(risk=wrong / labels, variance=smooth * (1 - smooth) / labels, labels=labels))
    return found


def test_a_sum_of_gaussian_errors_ever_crosses_with_at_most_delta() -> None:
    random = np.random.default_rng(0)
    rho_squared = mixture_rho_squared(100.0, DELTA)
    bound = np.array([mixture_boundary(step, DELTA, rho_squared) for step in range(1, 1001)])
    sums = random.standard_normal((2000, 1000)).cumsum(1)
    crossed = np.mean((sums > bound).any(1))
    assert crossed <= DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / 2000)
    assert crossed > DELTA / 10  # it is no bound that nothing can cross


@given(variance=st.floats(0.01, 1e4), delta=st.floats(1e-6, 0.1))
def test_rho_squared_is_where_the_boundary_is_tightest(variance: float, delta: float) -> None:
    own = mixture_rho_squared(variance, delta)
    best = min(mixture_boundary(variance, delta, own * factor) for factor in (0.25, 0.5, 1, 2, 4))
    assert mixture_boundary(variance, delta, own) <= 1.03 * best


@pytest.mark.parametrize(("risk", "labels"), [(0.1, 10), (0.3, 10), (0.05, 40)])
def test_an_arm_at_the_threshold_raises_an_alarm_with_at_most_delta_however_often_it_is_looked_at(
    risk: float, labels: int
) -> None:
    random = np.random.default_rng(1)
    alarms = 0
    for _ in range(RUNS):
        bounds = risk_bounds(batches_of(random, [risk] * STEPS, labels), risk, DELTA)
        alarms += any(bound.low > risk for bound in bounds)
    assert alarms / RUNS <= DELTA + 2 * math.sqrt(DELTA * (1 - DELTA) / RUNS)


def test_an_arm_that_gets_worse_is_found_and_where_it_began() -> None:
    random = np.random.default_rng(2)
    change, found = 40, []
    for _ in range(30):
        batches = batches_of(random, [0.1] * change + [0.4] * 30, 20)
        alarm = next((n for n, bound in enumerate(risk_bounds(batches, 0.1, DELTA)) if bound.low > 0.1), None)
        assert alarm is not None
        found.append(alarm)
    assert np.median(found) - change < 10  # a mean over all batches would still be at 0.15 there
    whole = [bound for bound in risk_bounds(batches, 0.1, DELTA) if bound.low > 0.1][-1]
    assert abs(whole.since - change) < 10


def test_days_that_are_right_or_wrong_alike_are_no_fall() -> None:
    """At the threshold on average, with a correlation of .3 within a day: labels counted one by one see a fall."""
    random, alarms, plain, runs = np.random.default_rng(3), 0, 0, 60
    for _ in range(runs):
        batches = [batches_of(random, [risk], 20)[0] for risk in random.beta(0.2 / 0.3 * 0.7, 0.8 / 0.3 * 0.7, 30)]
        alarms += any(bound.low > 0.2 for bound in risk_bounds(batches, 0.2, DELTA))
        plain += any(bound.low > 0.2 for bound in risk_bounds(batches, 0.2, DELTA, least=1, dispersed=False))
    assert alarms <= 9  # 5% and three standard errors
    assert plain > runs / 3


def test_batches_that_are_like_their_neighbours_are_taken_together() -> None:
    random, noise = np.random.default_rng(4), [0.0]
    for _ in range(59):
        noise.append(0.9 * noise[-1] + 0.1 * float(random.standard_normal()))
    alike = independent_batches([RiskBatch(risk=0.5 + one, variance=0.01, labels=20) for one in noise])
    assert alike is None or len(alike) < 30
    alone = independent_batches(batches_of(random, [0.2] * 60, 20))
    assert alone == [[place] for place in range(60)]
    joined = joined_batches(batches_of(random, [0.2, 0.4], 20))
    assert (joined.labels, joined.variance < 0.01) == (40, True)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="delta"):
        mixture_boundary(1.0, 0.7, 1.0)
    with pytest.raises(ValueError, match="rho_squared"):
        mixture_boundary(1.0, 0.1, 0.0)
    with pytest.raises(ValueError, match="variance_sum"):
        mixture_rho_squared(0.0, 0.1)
    with pytest.raises(ValueError, match="threshold"):
        risk_bounds([], 2.0, 0.1)
