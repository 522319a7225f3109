"""Compares two versions by their users' judgements, after any number of looks: by user, where a user counts once,
however many answers they judged, and by question, where a user counts with each.

Users are divided at random, and the answers of one user resemble each other: users are the unit, not answers. Each
user has a value from 0 to 1, the share of its answers that were right. The difference of the means of n₁ and n₀
users has the variance s²(1/n₁ + 1/n₀); s² is the larger of the two sides' variances, each with one more user at 0
and one at 1, so that a few users who are all content do not look certain. With the information I = 1/variance the
difference is off by mixture_boundary(I)/I at most at all looks together (`upkeep/sequential.py`; Waudby-Smith
et al. 2024). That holds in the limit of many users, so that nothing is said of fewer than LEAST_USERS on a side;
`benchmarks/canary_simulation.py` measures how often it fails.

By question a user has the weight w, the number of its answers. The variance of a side's mean is then that of as many
users as its weights are worth, (Σw)²/Σw² (Kish 1965), with the values' variance weighted by w². Where few users give
most answers that number is small, and nothing is said below LEAST_USERS.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

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
    """The outcome of one answer: `user` had it from `version`; `right` from 0, wrong, to 1, right. `when`: it was
    given, or judged."""

    user: str
    version: str
    right: float
    when: datetime


def user_means(outcomes: Iterable[UserOutcome]) -> Mapping[str, float]:
    """Compute the share of right answers of each user."""
    found: dict[str, list[float]] = {}
    for one in outcomes:
        found.setdefault(one.user, []).append(one.right)
    return {user: sum(values) / len(values) for user, values in found.items()}


def user_variance(value_U: Numbers, weight_U: Numbers | None = None) -> float:
    """Compute the variance between at least two users with values from 0 to 1, with one more user counted at 0 and
    one at 1; with weights, each deviation counts with the square of its user's."""
    mean = float(np.average(value_U, weights=weight_U))
    spread = float(np.average((value_U - mean) ** 2, weights=None if weight_U is None else weight_U**2))
    users = len(value_U) if weight_U is None else effective_users(weight_U)
    return (spread * users + mean**2 + (1 - mean) ** 2) / (users - 1)


def effective_users(weight_U: Numbers) -> float:
    """Compute how many users of equal weight these are worth: (Σw)²/Σw² (Kish 1965); 0 for none."""
    return float(weight_U.sum() ** 2 / (weight_U @ weight_U)) if len(weight_U) else 0.0


def compare_users(
    candidate_U: Numbers,
    production_U: Numbers,
    level: float = QUALITY_LEVEL,
    weights: tuple[Numbers, Numbers] | None = None,
) -> UserComparison | None:
    """Compare the means of the candidate's and production's users, with a bound at `level` on each side; None for
    too few users.

    Both arrays hold one value from 0 to 1 for each user. `weights`: of either side's users, such as the number of
    their answers; a side then counts as so many users as its weights are worth.
    """
    ours, theirs = weights or (np.ones(len(candidate_U)), np.ones(len(production_U)))
    candidates, others = effective_users(ours), effective_users(theirs)
    if min(candidates, others) < LEAST_USERS:
        return None
    spread = max(user_variance(candidate_U, ours), user_variance(production_U, theirs))
    variance = spread * (1 / candidates + 1 / others)
    candidate, production = np.average(candidate_U, weights=ours), np.average(production_U, weights=theirs)
    difference, reach = float(candidate - production), _reach(1 / variance, level)
    return UserComparison(
        candidate_users=len(candidate_U),
        production_users=len(production_U),
        candidate=float(candidate),
        production=float(production),
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


def users_needed(effect: float, variance: float, share: float, power: float = POWER) -> int:
    """Compute how many users, of both versions together, show a true difference of `effect` with a probability of at
    least `power`.

    `variance`: between users, at most 0.25. `share`: of the users, those who get the candidate. Earlier looks, which
    may show it already, are not counted. Raises ValueError for arguments out of their ranges.
    """
    if not 0 < effect <= 1 or not 0 < share < 1 or not variance > 0:
        raise ValueError("effect must lie in (0, 1], share in (0, 1), and variance above 0")
    more = float(stats.norm.ppf(power))

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


@dataclass(frozen=True, slots=True)
class UsersForecast:
    """How many users, of both versions together, show a true difference: `by_user` by that bound, `both` by that by
    question, too."""

    by_user: int
    both: int


def users_forecast(effect: float, value_U: Numbers, answers_U: Numbers, share: float) -> UsersForecast:
    """Forecast how many users it takes until a true difference of `effect` is shown by user, and by question as well,
    where users are like these, each with a mean and so many answers; both together with a probability of POWER.

    With fewer than LEAST_USERS the variance is the greatest that there can be, and all are taken to ask as much. By
    question a user counts as so much of one as these do on average (`effective_users`); where few users ask most, the
    number of effective ones grows more slowly than that of users, and it takes more than forecast.
    """
    each = (1 + POWER) / 2

    def needed(weight_U: Numbers) -> int:
        if len(value_U) < LEAST_USERS:
            return users_needed(effect, WIDEST_VARIANCE, share, each)
        mean, variance = float(np.average(value_U, weights=weight_U)), user_variance(value_U, weight_U)
        variance = variance_behind(mean, min(WIDEST_VARIANCE, variance), effect)
        return math.ceil(users_needed(effect, variance, share, each) * len(weight_U) / effective_users(weight_U))

    by_user = needed(np.ones(len(value_U)))
    return UsersForecast(by_user=by_user, both=max(by_user, needed(answers_U)))


def _reach(information: float, level: float) -> float:
    """Return the bound on the error of a difference with this information, for all looks together."""
    return mixture_boundary(information, level, mixture_rho_squared(TUNED_FOR, level)) / information
