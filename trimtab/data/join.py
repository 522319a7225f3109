"""The similarity join: which texts are near, by the Jaccard similarity of character 4-grams and words, computed exactly."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.base.beginnings import common_length

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAR = 0.8  # least Jaccard similarity of near duplicates
_GRAM = 4
_BLOCK = 256  # rows joined at once; bounds memory at _BLOCK x N candidates
_VERIFIED = 5_000_000  # features of candidate pairs read at once
_CHARACTERS = 1_000_000  # text taken apart at once, at about 100 bytes a character
_TEMPLATE_TEXTS = 20  # from so many texts on, what all begin or end with is a template and not compared


class Shingles:
    """Each of N distinct texts as a set of features, in matrices [N, V]: `all`, and `rare`, the prefix that finds candidates.

    A pair with Jaccard >= t shares one of the size - ceil(t * size) + 1 rarest features of each side.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        row, column, width = _features(texts)
        frequency = np.bincount(column, minlength=width)
        rank = np.empty(width, np.int64)
        rank[np.argsort(frequency, kind="stable")] = np.arange(width)
        key = np.unique(row * max(width, 1) + rank[column])  # each feature once a row, the rarest first
        row, column = np.divmod(key, max(width, 1))
        self.size = np.bincount(row, minlength=len(texts))
        place = np.arange(len(row)) - np.repeat(np.cumsum(self.size) - self.size, self.size)
        prefix = self.size - np.ceil(NEAR * self.size - 1e-9).astype(np.int64) + 1
        rare = place < prefix[row]
        self.all = _sparse(row, column, (len(texts), width))
        self.rare = _sparse(row[rare], column[rare], (len(texts), width))

    def similarity(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        """Jaccard similarity of rows `a` and `b`, pair by pair."""
        parts = [np.zeros(0)]
        read = np.cumsum(self.size[a] + self.size[b])
        edges = np.flatnonzero(np.diff(read // _VERIFIED)) + 1
        for start, end in pairwise([0, *edges, len(a)]):
            one, other = a[start:end], b[start:end]
            common = np.asarray(self.all[one].multiply(self.all[other]).sum(axis=1)).ravel()
            parts.append(common / (self.size[one] + self.size[other] - common))
        return np.concatenate(parts)

    def candidates(self, rows: slice, others: slice) -> tuple[NDArray[Any], NDArray[Any]]:
        """Pairs (other, row) that share a rare feature and whose sizes allow the similarity."""
        found = (self.rare[rows] @ self.rare[others].T).tocoo()
        b, a = found.row + rows.start, found.col + others.start
        small, large = np.minimum(self.size[a], self.size[b]), np.maximum(self.size[a], self.size[b])
        keep = small >= NEAR * large - 1e-9
        return a[keep], b[keep]


def join_within(shingles: Shingles, head: int) -> list[tuple[int, int, float]]:
    """A spanning forest (a < b, similarity) of the near texts; its pairs below `head` are one of the texts below `head`."""
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

    count = len(shingles.size)
    part = np.arange(count)  # the component of each row; pairs inside one need no look
    found: list[tuple[int, int, float]] = []
    for start, end in pairwise([*range(0, head, _BLOCK), *range(head, count, _BLOCK), count]):
        a, b = shingles.candidates(slice(start, end), slice(0, end))
        keep = (a < b) & (part[a] != part[b])
        a, b = a[keep], b[keep]
        similarity = shingles.similarity(a, b)
        near = similarity >= NEAR - 1e-9
        if not near.any():
            continue
        a, b, similarity = a[near], b[near], similarity[near]
        order = np.lexsort((b, a, -similarity))  # the best pair of two parts comes first
        _, first = np.unique(part[a[order]] * count + part[b[order]], return_index=True)
        a, b, similarity = a[order][first], b[order][first], similarity[order][first]
        best = {
            tuple(sorted((int(p), int(q)))): i
            for i, (p, q) in reversed(list(enumerate(zip(part[a], part[b], strict=True))))
        }
        graph = _sparse(part[a], part[b], (count, count), 2.0 - similarity)
        tree = minimum_spanning_tree(graph).tocoo()
        for p, q in zip(tree.row, tree.col, strict=True):
            i = best[tuple(sorted((int(p), int(q))))]
            found.append((int(a[i]), int(b[i]), float(similarity[i])))
        part = connected_components(graph, directed=False)[1][part]
    return found


def join_between(shingles: Shingles, left: int) -> Iterator[tuple[int, int, float]]:
    """For each text from `left` on that has a near one below `left`: its most alike there, its own number from `left`, the similarity."""
    count = len(shingles.size)
    for start in range(left, count, _BLOCK):
        a, b = shingles.candidates(slice(start, min(start + _BLOCK, count)), slice(0, left))
        similarity = shingles.similarity(a, b)
        near = similarity >= NEAR - 1e-9
        a, b, similarity = a[near], b[near], similarity[near]
        order = np.lexsort((a, -similarity, b))
        _, first = np.unique(b[order], return_index=True)
        for i in order[first]:
            yield int(a[i]), int(b[i]) - left, float(similarity[i])


def without_template(texts: list[str]) -> list[str]:
    """The texts without the words that all of them begin or end with, where there are enough (20) to tell."""
    if len(texts) < _TEMPLATE_TEXTS:
        return texts
    start = _shared_start(texts)
    bare = [text[start:] for text in texts]
    end = _shared_start([text[::-1] for text in bare])
    return [text[: len(text) - end].strip() for text in bare]


def _shared_start(texts: list[str]) -> int:
    """Length of the whole words that all texts begin with."""
    low, high = min(texts), max(texts)
    return low[: common_length(low, high)].rfind(" ") + 1


def _features(texts: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Row and column number of every character 4-gram and word, each once a row, and how many columns there are."""
    alphabet = np.array(sorted(map(ord, {" "}.union(*texts))), np.uint32)
    rows, grams = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    for start, end in _stretches(texts):
        row, gram = _grams(texts[start:end], alphabet)
        rows.append(row + start)
        grams.append(gram)
    known, gram = np.unique(np.concatenate(grams), return_inverse=True)
    words: dict[str, int] = {}
    word, word_row = array("q"), array("q")
    for i, text in enumerate(texts):
        own = set(text.split())
        word.extend(words.setdefault(name, len(words)) for name in own)
        word_row.extend([i] * len(own))
    row = np.concatenate([*rows, np.array(word_row, np.int64)])
    column = np.concatenate([gram, np.array(word, np.int64) + len(known)])
    return row, column, len(known) + len(words)


def _stretches(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start and end of runs of texts of about _CHARACTERS together, so that long ones take no more memory than many."""
    start = length = 0
    for i, text in enumerate(texts):
        length += len(text)
        if length >= _CHARACTERS or i == len(texts) - 1:
            yield start, i + 1
            start, length = i + 1, 0


def _grams(texts: Sequence[str], alphabet: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Row number and 4-gram, packed into one number, each gram once a row; exact for alphabets of up to 65,536 characters."""
    padded = [f" {text} ".ljust(_GRAM) for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32)
    row_of = np.repeat(np.arange(len(padded)), [len(text) for text in padded])
    letter = np.searchsorted(alphabet, points).astype(np.uint64)
    whole = row_of[: -_GRAM + 1] == row_of[_GRAM - 1 :]  # grams that lie inside one text
    packed = np.zeros(len(whole), np.uint64)
    for i in range(_GRAM):
        packed = packed * np.uint64(len(alphabet)) + letter[i : i + len(whole)]
    known, gram = np.unique(packed[whole], return_inverse=True)
    row, gram = np.divmod(np.unique(row_of[: len(whole)][whole] * len(known) + gram), len(known))
    return row, known[gram]


def _sparse(row: NDArray[Any], column: NDArray[Any], shape: tuple[int, int], value: NDArray[Any] | None = None) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(len(row), np.int32) if value is None else value, (row, column)), shape=shape)
