"""Finds duplicate texts (exact, normalised, near) in one similarity join, and keeps an index for later queries."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from trimtab.base.records import Example
from trimtab.data.row_store import read_rows
from trimtab.data.shingles import Shingles
from trimtab.data.similarity_join import join_between, join_by_minhash, join_within
from trimtab.data.text_digests import Digests, Template, TemplateFinder, digest_of

if TYPE_CHECKING:
    from trimtab.data.row_store import RowNumbers
    from trimtab.data.shingles import Ints

PairKind = Literal["exact", "normalised", "near"]

MOST_COMPARED = 100_000
"""The most different texts that are joined exactly (if that is fast); more are joined by MinHash."""

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DuplicateIndex:
    """An index of the duplicates in N texts, built by one join.

    `same_text`, `same_trimmed`, `same_words` [N]: the number of the first equal text: equal as it is, without white
    space around it, in normalised form. `near_pairs`: a spanning forest of near duplicates, each pair two numbers of
    first texts of a normalised form, and their similarity. `components` [N]: the group of duplicates, of any kind, of
    each text. `template`: the words that are left out of comparisons; `head_template`: those for the first texts alone
    (`head`). `exact`: False if MinHash found the near pairs, so that some may be missing.
    """

    texts: Sequence[str]
    same_text: RowNumbers
    same_trimmed: RowNumbers
    same_words: RowNumbers
    template: Template
    head_template: Template
    near_pairs: tuple[tuple[int, int, float], ...]
    components: RowNumbers
    exact: bool

    def __len__(self) -> int:
        return len(self.components)

    @property
    def distinct(self) -> int:
        """Return the number of texts with different normalised forms."""
        return int(np.count_nonzero(self.same_words == np.arange(len(self))))

    @property
    def exceeds_exact_join(self) -> bool:
        """True if the texts have more different normalised forms than are joined exactly."""
        return self.distinct > MOST_COMPARED

    def compared_texts(self, numbers: Sequence[int]) -> list[str]:
        """Return texts as they are compared: normalised, without the template."""
        return _compared_texts(self.texts, np.asarray(numbers), self.template)

    def pairs(self, order: Sequence[int] | RowNumbers | None = None) -> list[DuplicatePair]:
        """Return the duplicates, numbered as in `order`, as the fewest pairs that connect each group (a < b).

        `order` may omit texts; texts that are near only through an omitted one do not count.
        """
        numbers = np.arange(len(self)) if order is None else np.asarray(order, np.int64)
        place, none = np.arange(len(numbers)), len(numbers)
        of_text, of_words = (
            _first_positions(same[numbers], none, len(self)) for same in (self.same_text, self.same_words)
        )
        first_text, first_words = of_text[self.same_text[numbers]], of_words[self.same_words[numbers]]
        pairs: list[DuplicatePair] = []
        for b in np.flatnonzero(first_words != place).tolist():
            is_same = int(first_text[b]) != b
            a = int(first_text[b] if is_same else first_words[b])
            pairs.append(DuplicatePair(a, b, "exact" if is_same else "normalised", 1.0))
        for i, j, similarity in self.near_pairs:
            one, other = sorted((int(of_words[self.same_words[i]]), int(of_words[self.same_words[j]])))
            if other < none:
                pairs.append(DuplicatePair(one, other, "near", similarity))
        return sorted(pairs, key=lambda pair: (pair.b, pair.a))

    def between(self, left: Sequence[int] | RowNumbers, right: Sequence[int] | RowNumbers) -> list[DuplicatePair]:
        """Return, for each text of `right` (numbers), its most similar one in `left`, if any; numbered as in those two.

        Exact before normalised before near; surrounding white space is ignored. Only texts of one component are
        compared again, as no others can be near.
        """
        sides = [np.asarray(side, np.int64) for side in (left, right)]
        present = np.zeros((2, len(self)), bool)
        for one, side in zip(present, sides, strict=True):
            one[self.components[side]] = True
        shared = present[0] & present[1]
        left_places, right_places = (np.flatnonzero(shared[self.components[side]]) for side in sides)
        if not len(right_places):
            return []
        pairs = self._between(sides[0][left_places].tolist(), sides[1][right_places].tolist())
        return [
            DuplicatePair(int(left_places[pair.a]), int(right_places[pair.b]), pair.kind, pair.similarity)
            for pair in pairs
        ]

    def _between(self, left: Sequence[int], right: Sequence[int]) -> list[DuplicatePair]:
        exact: dict[int, int] = {}
        normal: dict[int, int] = {}
        for a, i in enumerate(left):
            exact.setdefault(int(self.same_trimmed[i]), a)
            normal.setdefault(int(self.same_words[i]), a)
        pairs: list[DuplicatePair] = []
        by_compared: dict[str, list[int]] = defaultdict(list)
        for b, i in enumerate(right):
            trimmed, words = int(self.same_trimmed[i]), int(self.same_words[i])
            if trimmed in exact:
                pairs.append(DuplicatePair(exact[trimmed], b, "exact", 1.0))
            elif words in normal:
                pairs.append(DuplicatePair(normal[words], b, "normalised", 1.0))
            else:
                by_compared[self.compared_texts([i])[0]].append(b)
        rows, groups = list(normal.values()), list(by_compared.values())
        if groups:
            shingles = Shingles([*self.compared_texts([left[a] for a in rows]), *by_compared])
            for row, other, similarity in join_between(shingles, len(rows), self.exact):
                pairs += [DuplicatePair(rows[row], b, "near", similarity) for b in groups[other]]
        return sorted(pairs, key=lambda pair: pair.b)

    def head(self, count: int) -> DuplicateIndex:
        """Return the index of the first `count` texts, for the `count` it was built with."""
        near = tuple(pair for pair in self.near_pairs if max(pair[:2]) < count)
        return replace(
            self,
            texts=self.texts[:count],
            same_text=self.same_text[:count],
            same_trimmed=self.same_trimmed[:count],
            same_words=self.same_words[:count],
            near_pairs=near,
            components=_components(self.same_words[:count], near),
        )


def find_duplicates(texts: Sequence[str], first: int = 0, stream: Iterable[str] | None = None) -> DuplicateIndex:
    """Index the duplicates in one join; the first `first` texts can be split off by `DuplicateIndex.head`.

    `stream`: an iterator over the same texts, consumed in place of a first pass over `texts`; a caller can inspect the
    texts in the same pass.

    Near means a Jaccard similarity of at least `NEAR`. No reported pair is false, and none is missing if `exact` is
    True. More than `MOST_COMPARED` different texts are joined by MinHash, which needs less memory. Texts are taken for
    equal if their 128-bit digests are.
    """
    scan = _scan(texts if stream is None else stream, first)
    rows = np.flatnonzero(scan.same_words == np.arange(len(texts), dtype=np.int32)).astype(np.int32)
    head = int(np.searchsorted(rows, first))
    template = scan.finder.template(len(rows))
    if len(rows) <= MOST_COMPARED:
        words = scan.words or [normalise_text(texts[row]) for row in rows.tolist()]
        found, exact = join_within(Shingles([template.strip(text) for text in words]), head)
    else:
        found, exact = (
            join_by_minhash(lambda some: _compared_texts(texts, rows[some], template), len(rows), head),
            False,
        )
    near = tuple((int(rows[a]), int(rows[b]), similarity) for a, b, similarity in found)
    return DuplicateIndex(
        texts=texts,
        same_text=scan.same_text,
        same_trimmed=scan.same_trimmed,
        same_words=scan.same_words,
        template=template,
        head_template=scan.head_finder.template(head),
        near_pairs=near,
        components=_components(scan.same_words, near),
        exact=exact,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    """The result of one pass over texts: equal texts and templates (see `DuplicateIndex`).

    `words`: the distinct normalised forms; None if there are more than `MOST_COMPARED`.
    """

    same_text: RowNumbers
    same_trimmed: RowNumbers
    same_words: RowNumbers
    words: list[str] | None
    finder: TemplateFinder
    head_finder: TemplateFinder


def _scan(texts: Iterable[str], first: int) -> _Scan:
    """Read texts once. `first`: the number of texts that count for `head_finder`."""
    digests = as_is, trimmed, normal = [Digests(), Digests(), Digests()]
    finder, head_finder = TemplateFinder(), TemplateFinder()
    words: dict[str, None] | None = {}
    for i, text in enumerate(texts):
        form, bare = normalise_text(text), text.strip()
        digest = digest_of(text)
        as_is.add(digest)
        trimmed.add(digest if bare == text else digest_of(bare))
        normal.add(digest_of(form))
        finder.add(form)
        if i < first:
            head_finder.add(form)
        if words is not None:
            words[form] = None
            words = words if len(words) <= MOST_COMPARED else None
    del as_is, trimmed, normal
    same_text, same_trimmed, same_words = (digests.pop(0).first_occurrences() for _ in range(3))  # one at a time
    return _Scan(
        same_text=same_text,
        same_trimmed=same_trimmed,
        same_words=same_words,
        words=None if words is None else list(words),
        finder=finder,
        head_finder=head_finder,
    )


def _compared_texts(texts: Sequence[str], numbers: RowNumbers, template: Template) -> list[str]:
    """Return texts as they are compared: normalised, without the template."""
    chosen = texts.read(numbers) if isinstance(texts, DedupTexts) else [texts[number] for number in numbers.tolist()]
    return [template.strip(normalise_text(text)) for text in chosen]


def _first_positions(labels: RowNumbers, none: int, count: int) -> Ints:
    """Return the first position of each label below `count` [count]; `none` for a label that does not occur."""
    places = np.full(count, none)
    places[labels[::-1]] = np.arange(len(labels))[::-1]
    return places


def _components(same_words: RowNumbers, near: Sequence[tuple[int, int, float]]) -> RowNumbers:
    """Return for each text [N] the least number in its component; equal forms and near pairs connect texts."""
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        while (other := parent.setdefault(i, i)) != i:
            parent[i] = i = parent.setdefault(other, other)
        return i

    for a, b, _ in near:
        one, other = sorted((root(a), root(b)))
        parent[other] = one
    least = np.arange(len(same_words), dtype=np.int32)
    least[list(parent)] = [root(i) for i in parent]
    return least[same_words]


class DedupTexts(Sequence[str]):
    """The texts by which rows are compared (`dedup_text`), built on access."""

    def __init__(self, rows: Sequence[Example]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return map(dedup_text, self._rows)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        return DedupTexts(self._rows[at]) if isinstance(at, slice) else dedup_text(self._rows[at])

    def read(self, numbers: RowNumbers) -> list[str]:
        """Return the texts of these rows."""
        return [dedup_text(row) for row in read_rows(self._rows, numbers)]


def duplicate_pairs(left: Sequence[str], right: Sequence[str] | None = None) -> list[DuplicatePair]:
    """Return the duplicates within `left`, or of the texts of `right` in `left`.

    Within `left` the pairs are a spanning forest (a < b), so their number is that of the repeated rows. With `right`
    each of its texts has at most one pair: its most similar text in `left`, exact before normalised before near.
    """
    if right is None:
        return find_duplicates(left).pairs()
    duplicates = find_duplicates([*left, *right])
    return duplicates.between(range(len(left)), range(len(left), len(duplicates.texts)))
