"""Posterior draws: centred on the scores, paired, never certain, and as wide as the intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from made_answers import made_answer
from made_studies import a_task

from trimtab.base.task import Task
from trimtab.measurement.figures import difference, score_estimate
from trimtab.measurement.posterior import posterior_draws
from trimtab.measurement.replicates import StudyScores

RANDOM = np.random.default_rng(5)


def drawn(scores: Mapping[str, np.ndarray], *, groups: int = 0, level: float = 0.05, task: Task | None = None):
    answers = {
        arm: [
            replace(made_answer(f"{item:04}", float(score)), group=f"{item % groups}" if groups else None)
            for item, score in enumerate(own)
        ]
        for arm, own in scores.items()
    }
    task = task or a_task(0.8)
    draws = posterior_draws(StudyScores(answers, task), {arm: float(own.mean()) for arm, own in scores.items()}, level)
    return draws, answers, task


def test_draws_are_centred_and_as_wide_as_the_intervals_and_arms_stay_paired() -> None:
    hard = RANDOM.random(300)
    scores = {"a": (hard < 0.8).astype(float), "b": (hard < 0.85).astype(float)}
    draws, answers, task = drawn(scores)
    for place, arm in enumerate(scores):
        told = score_estimate(answers[arm], task)
        assert draws[:, place].mean() == pytest.approx(told.value, abs=0.005)
        low, high = np.quantile(draws[:, place], (0.025, 0.975))
        assert high - low == pytest.approx(told.high - told.low, rel=0.15)
    gap = draws[:, 1] - draws[:, 0]
    told = difference(answers["b"], answers["a"], task)
    assert np.ptp(np.quantile(gap, (0.025, 0.975))) == pytest.approx(told.high - told.low, rel=0.25)
    assert gap.std() < 0.6 * np.hypot(*draws.std(0))


@pytest.mark.parametrize("groups", [0, 10])
def test_all_right_is_not_certain_and_differs_from_all_right_by_chance(groups: int) -> None:
    draws, _, _ = drawn({"a": np.ones(40), "b": np.ones(40)}, groups=groups)
    least = 0.05 if groups else 0.01
    assert 1 - np.quantile(draws, 0.05, axis=0).min() > least
    higher = np.mean(draws[:, 0] > draws[:, 1]) + np.mean(draws[:, 0] == draws[:, 1]) / 2
    assert higher == pytest.approx(0.5, abs=0.05)


def test_groups_that_are_alike_and_later_looks_make_draws_wider() -> None:
    of_group = np.repeat(RANDOM.random(30) < 0.7, 10).reshape(30, 10).T.ravel().astype(float)
    alone, _, _ = drawn({"a": of_group})
    grouped, _, _ = drawn({"a": of_group}, groups=30)
    assert grouped.std() > 2 * alone.std()
    later, _, _ = drawn({"a": of_group}, level=0.01)
    assert later.std() == pytest.approx(alone.std() * 2.576 / 1.960, rel=0.02)


def test_runs_that_differ_make_draws_wider() -> None:
    right = (RANDOM.random(400) < 0.8).astype(float)
    rows = [made_answer(f"{item:04}", score) for item, score in enumerate(right)]
    flipped = [replace(row, seed=1, score=0.0 if place < 60 else row.score) for place, row in enumerate(rows)]
    task = a_task(0.8)
    one = posterior_draws(StudyScores({"a": rows}, task), {"a": 0.8})
    both = posterior_draws(StudyScores({"a": [*rows, *flipped]}, task), {"a": 0.75})
    assert both.std() > 1.5 * one.std()
