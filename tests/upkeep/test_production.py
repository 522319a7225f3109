"""Quality in use: both estimates are unbiased and their intervals hold the truth, however answers were drawn and
whenever somebody stops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trimtab.upkeep.production import (
    LEAST_SIZE,
    Numbers,
    ProductionQuality,
    inclusion_probabilities,
    production_quality,
    sizes_by_uncertainty,
    uniform,
)

RUNS = 400


def simulated(seed: int, *, active: bool, shift: float, count: int = 400, labels: int = 60) -> ProductionQuality:
    """Labels of some of an arm's answers; it is right with its probability plus `shift`. One in ten cannot be told."""
    random = np.random.default_rng(seed)
    confidence_N = random.beta(1.0, 0.4, count)
    right_N = (random.random(count) < np.clip(confidence_N + shift, 0, 1)).astype(float)
    size_N = sizes_by_uncertainty(list(confidence_N)) if active else np.ones(count)
    priority_N = random.random(count) / size_N
    asked_N = np.zeros(count, dtype=bool)
    asked_N[np.argsort(priority_N)[:labels]] = True
    is_told_N = random.random(count) < 0.9
    inclusion_N = inclusion_probabilities(priority_N, size_N, asked_N)
    found = production_quality(np.where(asked_N & is_told_N, right_N, np.nan), confidence_N, inclusion_N)
    assert found is not None
    return found


def truth(shift: float) -> float:
    confidence_N: Numbers = np.random.default_rng(1).beta(1.0, 0.4, 1_000_000)
    return float(np.clip(confidence_N + shift, 0, 1).mean())


@pytest.mark.parametrize("active", [False, True])
@pytest.mark.parametrize("shift", [0.0, -0.15])  # calibrated, and an arm that is too sure of itself
def test_both_estimates_are_unbiased_and_their_intervals_cover(active: bool, shift: float) -> None:
    right = truth(shift)
    runs = [simulated(seed, active=active, shift=shift) for seed in range(RUNS)]
    for which in ("plain", "powered"):
        found = [getattr(one, which) for one in runs]
        values = np.array([one.value for one in found])
        assert abs(values.mean() - right) < 4 * values.std() / math.sqrt(RUNS)
        covered = np.mean([one.low <= right <= one.high for one in found])
        assert covered > 0.95 - 3 * math.sqrt(0.95 * 0.05 / RUNS)
    widths = [
        np.mean([getattr(one, which).high - getattr(one, which).low for one in runs]) for which in ("plain", "powered")
    ]
    assert widths[1] < 0.9 * widths[0]
    assert np.mean([one.labels_saved for one in runs]) > 10


def test_a_confidence_that_says_nothing_costs_nothing() -> None:
    random = np.random.default_rng(0)
    right_N = np.where(np.arange(1_000) < 100, (random.random(1_000) < 0.8).astype(float), np.nan)
    inclusion_N = np.where(np.arange(1_000) < 100, 0.1, np.nan)
    found = production_quality(right_N, random.random(1_000), inclusion_N)
    assert found is not None
    assert found.powered is not None
    assert found.confidence_weight is not None
    assert found.confidence_weight < 0.3
    assert found.powered.high - found.powered.low < 1.02 * (found.plain.high - found.plain.low)
    assert found.plain.value == pytest.approx(np.nanmean(right_N))


def test_the_estimate_is_that_of_its_formula() -> None:
    """λ·mean(f) + mean(y - λ·f), with the mean over the labelled weighted by the inverse of the inclusion
    probabilities."""
    random = np.random.default_rng(3)
    confidence_N, inclusion_N = random.random(200), random.uniform(0.1, 0.5, 200)
    right_N = (random.random(200) < confidence_N).astype(float)
    drawn_N = random.random(200) < inclusion_N
    found = production_quality(np.where(drawn_N, right_N, np.nan), confidence_N, np.where(drawn_N, inclusion_N, np.nan))
    assert found is not None
    assert found.powered is not None
    assert found.confidence_weight is not None
    weight = found.confidence_weight
    rest = np.average(right_N[drawn_N] - weight * confidence_N[drawn_N], weights=1 / inclusion_N[drawn_N])
    assert found.powered.value == pytest.approx(weight * confidence_N.mean() + rest)


def test_without_confidence_there_is_the_plain_estimate_alone_and_with_few_labels_none() -> None:
    right_N, drawn_N = np.array([1.0, 0.0] * 6), np.full(12, 0.5)
    none = np.full(12, np.nan)
    found = production_quality(right_N, none, drawn_N)
    assert found is not None
    assert (found.powered, found.labels_saved, found.labels) == (None, None, 12)
    assert production_quality(right_N[:9], none[:9], drawn_N[:9]) is None


def test_fifty_right_answers_do_not_show_that_none_is_wrong() -> None:
    found = production_quality(np.ones(50), np.full(50, 0.9), np.full(50, 0.1))
    assert found is not None
    assert found.plain.value == 1.0
    assert found.plain.low < 0.97


def test_an_answer_behind_the_first_that_is_not_labelled_is_not_drawn() -> None:
    priority_N, size_N = np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.0, 0.5, 0.5, 4.0])
    found = inclusion_probabilities(priority_N, size_N, np.array([True, True, False, True]))
    assert found[:2] == pytest.approx([0.3, 0.15])
    assert np.isnan(found[2:]).all()
    assert inclusion_probabilities(priority_N, size_N, np.ones(4, dtype=bool)).tolist() == [1.0] * 4


def test_sizes_are_greatest_where_the_arm_is_unsure() -> None:
    assert sizes_by_uncertainty([0.5, None, 0.9, 1.0, 0.0]) == pytest.approx([0.5, 0.5, 0.3, LEAST_SIZE, LEAST_SIZE])
    numbers = [uniform(f"id-{number}") for number in range(2_000)]
    assert 0 < min(numbers) < 0.01
    assert 0.99 < max(numbers) < 1
    assert uniform("id-1") == numbers[1]
