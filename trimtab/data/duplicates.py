"""Finds duplicate texts (exact, normalised, near) in one similarity join, whose index answers later queries."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trimtab.base.records import Example
from trimtab.data.join import join_between, join_within
from trimtab.data.shingles import Shingles, without_template

PairKind = Literal["exact", "normalised", "near"]

_MEANINGFUL_PUNCTUATION = frozenset("%&#@*/\\-_()[]{}")  # punctuation that can change the meaning: operators, brackets
_BETWEEN_DIGITS = re.compile(r"(?<!\d)[.,:]|[.,:](?!\d)")


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two duplicate texts: `a` indexes the left texts, `b` the right ones (or the left again)."""

    a: int
    b: int
    kind: PairKind
    similarity: float


class _Folding(dict[int, int | str]):
    """A translation table, filled on demand: invisible characters vanish, sentence punctuation becomes a space."""

    def __missing__(self, code: int) -> int | str:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Cf" or character in "'’‘`":
            value: int | str = ""
        elif category[0] == "P" and character not in _MEANINGFUL_PUNCTUATION and character not in ".,:":
            value = " "
        else:
            value = code
        self[code] = value
        return value


_FOLDING = _Folding()


def normalise_text(text: str) -> str:
    """Return `text` in NFKC and lower case, without sentence punctuation and invisible characters, white space
    collapsed.

    Operators, brackets and the marks inside numbers stay: `3 - 5` is not `3 * 5`, and `3.5` is not `35`.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_FOLDING)
    words = _BETWEEN_DIGITS.sub(" ", folded).split()
    return " ".join(words) if words else " ".join(text.split())


def dedup_text(example: Example) -> str:
    """Return the text by which examples are compared: their turns without the system turn, which is mostly the same for
    all."""
    return "\n".join(message.content for message in example.messages if message.role != "system")


def row_location(example: Example) -> str:
    """Return where a row was read: file:line (in a one-line file the number of the row), or its id."""
    return f"{example.file}:{example.line}" if example.file else f"id {example.id}"


def ellipsize(text: str, length: int = 60) -> str:
    """Return text on one line, cut to `length` characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateIndex:
    """An index of the duplicates in a list of texts, built by one join.

    `normalised` are the texts after `normalise_text`, `stripped` those without their common template; `near_pairs` is a
    spanning forest of near duplicates (indices of the first text with each normalised form, and similarity), and
    `components` numbers the groups of duplicates of any kind. Without `exact` (MinHash) some near pairs may be missing.
    """

    texts: tuple[str, ...]
    normalised: tuple[str, ...]
    stripped: tuple[str, ...]
    near_pairs: tuple[tuple[int, int, float], ...]
    components: tuple[int, ...]
    exact: bool

    def pairs(self, order: Sequence[int] | None = None) -> list[DuplicatePair]:
        """Return the duplicates, numbered as in `order`, as the fewest pairs that connect each group (a < b).

        `order` may omit texts; texts that are near only through an omitted one do not count.
        """
        pairs: list[DuplicatePair] = []
        exact: dict[str, int] = {}
        normal: dict[str, int] = {}
        for position, i in enumerate(range(len(self.texts)) if order is None else order):
            text = self.texts[i]
            if text in exact:
                pairs.append(DuplicatePair(exact[text], position, "exact", 1.0))
                continue
            exact[text] = position
            first = normal.setdefault(self.normalised[i], position)
            if first != position:
                pairs.append(DuplicatePair(first, position, "normalised", 1.0))
        for i, j, similarity in self.near_pairs:
            if self.normalised[i] in normal and self.normalised[j] in normal:
                a, b = sorted((normal[self.normalised[i]], normal[self.normalised[j]]))
                pairs.append(DuplicatePair(a, b, "near", similarity))
        return sorted(pairs, key=lambda pair: (pair.b, pair.a))

    def between(self, left: Sequence[int], right: Sequence[int]) -> list[DuplicatePair]:
        """Return, for each text of `right` (indices), its most similar one in `left`, if any; numbered as in those two.

        Exact before normalised before near; surrounding white space is ignored. Only texts of one component are
        compared again, as no others can be near.
        """
        shared = {self.components[i] for i in left} & {self.components[i] for i in right}
        right_positions, left_positions = (
            [n for n, i in enumerate(side) if self.components[i] in shared] for side in (right, left)
        )
        pairs = self._between([left[n] for n in left_positions], [right[n] for n in right_positions]) if shared else []
        return [
            DuplicatePair(left_positions[pair.a], right_positions[pair.b], pair.kind, pair.similarity) for pair in pairs
        ]

    def _between(self, left: Sequence[int], right: Sequence[int]) -> list[DuplicatePair]:
        exact: dict[str, int] = {}
        normal: dict[str, int] = {}
        for a, i in enumerate(left):
            exact.setdefault(self.texts[i].strip(), a)
            normal.setdefault(self.normalised[i], a)
        pairs: list[DuplicatePair] = []
        by_stripped: dict[str, list[int]] = defaultdict(list)  # by their text without the template
        for b, i in enumerate(right):
            if self.texts[i].strip() in exact:
                pairs.append(DuplicatePair(exact[self.texts[i].strip()], b, "exact", 1.0))
            elif self.normalised[i] in normal:
                pairs.append(DuplicatePair(normal[self.normalised[i]], b, "normalised", 1.0))
            else:
                by_stripped[self.stripped[i]].append(b)
        rows, groups = list(normal.values()), list(by_stripped.values())
        if groups:
            shingles = Shingles([*(self.stripped[left[a]] for a in rows), *by_stripped])
            for row, other, similarity in join_between(shingles, len(rows), self.exact):
                pairs += [DuplicatePair(rows[row], b, "near", similarity) for b in groups[other]]
        return sorted(pairs, key=lambda pair: pair.b)

    def head(self, count: int) -> DuplicateIndex:
        """Return the index of the first `count` texts, for the `count` it was built with."""
        near = tuple(pair for pair in self.near_pairs if max(pair[:2]) < count)
        return _build_index(self.texts[:count], self.normalised[:count], self.stripped[:count], near, self.exact)


def find_duplicates(texts: Sequence[str], first: int = 0) -> DuplicateIndex:
    """Index the duplicates in one join; the first `first` texts can be split off by `DuplicateIndex.head`.

    Near means a Jaccard similarity of at least `NEAR`. There are no false pairs, and no missing ones if `exact` is
    True.
    """
    words = {text: normalise_text(text) for text in dict.fromkeys(texts)}
    normalised = tuple(words[text] for text in texts)
    first_with: dict[str, int] = {}
    for i, name in enumerate(normalised):
        first_with.setdefault(name, i)
    rows, stripped = list(first_with.values()), without_template(list(first_with))
    found, exact = join_within(Shingles(stripped), sum(row < first for row in rows))
    stripped_of = dict(zip(first_with, stripped, strict=True))
    near = tuple((rows[a], rows[b], similarity) for a, b, similarity in found)
    return _build_index(tuple(texts), normalised, tuple(stripped_of[name] for name in normalised), near, exact)


def _build_index(
    texts: tuple[str, ...],
    normalised: tuple[str, ...],
    stripped: tuple[str, ...],
    near: tuple[tuple[int, int, float], ...],
    exact: bool,
) -> DuplicateIndex:
    """Return the index with its components: texts connected by equal normalised forms or near pairs."""
    first_with: dict[str, int] = {}
    parent = [first_with.setdefault(name, i) for i, name in enumerate(normalised)]

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for a, b, _ in near:
        one, other = sorted((root(a), root(b)))
        parent[other] = one
    components = tuple(map(root, range(len(normalised))))
    return DuplicateIndex(
        texts=texts,
        normalised=normalised,
        stripped=stripped,
        near_pairs=near,
        components=components,
        exact=exact,
    )


def duplicate_pairs(left: Sequence[str], right: Sequence[str] | None = None) -> list[DuplicatePair]:
    """Return the duplicates within `left`, or of the texts of `right` in `left`.

    Within `left` the pairs are a spanning forest (a < b), so their number is that of the repeated rows. With `right`
    each of its texts has at most one pair: its most similar text in `left`, exact before normalised before near.
    """
    if right is None:
        return find_duplicates(left).pairs()
    duplicates = find_duplicates([*left, *right])
    return duplicates.between(range(len(left)), range(len(left), len(duplicates.texts)))
