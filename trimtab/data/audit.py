"""Collects the facts about a task's rows and documents in one pass; checks, leakage and split interpret them later."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain
from typing import TYPE_CHECKING

import numpy as np

from trimtab.base.records import Document, Example, Section, Split
from trimtab.data.duplicates import DedupTexts, DuplicateIndex, dedup_text, find_duplicates, normalise_text
from trimtab.data.privacy import FindingKind, private_kinds
from trimtab.data.row_store import RowView, are_stored, join_rows

if TYPE_CHECKING:
    from trimtab.data.row_store import RowNumbers

_SPECIAL = re.compile(r"<\|\w+\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>")
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007f]+")  # flags of regions are encoded in invisible tag characters
_INVISIBLE = re.compile(
    "[\u200b\u2060-\u2064\ufeff\u180e\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]|(?<=[A-Za-z])[\u200c\u200d](?=[A-Za-z])"
)
_MIN_WORDS = 5  # shorter questions are headings and terms, which documents may contain
_SENTENCE = re.compile(r"(?<=[.!?:;。？！])\s+|\n+|(?<=[。？！])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A question (by row number) that a document contains; `at` numbers the positions in all documents."""

    row: int
    document: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Facts about the rows, independent of their split; rows are numbered: the examples, then the fixed test set.

    `examples` and `rows` index the duplicates among the examples and among all rows; `private`, `invisible` and
    `special` hold only affected rows: the kinds of private data, the first invisible character, the first special
    token. `ids`: the number of each example by its id, empty if the rows are stored and carry their number.
    """

    ids: Mapping[str, int]
    examples: DuplicateIndex
    rows: DuplicateIndex
    private: Mapping[int, tuple[FindingKind, ...]]
    invisible: Mapping[int, str]
    special: Mapping[int, str]
    quotes: tuple[Quote, ...]
    test_ids: Mapping[str, int] = field(default_factory=dict)

    def with_test_ids(self, test: Sequence[Example]) -> Audit:
        """Return the audit that finds the rows of the fixed test set, which end `test`, by their ids there."""
        if isinstance(test, RowView):
            return self
        first, count = len(self.examples), len(self.rows)
        fixed = test[len(test) - (count - first) :]
        return replace(self, test_ids={row.id: first + n for n, row in enumerate(fixed)})

    def row_numbers(self, splits: Mapping[Split, Sequence[Example]]) -> dict[Split, RowNumbers]:
        """Return the number of each row of the splits.

        The fixed test set ends test, whatever its rows were renamed to, unless it is known by ids.
        """
        found: dict[Split, RowNumbers] = {}
        for name, part in splits.items():
            if isinstance(part, RowView):
                found[name] = part.numbers
            elif self.test_ids:
                found[name] = _as_numbers(
                    self.test_ids[row.id] if row.id in self.test_ids else self.ids[row.id] for row in part
                )
            else:
                fixed = range(len(self.examples), len(self.rows)) if name == "test" else range(0)
                own = part[: len(part) - len(fixed)]
                found[name] = _as_numbers((*(self.ids[row.id] for row in own), *fixed))
        return found


def _as_numbers(numbers: Iterable[int]) -> RowNumbers:
    return np.fromiter(numbers, np.int32)


def audit_rows(examples: Sequence[Example], fixed_test: Sequence[Example], documents: Sequence[Document]) -> Audit:
    """Inspect all rows and documents once: a similarity join, a pass over the texts, and a pass over the documents."""
    rows = join_rows(examples, fixed_test)
    private: dict[int, tuple[FindingKind, ...]] = {}
    invisible: dict[int, str] = {}
    special: dict[int, str] = {}

    def inspected_texts() -> Iterator[str]:
        for i, row in enumerate(rows):
            texts = (*(message.content for message in row.messages), *row.references)
            if kinds := private_kinds(texts):
                private[i] = kinds
            others = [_FLAG.sub("", text) for text in texts if not text.isascii()]
            if hit := _first_match(_INVISIBLE, others):
                invisible[i] = hit
            if hit := _first_match(_SPECIAL, texts):
                special[i] = hit
            yield dedup_text(row)

    duplicates = find_duplicates(DedupTexts(rows), len(examples), inspected_texts())
    return Audit(
        ids={} if are_stored(rows) else {row.id: i for i, row in enumerate(examples)},
        examples=_example_duplicates(duplicates, len(examples)),
        rows=duplicates,
        private=private,
        invisible=invisible,
        special=special,
        quotes=tuple(find_quotes((row.input for row in rows), documents)),
    )


def _first_match(pattern: re.Pattern[str], texts: Sequence[str]) -> str:
    """Return the first match in the texts of a row, empty if there is none."""
    return next((hit.group() for text in texts if (hit := pattern.search(text))), "")


def _example_duplicates(duplicates: DuplicateIndex, first: int) -> DuplicateIndex:
    """Return the duplicates among the examples; they are joined again only if the fixed test set changes their common
    template."""
    if first == len(duplicates):
        return duplicates
    if duplicates.head_template == duplicates.template:
        return duplicates.head(first)
    return find_duplicates(duplicates.texts[:first])


def find_quotes(questions: Iterable[str], documents: Sequence[Document]) -> list[Quote]:
    """Find questions of at least five words that are whole sentences of a document, after normalisation; each once.

    Whole sentences only: "ask Tomasz, who runs payroll" does not contain the question "Who runs payroll?". Questions
    that begin as no sentence of the documents are not kept.
    """
    starts = {hash(start) for document in documents for start in _sentence_starts(document)}
    questions_by_start: dict[
        tuple[str, ...], dict[int, dict[int, list[tuple[list[str], int]]]]
    ] = {}  # by start, length and fingerprint
    for row, question in enumerate(questions if starts else ()):
        words = normalise_text(question).split()
        if len(words) >= _MIN_WORDS and hash(tuple(words[:_MIN_WORDS])) in starts:
            candidates = questions_by_start.setdefault(tuple(words[:_MIN_WORDS]), {}).setdefault(len(words), {})
            candidates.setdefault(_Fingerprints(words).hash_of(0, len(words)), []).append((words, row))
    found: dict[int, Quote] = {}
    at = 0
    for document in documents if questions_by_start else ():
        for section in document.sections:
            text, edges = _words_and_edges(section)
            prints = _Fingerprints(text)
            for i in sorted(edges):
                at += 1
                for length, candidates in questions_by_start.get(tuple(text[i : i + _MIN_WORDS]), {}).items():
                    if i + length not in edges:
                        continue
                    for words, row in candidates.pop(prints.hash_of(i, i + length), ()):
                        if text[i : i + length] == words:
                            found[row] = Quote(row=row, document=document.id, at=at)
    return list(found.values())


def _words_and_edges(section: Section) -> tuple[list[str], set[int]]:
    """Return the normalised words of a section and its headings, and the positions between its sentences."""
    sentences = [normalise_text(part).split() for part in (*section.path, *_SENTENCE.split(section.text))]
    return list(chain.from_iterable(sentences)), {0, *accumulate(map(len, sentences))}


def _sentence_starts(document: Document) -> Iterator[tuple[str, ...]]:
    """Yield the first words, `_MIN_WORDS` at most, after each sentence boundary."""
    for section in document.sections:
        text, edges = _words_and_edges(section)
        yield from (tuple(text[i : i + _MIN_WORDS]) for i in edges)


class _Fingerprints:
    """Rolling hashes: a number for any run of words in constant time (Karp and Rabin 1987)."""

    _BASE, _MODULUS = 1_000_003, 2**61 - 1

    def __init__(self, words: Sequence[str]) -> None:
        self._prefix_hashes, self._power = [0], [1]
        for word in words:
            self._prefix_hashes.append((self._prefix_hashes[-1] * self._BASE + hash(word)) % self._MODULUS)
            self._power.append(self._power[-1] * self._BASE % self._MODULUS)

    def hash_of(self, start: int, end: int) -> int:
        return (self._prefix_hashes[end] - self._prefix_hashes[start] * self._power[end - start]) % self._MODULUS
