"""Intervals and tests against published examples, statsmodels, scipy, and small simulations with known truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from trimtab.base.errors import InputError
from trimtab.measurement.dirichlet_bound import mean_floor
from trimtab.measurement.paired_proportions import mcnemar, tango_interval
from trimtab.measurement.resampling import bca_mean, p_sign_flip
from trimtab.measurement.statistics import (
    compare_paired,
    estimate,
    holm,
    lower_bound,
    p_noninferior,
    p_reaches,
)


def right_wrong(right: int, n: int) -> np.ndarray:
    return np.r_[np.ones(right), np.zeros(n - right)]


def pairs(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.r_[np.ones(both + first), np.zeros(second + neither)]
    b = np.r_[np.ones(both), np.zeros(first), np.ones(second), np.zeros(neither)]
    return a, b


@given(n=st.integers(1, 400), data=st.data())
def test_right_wrong_interval_is_wilsons(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    found = estimate(right_wrong(right, n))
    assert (found.low, found.high) == pytest.approx(proportion_confint(right, n, method="wilson"), abs=1e-12)
    assert found.value == right / n
    assert found.n == n


def test_wilson_gives_the_published_interval() -> None:
    # Newcombe 1998, table I, method 3: 81 of 263
    found = estimate(right_wrong(81, 263))
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_graded_interval_is_near_scipys_bca() -> None:
    scores = np.random.default_rng(1).beta(4, 1.5, 200)
    reference = stats.bootstrap((scores,), np.mean, rng=np.random.default_rng(2), n_resamples=9999).confidence_interval
    assert bca_mean(scores, 0) == pytest.approx((reference.low, reference.high), abs=0.004)


@given(
    shape=st.sampled_from([(4, 1.5), (30, 0.5), (0.5, 0.5)]),
    n=st.sampled_from([40, 200, 1001]),
    seed=st.integers(0, 99),
)
def test_a_graded_interval_holds_what_one_item_that_was_not_drawn_may_change(shape, n, seed) -> None:
    """BCa's limits, or Gaffke's at half the level where these are wider; of more than 1,000 items BCa's."""
    scores = np.random.default_rng(seed).beta(*shape, n)
    found, (low, high) = estimate(scores), bca_mean(scores, 0)
    floor, ceiling = mean_floor(scores, 0.0, 0.025), 1 - mean_floor(1 - scores, 0.0, 0.025)
    wanted = (low, high) if n > 1000 else (min(low, floor), max(high, ceiling))
    assert (found.low, found.high) == pytest.approx(wanted, abs=2e-5)


def test_intervals_of_scores_that_rarely_fail_hold_the_true_mean() -> None:
    """97% of scores in .9 to 1 and 3% at 0, n = 40: BCa's interval holds the mean in some 70%."""
    draw = np.random.default_rng(1).random((150, 40))
    found = [estimate(x) for x in np.where(draw < 0.03, 0, 0.9 + 0.1 * (draw - 0.03) / 0.97)]
    assert np.mean([one.low <= 0.9215 <= one.high for one in found]) >= 0.95


@pytest.mark.parametrize("scores", [[0.0] * 30, [1.0] * 30, [0.7] * 30, [0.5], [0.0], [1.0], [0.4] * 29 + [0.9]])
@pytest.mark.parametrize("groups", [None, "two", "one"])
def test_scores_without_spread_still_give_an_interval(scores: list[float], groups: str | None) -> None:
    names = {None: None, "two": [str(i // 2) for i in range(len(scores))], "one": ["g"] * len(scores)}[groups]
    found = estimate(scores, names)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 0.05
    assert 0 <= p_reaches(scores, 0.6, names) <= 1
    zero = compare_paired(scores, scores, names)
    assert zero.p == 1
    assert zero.low <= 0 <= zero.high
    assert 0 < p_noninferior(scores, scores, 0.02, names) <= 1


def test_groups_that_never_repeat_change_nothing() -> None:
    scores = np.random.default_rng(0).random(50)
    assert estimate(scores, [str(i) for i in range(50)]) == estimate(scores)
    assert estimate(scores, [None] * 50) == estimate(scores)


def test_repeating_every_item_does_not_narrow_the_interval() -> None:
    scores = right_wrong(70, 100)
    once, often = estimate(scores), estimate(np.repeat(scores, 5), [str(i) for i in np.repeat(np.arange(100), 5)])
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.03)
    many = np.repeat(scores, 5)
    assert p_reaches(many, 0.6, [str(i) for i in np.repeat(np.arange(100), 5)]) > 50 * p_reaches(many, 0.6)


@given(n=st.integers(1, 300), target=st.floats(0.05, 0.99), data=st.data())
def test_reaching_the_target_is_the_exact_binomial_test(n: int, target: float, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    reference = stats.binomtest(right, n, target, "greater").pvalue
    assert p_reaches(right_wrong(right, n), target) == pytest.approx(reference, abs=1e-12)


def test_a_target_of_one_is_never_shown() -> None:
    assert p_reaches(np.ones(1000), 1.0) == 1.0


def test_nearly_perfect_graded_scores_do_not_prove_a_target_they_cannot() -> None:
    scores = np.r_[np.ones(99), 0.99]
    assert p_reaches(scores, 0.99) > 0.2
    assert p_reaches(scores, 0.9) < 1e-4


def test_graded_reaching_agrees_with_t_where_scores_are_symmetric() -> None:
    # and wide: one more score of 0, which the bound counts, is little beside their spread
    scores = 0.5 + 0.5 * np.sin(np.arange(600) * 2.4)
    reference = stats.ttest_1samp(scores, 0.477, alternative="greater").pvalue
    assert reference < p_reaches(scores, 0.477) < reference + 0.02


@pytest.mark.parametrize("kind", ["right/wrong", "graded", "groups", "statistic", "nearly alike"])
def test_the_lower_bound_is_the_target_that_is_just_reached(kind: str) -> None:
    random, more = np.random.default_rng(4), {}
    scores = random.beta(4, 1.5, 120) if kind in ("graded", "statistic") else right_wrong(96, 120)
    if kind == "groups":
        more = {"groups": [str(max(0, item - 27) // 3) for item in range(120)]}
        scores = random.permutation(scores)
    if kind == "statistic":
        more = {"statistic": lambda items: float(scores[items].mean())}
    if kind == "nearly alike":
        scores = np.r_[np.ones(117), 0.5, 0.5, 0.2]
    bound = lower_bound(scores, **more)
    assert p_reaches(scores, bound - 1e-3, **more) < 0.05 < p_reaches(scores, bound + 1e-3, **more)
    assert bound < scores.mean()
    if kind != "graded":  # there the bound counts a score of 0 that the interval does not
        assert estimate(scores, **more).low < bound


@pytest.mark.parametrize("scores", [[0.0] * 30, [1.0] * 30, [0.7] * 30, [0.5], [0.0], [1.0]])
@pytest.mark.parametrize("groups", [None, "two", "one"])
def test_scores_without_spread_have_a_lower_bound(scores: list[float], groups: str | None) -> None:
    names = {None: None, "two": [str(i // 2) for i in range(len(scores))], "one": ["g"] * len(scores)}[groups]
    bound = lower_bound(scores, names)
    assert 0 <= bound <= scores[0]
    assert p_reaches(scores, bound + 1e-3, names) > 0.05


@given(table=st.tuples(*[st.integers(0, 40)] * 4).filter(lambda t: sum(t) > 0))
def test_mcnemar_is_statsmodels_exact_test(table: tuple[int, int, int, int]) -> None:
    both, first, second, neither = table
    reference = reference_mcnemar([[both, first], [second, neither]], exact=True).pvalue
    assert compare_paired(*pairs(*table)).p == pytest.approx(reference, abs=1e-12)
    assert mcnemar(first, second) == mcnemar(second, first)


def tango_by_likelihood(wins: int, losses: int, n: int, delta: float) -> float:
    """The score statistic with the nuisance share found by maximising the constrained likelihood numerically."""

    def loss(q: float) -> float:
        return -(
            wins * math.log(max(q + delta, 1e-300))
            + losses * math.log(max(q, 1e-300))
            + (n - wins - losses) * math.log(max(1 - 2 * q - delta, 1e-300))
        )

    edges = max(0.0, -delta), (1 - delta) / 2
    q = optimize.minimize_scalar(loss, bounds=edges, method="bounded", options={"xatol": 1e-12}).x
    return (wins - losses - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))


@pytest.mark.parametrize("table", [(9, 1, 44), (12, 12, 60), (30, 5, 300), (1, 0, 20)])
def test_tango_limits_invert_the_score_test_of_the_constrained_likelihood(table: tuple[int, int, int]) -> None:
    z = stats.norm.isf(0.025)
    low, high = tango_interval(*table)
    assert tango_by_likelihood(*table, low) == pytest.approx(z, abs=1e-3)
    assert tango_by_likelihood(*table, high) == pytest.approx(-z, abs=1e-3)


def test_tango_without_discordant_pairs_has_its_closed_form() -> None:
    z2 = stats.norm.isf(0.025) ** 2
    assert tango_interval(0, 0, 30) == pytest.approx((-z2 / (30 + z2), z2 / (30 + z2)), abs=1e-7)


@given(table=st.tuples(*[st.integers(0, 30)] * 4).filter(lambda t: sum(t) > 1))
def test_swapping_the_arms_mirrors_the_comparison(table: tuple[int, int, int, int]) -> None:
    a, b = pairs(*table)
    one, other = compare_paired(a, b), compare_paired(b, a)
    assert one.difference == -other.difference
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-7)
    assert one.low <= one.difference <= one.high


def test_sign_flips_are_exact_for_few_items() -> None:
    a = np.array([0.9, 0.8, 0.4, 0.6, 0.7, 0.2, 0.5, 1.0, 0.3, 0.6, 0.65, 0.1])
    b = np.array([0.5, 0.9, 0.1, 0.5, 0.3, 0.1, 0.5, 0.2, 0.25, 0.8, 0.05, 0.3])
    gaps = a - b
    sums = [abs(np.dot(signs, gaps)) for signs in itertools.product((-1, 1), repeat=len(gaps))]
    assert p_sign_flip(gaps, 0) == pytest.approx(np.mean(np.array(sums) >= abs(gaps.sum()) - 1e-9))


def test_sampled_sign_flips_agree_with_scipy() -> None:
    random = np.random.default_rng(3)
    a, b = random.random(80), random.random(80) * 0.9
    reference = stats.permutation_test(
        (a - b,), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(4)
    )
    assert p_sign_flip(a - b, 0) == pytest.approx(reference.pvalue, abs=0.02)


def test_a_steady_arm_is_not_better_for_failures_that_were_not_drawn() -> None:
    """Ahead by .05 on each of 40 questions, the other may fail on one in twenty; on 400 it would have shown."""
    for groups in (None, [str(item) for item in range(20) for _ in range(2)]):
        assert compare_paired(np.full(40, 0.95), np.ones(40), groups).p > 0.05
    assert compare_paired(np.full(400, 0.95), np.ones(400)).p < 0.001
    random, differ = np.random.default_rng(6), 0
    for _ in range(200):
        differ += compare_paired(np.full(100, 0.95), random.random(100) >= 0.05).p <= 0.05
    assert differ <= 18  # 5% and three standard errors


def test_a_wide_margin_is_shown_and_a_real_loss_is_not() -> None:
    a, b = pairs(240, 15, 15, 30)
    assert p_noninferior(a, b, 0.1) < 0.001
    assert p_noninferior(a, b, 0.001) > 0.3
    worse, better = pairs(200, 5, 60, 35)
    assert p_noninferior(worse, better, 0.02) > 0.99


def test_noninferiority_agrees_with_its_interval() -> None:
    # Tango: the one-sided test at the 90% interval's lower limit has p = .05; the 95% interval's has .025
    for table in [(100, 20, 10, 20), (50, 3, 9, 40), (10, 0, 4, 30)]:
        a, b = pairs(*table)
        low = compare_paired(a, b).low
        assert p_noninferior(a, b, -low) == pytest.approx(0.025, abs=1e-4)


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_statsmodels(p: list[float]) -> None:
    assert holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]), abs=1e-12)


def test_holm_of_nothing() -> None:
    assert holm([]) == []


def test_a_statistic_of_items_is_bootstrapped() -> None:
    scores = np.random.default_rng(1).beta(4, 1.5, 120)
    by_mean, plain = estimate(scores, statistic=lambda items: float(scores[items].mean())), estimate(scores)
    assert (by_mean.low, by_mean.high) == pytest.approx((plain.low, plain.high), abs=0.01)
    p_by_mean = p_reaches(scores, 0.7, statistic=lambda items: float(scores[items].mean()))
    assert p_by_mean == pytest.approx(stats.ttest_1samp(scores, 0.7, alternative="greater").pvalue, abs=0.02)
    other = np.random.default_rng(2).beta(4, 1.5, 120)
    gap = compare_paired(scores, other, statistic=lambda items: float((scores - other)[items].mean()))
    plain_gap = compare_paired(scores, other)
    assert gap[:3] == pytest.approx(plain_gap[:3], abs=0.03)
    assert gap.p == pytest.approx(p_sign_flip(scores - other, 0), abs=0.03)


def test_a_statistic_without_spread_is_not_certain() -> None:
    ones = np.ones(30)
    found = estimate(ones, statistic=lambda items: 1.0)
    assert found.high == 1
    assert found.low < 0.95
    assert p_reaches(ones, 0.99, statistic=lambda items: 1.0) > 0.5
    assert p_noninferior(ones, ones, 0.02, statistic=lambda items: 0.0) > 0.05
    assert compare_paired(ones, ones, statistic=lambda items: 0.0).p == 1


@pytest.mark.parametrize(
    ("scores", "groups"), [([], None), ([0.5, 1.2], None), ([0.5, math.nan], None), ([0.5, 0.5], ["a"])]
)
def test_bad_scores_are_refused(scores: list[float], groups: list[str] | None) -> None:
    with pytest.raises(InputError):
        estimate(scores, groups)


def test_arms_must_share_items() -> None:
    with pytest.raises(InputError):
        compare_paired([1.0, 0.0], [1.0])


@pytest.mark.parametrize("kind", ["graded", "clustered"])
def test_intervals_cover_and_targets_are_rarely_claimed_wrongly(kind: str) -> None:
    random, covered, claimed, studies = np.random.default_rng(7), 0, 0, 400
    for _ in range(studies):
        if kind == "graded":
            scores, groups = np.where(random.random(100) < 0.6, 1.0, random.beta(1, 2, 100)), None
            truth = 0.6 + 0.4 / 3
        else:
            right = random.beta(0.8 * 2, 0.2 * 2, 40)
            scores, groups = (
                (random.random((40, 3)) < right[:, None]).astype(float).ravel(),
                [str(i // 3) for i in range(120)],
            )
            truth = 0.8
        found = estimate(scores, groups)
        covered += found.low <= truth <= found.high
        claimed += p_reaches(scores, truth, groups) <= 0.05
    # 3.5 standard errors below 95%, above 5%
    assert covered / studies > 0.95 - 0.038
    assert claimed / studies < 0.05 + 0.038
