"""Drift: statistics equal to their definitions, p-values that are never too small without drift, and shifts that are
found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from trimtab.upkeep.drift_tests import (
    RIDGE,
    Statistic,
    Vectors,
    classifier_accuracy,
    classifier_margin,
    distribution_gap,
    drift_test,
    gaussian_kernel,
    label_mix,
    mean_discrepancy,
    typical,
)

FREE = 20  # windows without an alarm, so that a test needs few permutations


def members_of(*windows: list[int], count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    members = np.zeros((count, len(windows)), np.float32)
    for column, window in enumerate(windows):
        members[window, column] = 1
    return members


def vectors(random: np.random.Generator, count: int, shift: float = 0.0) -> Vectors:
    found = random.standard_normal((count, 6)).astype(np.float32)
    found[:, 0] += shift
    return found


@given(seed=st.integers(0, 1000), size=st.integers(2, 6), other=st.integers(2, 6))
def test_mmd_is_what_its_definition_says(seed: int, size: int, other: int) -> None:
    random = np.random.default_rng(seed)
    count = size + other
    own = vectors(random, count)
    window = sorted(random.permutation(count)[:size].tolist())
    rest = [place for place in range(count) if place not in window]
    kernel = gaussian_kernel(own)

    def mean(first: list[int], second: list[int]) -> float:
        return float(np.mean([kernel[a, b] for a in first for b in second if a != b]))

    expected = mean(window, window) + mean(rest, rest) - 2 * mean(window, rest)
    (found,) = mean_discrepancy(own)(members_of(window, count=count))
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_kernel_is_gaussian_with_the_median_as_its_scale() -> None:
    own = vectors(np.random.default_rng(0), 30)
    squared = np.array([[np.sum((a - b) ** 2) for b in own] for a in own])
    middle = np.median(squared[np.triu_indices(30, 1)])
    assert np.allclose(gaussian_kernel(own), np.exp(-squared / (2 * middle)), atol=1e-5)


@given(values=hnp.arrays(float, 24, elements=st.integers(0, 6).map(float)), size=st.integers(4, 20))
def test_the_gap_of_numbers_is_that_of_kolmogorov_and_smirnov_ties_or_not(
    values: np.ndarray[tuple[int], np.dtype[np.float64]], size: int
) -> None:
    (found,) = distribution_gap(values)(members_of(list(range(size)), count=24))
    assert found == pytest.approx(stats.ks_2samp(values[:size], values[size:]).statistic, abs=1e-6)


@given(labels=st.lists(st.sampled_from("abc"), min_size=12, max_size=12).filter(lambda found: len(set(found)) > 1))
def test_the_statistic_of_labels_is_chi_square(labels: list[str]) -> None:
    table = [[part.count(label) for label in sorted(set(labels))] for part in (labels[:5], labels[5:])]
    (found,) = label_mix(labels)(members_of(list(range(5)), count=12))
    assert found == pytest.approx(stats.chi2_contingency(table, correction=False).statistic, rel=1e-4)


def test_the_classifier_is_judged_on_answers_that_it_was_not_fitted_to() -> None:
    random = np.random.default_rng(3)
    own, window = vectors(random, 16), list(range(8, 16))
    members = members_of(window, count=16)
    sign = 2 * members[:, 0] - 1
    centred = (own - own.mean(0)).astype(float)
    ridge = RIDGE * np.sum(centred**2)
    left_out = []
    for out in range(16):  # fitted anew without it; the intercept is not shrunk
        rest = [place for place in range(16) if place != out]
        design = np.hstack([np.ones((15, 1)), centred[rest]])
        penalty = ridge * np.eye(7)
        penalty[0, 0] = 0
        weights = np.linalg.solve(design.T @ design + penalty, design.T @ sign[rest])
        left_out.append(weights[0] + centred[out] @ weights[1:])
    (found,) = classifier_margin(own)(members)
    assert found == pytest.approx(float(np.mean(left_out[8:]) - np.mean(left_out[:8])), abs=1e-4)


def family(own: Vectors, labels: list[str]) -> dict[str, Statistic]:
    return {
        "discrepancy": mean_discrepancy(own),
        "classifier": classifier_margin(own),
        "labels": label_mix(labels),
        "length": distribution_gap(own[:, 1].tolist()),
        "flag": distribution_gap((own[:, 2] > 1).tolist()),
    }


def simulated(seed: int, shift: float, reference: int = 24) -> float:
    random = np.random.default_rng(seed)
    own = np.concatenate([vectors(random, reference), vectors(random, 24, shift)])
    labels = [str(int(value)) for value in np.round(own[:, 0])]
    return drift_test(family(own, labels), reference, 24, alarm_free=FREE).p


@pytest.mark.parametrize("reference", [24, 60])
def test_without_drift_the_family_p_is_at_most_alpha_in_at_most_alpha_of_windows(reference: int) -> None:
    found = np.array([simulated(seed, 0.0, reference) for seed in range(300)])
    for alpha in (0.05, 0.2, 0.5):
        assert np.mean(found <= alpha) <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / len(found))
    assert 0.4 < np.mean(found) < 0.62  # nor are alarms rarer than they may be


def test_questions_that_are_all_the_same_are_no_drift() -> None:
    random = np.random.default_rng(4)
    own = np.tile(vectors(random, 1), (80, 1))
    own = np.nextafter(own, random.choice([-10, 10], own.shape).astype(np.float32))  # but for the last bit
    same = {"discrepancy": mean_discrepancy(own), "classifier": classifier_margin(own), "labels": label_mix(["a"] * 80)}
    assert drift_test(same, 40, 40, alarm_free=FREE).p == 1


def test_with_drift_it_is_small() -> None:
    assert np.mean([simulated(seed, 1.5) <= 1 / FREE for seed in range(20)]) > 0.8


def test_a_classifier_of_equal_samples_is_right_by_chance_and_of_others_more_often() -> None:
    random = np.random.default_rng(8)
    same = [classifier_accuracy(vectors(random, 80), 60) for _ in range(30)]
    assert 0.35 < np.mean(same) < 0.55  # what is left out makes its side the rarer one
    assert classifier_accuracy(np.concatenate([vectors(random, 60), vectors(random, 20, 3.0)]), 60) > 0.85


def test_signals_that_say_the_same_cost_nothing_and_each_is_named_with_its_own_p() -> None:
    random = np.random.default_rng(5)
    own = np.concatenate([vectors(random, 40), vectors(random, 40, 2.0)])
    one = distribution_gap(own[:, 0].tolist())
    alone = drift_test({"a": one}, 40, 40, alarm_free=FREE)
    four = drift_test(dict.fromkeys("abcd", one), 40, 40, alarm_free=FREE)
    assert four.p == alone.p == alone.signals["a"].p
    both = drift_test({"same": one, "other": distribution_gap(own[:, 3].tolist())}, 40, 40, alarm_free=FREE)
    assert both.signals["same"].adjusted == both.p < 0.05 < both.signals["other"].adjusted


def test_the_most_typical_of_a_change_are_those_that_are_new() -> None:
    random = np.random.default_rng(6)
    own = np.concatenate([vectors(random, 60), vectors(random, 45), vectors(random, 15) + 4])
    score = typical(own, 60)
    assert set(np.argsort(-score)[:15]) == set(range(105, 120))


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one signal"):
        drift_test({}, 10, 10, alarm_free=FREE)
    with pytest.raises(ValueError, match="two answers"):
        drift_test({"a": distribution_gap([1.0, 2.0])}, 1, 1, alarm_free=FREE)
