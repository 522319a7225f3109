"""Recall of an approximate vector index against the exact scan, and the choice of its parameters by it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trimtab.retrieval.tables import PassageTable, Recall, SearchParams

K = 10  # passages whose recall counts
DEPTH = 50  # passages that are searched for, as in a hybrid search
LEAST_RECALL = 0.95


def choose_params(table: PassageTable, vectors: NDArray[np.float32], *, most_seconds: float | None = None) -> Recall:
    """Measure the recall at 10 and the seconds of every parameter of a table on questions [Q, D], one at a time, and
    return the best.

    The best is the fastest with a recall of at least 0.95; the exact scan counts as one of them. `most_seconds`: a
    limit on the 95th percentile of the seconds; the best is then the one with the highest recall within it, the fastest
    if none is.
    """
    exact, exact_seconds = _search(table, vectors, None)
    measured = []
    for params in (*table.ladder, None):
        found, seconds = (exact, exact_seconds) if params is None else _search(table, vectors, params)
        shares = [len(set(some) & set(all_)) / len(all_) for some, all_ in zip(found, exact, strict=True)]
        measured.append(
            Recall(
                params=params,
                recall=float(np.mean(shares)),
                k=K,
                questions=len(vectors),
                seconds_p50=float(np.median(seconds)),
                seconds_p95=float(np.quantile(seconds, 0.95)),
                exact_seconds_p50=float(np.median(exact_seconds)),
            )
        )
    return best_of(measured, most_seconds)


def best_of(measured: Sequence[Recall], most_seconds: float | None) -> Recall:
    """Return the best of these figures; see `choose_params`."""
    if most_seconds is None:
        return min((one for one in measured if one.recall >= LEAST_RECALL), key=lambda one: one.seconds_p50)
    within = [one for one in measured if one.seconds_p95 <= most_seconds]
    fastest = min(measured, key=lambda one: one.seconds_p95)
    return max(within, key=lambda one: (one.recall, -one.seconds_p95), default=fastest)


def _search(
    table: PassageTable, vectors: NDArray[np.float32], params: SearchParams | None
) -> tuple[list[list[str]], list[float]]:
    """Return the ids of the nearest passages of each question, searched for alone, and the seconds of each search."""
    ids, seconds = [], []
    for vector in vectors:
        start = time.perf_counter()
        (found,) = table.nearest(vector[None], DEPTH, params)
        seconds.append(time.perf_counter() - start)
        ids.append([name for _, name in sorted(found)[:K]])
    return ids, seconds
