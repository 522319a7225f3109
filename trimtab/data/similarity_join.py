"""Similarity join: finds the pairs of near texts, exactly if that is fast, else by MinHash.

In both cases the similarity of every reported pair was computed, and is at least `NEAR`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.data.shingles import GRAM, Shingles, min_features, min_shared, sparse, text_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trimtab.data.row_store import RowNumbers
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
    return partial(_likely_pairs, minhash_signatures(shingles.texts)), False


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
        position = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
        column = shingles.matrix.indices[shingles.matrix.indptr[row] + position]
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
        block_sizes, chunk_sizes = self._size[block], self._size[chunk]  # ascending
        if block_sizes[-1] < min_features(chunk_sizes[0]) or chunk_sizes[-1] < min_features(block_sizes[0]):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        shared = self._rare[block] @ by_feature
        most = np.maximum(block_sizes[-1], chunk_sizes[-1])
        promising = np.flatnonzero(shared.data >= min_shared(block_sizes[0] + chunk_sizes[0]) - min_features(most) + 1)
        i, j = np.searchsorted(shared.indptr, promising, side="right") - 1, shared.indices[promising]
        small, large = np.minimum(block_sizes[i], chunk_sizes[j]), np.maximum(block_sizes[i], chunk_sizes[j])
        needed = min_shared(small + large) - min_features(large) + 1
        keep = (small >= min_features(large)) & (shared.data[promising] >= needed)
        return i[keep], j[keep]


Edge = tuple[int, int, float]


class SpanningForest:
    """A spanning forest over N texts. `part` [N]: the connected component of each text; `edges`: the pairs kept."""

    def __init__(self, count: int) -> None:
        self.part = np.arange(count, dtype=np.int32)
        self.edges: list[Edge] = []

    def add(self, a: Ints, b: Ints, similarity: Any) -> None:
        """Add pairs [P]: keep those of a maximum spanning forest over the components, and join the components."""
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

        if not len(a):
            return
        a, b = np.sort([a, b], axis=0)
        low, high = np.sort([self.part[a], self.part[b]], axis=0).astype(np.int64)
        order = np.lexsort((b, a, -similarity, high, low))
        _, first = np.unique(low[order] * len(self.part) + high[order], return_index=True)
        best = order[first]  # of the pairs between two components
        a, b, similarity, low, high = (values[best] for values in (a, b, similarity, low, high))
        parts, ends = np.unique([low, high], return_inverse=True)
        low, high = ends.reshape(2, -1)
        graph = csr_matrix((2.0 - similarity, (low, high)), shape=(len(parts), len(parts)))
        tree = minimum_spanning_tree(graph).tocoo()
        positions = np.searchsorted(low * len(parts) + high, tree.row.astype(np.int64) * len(parts) + tree.col)
        self.edges += zip(a[positions].tolist(), b[positions].tolist(), similarity[positions].tolist(), strict=True)
        joined = connected_components(graph, directed=False)[1]
        _, first = np.unique(joined, return_index=True)
        label = np.arange(len(self.part), dtype=np.int32)
        label[parts] = parts[first[joined]]
        self.part = label[self.part]


KEYS = 24
"""The number of keys of a signature, which takes 8 · KEYS bytes."""
_KEY = 6  # minima of a key, one byte each
HASHES = KEYS * _KEY
_LEADING = 4  # leading minima that two keys must share
_NEIGHBOURS = 6  # texts on each side, in a sorted list, with which a text is compared
_AGREEING = 0.65  # share of equal minima from which two texts are compared; four standard deviations below `NEAR`
_PAIRS_WAITING = 200_000  # candidate pairs that are collected before they are compared, to read each text less often
_PAIRS_AT_ONCE = 20_000  # pairs compared at once, at up to 15 kB each
_SIGNED_AT_ONCE = 2_000  # texts whose signatures are computed at a time
_MATCHED_AT_ONCE = 100_000  # texts whose neighbours are looked up at a time
_BASE, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)  # odd: multiplication is reversible
_FACTORS = np.random.default_rng(0).integers(2**63, size=HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)

Texts = Callable[["Ints"], list[str]]


def join_by_minhash(texts: Texts, count: int, head: int) -> list[Edge]:
    """Return a spanning forest of near texts as pairs (a, b, similarity), a < b; those below `head` are one for the
    first `head` texts alone.

    `texts` returns the texts with given numbers, below `count`, in their order.
    """
    with tempfile.TemporaryFile() as file:
        for start in range(0, count, _SIGNED_AT_ONCE):
            numbers = np.arange(start, min(start + _SIGNED_AT_ONCE, count))
            file.write(minhash_signatures(texts(numbers)).tobytes())
        file.flush()
        signed = np.memmap(file, np.uint64, "r", shape=(count, KEYS)) if count else np.zeros((0, KEYS), np.uint64)
        forest = SpanningForest(count)
        first, rest = np.arange(head, dtype=np.int32), np.arange(head, count, dtype=np.int32)
        rejected = np.zeros(0, np.int64)  # candidate pairs that are not near
        for rows, others in ((first, first), (rest, first), (rest, rest)):
            waiting: list[Ints] = []
            for a, b in _likely_pairs(signed, rows, others):
                unconnected = forest.part[a] != forest.part[b]
                a, b = _filter_by_signature(signed, a[unconnected], b[unconnected])
                waiting.append(np.minimum(a, b) * count + np.maximum(a, b))
                if sum(map(len, waiting)) >= _PAIRS_WAITING:
                    rejected = _compare(texts, np.concatenate(waiting), forest, rejected)
                    waiting.clear()
            if waiting:
                rejected = _compare(texts, np.concatenate(waiting), forest, rejected)
        return forest.edges


def _likely_pairs(signed: NDArray[np.uint64], rows: RowNumbers, others: RowNumbers) -> Iterator[tuple[Ints, Ints]]:
    """Yield pairs of a row with one of `others` that may be near: neighbours in a list sorted by a key whose leading
    minima are the same.
    """
    shift = np.uint64(8 * (_KEY - _LEADING))
    parts = [rows[start : start + _MATCHED_AT_ONCE] for start in range(0, len(rows), _MATCHED_AT_ONCE)]
    for number in range(KEYS) if len(rows) and len(others) else ():
        key = np.asarray(signed[:, number]).copy()
        ordered = others[np.argsort(key[others])]
        sorted_keys = key[ordered]
        at = [np.searchsorted(sorted_keys, key[part]).astype(np.int32) for part in parts]
        for step in range(-_NEIGHBOURS, _NEIGHBOURS):
            matches: list[tuple[RowNumbers, RowNumbers]] = []
            for part, position in zip(parts, at, strict=True):
                neighbour = np.clip(position + step, 0, len(ordered) - 1)
                match = np.flatnonzero((key[part] ^ sorted_keys[neighbour]) >> shift == 0)
                matches.append((part[match], ordered[neighbour[match]]))
            left, right = (np.concatenate(side).astype(np.int64) for side in zip(*matches, strict=True))
            yield left, right


def _filter_by_signature(signed: NDArray[np.uint64], a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Return the pairs whose signatures have enough equal minima."""
    keep = np.zeros(len(a), bool)
    for start in range(0, len(a), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        keep[part] = equal_minima(signed[a[part]], signed[b[part]]) >= _AGREEING * HASHES
    return a[keep], b[keep]


def _compare(texts: Texts, pairs: Ints, forest: SpanningForest, rejected: Ints) -> Ints:
    """Compare pairs exactly, unless they were rejected before, and add the near ones to the forest; return all rejected
    pairs. A pair (a < b) is encoded as the number a · N + b; `rejected` is sorted.
    """
    count = len(forest.part)
    pairs = np.unique(pairs)
    if len(rejected):
        nearest = np.minimum(np.searchsorted(rejected, pairs), len(rejected) - 1)
        pairs = pairs[rejected[nearest] != pairs]
    parts = [rejected]
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = pairs[start : start + _PAIRS_AT_ONCE]
        low, high = np.divmod(part, count)
        unconnected = forest.part[low] != forest.part[high]
        part, low, high = part[unconnected], low[unconnected], high[unconnected]
        if not len(part):
            continue
        numbers, positions = np.unique([low, high], return_inverse=True)
        left, right = positions.reshape(2, -1)
        near = Shingles(texts(numbers)).near_pairs(left, right)
        forest.add(numbers[near[0]], numbers[near[1]], near[2])
        parts.append(np.setdiff1d(part, numbers[near[0]] * count + numbers[near[1]]))
    return np.sort(np.concatenate(parts), kind="stable")  # quick on runs that are sorted


def equal_minima(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> Ints:
    """Return the number of equal minima of signatures [N, KEYS] and others, row by row [N]."""
    same = (left ^ right).view(np.uint8).reshape(len(left), KEYS, 8)[..., :_KEY] == 0
    counts: Ints = same.sum(axis=(1, 2))
    return counts


def minhash_signatures(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Return the signatures [N, KEYS] of texts: `HASHES` minima over the hashes of 4-grams and words, a byte each."""
    least = np.full((len(texts), HASHES), 2**32 - 1, np.uint32)
    for start, end in text_ranges(texts):
        for features, row in _features(texts[start:end]):
            if not len(row):
                continue
            first = np.flatnonzero(np.diff(row, prepend=-1))  # the first feature of each text that has any
            mixed = (features ^ (features >> np.uint64(32))) * _MIX
            mixed ^= mixed >> np.uint64(29)
            for number, factor in enumerate(_FACTORS):
                hashed = (mixed * factor >> np.uint64(32)).astype(np.uint32)
                column = least[start:end, number]
                column[row[first]] = np.minimum(column[row[first]], np.minimum.reduceat(hashed, first))
    keys = np.zeros((len(texts), KEYS), np.uint64)
    for at in range(_KEY):  # the low byte of a minimum: all its values are equally likely
        keys |= (least[:, at::_KEY] & np.uint32(255)).astype(np.uint64) << np.uint64(8 * (_KEY - 1 - at))
    return keys


def _features(texts: Sequence[str]) -> Iterator[tuple[NDArray[np.uint64], Ints]]:
    """Yield numbers of the 4-grams of texts with the texts' numbers, then those of their words, text by text."""
    padded = [f" {text} ".ljust(GRAM) for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    row = np.repeat(np.arange(len(padded)), [len(text) for text in padded])
    gram = np.zeros(len(points) - GRAM + 1, np.uint64)
    for i in range(GRAM):
        gram = gram * _BASE + points[i : i + len(gram)]
    whole = row[: len(gram)] == row[GRAM - 1 :]  # 4-grams inside one text
    yield gram[whole], row[: len(gram)][whole]
    blank = points == ord(" ")
    is_first = np.flatnonzero(blank[:-1] & ~blank[1:]) + 1
    after_last = np.flatnonzero(~blank[:-1] & blank[1:]) + 1
    powers = np.cumprod(np.full(len(points) + 1, _BASE, np.uint64))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(points * powers[:-1], dtype=np.uint64)])
    inverse = np.cumprod(np.full(len(points) + 1, pow(int(_BASE), -1, 2**64), np.uint64))
    word = (sums[after_last] - sums[is_first]) * inverse[is_first]  # independent of the position of the word
    yield ~word, row[is_first]
