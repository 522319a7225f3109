"""Collects the facts about a task's rows and documents in one pass; checks, leakage and split interpret them later."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain

from trimtab.base.records import Document, Example, Split
from trimtab.data.duplicates import DuplicateIndex, dedup_text, find_duplicates, normalise_text
from trimtab.data.privacy import FindingKind, private_kinds
from trimtab.data.shingles import without_template

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
    token.
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
        first, count = len(self.examples.texts), len(self.rows.texts)
        fixed = test[len(test) - (count - first) :]
        return replace(self, test_ids={row.id: first + n for n, row in enumerate(fixed)})

    def row_numbers(self, splits: Mapping[Split, Sequence[Example]]) -> dict[Split, tuple[int, ...]]:
        """Return the number of each row of the splits.

        The fixed test set ends test, whatever its rows were renamed to, unless it is known by ids.
        """
        if self.test_ids:
            known = {**self.ids, **self.test_ids}
            return {name: tuple(known[row.id] for row in part) for name, part in splits.items()}
        first, count = len(self.examples.texts), len(self.rows.texts)
        fixed = range(first, count)
        found: dict[Split, tuple[int, ...]] = {}
        for name, part in splits.items():
            own = part[: len(part) - len(fixed)] if name == "test" else part
            found[name] = (*(self.ids[row.id] for row in own), *(fixed if name == "test" else ()))
        return found


def audit_rows(examples: Sequence[Example], fixed_test: Sequence[Example], documents: Sequence[Document]) -> Audit:
    """Inspect all rows and documents once: a similarity join, a pass over the texts, and a pass over the documents."""
    rows = (*examples, *fixed_test)
    first = len(examples)
    duplicates = find_duplicates([dedup_text(row) for row in rows], first)
    texts = [(*(message.content for message in row.messages), *row.references) for row in rows]
    private = ((i, private_kinds(row_texts)) for i, row_texts in enumerate(texts))
    return Audit(
        ids={row.id: i for i, row in enumerate(examples)},
        examples=_example_duplicates(duplicates, first),
        rows=duplicates,
        private={i: kinds for i, kinds in private if kinds},
        invisible=_first_matches(_INVISIBLE, ([_FLAG.sub("", text) for text in row_texts] for row_texts in texts)),
        special=_first_matches(_SPECIAL, texts),
        quotes=tuple(find_quotes([row.input for row in rows], documents)),
    )


def _example_duplicates(duplicates: DuplicateIndex, first: int) -> DuplicateIndex:
    """Return the duplicates among the examples; they are joined again only if the fixed test set changes their common
    template."""
    if first == len(duplicates.texts):
        return duplicates
    words = list(dict.fromkeys(duplicates.normalised[:first]))
    shared = dict(zip(duplicates.normalised, duplicates.stripped, strict=True))
    if without_template(words) == [shared[text] for text in words]:
        return duplicates.head(first)
    return find_duplicates(duplicates.texts[:first])


def _first_matches(pattern: re.Pattern[str], texts: Iterable[Sequence[str]]) -> dict[int, str]:
    """Return the first match in the texts of each row that has one."""
    firsts = ((i, next((hit for text in own if (hit := pattern.search(text))), None)) for i, own in enumerate(texts))
    return {i: hit.group() for i, hit in firsts if hit}


def find_quotes(questions: Sequence[str], documents: Sequence[Document]) -> list[Quote]:
    """Find questions of at least five words that are whole sentences of a document, after normalisation; each once.

    Whole sentences only: "ask Tomasz, who runs payroll" does not contain the question "Who runs payroll?".
    """
    questions_by_start: dict[
        tuple[str, ...], dict[int, dict[int, list[tuple[list[str], int]]]]
    ] = {}  # by start, length and fingerprint
    for row, question in enumerate(questions if documents else ()):
        words = normalise_text(question).split()
        if len(words) >= _MIN_WORDS:
            candidates = questions_by_start.setdefault(tuple(words[:_MIN_WORDS]), {}).setdefault(len(words), {})
            candidates.setdefault(_Fingerprints(words).hash_of(0, len(words)), []).append((words, row))
    found: dict[int, Quote] = {}
    at = 0
    for document in documents if questions_by_start else ():
        for section in document.sections:
            sentences = [normalise_text(part).split() for part in (*section.path, *_SENTENCE.split(section.text))]
            text = list(chain.from_iterable(sentences))
            edges, prints = {0, *accumulate(map(len, sentences))}, _Fingerprints(text)
            for i in sorted(edges):
                at += 1
                for length, candidates in questions_by_start.get(tuple(text[i : i + _MIN_WORDS]), {}).items():
                    if i + length not in edges:
                        continue
                    for words, row in candidates.pop(prints.hash_of(i, i + length), ()):
                        if text[i : i + length] == words:
                            found[row] = Quote(row=row, document=document.id, at=at)
    return list(found.values())


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
