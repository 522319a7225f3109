"""Estimates which texts are near by MinHash, and joins near texts of many rows with the signatures in a file.

Two texts have the same minimum of a hash over their features with a probability equal to their Jaccard similarity
(Broder 1997). A signature has `HASHES` such minima, cut into keys; sorted by each key in turn, near texts stand next to
each other (Bawa et al. 2005). Two texts at `NEAR` share a key with a probability of 99.9%, and are compared unless many
others have it too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trimtab.data.shingles import GRAM, Shingles, text_ranges
from trimtab.data.spanning_forest import Edge, SpanningForest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trimtab.data.row_store import RowNumbers
    from trimtab.data.shingles import Ints

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


def join_by_minhash(texts: Texts, count: int, head: int, folder: Path | None = None) -> list[Edge]:
    """Return a spanning forest of near texts as pairs (a, b, similarity), a < b; those below `head` are one for the
    first `head` texts alone.

    `texts` returns the texts with given numbers, below `count`, in their order. `folder`: for the temporary file.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
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
            for a, b in likely_pairs(signed, rows, others):
                unconnected = forest.part[a] != forest.part[b]
                a, b = _filter_by_signature(signed, a[unconnected], b[unconnected])
                waiting.append(np.minimum(a, b) * count + np.maximum(a, b))
                if sum(map(len, waiting)) >= _PAIRS_WAITING:
                    rejected = _compare(texts, np.concatenate(waiting), forest, rejected)
                    waiting.clear()
            if waiting:
                rejected = _compare(texts, np.concatenate(waiting), forest, rejected)
        return forest.edges


def likely_pairs(signed: NDArray[np.uint64], rows: RowNumbers, others: RowNumbers) -> Iterator[tuple[Ints, Ints]]:
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
            found: list[tuple[RowNumbers, RowNumbers]] = []
            for part, position in zip(parts, at, strict=True):
                place = np.clip(position + step, 0, len(ordered) - 1)
                match = np.flatnonzero((key[part] ^ sorted_keys[place]) >> shift == 0)
                found.append((part[match], ordered[place[match]]))
            left, right = (np.concatenate(side).astype(np.int64) for side in zip(*found, strict=True))
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
        place = np.minimum(np.searchsorted(rejected, pairs), len(rejected) - 1)
        pairs = pairs[rejected[place] != pairs]
    found = [rejected]
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = pairs[start : start + _PAIRS_AT_ONCE]
        low, high = np.divmod(part, count)
        unconnected = forest.part[low] != forest.part[high]
        part, low, high = part[unconnected], low[unconnected], high[unconnected]
        if not len(part):
            continue
        numbers, places = np.unique([low, high], return_inverse=True)
        left, right = places.reshape(2, -1)
        near = Shingles(texts(numbers)).near_pairs(left, right)
        forest.add(numbers[near[0]], numbers[near[1]], near[2])
        found.append(np.setdiff1d(part, numbers[near[0]] * count + numbers[near[1]]))
    return np.sort(np.concatenate(found), kind="stable")  # quick on runs that are sorted


def equal_minima(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> Ints:
    """Return the number of equal minima of signatures [N, KEYS] and others, row by row [N]."""
    same = (one ^ other).view(np.uint8).reshape(len(one), KEYS, 8)[..., :_KEY] == 0
    counts: Ints = same.sum(axis=(1, 2))
    return counts


def minhash_signatures(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Return the signatures [N, KEYS] of texts: `HASHES` minima over the hashes of 4-grams and words, a byte each."""
    least = np.full((len(texts), HASHES), 2**32 - 1, np.uint32)
    for start, end in text_ranges(texts):
        for features, row in _features(texts[start:end]):
            if not len(row):
                continue
            own = np.flatnonzero(np.diff(row, prepend=-1))  # the first feature of each text that has any
            mixed = (features ^ (features >> np.uint64(32))) * _MIX
            mixed ^= mixed >> np.uint64(29)
            for number, factor in enumerate(_FACTORS):
                hashed = (mixed * factor >> np.uint64(32)).astype(np.uint32)
                column = least[start:end, number]
                column[row[own]] = np.minimum(column[row[own]], np.minimum.reduceat(hashed, own))
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
