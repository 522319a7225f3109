"""Represents texts as sets of character 4-grams and words, and computes the Jaccard similarity of such sets."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

NEAR = 0.8  # smallest Jaccard similarity of near duplicates
GRAM = 4  # characters
_BITS = 1024  # of a text's bitmap, which excludes most dissimilar pairs without reading their features
_BITMAP_BATCH = 50_000  # bitmaps built or compared at once
_FEATURE_BATCH = 5_000_000  # features of candidate pairs read at once
_CHARACTERS = 1_000_000  # characters processed at once, at about 100 bytes each


class Shingles:
    """N distinct texts as feature sets: a sparse matrix `matrix` [N, V], rarest features first, and their sizes `size`
    [N]."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        row, column, width = _features(texts)
        self.size = np.bincount(row, minlength=len(texts))
        self.matrix = sparse(column, self.size, width)
        self._bitmaps = _bitmaps(row, column, len(texts))

    def near_pairs(self, a: Ints, b: Ints) -> tuple[Ints, Ints, NDArray[np.float64]]:
        """Return the pairs of rows `a` and `b` that are near, and their Jaccard similarity."""
        total = self.size[a] + self.size[b]
        keep = self._bit_differences(a, b) <= total - 2 * min_shared(total)
        a, b, total = a[keep], b[keep], total[keep]
        common = self._shared_features(a, b, total)
        keep = common >= min_shared(total)
        a, b, total, common = a[keep], b[keep], total[keep], common[keep]
        return a, b, common / (total - common)

    def _bit_differences(self, a: Ints, b: Ints) -> Ints:
        """Return the differing bits of two bitmaps, a lower bound of the features that only one of the texts has."""
        parts = [np.zeros(0, np.int64)]
        for start in range(0, len(a), _BITMAP_BATCH):
            part = slice(start, start + _BITMAP_BATCH)
            parts.append(np.bitwise_count(self._bitmaps[a[part]] ^ self._bitmaps[b[part]]).sum(axis=1, dtype=np.int64))
        return np.concatenate(parts)

    def _shared_features(self, a: Ints, b: Ints, total: Ints) -> Ints:
        """Return the number of features that each pair of rows shares."""
        parts = [np.zeros(0, np.int64)]
        edges = np.flatnonzero(np.diff(np.cumsum(total) // _FEATURE_BATCH)) + 1
        for start, end in pairwise([0, *edges, len(a)]):
            shared = self.matrix[a[start:end]].multiply(self.matrix[b[start:end]])
            parts.append(np.asarray(shared.sum(axis=1)).ravel())
        return np.concatenate(parts)


def min_features(size: Ints) -> Ints:
    """Return the fewest features of a text that can be near one of `size` features, and the fewest that both share."""
    least: Ints = np.ceil(NEAR * size - 1e-9).astype(np.int64)
    return least


def min_shared(total: Ints) -> Ints:
    """Return the fewest shared features of two near texts with `total` features together."""
    needed: Ints = np.ceil(NEAR / (1 + NEAR) * total - 1e-9).astype(np.int64)
    return needed


def sparse(column: NDArray[Any], size: Ints, width: int) -> Any:
    """Return a sparse matrix (CSR) of ones from the columns of each row, in sequence, and the row sizes."""
    from scipy.sparse import csr_matrix

    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(size)])
    return csr_matrix((np.ones(len(column), np.int32), column, starts), shape=(len(size), width))


def _features(texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Return row and column of every 4-gram and word, each once per row and rarest first, and the number of columns."""
    alphabet = np.array(sorted(map(ord, {" "}.union(*texts))), np.uint32)
    ranges = list(text_ranges(texts))
    grams = [_grams(texts[start:end], alphabet) for start, end in ranges]
    known = np.unique(np.concatenate([np.zeros(0, np.uint64), *(names for _, names, _ in grams)]))
    words: dict[str, int] = {}
    rows, numbers = [], []
    for (start, end), (gram_row, names, gram) in zip(ranges, grams, strict=True):
        split = [text.split() for text in texts[start:end]]
        word = array("q", (words.setdefault(name, len(words)) for name in chain.from_iterable(split)))
        word_row = np.repeat(np.arange(end - start), [len(words_of_text) for words_of_text in split])
        rows.append((np.concatenate([gram_row, word_row]) + start).astype(np.int32))
        number = np.searchsorted(known, names)[gram]
        numbers.append(np.concatenate([number, np.array(word, np.int64) + len(known)]).astype(np.int32))
    width = len(known) + len(words)
    frequency = sum((np.bincount(number, minlength=width) for number in numbers), np.zeros(width, np.int64))
    rank = np.empty(width, np.int64)
    rank[np.argsort(frequency, kind="stable")] = np.arange(width)
    for i, number in enumerate(numbers):
        key = np.sort(rows[i] * np.int64(width) + rank[number])
        row, column = np.divmod(key[np.diff(key, prepend=-1) > 0], width)
        rows[i], numbers[i] = row.astype(np.int32), column.astype(np.int32)
    none = np.zeros(0, np.int32)
    return np.concatenate([none, *rows]), np.concatenate([none, *numbers]), width


def text_ranges(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield start and end of runs of texts with about _CHARACTERS characters, to bound memory."""
    start = length = 0
    for i, text in enumerate(texts):
        length += len(text)
        if length >= _CHARACTERS or i == len(texts) - 1:
            yield start, i + 1
            start, length = i + 1, 0


def _grams(texts: Sequence[str], alphabet: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the row of each 4-gram, the distinct ones, and the index of each among these.

    A 4-gram is encoded as one number, which is exact for alphabets of up to 65,536 characters.
    """
    padded = [f" {text} ".ljust(GRAM) for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32)
    row_of = np.repeat(np.arange(len(padded)), [len(text) for text in padded])
    letter = np.searchsorted(alphabet, points).astype(np.uint64)
    whole = row_of[: -GRAM + 1] == row_of[GRAM - 1 :]  # grams that lie inside one text
    packed = np.zeros(len(whole), np.uint64)
    for i in range(GRAM):
        packed = packed * np.uint64(len(alphabet)) + letter[i : i + len(whole)]
    names, gram = np.unique(packed[whole], return_inverse=True)
    return row_of[: len(whole)][whole].astype(np.int32), names, gram.astype(np.int32)


def _bitmaps(row: NDArray[Any], column: NDArray[Any], count: int) -> NDArray[np.uint64]:
    """Return bitmaps [N, _BITS / 64]; each feature of a text sets a bit, which other features may share."""
    bitmaps = np.zeros((count, _BITS // 64), np.uint64)
    for start in range(0, count, _BITMAP_BATCH):
        end = min(start + _BITMAP_BATCH, count)
        part = slice(*np.searchsorted(row, [start, end]))
        bits = np.zeros((end - start, _BITS), bool)
        bits[row[part] - start, column[part] % _BITS] = True
        bitmaps[start:end] = np.packbits(bits, axis=1).view(np.uint64)
    return bitmaps
