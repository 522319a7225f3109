"""Texts as sets of character 4-grams and words, and the Jaccard similarity of two such sets."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.base.common_prefix import common_prefix_length

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

NEAR = 0.8  # least Jaccard similarity of near duplicates
_GRAM = 4
_BITS = 1024  # of a text's bitmap, which tells most dissimilar texts apart without reading their features
_BITMAP_BATCH = 50_000  # bitmaps made or compared at once
_FEATURE_BATCH = 5_000_000  # features of candidate pairs read at once
_CHARACTERS = 1_000_000  # text taken apart at once, at about 100 bytes a character
_TEMPLATE_TEXTS = 20  # from so many texts on, what all begin or end with is a template and not compared


class Shingles:
    """Each of N distinct texts as a set of features: a sparse matrix `matrix` [N, V], the rarest feature first, and their number `size` [N]."""

    def __init__(self, texts: Sequence[str]) -> None:
        row, column, width = _features(texts)
        self.size = np.bincount(row, minlength=len(texts))
        self.matrix = sparse(column, self.size, width)
        self._bitmaps = _bitmaps(row, column, len(texts))

    def near_pairs(self, a: Ints, b: Ints) -> tuple[Ints, Ints, NDArray[np.float64]]:
        """Those of the pairs of rows `a` and `b` that are near, and their Jaccard similarity."""
        total = self.size[a] + self.size[b]
        keep = self._bit_differences(a, b) <= total - 2 * min_shared(total)
        a, b, total = a[keep], b[keep], total[keep]
        common = self._shared_features(a, b, total)
        keep = common >= min_shared(total)
        a, b, total, common = a[keep], b[keep], total[keep], common[keep]
        return a, b, common / (total - common)

    def _bit_differences(self, a: Ints, b: Ints) -> Ints:
        """How many bits of two bitmaps differ: at most as many as there are features that only one of the two texts has."""
        parts = [np.zeros(0, np.int64)]
        for start in range(0, len(a), _BITMAP_BATCH):
            part = slice(start, start + _BITMAP_BATCH)
            parts.append(np.bitwise_count(self._bitmaps[a[part]] ^ self._bitmaps[b[part]]).sum(axis=1, dtype=np.int64))
        return np.concatenate(parts)

    def _shared_features(self, a: Ints, b: Ints, total: Ints) -> Ints:
        """How many features each two rows have in common."""
        parts = [np.zeros(0, np.int64)]
        edges = np.flatnonzero(np.diff(np.cumsum(total) // _FEATURE_BATCH)) + 1
        for start, end in pairwise([0, *edges, len(a)]):
            shared = self.matrix[a[start:end]].multiply(self.matrix[b[start:end]])
            parts.append(np.asarray(shared.sum(axis=1)).ravel())
        return np.concatenate(parts)


def min_features(size: Ints) -> Ints:
    """The fewest features of a text that can be near one of `size` features, and the fewest that they have in common."""
    least: Ints = np.ceil(NEAR * size - 1e-9).astype(np.int64)
    return least


def min_shared(total: Ints) -> Ints:
    """The fewest common features of two near texts that have `total` features together."""
    needed: Ints = np.ceil(NEAR / (1 + NEAR) * total - 1e-9).astype(np.int64)
    return needed


def without_template(texts: list[str]) -> list[str]:
    """The texts without the words that all of them begin or end with, where there are enough (20) to tell."""
    if len(texts) < _TEMPLATE_TEXTS:
        return texts
    start = _shared_start(texts)
    bare = [text[start:] for text in texts]
    end = _shared_start([text[::-1] for text in bare])
    return [text[: len(text) - end].strip() for text in bare]


def sparse(column: NDArray[Any], size: Ints, width: int) -> Any:
    """A sparse matrix (CSR) of ones: the columns of each row, one row behind the other, with how many each has."""
    from scipy.sparse import csr_matrix

    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(size)])
    return csr_matrix((np.ones(len(column), np.int32), column, starts), shape=(len(size), width))


def _shared_start(texts: list[str]) -> int:
    """Length of the whole words that all texts begin with."""
    low, high = min(texts), max(texts)
    return low[: common_prefix_length(low, high)].rfind(" ") + 1


def _features(texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Row and column of every character 4-gram and word, each once a row and the rarest first, and the number of columns."""
    alphabet = np.array(sorted(map(ord, {" "}.union(*texts))), np.uint32)
    ranges = list(_text_ranges(texts))
    grams = [_grams(texts[start:end], alphabet) for start, end in ranges]
    known = np.unique(np.concatenate([np.zeros(0, np.uint64), *(names for _, names, _ in grams)]))
    words: dict[str, int] = {}
    rows, numbers = [], []
    for (start, end), (gram_row, names, gram) in zip(ranges, grams, strict=True):
        split = [text.split() for text in texts[start:end]]
        word = array("q", (words.setdefault(name, len(words)) for name in chain.from_iterable(split)))
        word_row = np.repeat(np.arange(end - start), [len(own) for own in split])
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


def _text_ranges(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start and end of runs of texts of about _CHARACTERS together, so that long ones take no more memory than many."""
    start = length = 0
    for i, text in enumerate(texts):
        length += len(text)
        if length >= _CHARACTERS or i == len(texts) - 1:
            yield start, i + 1
            start, length = i + 1, 0


def _grams(texts: Sequence[str], alphabet: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The row of each 4-gram, the distinct ones, and which of these each is.

    A 4-gram is one number, which is exact for alphabets of up to 65,536 characters.
    """
    padded = [f" {text} ".ljust(_GRAM) for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32)
    row_of = np.repeat(np.arange(len(padded)), [len(text) for text in padded])
    letter = np.searchsorted(alphabet, points).astype(np.uint64)
    whole = row_of[: -_GRAM + 1] == row_of[_GRAM - 1 :]  # grams that lie inside one text
    packed = np.zeros(len(whole), np.uint64)
    for i in range(_GRAM):
        packed = packed * np.uint64(len(alphabet)) + letter[i : i + len(whole)]
    names, gram = np.unique(packed[whole], return_inverse=True)
    return row_of[: len(whole)][whole].astype(np.int32), names, gram.astype(np.int32)


def _bitmaps(row: NDArray[Any], column: NDArray[Any], count: int) -> NDArray[np.uint64]:
    """Bitmaps [N, _BITS / 64]: a bit for each feature of a text, which it shares with others."""
    bitmaps = np.zeros((count, _BITS // 64), np.uint64)
    for start in range(0, count, _BITMAP_BATCH):
        end = min(start + _BITMAP_BATCH, count)
        part = slice(*np.searchsorted(row, [start, end]))
        bits = np.zeros((end - start, _BITS), bool)
        bits[row[part] - start, column[part] % _BITS] = True
        bitmaps[start:end] = np.packbits(bits, axis=1).view(np.uint64)
    return bitmaps
