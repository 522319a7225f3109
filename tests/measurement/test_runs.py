"""Several runs of an arm: their figures are means over the seeds, and the variance between them is in every error."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from made_answers import made_answer
from scipy import stats

from trimtab.base.records import Answer
from trimtab.base.results import Classes, ClassRow
from trimtab.base.task import Task
from trimtab.measurement.figures import (
    behind_curve,
    class_figures,
    difference,
    score_estimate,
    score_floor,
    target_curve,
)
from trimtab.measurement.runs import RunError, by_seed, mean_classes, mean_figures, of_both, raised, run_error, widened


def answer(seed: int, item: str, reference: str, said: str, probability: float = 0.5) -> Answer:
    return Answer(
        item_id=item, split="test", group=None, slice=None, seed=seed, input="q", reference=(reference,), answer=said,
        score=float(reference == said), format_ok=True, abstained=False, probability=probability, seconds=0.1,
        prompt_tokens=1, new_tokens=1, hits=(), failure="none" if reference == said else "wrong",
    )  # fmt: skip


def test_answers_by_seed_whatever_their_order() -> None:
    mixed = [answer(seed, item, "a", "a") for item in "xy" for seed in (3, 0)]
    assert [[(one.seed, one.item_id) for one in run] for run in by_seed(mixed)] == [
        [(0, "x"), (0, "y")],
        [(3, "x"), (3, "y")],
    ]
    assert by_seed([]) == []


def test_figures_are_means_of_what_all_runs_have() -> None:
    assert mean_figures([{"ece": 0.1, "mrr": 0.5}, {"ece": 0.3}]) == {"ece": pytest.approx(0.2)}
    assert mean_figures([{"ece": 0.1}]) == {"ece": 0.1}
    assert mean_figures([]) == {}


def test_a_class_is_the_mean_of_its_runs_and_asked_as_often_as_in_one() -> None:
    right = [answer(0, "1", "a", "a", 0.9), answer(0, "2", "b", "b", 0.8), answer(0, "3", "b", "b", 0.7)]
    wrong = [answer(1, "1", "a", "b", 0.9), answer(1, "2", "b", "a", 0.8), answer(1, "3", "b", "b", 0.7)]
    alone = [class_figures(run) for run in (right, wrong)]
    found = mean_classes(alone)
    assert [row.label for row in found.rows] == ["b", "a"]
    assert [row.support for row in found.rows] == [2, 1]
    assert found.rows[0] == ClassRow(label="b", precision=0.75, recall=0.75, f1=0.75, support=2)
    assert found.rows[1] == ClassRow(label="a", precision=0.5, recall=0.5, f1=0.5, support=1)
    assert found.selective[1.0] == pytest.approx((1 + 1 / 3) / 2)
    assert mean_classes([Classes(rows=(), selective={})] * 2) == Classes(rows=(), selective={})


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
