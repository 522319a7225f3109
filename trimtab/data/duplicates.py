"""Duplicate texts: exact, normalised, and near; found in one join, and read off for any order and any two sides."""

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
    """Where a row was read: file:line (of a file that is one line the number of the row), or its id."""
    return f"{example.file}:{example.line}" if example.file else f"id {example.id}"


def short(text: str, length: int = 60) -> str:
    """Text on one line, its end cut off where it is longer."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How a list of texts repeat each other, found in one join.

    `plain` and `bare` are the texts in plain words, and these without the template of all; `near` holds a spanning forest of the
    near ones (indices, each the first with its plain words), and `parts` numbers what belongs together by any kind. Without `exact`
    some near pairs may be missing, as MinHash found them.
    """

    texts: tuple[str, ...]
    plain: tuple[str, ...]
    bare: tuple[str, ...]
    near: tuple[tuple[int, int, float], ...]
    parts: tuple[int, ...]
    exact: bool

    def pairs(self, order: Sequence[int] | None = None) -> list[Pair]:
        """The duplicates, numbered as in `order`, as few as connect all that belong together (a < b).

        `order` may leave texts out; what is near only by way of one of those does not count.
        """
        pairs: list[Pair] = []
        exact: dict[str, int] = {}
        normal: dict[str, int] = {}
        for place, i in enumerate(range(len(self.texts)) if order is None else order):
            text = self.texts[i]
            if text in exact:
                pairs.append(Pair(exact[text], place, "exact", 1.0))
                continue
            exact[text] = place
            first = normal.setdefault(self.plain[i], place)
            if first != place:
                pairs.append(Pair(first, place, "normalised", 1.0))
        for i, j, similarity in self.near:
            if self.plain[i] in normal and self.plain[j] in normal:
                a, b = sorted((normal[self.plain[i]], normal[self.plain[j]]))
                pairs.append(Pair(a, b, "near", similarity))
        return sorted(pairs, key=lambda pair: (pair.b, pair.a))

    def between(self, left: Sequence[int], right: Sequence[int]) -> list[Pair]:
        """For each text of `right` (indices) its most alike in `left`, where there is one, numbered as in those two.

        Exact before normalised before near; white space around a text does not count. Only what belongs together by `parts` is
        compared again: nothing else can be near.
        """
        shared = {self.parts[i] for i in left} & {self.parts[i] for i in right}
        asked, held = ([n for n, i in enumerate(side) if self.parts[i] in shared] for side in (right, left))
        pairs = self._between([left[n] for n in held], [right[n] for n in asked]) if shared else []
        return [Pair(held[pair.a], asked[pair.b], pair.kind, pair.similarity) for pair in pairs]

    def _between(self, left: Sequence[int], right: Sequence[int]) -> list[Pair]:
        exact: dict[str, int] = {}
        normal: dict[str, int] = {}
        for a, i in enumerate(left):
            exact.setdefault(self.texts[i].strip(), a)
            normal.setdefault(self.plain[i], a)
        pairs: list[Pair] = []
        others: dict[str, list[int]] = defaultdict(list)  # by their words without the template
        for b, i in enumerate(right):
            if self.texts[i].strip() in exact:
                pairs.append(Pair(exact[self.texts[i].strip()], b, "exact", 1.0))
            elif self.plain[i] in normal:
                pairs.append(Pair(normal[self.plain[i]], b, "normalised", 1.0))
            else:
                others[self.bare[i]].append(b)
        rows, asked = list(normal.values()), list(others.values())
        if asked:
            shingles = Shingles([*(self.bare[left[a]] for a in rows), *others])
            for row, other, similarity in join_between(shingles, len(rows), self.exact):
                pairs += [Pair(rows[row], b, "near", similarity) for b in asked[other]]
        return sorted(pairs, key=lambda pair: pair.b)

    def head(self, count: int) -> Likeness:
        """That of the first `count` texts alone, for the count it was made with."""
        near = tuple(pair for pair in self.near if max(pair[:2]) < count)
        return _likeness(self.texts[:count], self.plain[:count], self.bare[:count], near, self.exact)


def compare(texts: Sequence[str], first: int = 0) -> Likeness:
    """Find what repeats what, in one join; `first`: how many texts are a set of their own too, for `Likeness.head`.

    Near means a Jaccard similarity of at least `NEAR`. None is falsely reported, and none missed but where `exact` is False.
    """
    words = {text: plain_words(text) for text in dict.fromkeys(texts)}
    plain = tuple(words[text] for text in texts)
    firsts: dict[str, int] = {}
    for i, name in enumerate(plain):
        firsts.setdefault(name, i)
    rows, bare = list(firsts.values()), without_template(list(firsts))
    found, exact = join_within(Shingles(bare), sum(row < first for row in rows))
    stripped = dict(zip(firsts, bare, strict=True))
    near = tuple((rows[a], rows[b], similarity) for a, b, similarity in found)
    return _likeness(tuple(texts), plain, tuple(stripped[name] for name in plain), near, exact)


def _likeness(
    texts: tuple[str, ...],
    plain: tuple[str, ...],
    bare: tuple[str, ...],
    near: tuple[tuple[int, int, float], ...],
    exact: bool,
) -> Likeness:
    """With the parts: connected by the same words or by near pairs."""
    firsts: dict[str, int] = {}
    parent = [firsts.setdefault(name, i) for i, name in enumerate(plain)]

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for a, b, _ in near:
        one, other = sorted((root(a), root(b)))
        parent[other] = one
    parts = tuple(map(root, range(len(plain))))
    return Likeness(texts=texts, plain=plain, bare=bare, near=near, parts=parts, exact=exact)


def find_pairs(left: Sequence[str], right: Sequence[str] | None = None) -> list[Pair]:
    """Duplicates within `left`, or of the texts of `right` in `left`.

    Within `left` the pairs are as few as connect all that belong together (a spanning forest, a < b), so that their number is that
    of the rows that repeat another. With `right` each of its texts has at most one pair: its most alike in `left`, exact before
    normalised before near.
    """
    if right is None:
        return compare(left).pairs()
    likeness = compare([*left, *right])
    return likeness.between(range(len(left)), range(len(left), len(likeness.texts)))
