"""Compares two versions by their users' judgements, after any number of looks; a user counts once, however many answers
they judged.

Users are divided at random, and the answers of one user resemble each other: users are the unit, not answers. Each
user has a value from 0 to 1, the share of its answers that were right. The difference of the means of n₁ and n₀
users has the variance s²(1/n₁ + 1/n₀); s² is the larger of the two sides' variances, each with one more user at 0
and one at 1, so that a few users who are all content do not look certain. With the information I = 1/variance the
difference is off by mixture_boundary(I)/I at most at all looks together (`upkeep/sequential.py`; Waudby-Smith
et al. 2024). That holds in the limit of many users, so that nothing is said of fewer than LEAST_USERS on a side;
`benchmarks/canary_simulation.py` measures how often it fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trimtab.upkeep.canary_records import UserComparison
from trimtab.upkeep.sequential import mixture_boundary, mixture_rho_squared

LEAST_USERS = 20  # on each side, before anything is said
QUALITY_LEVEL = 0.05  # probability of ever a false "better", and of ever a false "worse"
TUNED_FOR = 1_000.0  # information at which bounds are tightest: where differences of about 0.1 are shown
POWER = 0.8
WIDEST_VARIANCE = 0.25  # of values from 0 to 1
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserOutcome:
    """The outcome of one answer: `user` had it from `version`; `right` from 0, wrong, to 1, right."""

    user: str
    version: str
    right: float


def user_means(outcomes: Iterable[UserOutcome]) -> Mapping[str, float]:
    """Compute the share of right answers of each user."""
    found: dict[str, list[float]] = {}
    for one in outcomes:
        found.setdefault(one.user, []).append(one.right)
    return {user: sum(values) / len(values) for user, values in found.items()}


def user_variance(value_U: Numbers) -> float:
    """Compute the variance between at least two users with values from 0 to 1, with one more user counted at 0 and
    one at 1."""
    mean = float(value_U.mean())
    return (float(((value_U - mean) ** 2).sum()) + mean**2 + (1 - mean) ** 2) / (len(value_U) - 1)


def compare_users(candidate_U: Numbers, production_U: Numbers, level: float = QUALITY_LEVEL) -> UserComparison | None:
    """Compare the means of the candidate's and production's users, with a bound at `level` on each side; None for
    too few users.

    Both arrays hold one value from 0 to 1 for each user.
    """
    candidates, others = len(candidate_U), len(production_U)
    if min(candidates, others) < LEAST_USERS:
        return None
    variance = max(user_variance(candidate_U), user_variance(production_U)) * (1 / candidates + 1 / others)
    difference, reach = float(candidate_U.mean() - production_U.mean()), _reach(1 / variance, level)
    return UserComparison(
        candidate_users=candidates,
        production_users=others,
        candidate=float(candidate_U.mean()),
        production=float(production_U.mean()),
        low=max(-1.0, difference - reach),
        high=min(1.0, difference + reach),
    )


def always_valid_lower_bound(value_U: Numbers, level: float = QUALITY_LEVEL) -> float:
    """Compute a lower bound of the mean of users with values from 0 to 1, for all looks together; 0 for fewer than
    LEAST_USERS."""
    if len(value_U) < LEAST_USERS:
        return 0.0
    return max(0.0, float(value_U.mean()) - _reach(len(value_U) / user_variance(value_U), level))


def variance_behind(mean: float, variance: float, effect: float) -> float:
    """Predict the variance between users of a version whose mean is lower by `effect`: in proportion to mean·(1 -
    mean), at most 0.25."""
    lower, own = max(0.0, mean - effect), mean * (1 - mean)
    return min(WIDEST_VARIANCE, variance * max(1.0, lower * (1 - lower) / own)) if own > 0 else variance


def users_needed(effect: float, variance: float, share: float) -> int:
    """Compute how many users, of both versions together, show a true difference of `effect` with a probability of at
    least POWER.

    `variance`: between users, at most 0.25. `share`: of the users, those who get the candidate. Earlier looks, which
    may show it already, are not counted. Raises ValueError for arguments out of their ranges.
    """
    if not 0 < effect <= 1 or not 0 < share < 1 or not variance > 0:
        raise ValueError("effect must lie in (0, 1], share in (0, 1), and variance above 0")
    more = float(stats.norm.ppf(POWER))

    def is_shown(users: float) -> bool:
        information = users * share * (1 - share) / variance
        return (effect - _reach(information, QUALITY_LEVEL)) * math.sqrt(information) >= more

    high = LEAST_USERS / min(share, 1 - share)
    low = high
    while not is_shown(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) / 2
        low, high = (low, middle) if is_shown(middle) else (middle, high)
    return math.ceil(high)


def _reach(information: float, level: float) -> float:
    """Return the bound on the error of a difference with this information, for all looks together."""
    return mixture_boundary(information, level, mixture_rho_squared(TUNED_FOR, level)) / information
