"""Retrieval metrics: recall@k, mean reciprocal rank, nDCG, and the match of hits with the relevant names in the
data."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from trimtab.base.records import Hit, Passage


def holds(passage: Passage, name: str) -> bool:
    """True if `name` means this passage: its id, its document, or either with fewer or more leading folders."""
    return any(_same_tail(known, name) for known in (passage.id, passage.document)) or _same_tail(
        passage.document.partition("#")[0], name
    )


def may_hold(document: str, name: str) -> bool:
    """True if `name` may mean a passage of this document; False only if `holds` is False for each of them."""
    named = (name, name.rpartition("#")[0])
    return any(_same_tail(known, one) for known in (document, document.partition("#")[0]) for one in named)


def _same_tail(one: str, other: str) -> bool:
    one, other = one.removeprefix("./"), other.removeprefix("./")
    return one == other or one.endswith("/" + other) or other.endswith("/" + one)


def gold_names(hits: Sequence[Hit], names: Sequence[str]) -> tuple[str, ...]:
    """Return a ranking for the figures below: for each hit the one of `names` that means it, else its passage id."""
    return tuple(next((name for name in names if holds(hit.passage, name)), hit.passage.id) for hit in hits)


def recall_at_k(rankings: Sequence[Sequence[str]], relevant: Sequence[Collection[str]], k: int) -> float:
    """Return the mean share of the relevant names among the first `k`; questions without any are left out, NaN if all
    are."""
    shares = [
        len(set(ranking[:k]) & set(names)) / len(set(names))
        for ranking, names in zip(rankings, relevant, strict=True)
        if names
    ]
    return _mean(shares)


def mrr(rankings: Sequence[Sequence[str]], relevant: Sequence[Collection[str]]) -> float:
    """Return the mean of 1 / rank of the first relevant name, 0 if it is not ranked; questions without a relevant name
    are left out."""
    values = [
        next((1 / rank for rank, name in enumerate(ranking, 1) if name in names), 0.0)
        for ranking, names in zip(rankings, relevant, strict=True)
        if names
    ]
    return _mean(values)


def ndcg(rankings: Sequence[Sequence[str]], relevant: Sequence[Collection[str]], k: int) -> float:
    """Return the mean normalised discounted cumulative gain of the first `k`, gain 1 at the first occurrence of a
    relevant name.

    Jarvelin & Kekalainen 2002 with discount log2(rank + 1); questions with no relevant name are left out.
    """
    values = []
    for ranking, names in zip(rankings, relevant, strict=True):
        if not names:
            continue
        firsts = {name: rank for rank, name in reversed(list(enumerate(ranking[:k], 1))) if name in names}
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(set(names))) + 1))
        values.append(sum(1 / math.log2(rank + 1) for rank in firsts.values()) / ideal)
    return _mean(values)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else float("nan")
