"""Search of the worked examples that stand before every question: which rows, and in what order. No model proposes.

Random sets are tried on dev; each row is then valued by the mean score of the sets that had it (Chang and Jia 2022,
arXiv 2212.10378), and the most valued rows are one more set; last come other orders of the best set.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from trimtab.arms.contexts import Context, draw_fixed_shots
from trimtab.base.records import Example

POOL = 3  # training rows for each shot that the sets are drawn from, so that each row is in several sets

Known = Callable[[Context], Mapping[str, float]]
"""Returns the scores of a context on dev so far, by question id."""


def shot_sets(train: Sequence[Example], now: Context, count: int) -> tuple[Context, ...]:
    """Return the present context and so many with other sets of as many shots; alone if there are no others."""
    pool = [row.id for row in draw_fixed_shots(train, POOL * now.shots)]
    if not 0 < now.shots < len(pool):
        return (now,)
    draws = (random.Random(f"shots:{number}").sample(pool, now.shots) for number in range(count))
    return tuple(dict.fromkeys((now, *(with_shots(now, ids) for ids in draws))))


def valued_sets(train: Sequence[Example], now: Context, count: int, known: Known) -> tuple[Context, ...]:
    """Return the present context and one with the rows whose random sets scored best, the best next to the question."""
    first = replace(now, shot_ids=())
    tried = {option: known(option) for option in shot_sets(train, first, count) if option.shot_ids}
    common = set.intersection(*(set(scores) for scores in tried.values())) if tried else set()
    if not common:  # a plan: some set stands for it
        return (now, *tried)[:2]
    means = {option: fmean(scores[name] for name in common) for option, scores in tried.items()}
    having: dict[str, list[float]] = {}
    for option, value in means.items():
        for name in option.shot_ids:
            having.setdefault(name, []).append(value)
    ranked = sorted(having, key=lambda name: (fmean(having[name]), name))
    return tuple(dict.fromkeys((now, with_shots(now, ranked[-now.shots :]))))


def shot_orders(train: Sequence[Example], now: Context, count: int) -> tuple[Context, ...]:
    """Return the present context and at most so many with its shots in other orders."""
    ids = list(now.shot_ids) or [row.id for row in draw_fixed_shots(train, now.shots, now.draw)]
    orders = [ids[::-1], *(random.Random(f"order:{number}").sample(ids, len(ids)) for number in range(count - 1))]
    return tuple(dict.fromkeys((now, *(with_shots(now, order) for order in orders if order != ids))))


def with_shots(now: Context, ids: Sequence[str]) -> Context:
    """Return the context with these training rows as its shots."""
    return replace(now, shots=len(ids), draw=0, shot_ids=tuple(ids))
