"""Duplicate texts: exact, normalised, and near (Jaccard similarity of character 4-grams and words, computed exactly)."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trimtab.base.records import Example

if TYPE_CHECKING:
    from numpy.typing import NDArray

PairKind = Literal["exact", "normalised", "near"]

NEAR = 0.8  # least Jaccard similarity of near duplicates
_GRAM = 4
_BLOCK = 256  # rows joined at once; bounds memory at _BLOCK x N candidates
_VERIFIED = 5_000_000  # features of candidate pairs read at once
_CHARACTERS = 1_000_000  # text taken apart at once, at about 100 bytes a character
_TEMPLATE_TEXTS = 20  # from so many texts on, what all begin or end with is a template and not compared
_MEANT = frozenset("%&#@*/\\-_()[]{}")  # punctuation that can change what is asked: operators, brackets
_BETWEEN_DIGITS = re.compile(r"(?<!\d)[.,:]|[.,:](?!\d)")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that say the same: `a` indexes the left texts, `b` the right ones (or the left again)."""

    a: int
    b: int
    kind: PairKind
    similarity: float


class _Folding(dict[int, int | str]):
    """Translation table that is filled as characters are met: invisible ones vanish, sentence punctuation separates."""

    def __missing__(self, code: int) -> int | str:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Cf" or character in "'’‘`":
            value: int | str = ""
        elif category[0] == "P" and character not in _MEANT and character not in ".,:":
            value = " "
        else:
            value = code
        self[code] = value
        return value


_FOLDING = _Folding()


def plain_words(text: str) -> str:
    """`text` in NFKC and lower case, without sentence punctuation and invisible characters, its white space collapsed.

    Operators and brackets stay, as do the marks inside numbers: `3 - 5` is not `3 * 5`, and `3.5` is not `35`.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_FOLDING)
    words = _BETWEEN_DIGITS.sub(" ", folded).split()
    return " ".join(words) if words else " ".join(text.split())


def compared_text(example: Example) -> str:
    """What two examples are compared by: their turns without the system's, which is mostly the same for all."""
    return "\n".join(message.content for message in example.messages if message.role != "system")


def place(example: Example) -> str:
    """Where a row was read: file:line, or its id; both for JSON, all of which may stand in its first line."""
    if not example.file:
        return f"id {example.id}"
    crowded = example.line == 1 and example.file.endswith((".json", ".json.gz"))
    return f"{example.file}:{example.line}" + (f" (id {example.id})" if crowded else "")


def short(text: str, length: int = 60) -> str:
    """Text on one line, its end cut off where it is longer."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def find_pairs(left: Sequence[str], right: Sequence[str] | None = None) -> list[Pair]:
    """Duplicates within `left`, or of the texts of `right` in `left`.

    Within `left` the pairs are as few as connect all that belong together (a spanning forest, a < b), so that their number is that
    of the rows that repeat another. With `right` each of its texts has at most one pair: its most alike in `left`, exact before
    normalised before near. Near means a Jaccard similarity of at least `NEAR`; no candidate is lost or falsely reported
    (prefix filtering: Chaudhuri et al. 2006, Bayardo et al. 2007).
    """
    return _pairs_within(left) if right is None else _pairs_between(left, right)


def _pairs_within(texts: Sequence[str]) -> list[Pair]:
    pairs: list[Pair] = []
    exact: dict[str, int] = {}
    normal: dict[str, int] = {}
    for i, text in enumerate(texts):
        if text in exact:
            pairs.append(Pair(exact[text], i, "exact", 1.0))
            continue
        exact[text] = i
        first = normal.setdefault(plain_words(text), i)
        if first != i:
            pairs.append(Pair(first, i, "normalised", 1.0))
    rows = list(normal.values())
    pairs += [Pair(rows[a], rows[b], "near", s) for a, b, s in _join_within(_Shingles(list(normal)))]
    return sorted(pairs, key=lambda pair: (pair.b, pair.a))


def _pairs_between(left: Sequence[str], right: Sequence[str]) -> list[Pair]:
    exact: dict[str, int] = {}
    normal: dict[str, int] = {}
    for i, text in enumerate(left):
        if text not in exact:
            exact[text] = i
            normal.setdefault(plain_words(text), i)
    pairs: list[Pair] = []
    open_rows: dict[str, list[int]] = {}
    for i, text in enumerate(right):
        key = plain_words(text)
        if text in exact:
            pairs.append(Pair(exact[text], i, "exact", 1.0))
        elif key in normal:
            pairs.append(Pair(normal[key], i, "normalised", 1.0))
        else:
            open_rows.setdefault(key, []).append(i)
    rows = list(normal.values())
    shingles = _Shingles([*normal, *open_rows])
    asked = list(open_rows.values())
    for a, b, similarity in _join_between(shingles, len(rows)):
        pairs += [Pair(rows[a], i, "near", similarity) for i in asked[b]]
    return sorted(pairs, key=lambda pair: pair.b)


class _Shingles:
    """Each of N distinct texts as a set of features, in matrices [N, V]: `all`, and `rare`, the prefix that finds candidates.

    A pair with Jaccard >= t shares one of the size - ceil(t * size) + 1 rarest features of each side.
    """

    def __init__(self, texts: list[str]) -> None:
        row, column, width = _features(without_template(texts))
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


def _join_within(shingles: _Shingles) -> list[tuple[int, int, float]]:
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

    count = len(shingles.size)
    part = np.arange(count)  # the component of each row; pairs inside one need no look
    found: list[tuple[int, int, float]] = []
    for start in range(0, count, _BLOCK):
        a, b = shingles.candidates(slice(start, min(start + _BLOCK, count)), slice(0, min(start + _BLOCK, count)))
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


def _join_between(shingles: _Shingles, left: int) -> Iterable[tuple[int, int, float]]:
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
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:length].rfind(" ") + 1


def _features(texts: list[str]) -> tuple[NDArray[Any], NDArray[Any], int]:
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
