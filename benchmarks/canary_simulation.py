"""Simulates canaries: how often one says something false, and how many users it takes to say what is true.

Users come by a Zipf law (exponent 0: all alike) and are drawn for the candidate with the share. Each user has a
probability of a right answer, from a beta distribution around the version's mean with the given correlation of a
user's answers, so that answers of one user resemble each other. Looks are spread evenly over the logarithm of the
answers. Of a canary of two versions that are alike it is counted how often, at any look, one is said to be better,
or worse; of versions that differ, how many users with an answer there were when that was said, and how often by the
number that was forecast. Guards: false alarms of errors (equal rates), and of a 95th percentile at its limit.
By question: how canaries end, by users alone and with the bound by question, where 3% of the users ask 67% of the
questions and fare worse while the others fare better, and where users ask by a lognormal or a Zipf law; and how many
have ended by the number of users that is forecast for both bounds.

    python benchmarks/canary_simulation.py [--runs 1000] [--part by_question] [--out FILE]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.base.files import read_object, write_json
from trimtab.serving.releases import Canary
from trimtab.upkeep.canary import GUARD_LEVEL
from trimtab.upkeep.canary_records import CanaryEvidence, UserComparison, decide_canary
from trimtab.upkeep.user_comparison import (
    Numbers,
    always_valid_lower_bound,
    compare_users,
    user_variance,
    users_forecast,
    users_needed,
    variance_behind,
)

RESULT = Path(__file__).parent / "results" / "canary_simulation.json"
LOOKS = 20
MARGIN = 0.1
SLOW = 0.05  # of answers, over a limit that is the 95th percentile itself
FAILING = 0.01  # of answers, of both versions
STRENGTH = 1 / 0.3 - 1  # of the beta distribution, for a correlation of .3 between the answers of a user
CANARY = Canary(
    number=1,
    candidate=2,
    production=1,
    share=0.1,
    days=14,
    salt="",
    margin=MARGIN,
    latency_p95_ms=None,
    begun=datetime(2026, 1, 1, tzinfo=UTC),
    who="",
    why="",
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One kind of canary."""

    zipf: float
    correlation: float
    production: float
    candidate: float
    share: float
    users: int = 1_000
    answers: int = 3_000


ALIKE = [
    Cell(zipf=zipf, correlation=correlation, production=mean, candidate=mean, share=share)
    for zipf, correlation in ((0.0, 0.3), (1.0, 0.3), (1.5, 0.3))
    for mean in (0.5, 0.8, 0.95)
    for share in (0.05, 0.1, 0.5)
]
DIFFERENT = [
    Cell(zipf=1.0, correlation=0.3, production=0.8, candidate=candidate, share=share, users=users, answers=3 * users)
    for candidate, users in ((0.6, 2_500), (0.7, 5_000), (0.8, 5_000), (0.9, 5_000))
    for share in (0.1, 0.5)
]
GUARDED = [
    Cell(zipf=zipf, correlation=0.1, production=mean, candidate=mean, share=share)
    for mean in (1 - SLOW, 1 - FAILING)
    for zipf in (0.0, 1.0)
    for share in (0.05, 0.5)
]


@dataclass(frozen=True, kw_only=True)
class Unequal:
    """Users who ask by a law: `few` (a share of .03 asks .67 of all), `lognormal` or `zipf` with its parameter; both
    versions' right answers to those who ask little, and to the few."""

    law: str
    parameter: float
    share: float
    production: tuple[float, float] = (0.8, 0.8)
    candidate: tuple[float, float] = (0.8, 0.8)
    users: int = 5_000
    answers: int = 15_000


UNEQUAL = [
    *(
        Unequal(law="few", parameter=0.67, share=share, production=(0.78, 0.85), candidate=(0.85, 0.6))
        for share in (0.1, 0.5)
    ),
    *(
        Unequal(law=law, parameter=parameter, share=share, candidate=(candidate, candidate))
        for law, parameter in (("lognormal", 0.5), ("lognormal", 1.0), ("zipf", 0.7), ("zipf", 1.0))
        for share in (0.1, 0.5)
        for candidate in (0.8, 0.9)
    ),
]


def looks_of(cell: Cell, random: np.random.Generator) -> Iterator[tuple[Numbers, Numbers]]:
    """Draw the values of the candidate's and of production's users with an answer, at each look."""
    users, border = cell.users, random.binomial(cell.users, cell.share)  # the candidate's stand in front
    mean_U = np.where(np.arange(users) < border, cell.candidate, cell.production)
    strength = 1 / cell.correlation - 1
    right_U = random.beta(mean_U * strength, (1 - mean_U) * strength)
    activity_U = random.permutation(1 / np.arange(1, users + 1) ** cell.zipf).cumsum()
    who_N = np.searchsorted(activity_U, random.random(cell.answers) * activity_U[-1])
    is_right_N = random.random(cell.answers) < right_U[who_N]
    until_L = np.unique(np.geomspace(20, cell.answers, LOOKS).astype(int))
    place_N = np.searchsorted(until_L, np.arange(cell.answers), side="right") * users + who_N
    shape = len(until_L), users
    count_LU = np.bincount(place_N, minlength=shape[0] * users).reshape(shape).cumsum(0)
    sum_LU = np.bincount(place_N, weights=is_right_N, minlength=shape[0] * users).reshape(shape).cumsum(0)
    for count_U, sum_U in zip(count_LU, sum_LU, strict=True):
        sides = slice(None, border), slice(border, None)
        known = [np.flatnonzero(count_U[side]) for side in sides]
        candidate_U, production_U = (sum_U[side][at] / count_U[side][at] for side, at in zip(sides, known, strict=True))
        yield candidate_U, production_U


def alike(cell: Cell, runs: int) -> dict[str, Any]:
    """Count how often one of two versions that are alike is said to be better, and worse."""
    better = worse = 0
    for seed in range(runs):
        found = [compare_users(*sides) for sides in looks_of(cell, np.random.default_rng(seed))]
        better += any(one is not None and one.low > 0 for one in found)
        worse += any(one is not None and one.high < 0 for one in found)
    return {**vars(cell), "better": better / runs, "worse": worse / runs}


def different(cell: Cell, runs: int) -> dict[str, Any]:
    """Count how often, and at how many users, the truth is said: which one is better, or not worse by the margin
    where both are alike."""
    effect = cell.candidate - cell.production
    shift = MARGIN if effect == 0 else 0.0
    users: list[float] = []
    variances, wrong = [], 0
    for seed in range(runs):
        at, is_wrong, production_U = np.inf, False, np.zeros(0)
        for candidate_U, production_U in looks_of(cell, np.random.default_rng(seed)):
            found = compare_users(candidate_U, production_U)
            if found is None:
                continue
            is_wrong |= found.high < 0 if effect >= 0 else found.low > 0
            if found.low > -shift if effect >= 0 else found.high < 0:
                at = len(candidate_U) + len(production_U)
                break
        users.append(at)
        wrong += is_wrong
        variances.append(user_variance(production_U))
    variance = variance_behind(cell.production, float(np.mean(variances)), max(0.0, -effect))
    forecast = users_needed(abs(effect) or MARGIN, variance, cell.share)
    return {
        **vars(cell),
        "forecast": forecast,
        "by_forecast": float(np.mean([one <= forecast for one in users])),
        "median": _at(0.5, users),
        "eighty": _at(0.8, users),
        "wrong": wrong / runs,
    }


def _at(part: float, users: list[float]) -> float | None:
    """Return the number of users by which this part of the canaries has ended; None where they have not."""
    found = float(np.quantile(users, part, method="inverted_cdf"))
    return found if np.isfinite(found) else None


def guarded(cell: Cell, runs: int) -> dict[str, Any]:
    """Count false alarms of errors and of latency."""
    alarms = 0
    is_latency = cell.production == 1 - SLOW
    for seed in range(runs):
        for candidate_U, production_U in looks_of(cell, np.random.default_rng(seed)):
            found = compare_users(1 - candidate_U, 1 - production_U, GUARD_LEVEL)
            if found is not None and (
                always_valid_lower_bound(1 - candidate_U, GUARD_LEVEL) > SLOW if is_latency else found.low > 0
            ):
                alarms += 1
                break
    return {**vars(cell), "guard": "latency" if is_latency else "errors", "alarms": alarms / runs}


def by_question(cell: Unequal, runs: int) -> dict[str, Any]:
    """Count how canaries end by users alone, and where the bound by question has to hold beside it; and how many have
    ended by the forecast for both, which goes by production's users of the past."""
    alone: Counter[str] = Counter()
    both: Counter[str] = Counter()
    *_, past = unequal_looks(cell, np.random.default_rng(10_000))
    forecast, by_forecast = users_forecast(MARGIN, past.production_U, past.answers_U, cell.share).both, 0
    for seed in range(runs):
        looks = [*unequal_looks(cell, np.random.default_rng(seed))]
        alone[_end(looks, lambda look: look.by_user)[0]] += 1
        end, users = _end(looks, lambda look: look.by_question)
        both[end] += 1
        by_forecast += end != "undecided" and users <= forecast
    return {
        **vars(cell),
        "alone": dict(alone),
        "both": dict(both),
        "forecast": forecast,
        "by_forecast": by_forecast / runs,
    }


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is known at one look; of production's users, the shares of right answers and the number of answers."""

    by_user: UserComparison | None
    by_question: UserComparison | None
    production_U: Numbers
    answers_U: Numbers


def _end(looks: Sequence[Look], second: Callable[[Look], UserComparison | None]) -> tuple[str, int]:
    """Return how a canary ends by the product's rule, with what stands for the bound by question, and at how many
    users."""
    for look in looks:
        evidence = CanaryEvidence(days=0, quality=look.by_user, by_question=second(look), errors=None, latency=None)
        found = decide_canary(CANARY, evidence)
        if found is not None and look.by_user is not None:
            return found[0], look.by_user.candidate_users + look.by_user.production_users
    return "undecided", 0


def unequal_looks(cell: Unequal, random: np.random.Generator) -> Iterator[Look]:
    """Draw what is known by user and by question at each look."""
    users, few = cell.users, 0
    if cell.law == "few":
        few = round(0.03 * users)
        activity_U = np.repeat([cell.parameter / few, (1 - cell.parameter) / (users - few)], [few, users - few])
    elif cell.law == "lognormal":
        activity_U = np.exp(cell.parameter * random.standard_normal(users))
    else:
        activity_U = 1 / np.arange(1, users + 1) ** cell.parameter
    is_few_U, takes_U = (np.arange(users) < few).astype(int), random.random(users) < cell.share
    mean_U = np.where(takes_U, np.take(cell.candidate, is_few_U), np.take(cell.production, is_few_U))
    right_U = random.beta(mean_U * STRENGTH, (1 - mean_U) * STRENGTH)
    total_U = activity_U.cumsum()
    who_N = np.searchsorted(total_U, random.random(cell.answers) * total_U[-1])
    is_right_N = random.random(cell.answers) < right_U[who_N]
    for until in np.unique(np.geomspace(20, cell.answers, 2 * LOOKS).astype(int)):
        count_U = np.bincount(who_N[:until], minlength=users).astype(float)
        sum_U = np.bincount(who_N[:until], weights=is_right_N[:until], minlength=users)
        ours, theirs = (np.flatnonzero((count_U > 0) & (takes_U == takes)) for takes in (True, False))
        sides = sum_U[ours] / count_U[ours], sum_U[theirs] / count_U[theirs]
        yield Look(
            by_user=compare_users(*sides),
            by_question=compare_users(*sides, weights=(count_U[ours], count_U[theirs])),
            production_U=sides[1],
            answers_U=count_U[theirs],
        )


def main() -> None:
    """Run all cells, or one part, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--part", choices=("by_question",), help="renew this part of the result, and leave the others")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    result: dict[str, Any] = {"runs": given.runs, "looks": LOOKS, "margin": MARGIN, "guard_level": GUARD_LEVEL}
    if given.part:
        result = read_object(given.out)
    parts: dict[str, tuple[Callable[..., dict[str, Any]], Sequence[Any]]] = {
        "alike": (alike, ALIKE),
        "different": (different, DIFFERENT),
        "guarded": (guarded, GUARDED),
        "by_question": (by_question, UNEQUAL),
    }
    with ProcessPoolExecutor(2) as pool:
        for name in [given.part] if given.part else parts:
            kind, cells = parts[name]
            result[name] = [{**cell, "runs": given.runs} for cell in pool.map(partial(kind, runs=given.runs), cells)]
    write_json(given.out, result)


if __name__ == "__main__":
    main()
