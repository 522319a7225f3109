"""Groups that repeat: each left out in turn, and weighed by their share."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trimtab.measurement.clusters import degrees_of_freedom, too_few_groups
from trimtab.measurement.statistics import compare_paired, estimate, p_noninferior, p_reaches


def test_clustered_error_is_that_of_statsmodels() -> None:
    from statsmodels.regression.linear_model import OLS

    random = np.random.default_rng(5)
    codes = np.repeat(np.arange(40), 5)
    a = np.clip(0.6 + 0.3 * random.standard_normal(40)[codes] + 0.1 * random.standard_normal(200), 0, 1)
    b = np.clip(0.5 + 0.3 * random.standard_normal(40)[codes] + 0.1 * random.standard_normal(200), 0, 1)
    fit = OLS(a - b, np.ones(200)).fit(
        cov_type="cluster", cov_kwds={"groups": codes, "df_correction": True}, use_t=True
    )
    found = compare_paired(a, b, [str(code) for code in codes])
    assert (found.low, found.high) == pytest.approx(tuple(fit.conf_int()[0]), abs=1e-9)


def test_few_groups_are_told() -> None:
    assert too_few_groups(None) is None
    assert too_few_groups(["a", "b", "c"]) is None
    assert too_few_groups(["a", "a", "b"]) == 2
    assert too_few_groups([str(i // 2) for i in range(20)]) is None
    assert too_few_groups([str(i // 2) for i in range(18)]) == 9
    assert too_few_groups(sized(100, *[5] * 19)) == 4  # 20 groups, of which one outweighs the rest
    assert too_few_groups(sized(*[5] * 19)) is None


def sized(*sizes: int) -> list[str]:
    """Groups of these sizes."""
    return [str(code) for code in np.repeat(np.arange(len(sizes)), sizes)]


UNEQUAL = {
    "one of 100, 19 of 5": (100, *[5] * 19),
    "two of 80, 38 of 4": (80, 80, *[4] * 38),
    "Zipf": tuple(max(1, 120 // rank) for rank in range(1, 41)),
}


def satterthwaite(sizes: tuple[int, ...]) -> float:
    """Degrees of the squared leave-one-group-out error where the items of a group all agree: from the whole matrix."""
    n = np.array(sizes, float)
    shifts = (np.eye(len(n)) - n[:, None] / n.sum()) / (n.sum() - n[:, None])  # of the sum of each group's scores
    covariance = shifts @ np.diag(n**2) @ shifts.T
    return float(np.trace(covariance) ** 2 / np.sum(covariance**2))


def test_groups_of_one_size_count_with_one_degree_less_than_they_are() -> None:
    assert degrees_of_freedom(np.repeat(np.arange(20), 3)) == pytest.approx(19)
    assert degrees_of_freedom(np.zeros(5, int)) == 0
    few = degrees_of_freedom(np.repeat(np.arange(40), UNEQUAL["Zipf"]))
    assert satterthwaite(UNEQUAL["Zipf"]) == pytest.approx(2.2, abs=0.05)
    assert few == pytest.approx(3.6, abs=0.05)


@pytest.mark.parametrize("sizes", UNEQUAL.values(), ids=UNEQUAL)
def test_unequal_groups_are_each_left_out_and_weigh_by_their_share(sizes: tuple[int, ...]) -> None:
    """The paired interval is value +- t times the leave-one-group-out error, both written out."""
    random, groups = np.random.default_rng(6), np.array(sized(*sizes))
    a, b = random.random((2, len(groups))) * 0.5 + 0.5 * random.random((2, len(sizes)))[:, groups.astype(int)]
    gaps, found = a - b, compare_paired(a, b, list(groups))
    without = np.array([gaps[groups != name].mean() for name in dict.fromkeys(groups)])
    error = math.sqrt((len(sizes) - 1) / len(sizes) * np.sum((without - gaps.mean()) ** 2))
    degrees = stats.hmean([1 / np.sum((np.array(sizes) / sum(sizes)) ** 2) - 1, satterthwaite(sizes)])
    half = stats.t.isf(0.025, degrees) * error
    assert (found.low, found.high) == pytest.approx((gaps.mean() - half, gaps.mean() + half), abs=1e-9)
    not_worse = p_noninferior(a, b, 0.05, list(groups))
    assert not_worse == pytest.approx(stats.t.sf((gaps.mean() + 0.05) / error, degrees), abs=1e-12)


@pytest.mark.parametrize("sizes", UNEQUAL.values(), ids=UNEQUAL)
def test_intervals_hold_the_truth_where_groups_are_unequal(sizes: tuple[int, ...]) -> None:
    """Of a score, and of a difference in 92 of 100 studies and more; a target that is just met, and a loss of just
    the margin, are claimed in 5."""
    random, studies = np.random.default_rng(11), 300
    codes = np.repeat(np.arange(len(sizes)), sizes)
    groups = [str(code) for code in codes]
    covered = np.zeros(4)
    for _ in range(studies):
        shared, own = random.standard_normal((2, len(sizes))), random.standard_normal((2, len(codes)))
        first, second = (np.sqrt(0.5) * shared[:, codes] + np.sqrt(0.5) * own) < stats.norm.ppf([[0.75], [0.7]])
        found, gap = estimate(first, groups), compare_paired(first, second, groups)
        covered += (
            found.low <= 0.75 <= found.high,
            gap.low <= 0.05 <= gap.high,
            p_reaches(first, 0.75, groups) > 0.05,
            p_noninferior(second, first, 0.05, groups) > 0.05,
        )
    # less two standard errors of so many studies
    assert (covered / studies > np.array([0.92, 0.92, 0.95, 0.95]) - 0.026).all(), covered / studies


def test_a_statistic_by_group_is_treated_as_the_mean_is() -> None:
    random, groups = np.random.default_rng(8), sized(30, 20, *[4] * 20)
    a, b = random.random((2, len(groups))) * 0.6 + 0.4 * random.random((2, 22))[:, np.array(groups, int)]
    mean, gap = (lambda items: float(a[items].mean())), (lambda items: float((a - b)[items].mean()))
    by_mean, plain = estimate(a, groups, statistic=mean), estimate(a, groups)
    assert (by_mean.value, by_mean.low, by_mean.high) == pytest.approx((plain.value, plain.low, plain.high))
    assert p_reaches(a, 0.4, groups, statistic=mean) == pytest.approx(p_reaches(a, 0.4, groups))
    assert compare_paired(a, b, groups, statistic=gap)[:3] == pytest.approx(compare_paired(a, b, groups)[:3])
    assert p_noninferior(a, b, 0.1, groups, statistic=gap) == pytest.approx(p_noninferior(a, b, 0.1, groups))


def test_gaps_that_are_all_alike_are_not_certain_by_group() -> None:
    groups = sized(*[3] * 20)
    found = compare_paired(np.full(60, 0.7), np.full(60, 0.6), groups)
    assert found.low < found.difference - 0.01
    assert 0 < p_noninferior(np.full(60, 0.6), np.full(60, 0.7), 0.11, groups) < 1
