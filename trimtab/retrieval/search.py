"""Questions to passages: exact vector search and BM25, fused by reciprocal rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from trimtab.base.records import Hit
from trimtab.retrieval.index import Index

Way = Literal["hybrid", "vector", "text"]
DEPTH = 50
FUSION = 60  # Cormack et al. 2009: the score of a passage is the sum of 1 / (60 + rank) over the lists


def search(index: Index, questions: Sequence[str], k: int, *, way: Way = "hybrid") -> list[tuple[Hit, ...]]:
    """The best `k` passages for every question, from the newest state of the index.

    The best 50 by cosine (every vector is compared, nothing approximate) and the best 50 by BM25 over title, headings and
    text are fused; equal scores are ordered by passage id. A question is only ever words: no character in it is syntax.
    `way` leaves one of the two lists out. Fewer than `k` come back when the index has no more.
    """
    index.refresh()
    if not index.passages or not questions:
        return [() for _ in questions]
    questions = [question.encode(errors="replace").decode() for question in questions]  # a lone surrogate has no bytes
    depth = max(DEPTH, k)
    lists: list[list[list[str]]] = [[] for _ in questions]
    if way != "text":
        for ranked, found in zip(lists, _by_vector(index, questions, depth), strict=True):
            ranked.append(found)
    if way != "vector":
        for ranked, question in zip(lists, questions, strict=True):
            ranked.append(_by_text(index, question, depth))
    return [_fuse(index, ranked, k) for ranked in lists]


def _fuse(index: Index, lists: Sequence[Sequence[str]], k: int) -> tuple[Hit, ...]:
    scores: defaultdict[str, float] = defaultdict(float)
    for ranked in lists:
        for rank, name in enumerate(ranked, 1):
            scores[name] += 1 / (FUSION + rank)
    best = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
    return tuple(
        Hit(passage=index.passages[name], rank=rank, score=score) for rank, (name, score) in enumerate(best, 1)
    )


def _by_vector(index: Index, questions: Sequence[str], depth: int) -> list[list[str]]:
    vectors = index.encoder.encode(questions)
    query = index.table.search(vectors).distance_type("cosine").limit(depth).select(["id", "_distance"])
    rows = query.to_arrow()
    several = "query_index" in rows.column_names  # lancedb leaves it out for a single vector
    numbers = rows["query_index"].to_pylist() if several else [0] * rows.num_rows
    found: list[list[tuple[float, str]]] = [[] for _ in questions]
    for number, distance, name in zip(numbers, rows["_distance"].to_pylist(), rows["id"].to_pylist(), strict=True):
        found[number].append((distance, name))
    return [[name for _, name in sorted(pairs)] for pairs in found]


def _by_text(index: Index, question: str, depth: int) -> list[str]:
    from lancedb.query import MatchQuery

    query = index.table.search(MatchQuery(question, "searched"), query_type="fts").limit(depth)
    rows = query.select(["id", "_score"]).to_arrow()
    pairs = sorted(zip(rows["_score"].to_pylist(), rows["id"].to_pylist(), strict=True), key=lambda p: (-p[0], p[1]))
    return [name for _, name in pairs]
