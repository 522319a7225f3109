"""Compares documents by what they state, sentence by sentence: other words for a fact, and another place, change
nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from trimtab.base.records import Document, Example, Passage
from trimtab.measurement.contains import stands_in
from trimtab.measurement.facts import read
from trimtab.measurement.ranking import holds
from trimtab.retrieval.chunk import WORDS
from trimtab.retrieval.extract import content_stems
from trimtab.retrieval.sentences import sentence_spans

_NEGATIONS = frozenset({"no", "not", "never", "none", "without", "cannot"})
LEAST_SHARED = 0.5  # of the words of the shorter sentence, that two sentences with the same facts share


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence, and what it states: numbers, dates and codes with their stance, its names, and its other words."""

    text: str
    facts: frozenset[tuple[str, ...]]
    names: frozenset[str]
    words: frozenset[str]

    def agrees(self, other: Statement) -> bool:
        """True if both have the same facts and names, and at least half of the shorter one's words; all of them where
        words alone tell what is stated."""
        if self.facts != other.facts or not (self.names <= other.words and other.names <= self.words):
            return False
        if not (self.facts or self.names):
            return self.words == other.words
        shorter = min(len(self.words), len(other.words))
        return len(self.words & other.words) >= LEAST_SHARED * shorter


def statement_of(text: str) -> Statement:
    """Return a sentence with what it states."""
    tokens = read(text)
    words = [token for token in tokens if token.kind == "word"]
    facts: set[tuple[str, ...]] = {
        (token.kind, token.value, token.unit, token.stance, token.bound) for token in tokens if token.kind != "word"
    }
    facts |= {("not",) for token in words if token.denied or token.value in _NEGATIONS}
    return Statement(
        text=text,
        facts=frozenset(facts),
        names=content_stems(" ".join(token.value for token in words if token.capital and not token.start)),
        words=content_stems(" ".join(token.value for token in words)),
    )


@lru_cache(maxsize=16_384)
def statements_in(text: str) -> tuple[Statement, ...]:
    """Return the sentences of a text, each once, with what they state."""
    return tuple(dict.fromkeys(statement_of(text[start:end]) for start, end in sentence_spans(text, WORDS)))


class StatedFacts:
    """What documents state now, to be asked whether they still state what former documents did.

    A sentence is looked for in the section that it stood in; where that is gone, under its heading in any document;
    where that is gone, too, in its document. Sentences are read when they are first asked for.
    """

    def __init__(self, before: Sequence[Document], now: Sequence[Document]) -> None:
        self._before = {document.id: document.digest for document in before}
        self._now = {document.id: document for document in now}
        self._sections: dict[tuple[str, ...], list[str]] = {}
        for document in now:
            for section in document.sections:
                for place in ((document.id, *section.path), ("", _heading(section.path, document.title))):
                    self._sections.setdefault(place, []).append(section.text)

    def is_unchanged(self, document: str) -> bool:
        """True if a document is the same, byte for byte."""
        return document in self._now and self._now[document].digest == self._before.get(document)

    def lost(self, passage: Passage) -> list[Statement]:
        """Return the sentences of a former passage that no document states any more, in whatever words."""
        if self.is_unchanged(passage.document):
            return []
        today = self._today(passage)
        return [one for one in statements_in(passage.text) if not any(map(one.agrees, today))]

    def holds_answer(self, passage: Passage, answers: Sequence[str]) -> bool | None:
        """True if what held an answer in a former passage still does; None if nothing there did.

        A sentence still holds it if it is stated, or if the sentence that is most like it today holds the answer.
        """
        held = [one for one in statements_in(passage.text) if any(stands_in(one.text, answer) for answer in answers)]
        if not held:
            return None
        if self.is_unchanged(passage.document):
            return True
        today = self._today(passage)
        return any(any(map(one.agrees, today)) or _most_like_holds(one, today, answers) for one in held)

    def _today(self, passage: Passage) -> list[Statement]:
        """Return the sentences among which those of a former passage would stand today."""
        texts = self._sections.get((passage.document, *passage.path))
        texts = texts or self._sections.get(("", _heading(passage.path, passage.title)))
        if texts is None:
            document = self._now.get(passage.document)
            texts = [section.text for section in document.sections] if document else []
        return [statement for text in texts for statement in statements_in(text)]


def _heading(path: Sequence[str], title: str) -> str:
    return " ".join((path[-1] if path else title).casefold().split())


def _most_like_holds(statement: Statement, today: Sequence[Statement], answers: Sequence[str]) -> bool:
    """True if the sentence with most words of a former one holds one of the answers."""
    nearest = max(today, key=lambda one: len(one.words & statement.words), default=None)
    if nearest is None or not nearest.words & statement.words:
        return False
    return any(stands_in(nearest.text, answer) for answer in answers)


def outdated_rows(
    rows: Sequence[Example], facts: StatedFacts, found: Callable[[Sequence[Example]], Sequence[Sequence[Passage]]]
) -> tuple[str, ...]:
    """Return the ids of rows whose right answer stood in the former documents, and stands there no more.

    `found`: the former passages of each question, best first. An answer stood in the passages that the row names, else
    in the first that holds it. A row whose answer no passage held says nothing, and stays.
    """
    outdated = []
    for row, passages in zip(rows, found(rows) if rows else (), strict=True):
        named = [one for one in passages if any(holds(one, name) for name in row.passages)]
        stands = (facts.holds_answer(passage, row.references) for passage in (*named, *passages))
        if next((one for one in stands if one is not None), None) is False:
            outdated.append(row.id)
    return tuple(outdated)
