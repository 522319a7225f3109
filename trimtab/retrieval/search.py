"""Hybrid search: vector search and BM25, fused by reciprocal rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from trimtab.base.config import VECTOR_WEIGHT
from trimtab.base.errors import InputError
from trimtab.base.records import Hit
from trimtab.retrieval.index import Index

DEPTH = 50
RRF_CONSTANT = 60  # Cormack et al. 2009: the score of a passage is the sum of 1 / (60 + rank) over the lists
EQUAL_WEIGHT = 0.5  # both searches have equal weight


def hybrid_search(
    index: Index, questions: Sequence[str], k: int, *, vector_weight: float = VECTOR_WEIGHT
) -> list[tuple[Hit, ...]]:
    """Return the best `k` passages for every question, from the newest version of the index.

    The best 50 by cosine and the best 50 by BM25 over title, headings and text are fused; equal scores are ordered by
    passage id. Cosines are compared with every passage, or by an approximate index (`Index.is_approximate`). A question
    is only words: no character in it is query syntax.
    `vector_weight` is the weight of the first list, 0 to 1; a list without weight is not searched. Fewer than `k` are
    returned if the index has no more. Raises InputError for a weight outside 0 to 1.
    """
    if not 0 <= vector_weight <= 1:
        raise InputError(
            f"vector_weight is {vector_weight:g}", "give a number from 0 (words alone) to 1 (vectors alone)"
        )
    index.refresh()
    if not index.passages or not questions:
        return [() for _ in questions]
    questions = list(map(_replace_surrogates, questions))
    depth = max(DEPTH, k)
    no_ids: list[list[str]] = [[] for _ in questions]
    cosines = _by_vector(index, questions, depth) if vector_weight > 0 else [{} for _ in questions]
    bm25_ids = [_by_text(index, question, depth) for question in questions] if vector_weight < 1 else no_ids
    shares = (2 * vector_weight, 2 * (1 - vector_weight))  # each 1 if both have equal weight
    best = [
        _fuse(((shares[0], list(found)), (shares[1], words)), k) for found, words in zip(cosines, bm25_ids, strict=True)
    ]
    index.load(name for scores in best for name, _ in scores)
    return [
        tuple(
            Hit(passage=index.passages[name], rank=rank, score=score, similarity=found.get(name))
            for rank, (name, score) in enumerate(scores, 1)
        )
        for scores, found in zip(best, cosines, strict=True)
    ]


def candidates(index: Index, questions: Sequence[str], depth: int, *, reach: int = 0) -> list[dict[str, float]]:
    """Return, for every question, the ids of the best `depth` passages of each search with their cosines, in no order;
    and those of up to `reach` passages before and after each in its document.

    Searches the newest version of the index.
    """
    index.refresh()
    if not index.passages or not questions:
        return [{} for _ in questions]
    questions = list(map(_replace_surrogates, questions))
    vectors = index.encoder.encode_questions(questions)
    found = _by_vector(index, questions, depth, vectors)
    wanted = [
        {other for name in (*cosines_of, *_by_text(index, question, depth)) for other in neighbours(name, reach)}
        for question, cosines_of in zip(questions, found, strict=True)
    ]
    lacking = [names - cosines_of.keys() for names, cosines_of in zip(wanted, found, strict=True)]
    vectors_by_id = index.vectors(sorted(set().union(*lacking)))
    index.load(name for names in wanted for name in names)
    return [
        cosines_of | {name: float(vectors_by_id[name] @ vector) for name in sorted(names & vectors_by_id.keys())}
        for names, cosines_of, vector in zip(lacking, found, vectors, strict=True)
    ]


def neighbours(name: str, reach: int) -> list[str]:
    """Return the ids of a passage and of up to `reach` before and after it in its document, some of which may not
    exist."""
    document, _, number = name.rpartition("#")
    return [f"{document}#{place}" for place in range(max(0, int(number) - reach), int(number) + reach + 1)]


def _replace_surrogates(question: str) -> str:
    """Replace lone surrogates, which cannot be encoded."""
    return question.encode(errors="replace").decode()


def _fuse(lists: Iterable[tuple[float, Sequence[str]]], k: int) -> list[tuple[str, float]]:
    """Return the ids of the best `k` passages of ranked lists, each with its share, with their scores, best first."""
    scores: defaultdict[str, float] = defaultdict(float)
    for share, ranked in lists:
        for rank, name in enumerate(ranked, 1):
            scores[name] += share / (RRF_CONSTANT + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:k]


def _by_vector(
    index: Index, questions: Sequence[str], depth: int, vectors: NDArray[np.float32] | None = None
) -> list[dict[str, float]]:
    """Return the `depth` nearest passages of each question with their cosines, nearest first."""
    vectors = index.encoder.encode_questions(questions) if vectors is None else vectors
    return [{name: 1 - distance for distance, name in sorted(pairs)} for pairs in index.nearest(vectors, depth)]


def _by_text(index: Index, question: str, depth: int) -> list[str]:
    pairs = sorted(index.matching(question, depth), key=lambda pair: (-pair[0], pair[1]))
    return [name for _, name in pairs]
