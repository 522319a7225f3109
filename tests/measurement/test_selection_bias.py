"""The highest of several scores is too high, and what it is corrected to is not."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.measurement.selection_bias import corrected_for_picking, draws_of_figures, draws_of_means


def right_wrong(random: np.random.Generator, arms: int, items: int, share: float) -> np.ndarray:
    return (random.random((arms, items)) < share).astype(float)


def test_of_equal_arms_the_highest_is_corrected_and_its_interval_holds_the_truth() -> None:
    random, picked, corrected, held = np.random.default_rng(0), [], [], 0
    for _ in range(60):
        scores = right_wrong(random, 8, 100, 0.8)
        found = corrected_for_picking(scores.mean(1), draws_of_means(scores, None), 100)
        picked.append(scores.mean(1).max())
        corrected.append(found.value)
        held += found.low <= 0.8 <= found.high
    assert np.mean(picked) > 0.84
    assert np.mean(corrected) == pytest.approx(0.8, abs=0.02)
    assert held >= 0.95 * 60 - 6  # 3.5 standard errors


def test_a_clear_winner_is_hardly_corrected() -> None:
    scores = np.vstack([right_wrong(np.random.default_rng(1), 3, 200, 0.4), np.r_[np.ones(180), np.zeros(20)]])
    found = corrected_for_picking(scores.mean(1), draws_of_means(scores, None), 200)
    assert found.value == pytest.approx(0.9, abs=0.005)
    assert found.low < 0.9 < found.high


def test_draws_are_of_whole_groups_and_alike_for_means_and_figures() -> None:
    scores = np.repeat(right_wrong(np.random.default_rng(2), 2, 20, 0.6), 5, axis=1)
    groups = [str(item // 5) for item in range(100)]
    means = draws_of_means(scores, groups)
    figures = draws_of_figures([lambda items, own=own: float(own[items].mean()) for own in scores], 100, groups)
    assert means.std(0) == pytest.approx(figures.std(0), rel=0.15)
    assert (means.std(0) > 1.7 * draws_of_means(scores, None).std(0)).all()
