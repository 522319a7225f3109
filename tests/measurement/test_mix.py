"""Scores weighted by the mix of slices in traffic: against their definitions, reference implementations and known
truth."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from made_answers import made_answer
from sklearn.metrics import f1_score
from statsmodels.api import WLS

from trimtab.base.errors import InputError
from trimtab.base.task import Task
from trimtab.measurement.clusters import clustered_error, degrees_of_freedom, effective_groups
from trimtab.measurement.dirichlet_bound import mean_above, mean_floor
from trimtab.measurement.figures import behind_curve, difference, rarest_class, score_estimate, target_curve
from trimtab.measurement.metrics import macro_f1_statistic
from trimtab.measurement.mix import check_mix, effective_items, mix_weights
from trimtab.measurement.statistics import estimate, lower_bound, p_reaches

SLICES = [*["common"] * 80, *["rare"] * 20]
MIX = {"common": 0.3, "rare": 0.7}


def a_task(mix: dict[str, float], metric: str = "exact_match") -> Task:
    kind = "classify" if metric == "macro_f1" else "answer"
    return Task.model_validate(
        {
            "task": {"name": "t", "kind": kind, "metric": metric},
            "data": {"examples": ["rows.jsonl"], "slice": "topic", "mix": mix},
        }
    )


def answers(scores: np.ndarray, slices: list[str] = SLICES) -> list:  # type: ignore[type-arg]
    return [made_answer(f"{n:04}", score, slice=slices[n]) for n, score in enumerate(scores)]


def test_every_slice_gets_its_share_and_kishs_number_is_told() -> None:
    weights = mix_weights(SLICES, MIX)
    assert weights is not None
    assert weights.sum() == pytest.approx(100)
    assert weights[80:].sum() == pytest.approx(70)
    kish = 1 / (0.3**2 / 80 + 0.7**2 / 20)
    assert effective_items(SLICES, MIX) == pytest.approx(kish)
    assert effective_groups(np.arange(100), weights) == pytest.approx(kish)


def test_no_mix_and_the_test_sets_own_shares_weigh_nothing() -> None:
    assert mix_weights(SLICES, {}) is None
    assert mix_weights(SLICES, {"common": 0.8, "rare": 0.2}) is None
    assert mix_weights(["rare"] * 5, MIX) is None  # a part of one slice


def test_a_mix_that_does_not_fit_the_questions_is_refused() -> None:
    with pytest.raises(InputError, match="20 of 100 questions are of the slice 'rare'"):
        check_mix(SLICES, {"common": 1.0}, Path("trimtab.toml"))
    with pytest.raises(InputError, match="no test question is of the slice 'odd'; there are: common, rare"):
        check_mix(SLICES, {**MIX, "odd": 0.1}, Path("trimtab.toml"))
    with pytest.raises(InputError, match="1 of 101 questions have no slice"):
        check_mix([*SLICES, None], MIX, Path("trimtab.toml"))
    with pytest.raises(ValueError, match=r"mix sums to 0\.9"):
        a_task({"a": 0.5, "b": 0.4})


def test_the_score_is_the_post_stratified_mean() -> None:
    scores = (np.random.default_rng(0).random(100) < 0.7).astype(float)
    found = score_estimate(answers(scores), a_task(MIX))
    assert found.value == pytest.approx(0.3 * scores[:80].mean() + 0.7 * scores[80:].mean())
    assert found.low < found.value < found.high
    assert found.n == 100
    assert found.n_effective == pytest.approx(effective_items(SLICES, MIX))
    plain = score_estimate(answers(scores), a_task({}))
    assert plain.n_effective is None
    assert found.high - found.low > plain.high - plain.low  # of fewer effective questions


def test_a_difference_is_weighted_too_and_its_tests_with_it() -> None:
    """Better on the common slice, worse on the rare one: which arm is ahead is a matter of the mix."""
    a, b = np.array([*[1.0] * 80, *[0.0] * 20]), np.array([*[0.0] * 20, *[1.0] * 80])
    a[70:80], b[60:80] = 0.0, 0.0
    common, rare = a_task({"common": 0.9, "rare": 0.1}), a_task({"common": 0.05, "rare": 0.95})
    ahead, behind = difference(answers(a), answers(b), common), difference(answers(a), answers(b), rare)
    assert ahead.difference == pytest.approx(0.9 * (a - b)[:80].mean() + 0.1 * (a - b)[80:].mean())
    assert ahead.low > 0 > behind.high
    assert max(ahead.p, behind.p) < 0.01
    assert behind_curve(answers(b), answers(a), common)(0.02) > 0.9
    assert behind_curve(answers(b), answers(a), rare)(0.02) < 0.01


def test_the_error_is_that_of_statsmodels() -> None:
    """The jackknife of a weighted mean is HC3 of a weighted regression on a constant."""
    random, weights = np.random.default_rng(2), mix_weights(SLICES, MIX)
    assert weights is not None
    x = np.clip(0.5 + random.standard_normal(100) * np.where(weights > 1, 0.3, 0.05), 0, 1)
    fit = WLS(x, np.ones(100), weights=weights).fit(cov_type="HC3")
    assert clustered_error(x, np.arange(100), weights) == pytest.approx(float(fit.bse[0]) * math.sqrt(99 / 100))
    assert np.average(x, weights=weights) == pytest.approx(float(fit.params[0]))


def test_weights_that_are_alike_change_nothing_that_is_worked_out_by_group() -> None:
    random = np.random.default_rng(3)
    x, codes, ones = random.random(60), np.repeat(np.arange(20), 3), np.full(60, 2.0)
    assert clustered_error(x, codes, ones) == pytest.approx(clustered_error(x, codes))
    assert degrees_of_freedom(codes, ones) == pytest.approx(degrees_of_freedom(codes))


def test_macro_f1_is_that_of_sklearn_with_weights() -> None:
    random, weights = np.random.default_rng(4), mix_weights(SLICES, MIX)
    true, said = random.integers(0, 3, 100).astype(str), random.integers(0, 3, 100).astype(str)
    figure = macro_f1_statistic(list(said), [(label,) for label in true], weights)
    assert figure(np.arange(100)) == pytest.approx(f1_score(true, said, average="macro", sample_weight=weights))


def test_a_class_of_few_effective_questions_claims_no_target() -> None:
    rows = [
        made_answer(f"{n:04}", 1.0, slice=name, answer=label, reference=(label,))
        for n, (name, label) in enumerate(zip(SLICES, [*["a"] * 66, *["b"] * 14, *["a"] * 19, "b"], strict=True))
    ]
    assert rarest_class(rows, a_task({}, "macro_f1")) is None
    assert rarest_class(rows, a_task(MIX, "macro_f1")) == ("b", 5)  # one of its 15 weighs as nine others


def test_the_weighted_bound_is_the_share_of_draws_below() -> None:
    random, weights = np.random.default_rng(5), np.repeat([0.5, 2.0], [30, 10])
    x = random.random(40)
    drawn = random.exponential(size=(200_000, 41)) * np.append(weights, 2.0)
    means = drawn @ np.append(x, 0.0) / drawn.sum(1)
    curve = mean_above(x, 0.0, weights)
    for null in (0.4, 0.5):
        assert curve(null) == pytest.approx(float((means <= null).mean()), abs=0.004)
    assert curve(mean_floor(x, 0.0, 0.05, weights)) == pytest.approx(0.05, abs=1e-6)


def test_a_lone_heavy_question_makes_nothing_sure() -> None:
    weights = mix_weights([*["common"] * 199, "rare"], {"common": 0.5, "rare": 0.5})
    right = np.ones(200)
    assert p_reaches(right, 0.6, weights=weights) > 0.2
    assert lower_bound(right, weights=weights) < 0.5
    assert estimate(right, weights=weights).low < 0.5


def test_weighted_claims_err_as_seldom_as_they_may() -> None:
    """1,000 studies of right/wrong answers, slices of other scores: intervals hold the truth, and a target that is
    just met is seldom claimed."""
    random, task, truth = np.random.default_rng(6), a_task(MIX), 0.3 * 0.9 + 0.7 * 0.75
    shares = np.where(np.array(SLICES) == "common", 0.9, 0.75)
    held = claimed = 0
    for _ in range(1000):
        made = answers((random.random(100) < shares).astype(float))
        found = score_estimate(made, task)
        held += found.low <= truth <= found.high
        claimed += target_curve(made, task)(truth) <= 0.05
    assert held >= 925
    assert claimed <= 65
