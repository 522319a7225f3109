"""Similarity join: finds the pairs of near texts, exactly if that is fast, else by MinHash.

In both cases the similarity of every reported pair was computed, and is at least `NEAR`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.data.minhash import likely_pairs, minhash_signatures
from trimtab.data.shingles import Shingles, min_features, min_shared, sparse
from trimtab.data.spanning_forest import Edge, SpanningForest

if TYPE_CHECKING:
    from trimtab.data.shingles import Ints

    Candidates = Callable[[Ints, Ints], Iterator[tuple[Ints, Ints]]]

# The exact join counts common features by a sparse product. It is used up to so many products per feature of the texts,
# where it takes about twice as long as MinHash, or so many products in all, about a second.
PRODUCTS_A_FEATURE, FEW_PRODUCTS = 20, 20_000_000
_BLOCK, _CHUNK = (
    512,
    16_384,
)  # rows compared at once, and others compared with them; their product bounds the candidates in memory


def join_within(shingles: Shingles, head: int) -> tuple[list[Edge], bool]:
    """Return a spanning forest (a < b, similarity) of the near texts, and whether it is exact.

    Its pairs below `head` are a spanning forest of the texts below `head`.
    """
    candidates, exact = _candidates(shingles)
    forest = SpanningForest(len(shingles.size))
    first, rest = np.arange(head), np.arange(head, len(shingles.size))
    for rows, others in ((first, first), (rest, first), (rest, rest)):
        for a, b in candidates(rows, others):
            unconnected = forest.part[a] != forest.part[b]
            forest.add(*shingles.near_pairs(a[unconnected], b[unconnected]))
    return forest.edges, exact


def join_between(shingles: Shingles, left: int, exact: bool) -> Iterator[Edge]:
    """Yield, for each text from `left` on with a near one below `left`, its most similar one, its number from `left`,
    and the similarity.

    Without `exact` MinHash is used if that is faster.
    """
    candidates, _ = _candidates(shingles, exact=exact)
    best = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for b, a in candidates(np.arange(left, len(shingles.size)), np.arange(left)):
        best.append(_best_per_right(*shingles.near_pairs(a, b)))
    for a, b, similarity in zip(*_best_per_right(*map(np.concatenate, zip(*best, strict=True))), strict=True):
        yield int(a), int(b) - left, float(similarity)


def _candidates(shingles: Shingles, *, exact: bool = False) -> tuple[Candidates, bool]:
    """Return the function that yields pairs of rows which may be near, and whether it yields all that are: the exact
    join's if it is fast or `exact`, else that of MinHash.
    """
    prefix_filter = _PrefixFilter(shingles)
    if exact or prefix_filter.is_fast:
        return prefix_filter.candidates, True
    return partial(likely_pairs, minhash_signatures(shingles.texts)), False


def _best_per_right(a: Ints, b: Ints, similarity: Any) -> tuple[Ints, Ints, Any]:
    """Return, for each `b`, its most similar `a`, the first of equals."""
    order = np.lexsort((a, -similarity, b))
    _, first = np.unique(b[order], return_index=True)
    best = order[first]
    return a[best], b[best], similarity[best]


class _PrefixFilter:
    """The exact join: near texts share some of their rarest features.

    Prefix filtering (Chaudhuri et al. 2006, Bayardo et al. 2007) with the number of shared features (Wang et al. 2012).
    """

    def __init__(self, shingles: Shingles) -> None:
        self._size = shingles.size
        length = self._size - min_features(self._size) + 1
        row = np.repeat(np.arange(len(length)), length)
        place = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
        column = shingles.matrix.indices[shingles.matrix.indptr[row] + place]
        frequency = np.bincount(column)
        products = float(np.square(frequency, dtype=float).sum()) / 2
        self.is_fast = products <= max(PRODUCTS_A_FEATURE * len(shingles.matrix.indices), FEW_PRODUCTS)
        shared = frequency > 1
        keep = shared[column]
        size = np.bincount(row[keep], minlength=len(length))
        self._rare = sparse((np.cumsum(shared) - 1)[column[keep]], size, int(shared.sum()))

    def candidates(self, rows: Ints, others: Ints) -> Iterator[tuple[Ints, Ints]]:
        """Yield pairs of a row with one of `others` that may be near; each pair once if these are the same rows."""
        same = rows is others
        rows, others = (values[np.argsort(self._size[values], kind="stable")] for values in (rows, others))
        for start in range(0, len(others), _CHUNK):
            chunk = others[start : start + _CHUNK]
            by_feature = self._rare[chunk].T.tocsr()
            for first in range(start if same else 0, len(rows), _BLOCK):
                block = rows[first : first + _BLOCK]
                i, j = self._candidate_tile(block, chunk, by_feature)
                later = i + first > j + start if same else slice(None)
                yield block[i[later]], chunk[j[later]]

    def _candidate_tile(self, block: Ints, chunk: Ints, by_feature: Any) -> tuple[Ints, Ints]:
        """Return the pairs of `block` and `chunk` (as positions) with enough shared features for their sizes."""
        one, other = self._size[block], self._size[chunk]  # ascending
        if one[-1] < min_features(other[0]) or other[-1] < min_features(one[0]):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        found = self._rare[block] @ by_feature
        most = np.maximum(one[-1], other[-1])
        promising = np.flatnonzero(found.data >= min_shared(one[0] + other[0]) - min_features(most) + 1)
        i, j = np.searchsorted(found.indptr, promising, side="right") - 1, found.indices[promising]
        small, large = np.minimum(one[i], other[j]), np.maximum(one[i], other[j])
        needed = min_shared(small + large) - min_features(large) + 1
        keep = (small >= min_features(large)) & (found.data[promising] >= needed)
        return i[keep], j[keep]
