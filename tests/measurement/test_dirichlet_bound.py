"""Gaffke's bound against Clopper and Pearson, against draws of Dirichlet weights, and where a bootstrap claims too
much."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from trimtab.measurement.dirichlet_bound import mean_above, mean_floor
from trimtab.measurement.statistics import p_noninferior, p_reaches


@given(n=st.integers(1, 500), target=st.floats(0.01, 0.99), data=st.data())
def test_on_right_and_wrong_it_is_clopper_and_pearson(n: int, target: float, data: st.DataObject) -> None:
    right = data.draw(st.integers(1, n))
    scores = np.r_[np.ones(right), np.zeros(n - right)]
    exact = special.betainc(right, n - right + 1, target)
    assert mean_above(scores, 0.0)(target) == pytest.approx(exact, rel=1e-6, abs=1e-12)
    assert mean_floor(scores, 0.0, 0.05) == pytest.approx(special.betaincinv(right, n - right + 1, 0.05), abs=1e-6)


@pytest.mark.parametrize(("worst", "nulls"), [(0.0, (0.6, 0.7, 0.75, 0.8)), (-1.0, (0.5, 0.65, 0.7, 0.75))])
def test_it_is_the_share_of_weighted_means_that_are_no_higher(worst: float, nulls: tuple[float, ...]) -> None:
    random = np.random.default_rng(5)
    scores, weights = random.random(40) ** 0.3, random.dirichlet(np.ones(41), 100_000)
    means = weights[:, 1:] @ scores + weights[:, 0] * worst
    for null in nulls:
        assert mean_above(scores, worst)(null) == pytest.approx(np.mean(means <= null), abs=0.006)


def test_the_ends_are_certain() -> None:
    above = mean_above(np.array([0.2, 0.5, 0.9]), 0.0)
    assert (above(0.0), above(0.9), above(1.0)) == (0.0, 1.0, 1.0)
    assert mean_floor(np.zeros(5), 0.0, 0.05) == 0.0
    assert 0 < above(0.05) < above(0.3) < above(0.89) < 1


def test_rare_failures_that_a_sample_lacks_do_not_prove_the_target() -> None:
    # 3% of scores are 0 and the others .9 to 1: a sample of 40 without a failure knows of none, 30% of samples
    random = np.random.default_rng(1)
    drawn = random.random((150, 40))
    samples = np.where(drawn < 0.03, 0, 0.9 + 0.1 * (drawn - 0.03) / 0.97)
    truth = 0.97 * 0.95
    wrong = np.mean([p_reaches(scores, truth) <= 0.05 for scores in samples])
    behind = np.mean([p_noninferior(scores, np.full(40, truth), 0.0) <= 0.05 for scores in samples])
    assert (wrong, behind) <= (0.05, 0.05)
