"""The variance between runs, in every figure of several seeds, against the sampling distribution that it stands for."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from made_answers import made_answer
from scipy import stats

from trimtab.base.records import Answer
from trimtab.base.task import Task
from trimtab.measurement.figures import (
    behind_curve,
    difference,
    score_estimate,
    score_floor,
    target_curve,
)
from trimtab.measurement.runs import RunError, of_both, raised, run_error, widened

TASK = Task(
    task={"name": "t", "kind": "answer", "metric": "exact_match"}, data={}, base={"model": "m"}, file=Path("t.toml")
)


def runs_of(truths: list[float], items: int, draw: np.random.Generator) -> list[Answer]:
    """Answers of one run a truth: each item has its own difficulty, the same in every run."""
    difficulty = draw.random(items)
    return [
        made_answer(f"i{item:04}", difficulty[item] < truth, seed=seed)
        for seed, truth in enumerate(truths)
        for item in range(items)
    ]


def test_run_error_is_that_of_a_mean_over_runs() -> None:
    assert run_error([0.5]) == RunError(0.0, math.inf)
    found = run_error([0.6, 0.7, 0.8])
    assert found == (pytest.approx(0.01 / 3), 2)
    both = of_both(found, found)
    assert both == (pytest.approx(0.02 / 3), pytest.approx(4))
    assert of_both(found, RunError(0.0, math.inf)) == (pytest.approx(0.01 / 3), pytest.approx(2))


def test_a_single_run_changes_nothing() -> None:
    alone = run_error([0.5])
    assert widened(0.5, 0.4, alone) == 0.4
    assert raised(0.01, 0.1, alone) == 0.01


def test_runs_alone_give_the_t_interval_and_its_p() -> None:
    runs = run_error([0.6, 0.7, 0.8])
    half = stats.t.isf(0.025, 2) * math.sqrt(runs.variance)
    assert widened(0.7, 0.7 - 1e-9, runs) == pytest.approx(0.7 - half)
    assert raised(1e-300, 0.1, runs) == pytest.approx(stats.t.sf(0.1 / math.sqrt(runs.variance), 2), rel=0.02)


def test_interval_and_p_agree_on_the_same_level() -> None:
    """The p at the widened one-sided limit is its level."""
    runs = RunError(4e-4, 2)
    floor = widened(0.7, 0.65, runs, 0.05)
    p_items = float(stats.norm.sf((0.7 - floor) / (0.05 / stats.norm.isf(0.05))))
    assert raised(p_items, 0.7 - floor, runs) == pytest.approx(0.05, rel=1e-6)


def test_runs_that_differ_widen_every_figure() -> None:
    draw = np.random.default_rng(0)
    alike, apart = (runs_of(truths, 400, draw) for truths in ([0.7, 0.7, 0.7], [0.55, 0.7, 0.85]))
    steady, loose = score_estimate(alike, TASK), score_estimate(apart, TASK)
    assert loose.high - loose.low > 3 * (steady.high - steady.low)
    assert score_floor(apart, TASK) < score_floor(alike, TASK) - 0.1
    assert target_curve(apart, TASK)(0.6) > 0.1 > target_curve(alike, TASK)(0.6)
    other = runs_of([0.5, 0.5, 0.5], 400, np.random.default_rng(0))
    assert difference(apart, other, TASK).p > 0.05 > difference(alike, other, TASK).p
    assert behind_curve(apart, other, TASK)(0.0) > 0.02 > 1e6 * behind_curve(alike, other, TASK)(0.0)


@pytest.mark.slow
def test_intervals_of_several_runs_cover_what_the_method_does() -> None:
    """Runs of one method scatter by .05 about .7; three of them, 200 questions: 95% of intervals hold .7, to within
    the simulation."""
    draw, covered, studies = np.random.default_rng(1), 0, 400
    for _ in range(studies):
        found = score_estimate(runs_of(list(0.7 + 0.05 * draw.standard_normal(3)), 200, draw), TASK)
        covered += found.low <= 0.7 <= found.high
    assert covered / studies > 0.93
