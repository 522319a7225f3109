"""Temperatures fit, offsets take away what a label has whatever is asked, and bins hold every answer once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.measurement.calibration import (
    COLDEST,
    HOTTEST,
    calibration_error_by_chance,
    debiased_calibration_error,
    expected_calibration_error,
    fit_temperature,
    label_scores,
    log_loss,
    logarithms,
    may_be_fitted,
    mean_offsets,
    reliability,
    tempered,
)

chances = st.lists(st.floats(0.001, 1.0), min_size=2, max_size=6).map(
    lambda found: {f"label {n}": one / sum(found) for n, one in enumerate(found)}
)
sure = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def drawn(count: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and right labels drawn by the probabilities that they give at a temperature."""
    draw = np.random.default_rng(seed)
    scores_NL = draw.normal(size=(count, 5)) * 3
    weights_NL = np.exp(scores_NL / temperature)
    right_N = [draw.choice(5, p=weights_L / weights_L.sum()) for weights_L in weights_NL]
    return scores_NL, np.array(right_N)


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(true: float) -> None:
    scores_NL, right_N = drawn(4000, true)
    found = fit_temperature(scores_NL, right_N)
    assert found == pytest.approx(true, rel=0.1)
    assert fit_temperature(scores_NL * 7, right_N) == pytest.approx(7 * found, rel=1e-6)
    least = log_loss(scores_NL, right_N, found)
    assert all(log_loss(scores_NL, right_N, other) >= least for other in np.geomspace(0.05, 50, 40))


def test_a_temperature_stays_within_bounds() -> None:
    scores_NL, right_N = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
    assert COLDEST <= fit_temperature(scores_NL, right_N) < 0.05
    assert fit_temperature(scores_NL, 1 - right_N) == pytest.approx(HOTTEST)


def test_the_log_loss_by_hand() -> None:
    scores_NL = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    assert log_loss(scores_NL, np.array([0, 2])) == pytest.approx((np.log(2) + np.log(10)) / 2)


@given(found=chances, temperature=st.floats(0.1, 10))
def test_a_temperature_keeps_the_order(found: dict[str, float], temperature: float) -> None:
    after = tempered(found, temperature)
    assert list(after) == list(found)
    assert sum(after.values()) == pytest.approx(1)
    assert max(after.values()) == pytest.approx(after[max(found, key=found.__getitem__)])
    assert tempered(found, 1.0) == pytest.approx(found)
    assert tempered(after, 1 / temperature) == pytest.approx(found)


def test_a_probability_of_nothing_stays_nothing() -> None:
    assert tempered({"a": 1.0, "b": 0.0}, 2.0) == pytest.approx({"a": 1.0, "b": 0.0})
    assert np.isfinite(logarithms(np.array([[1.0, 0.0]]))).all()


def test_offsets_take_away_what_a_label_always_has() -> None:
    draw = np.random.default_rng(0)
    asked_NL, inputs_ML, always_L = draw.normal(size=(9, 4)), draw.normal(size=(30, 4)), draw.normal(size=4) * 20
    before = label_scores(asked_NL, [1] * 4, per_token=False, offsets_L=mean_offsets(inputs_ML))
    shifted = mean_offsets(inputs_ML + always_L)
    after = label_scores(asked_NL + always_L, [1] * 4, per_token=False, offsets_L=shifted)
    assert after == pytest.approx(before)


def test_a_mean_is_over_the_tokens_of_each_label() -> None:
    sums_NL = np.array([[-6.0, -6.0]])
    assert label_scores(sums_NL, [2, 3], per_token=True, offsets_L=None).tolist() == [[-3.0, -2.0]]


@given(found=sure)
def test_bins_hold_every_answer_once(found: list[tuple[float, bool]]) -> None:
    probabilities, right = zip(*found, strict=True)
    bins = reliability(probabilities, right)
    assert sum(one.count for one in bins) == len(found)
    assert sum(one.count * one.probability for one in bins) == pytest.approx(sum(probabilities))
    assert sum(one.count * one.right for one in bins) == pytest.approx(sum(right))
    assert [one.probability for one in bins] == sorted(one.probability for one in bins)
    assert 0 <= expected_calibration_error(probabilities, right) <= 1


def test_calibration_error_by_hand() -> None:
    # bin (0.8, 0.9]: confidence .9, half right -> .4 * 2/3; bin (0.1, 0.2]: .2, none right -> .2 * 1/3
    assert expected_calibration_error([0.9, 0.9, 0.2], [True, False, False]) == pytest.approx(0.4 * 2 / 3 + 0.2 / 3)
    assert expected_calibration_error([1.0, 0.0], [True, False]) == 0
    assert np.isnan(expected_calibration_error([], []))


@pytest.mark.parametrize(
    ("right", "wrong", "enough"), [(18, 2, True), (2, 18, True), (10, 9, False), (19, 1, False), (1, 30, False)]
)
def test_little_is_not_fitted(right: int, wrong: int, enough: bool) -> None:
    assert may_be_fitted([True] * right + [False] * wrong) is enough


def test_calibrated_answers_show_the_error_of_chance_and_none_beyond_it() -> None:
    draw, seen, without = np.random.default_rng(0), [], []
    probabilities = draw.uniform(0.3, 1.0, size=80)
    for _ in range(200):
        right = (draw.random(80) < probabilities).tolist()
        seen.append(expected_calibration_error(probabilities.tolist(), right))
        without.append(debiased_calibration_error(probabilities.tolist(), right))
    by_chance = calibration_error_by_chance(probabilities.tolist())
    assert np.mean(seen) == pytest.approx(by_chance, abs=0.01)
    assert np.mean(without) < 0.7 * by_chance
    assert np.isnan(calibration_error_by_chance([]))
    assert np.isnan(debiased_calibration_error([], []))


def test_an_error_that_is_there_stays_without_chance() -> None:
    draw = np.random.default_rng(0)
    right = (draw.random(2000) < 0.6).tolist()
    assert debiased_calibration_error([0.9] * 2000, right) == pytest.approx(0.3, abs=0.03)
