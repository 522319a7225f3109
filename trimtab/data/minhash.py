"""Joins near duplicates among many texts by MinHash, with the signatures in a temporary file to save memory.

Two texts have the same minimum of a hash over their features with a probability equal to their Jaccard similarity
(Broder 1997). One hash per feature gives all minima of a signature: it puts the feature into one of `HASHES` bins, and
an empty bin takes the minimum of the next bin that is not empty (Shrivastava and Li 2014). Signatures are cut into keys
of eight minima. Sorted by each key in turn, near texts stand next to each other (Bawa et al. 2005). Neighbours with
enough equal minima are compared exactly, so that every reported pair is near.
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

    from trimtab.data.shingles import Ints

KEYS = 24
"""The number of keys of a signature, each of eight one-byte minima; a signature takes 8 · KEYS bytes on disk."""
_KEY = 8  # minima of a key, one byte each
HASHES = KEYS * _KEY
_LEADING = 6  # leading minima that two keys must share; all keys miss 1 in 1,400 pairs of similarity 0.8
_NEIGHBOURS = 6  # texts on each side, in a sorted list, with which a text is compared
_KEYS_AT_ONCE = 2  # keys of every text that are in memory at a time
_AGREEING = 0.65  # share of equal minima from which two texts are compared; four standard deviations below 0.8
_PAIRS_WAITING = 200_000  # candidate pairs that are collected before they are compared, to read each text less often
_PAIRS_AT_ONCE = 2_000  # pairs compared at once, at about 15 kB each
_SIGNED_AT_ONCE = 2_000  # texts whose signatures are computed at a time
_EMPTY = np.uint32(2**32 - 1)
_BASE, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)  # odd: multiplication is reversible

Texts = Callable[["Ints"], list[str]]


def join_by_minhash(texts: Texts, count: int, head: int, folder: Path | None = None) -> list[Edge]:
    """Return a spanning forest of near texts as pairs (a, b, similarity), a < b; those below `head` are one for the
    first `head` texts alone.

    `texts` returns the texts with given numbers, below `count`, in their order. `folder`: for the temporary file.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        for start in range(0, count, _SIGNED_AT_ONCE):
            numbers = np.arange(start, min(start + _SIGNED_AT_ONCE, count))
            file.write(signatures(texts(numbers)).tobytes())
        file.flush()
        signed = np.memmap(file, np.uint64, "r", shape=(count, KEYS)) if count else np.zeros((0, KEYS), np.uint64)
        forest = SpanningForest(count)
        first, rest = np.arange(head), np.arange(head, count)
        rejected = np.zeros(0, np.int64)  # candidate pairs that are not near
        for rows, others in ((first, first), (rest, first), (rest, rest)):
            waiting: list[Ints] = []
            for a, b in _neighbours(signed, rows, others):
                unconnected = forest.part[a] != forest.part[b]
                a, b = _filter_by_signature(signed, a[unconnected], b[unconnected])
                waiting.append(np.minimum(a, b) * count + np.maximum(a, b))
                if sum(map(len, waiting)) >= _PAIRS_WAITING:
                    rejected = _compare(texts, np.concatenate(waiting), forest, rejected)
                    waiting.clear()
            if waiting:
                rejected = _compare(texts, np.concatenate(waiting), forest, rejected)
        return forest.edges


def _neighbours(signed: NDArray[np.uint64], rows: Ints, others: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield pairs (rows, others): neighbours in a list sorted by a key whose leading minima are equal in both."""
    if not len(rows) or not len(others):
        return
    shift = np.uint64(8 * (_KEY - _LEADING))
    for start in range(0, KEYS, _KEYS_AT_ONCE):
        some = np.asarray(signed[:, start : start + _KEYS_AT_ONCE]).copy()
        for key in some.T:
            ordered = others[np.argsort(key[others], kind="stable")]
            sorted_keys = key[ordered]
            if rows is others:  # each pair once: a row and those after it
                for step in range(1, _NEIGHBOURS + 1):
                    match = np.flatnonzero((sorted_keys[:-step] ^ sorted_keys[step:]) >> shift == 0)
                    yield ordered[match], ordered[match + step]
                continue
            at = np.searchsorted(sorted_keys, key[rows])
            for step in range(-_NEIGHBOURS, _NEIGHBOURS):
                place = np.clip(at + step, 0, len(ordered) - 1)
                match = np.flatnonzero((key[rows] ^ sorted_keys[place]) >> shift == 0)
                yield rows[match], ordered[place[match]]


def _filter_by_signature(signed: NDArray[np.uint64], a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Return the pairs whose signatures have enough equal minima."""
    keep = np.zeros(len(a), bool)
    for start in range(0, len(a), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        same = (signed[a[part]] ^ signed[b[part]]).view(np.uint8) == 0
        keep[part] = same.sum(axis=1) >= _AGREEING * HASHES
    return a[keep], b[keep]


def _compare(texts: Texts, pairs: Ints, forest: SpanningForest, rejected: Ints) -> Ints:
    """Compare pairs exactly, unless they were rejected before, and add the near ones to the forest; return all rejected
    pairs. A pair (a < b) is encoded as the number a · N + b.
    """
    count = len(forest.part)
    pairs = np.setdiff1d(pairs, rejected)
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
    return np.concatenate(found)


def signatures(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Return the signatures of texts [N, KEYS]: `HASHES` one-byte minima over the hashes of 4-grams and words."""
    found = np.full((len(texts), HASHES), _EMPTY, np.uint32)
    for start, end in text_ranges(texts):
        _fill_bins(texts[start:end], found[start:end].reshape(-1))
    _fill_empty(found)
    minima = (found * np.uint32(0x85EBCA6B) >> np.uint32(24)).astype(np.uint8)  # the top byte after a mix
    order = np.random.default_rng(0).permutation(HASHES)  # spreads the copies in empty bins over the keys
    return np.ascontiguousarray(minima[:, order]).view(">u8").astype(np.uint64)


def _fill_bins(texts: Sequence[str], bins: NDArray[np.uint32]) -> None:
    """Put the least hash of the features of each text into the text's bins [N · HASHES]."""
    padded = [f" {text} ".ljust(GRAM) for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    row = np.repeat(np.arange(len(padded)), [len(text) for text in padded])
    gram = np.zeros(len(points) - GRAM + 1, np.uint64)
    for i in range(GRAM):
        gram = gram * _BASE + points[i : i + len(gram)]
    whole = row[: len(gram)] == row[GRAM - 1 :]  # 4-grams inside one text
    _put_least(gram[whole], row[: len(gram)][whole], bins)
    blank = points == ord(" ")
    is_first = np.flatnonzero(blank[:-1] & ~blank[1:]) + 1
    after_last = np.flatnonzero(~blank[:-1] & blank[1:]) + 1
    powers = np.cumprod(np.full(len(points) + 1, _BASE, np.uint64))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(points * powers[:-1], dtype=np.uint64)])
    inverse = np.cumprod(np.full(len(points) + 1, pow(int(_BASE), -1, 2**64), np.uint64))
    word = (sums[after_last] - sums[is_first]) * inverse[is_first]  # independent of the position of the word
    _put_least(~word, row[is_first], bins)


def _put_least(features: NDArray[np.uint64], row: Ints, bins: NDArray[np.uint32]) -> None:
    """Hash features; the upper half of a hash chooses the bin, the lower half is the value."""
    mixed = (features ^ (features >> np.uint64(32))) * _MIX
    mixed = (mixed ^ (mixed >> np.uint64(29))) * _BASE
    mixed ^= mixed >> np.uint64(32)
    place = ((mixed >> np.uint64(32)) * np.uint64(HASHES)) >> np.uint64(32)
    np.minimum.at(bins, row * HASHES + place.astype(np.int64), mixed.astype(np.uint32))


def _fill_empty(found: NDArray[np.uint32]) -> None:
    """Give each empty bin the minimum of the next bin that is not empty, offset by the distance to it."""
    twice = np.concatenate([found, found], axis=1)
    position = np.where(twice != _EMPTY, np.arange(2 * HASHES), 4 * HASHES)
    following = np.minimum.accumulate(position[:, ::-1], axis=1)[:, ::-1][:, :HASHES]
    distance = (following - np.arange(HASHES)).astype(np.uint32)
    source = np.take_along_axis(found, following % HASHES, axis=1)
    found[:] = source + distance * np.uint32(0x9E3779B1)
