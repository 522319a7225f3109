"""How a canary ends: harm first and at any size, promotion where it is earned, its days last."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.serving.releases import Canary
from trimtab.upkeep.canary_records import CanaryEvidence, LatencyComparison, UserComparison, decide_canary

CANARY = Canary(
    number=1,
    candidate=2,
    production=1,
    share=0.1,
    days=14,
    salt="s",
    margin=0.02,
    latency_p95_ms=None,
    begun=datetime(2026, 1, 1, tzinfo=UTC),
    who="jo",
    why="",
)
NOTHING = CanaryEvidence(days=1, quality=None, errors=None, latency=None)
SLOW = LatencyComparison(candidate_p95_ms=900, production_p95_ms=100, limit_ms=150, slow=0.4, slow_low=0.06)


def compared(low: float, high: float) -> UserComparison:
    middle = (low + high) / 2
    return UserComparison(
        candidate_users=50,
        production_users=400,
        candidate=0.5 + middle / 2,
        production=0.5 - middle / 2,
        low=low,
        high=high,
    )


@pytest.mark.parametrize(
    ("known", "outcome", "why"),
    [
        ({}, None, ""),
        ({"days": 13.99}, None, ""),
        ({"days": 14}, "undecided", "version 1 stays"),
        ({"quality": compared(-0.1, 0.1)}, None, ""),
        ({"quality": compared(-0.1, -0.001)}, "rolled_back", "worse"),
        ({"quality": compared(-0.015, -0.001)}, "rolled_back", "worse"),  # although within the margin
        ({"quality": compared(0.001, 0.1), "by_question": compared(0.001, 0.1)}, "promoted", "to be better"),
        ({"quality": compared(-0.019, 0.1), "by_question": compared(-0.01, 1)}, "promoted", "not to be worse by 0.02"),
        ({"quality": compared(0.001, 0.1), "by_question": compared(-0.01, 0.1), "days": 20}, "promoted", "better"),
        ({"quality": compared(0.001, 0.1), "by_question": compared(-0.021, 0.1)}, None, ""),
        ({"quality": compared(0.001, 0.1), "by_question": None}, None, ""),
        ({"quality": compared(0.001, 0.1), "days": 14}, "undecided", "by question nothing can be said"),
        ({"quality": compared(0.001, 0.1), "by_question": compared(-0.3, 0.1), "days": 14}, "undecided", "not shown"),
        ({"quality": compared(0.001, 0.1), "by_question": compared(-0.3, -0.1)}, "rolled_back", "worse by question"),
        ({"quality": compared(0.001, 0.1), "errors": compared(0.001, 0.1)}, "rolled_back", "fail"),
        ({"quality": compared(0.001, 0.1), "latency": SLOW}, "rolled_back", "too slow"),
        ({"latency": replace(SLOW, slow_low=0.05)}, None, ""),
        ({"errors": compared(-0.1, 0.1)}, None, ""),
    ],
)
def test_the_end_follows_from_what_is_known(known, outcome, why):
    found = decide_canary(CANARY, replace(NOTHING, **known))
    assert (found[0] if found else None) == outcome
    assert found is None or why in found[1]
    assert found is None or "\n" not in found[1]


def test_where_people_decide_a_good_candidate_is_held_and_a_bad_one_is_taken_back():
    held = replace(CANARY, holds=True)
    good = replace(NOTHING, quality=compared(0.001, 0.1), by_question=compared(0.001, 0.1))
    found = decide_canary(held, good)
    assert found is not None
    assert found[0] == "held"
    bad = decide_canary(held, replace(good, quality=compared(-0.1, -0.001)))
    assert bad is not None
    assert bad[0] == "rolled_back"


@given(st.text(min_size=1), st.sampled_from([0.001, 0.1, 0.5]))
def test_a_user_who_gets_the_candidate_gets_it_with_a_larger_share_too(user, share):
    canary = replace(CANARY, share=share)
    assert canary.takes(user) <= replace(canary, share=0.5).takes(user)
    assert canary.version_of(user) == (2 if canary.takes(user) else 1)
    assert 0 <= canary.bucket(user) < 1_000


def test_a_user_has_the_same_bucket_in_every_server():
    assert [CANARY.bucket(user) for user in ("anna", "jo", "")] == [966, 542, 417]


def test_the_share_of_users_is_the_one_asked_for_and_another_salt_draws_others():
    users = [f"user-{number}" for number in range(10_000)]
    first = {user for user in users if CANARY.takes(user)}
    second = {user for user in users if replace(CANARY, salt="t").takes(user)}
    assert 900 < len(first) < 1_100  # 1,000 expected, 30 the standard deviation
    assert 50 < len(first & second) < 150  # 100 expected
