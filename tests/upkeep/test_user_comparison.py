"""Comparison by users: bounds that hold at every look, users and not answers as the unit, and a forecast that is
kept."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.upkeep.user_comparison import (
    LEAST_USERS,
    UserOutcome,
    always_valid_lower_bound,
    compare_users,
    effective_users,
    user_means,
    user_variance,
    users_forecast,
    users_needed,
    variance_behind,
)

values = st.lists(st.floats(0, 1), min_size=LEAST_USERS, max_size=80).map(np.array)


def drawn(random: np.random.Generator, users: int, mean: float) -> np.ndarray:
    """Shares of right answers of users who judge one to five answers each, alike within a user."""
    return (
        random.binomial(counts := random.integers(1, 6, users), random.beta(3 * mean, 3 * (1 - mean), users)) / counts
    )


@given(values, values)
def test_sides_exchanged_give_the_negative(candidate, production):
    one, other = compare_users(candidate, production), compare_users(production, candidate)
    assert one is not None
    assert other is not None
    assert one.low == pytest.approx(-other.high)
    assert one.low <= one.difference <= one.high


@given(values, values)
def test_a_stricter_level_is_wider_and_more_users_are_narrower(candidate, production):
    usual, strict = compare_users(candidate, production), compare_users(candidate, production, 0.01)
    more = compare_users(np.tile(candidate, 4), np.tile(production, 4))
    assert usual is not None
    assert strict is not None
    assert more is not None
    assert strict.low <= usual.low
    assert strict.high >= usual.high
    assert more.high - more.low <= usual.high - usual.low


def test_nothing_is_said_of_few_users():
    few, many = np.ones(LEAST_USERS - 1), np.zeros(1_000)
    assert compare_users(few, many) is None
    assert compare_users(many, few) is None
    assert always_valid_lower_bound(few) == 0.0


def test_users_who_are_all_content_do_not_look_certain():
    found = compare_users(np.ones(LEAST_USERS), np.ones(1_000))
    assert found is not None
    assert found.low < -0.05
    assert user_variance(np.ones(LEAST_USERS)) > 0


def test_equal_weights_change_nothing_and_few_heavy_users_say_nothing():
    random = np.random.default_rng(0)
    candidate, production = drawn(random, 200, 0.7), drawn(random, 400, 0.8)
    even = np.full(200, 3.0), np.full(400, 5.0)
    plain, weighed = compare_users(candidate, production), compare_users(candidate, production, weights=even)
    assert plain is not None
    assert weighed is not None
    assert (weighed.low, weighed.high) == (pytest.approx(plain.low), pytest.approx(plain.high))
    heavy = np.r_[np.full(5, 1_000.0), np.ones(195)]
    assert effective_users(heavy) == pytest.approx(5, rel=0.1)
    assert compare_users(candidate, production, weights=(heavy, even[1])) is None


def test_a_candidate_that_fails_the_few_who_ask_most_is_said_to_be_worse_by_question():
    """3% of the users ask 67% of the questions; they fall from .85 to .6, and the others rise from .78 to .85."""
    random = np.random.default_rng(0)
    count = np.r_[np.full(60, 134.0), np.full(1_940, 2.0)]
    right = [np.r_[np.full(60, few), np.full(1_940, others)] for few, others in ((0.6, 0.85), (0.85, 0.78))]
    candidate, production = (random.binomial(count.astype(int), mean) / count for mean in right)
    by_user, by_question = (
        compare_users(candidate, production),
        compare_users(candidate, production, weights=(count, count)),
    )
    assert by_user is not None
    assert by_question is not None
    assert by_user.low > 0
    assert by_question.high < 0


def test_a_user_counts_once():
    now = datetime.now(UTC)
    many = [UserOutcome(user="a", version="1", right=0.0, when=now)] * 1_000
    assert user_means([*many, UserOutcome(user="b", version="1", right=1.0, when=now)]) == {"a": 0.0, "b": 1.0}


def test_of_two_versions_that_are_alike_none_is_said_to_differ_at_any_look():
    """At most 5% each way over all looks; 200 canaries with 15 looks each, of a binomial that is at 5% at most 20."""
    random = np.random.default_rng(0)
    better = worse = 0
    for _ in range(200):
        candidate, production = drawn(random, 300, 0.8), drawn(random, 1_200, 0.8)
        looks = [compare_users(candidate[:n], production[: 4 * n]) for n in range(20, 301, 20)]
        better += any(one is not None and one.low > 0 for one in looks)
        worse += any(one is not None and one.high < 0 for one in looks)
    assert better <= 20
    assert worse <= 20


def test_the_forecast_is_kept():
    """Of a true difference of -.2 at least 80% are shown by the users that were forecast; 200 canaries tell 70% from
    80%."""
    random = np.random.default_rng(0)
    variance = variance_behind(0.8, user_variance(drawn(random, 20_000, 0.8)), 0.2)
    needed = users_needed(0.2, variance, 0.25)
    shown = 0
    for _ in range(200):
        found = compare_users(drawn(random, needed // 4, 0.6), drawn(random, needed - needed // 4, 0.8))
        shown += found is not None and found.high < 0
    assert shown >= 140


def test_the_forecast_for_both_bounds_is_kept_where_users_ask_unequally():
    """Of two versions that are alike at least 80% are shown not to be worse by .1, by user and by question, by the
    users that were forecast; 100 canaries tell 68% from 80%."""
    random = np.random.default_rng(0)

    def side(count):
        asks = np.ceil(np.exp(random.standard_normal(count)))
        return random.binomial(asks.astype(int), random.beta(1.87, 0.47, count)) / asks, asks

    forecast = users_forecast(0.1, *side(20_000), 0.5)
    assert forecast.both > 1.1 * forecast.by_user
    shown = 0
    for _ in range(100):
        ours, theirs = side(forecast.both // 2), side(forecast.both // 2)
        by_user = compare_users(ours[0], theirs[0])
        by_question = compare_users(ours[0], theirs[0], weights=(ours[1], theirs[1]))
        shown += all(one is not None and one.low > -0.1 for one in (by_user, by_question))
    assert shown >= 68


def test_where_all_ask_as_much_the_bound_by_question_takes_no_more_users():
    value_U = drawn(np.random.default_rng(0), 100, 0.8)
    forecast = users_forecast(0.1, value_U, np.full(100, 7.0), 0.1)
    assert forecast.both == forecast.by_user
    unknown = users_forecast(0.1, value_U[:3], np.array([1.0, 1.0, 50.0]), 0.1)
    assert unknown.both == unknown.by_user > forecast.by_user


@given(st.floats(0.01, 0.5), st.floats(0.01, 0.25), st.floats(0.02, 0.5))
def test_smaller_effects_smaller_shares_and_greater_spread_need_more_users(effect, variance, share):
    needed = users_needed(effect, variance, share)
    assert needed * share >= LEAST_USERS - 1
    assert users_needed(effect / 2, variance, share) >= needed
    assert users_needed(effect, variance * 2, share) >= needed
    assert users_needed(effect, variance, share / 2) >= needed


@pytest.mark.parametrize(("effect", "variance", "share"), [(0, 0.1, 0.1), (0.1, 0, 0.1), (0.1, 0.1, 0), (0.1, 0.1, 1)])
def test_what_cannot_be_forecast_is_refused(effect, variance, share):
    with pytest.raises(ValueError, match="effect must lie"):
        users_needed(effect, variance, share)


def test_a_lower_bound_rises_to_the_mean():
    slow = np.tile([1.0, 0.0, 0.0, 0.0], 400)
    assert always_valid_lower_bound(slow[:80]) < always_valid_lower_bound(slow) < slow.mean()
