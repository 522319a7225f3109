"""The sentence of the documents that answers a question, without a language model: by likeness, words, numbers and the kind of question.

Each sentence that either search finds is scored by five features; the score's weights were fitted once, on public questions
(`benchmarks/extract.py`), and are the same for all documents. Stop words, endings of words and kinds of question are English; in
another language likeness, words and numbers remain.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trimtab.base.records import Hit, Passage
from trimtab.measurement.facts import read
from trimtab.measurement.lexemes import Token
from trimtab.retrieval.index import Index
from trimtab.retrieval.search import candidates

Asked = Literal["number", "date", "name", "other"]
DEPTH = 20  # sentences of either search that are scored
FEATURES = ("cosine", "words", "words nearby", "kind", "numbers")
WEIGHTS = (10.2, 11.1, 3.7, 3.4, 2.9)  # of the features, in the order of the sentences
# To the log-odds that a sentence answers: weights of its score, of its cosine, and of the share of the question's names that stand in
# no document; and an offset.
SURE = (0.345, 3.41, -4.36, -8.53)

_WORD = re.compile(r"\w+(?:\.\w+)*")
_STOP = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "in",
        "on",
        "at",
        "to",
        "for",
        "by",
        "with",
        "from",
        "as",
        "into",
        "than",
        "then",
        "about",
        "up",
        "out",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "am",
        "do",
        "does",
        "did",
        "have",
        "has",
        "had",
        "having",
        "i",
        "me",
        "my",
        "mine",
        "we",
        "us",
        "our",
        "you",
        "your",
        "he",
        "she",
        "it",
        "its",
        "they",
        "them",
        "their",
        "his",
        "her",
        "this",
        "that",
        "these",
        "those",
        "there",
        "here",
        "and",
        "or",
        "not",
        "no",
        "nor",
        "if",
        "but",
        "so",
        "who",
        "whom",
        "whose",
        "what",
        "when",
        "where",
        "which",
        "why",
        "how",
        "many",
        "much",
        "long",
        "often",
        "old",
        "far",
        "can",
        "could",
        "may",
        "might",
        "must",
        "should",
        "would",
        "will",
        "shall",
        "any",
        "some",
        "one",
        "s",
        "t",
    ]
)
_ENDINGS = {"ings": "", "ing": "", "edly": "", "ied": "y", "ed": "", "ies": "y", "es": "", "s": "", "ly": ""}
_KINDS: tuple[tuple[Asked, re.Pattern[str]], ...] = (
    (
        "date",
        re.compile(
            r"\bwhen\b|\b(?:what|which) (?:time|year|date|day|month|hour|decade|century|weekday)s?\b|\bhow (?:late|early|soon)\b"
        ),
    ),
    (
        "number",
        re.compile(
            r"\bhow (?:many|much|long|old|far|often|high|large|big|tall|wide|heavy|fast)\b|\bup to (?:what|how)\b"
            r"|\b(?:what|which) (?:percent|percentage|number|share|size|amount|sum|price|fraction|version|release)\b"
        ),
    ),
    (
        "name",
        re.compile(
            r"\bwho\b|\bwho's\b|\bwhom\b|\bwhose\b|\bwhere\b"
            r"|\b(?:what|which) (?:person|people|colleague|team|company|city|country|place|town|room|floor|building|state)\b"
        ),
    ),
)


class Extractor:
    """Answers from an index whose passages are sentences (`chunk` with `words=SENTENCE`)."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._of: Mapping[str, Passage] | None = None  # the passages that `_rarity` and `_nearby` were made of
        self._counts: Counter[str] = Counter()

    def best(self, questions: Sequence[str], k: int) -> list[tuple[Hit, ...]]:
        """The `k` sentences that most likely answer each question, best first; the score is the chance that the sentence does."""
        found = []
        for question, alike in zip(questions, candidates(self.index, questions, DEPTH), strict=True):
            strange = self.strange_names(question)
            names, features_CF = self.features(question, alike)
            scores_C = features_CF @ np.array(WEIGHTS)
            order = sorted(range(len(names)), key=lambda place: (-scores_C[place], names[place]))[:k]
            found.append(
                tuple(
                    Hit(
                        passage=self.index.passages[names[place]],
                        rank=rank,
                        score=chance(scores_C[place], features_CF[place, 0], strange),
                    )
                    for rank, place in enumerate(order, 1)
                )
            )
        return found

    def features(self, question: str, alike: Mapping[str, float]) -> tuple[list[str], NDArray[np.float64]]:
        """The ids of the sentences that may answer, and their FEATURES [C, F]; `alike`: cosines of what the searches found.

        A sentence that asks is left out: in a list of questions the answer is the one behind it.
        """
        self._count()
        passages = self.index.passages
        names = [name for name in alike if not passages[name].text.rstrip().endswith("?")]
        wanted = {word: self._rarity(word) for word in content(question)}
        whole = sum(wanted.values()) or 1.0
        asked, kind = read(question), kind_of(question)
        known = {token.value for token in asked}
        numbers = {token.value for token in asked if token.kind in ("number", "code", "date", "time")}

        def share(words: frozenset[str]) -> float:
            return sum(weight for word, weight in wanted.items() if word in words) / whole

        rows = []
        for name in names:
            passage = passages[name]
            own = stems(passage.text) | stems(_headings(passage))
            said = read(passage.text)
            values = {token.value for token in said} | set(_WORD.findall(_headings(passage).casefold()))
            rows.append(
                (
                    alike[name],
                    share(own),
                    share(own | self._nearby(passage)),
                    float(gives(kind, [token for token in said if token.value not in known])),
                    len(numbers & values) / len(numbers) if numbers else 1.0,
                )
            )
        return names, np.array(rows, dtype=float).reshape(len(names), len(FEATURES))

    def strange_names(self, question: str) -> float:
        """The share of the question's names that stand in no document; 0 without names."""
        self._count()
        named = names_in(question)
        return sum(not self._counts[name] for name in named) / len(named) if named else 0.0

    def _count(self) -> None:
        """Count in how many sentences each word stands, once for each version of the index."""
        if self._of is not self.index.passages:
            self._of = self.index.passages
            self._counts = Counter(
                word for one in self._of.values() for word in stems(one.text) | stems(_headings(one))
            )

    def _rarity(self, word: str) -> float:
        """The word's inverse document frequency, as BM25 has it."""
        count, sentences = self._counts[word], len(self.index.passages)
        return math.log(1 + (sentences - count + 0.5) / (count + 0.5))

    def _nearby(self, passage: Passage) -> frozenset[str]:
        """The words of the sentences before and behind, under the same heading."""
        document, _, number = passage.id.rpartition("#")
        beside = (self.index.passages.get(f"{document}#{int(number) + step}") for step in (-1, 1))
        return frozenset().union(*(stems(one.text) for one in beside if one and one.path == passage.path))


def chance(score: float, cosine: float, strange: float = 0.0) -> float:
    """The chance that a sentence answers, by its score, its cosine to the question, and the share of the question's names that nobody knows."""
    of_score, of_cosine, of_strange, offset = SURE
    return 1 / (1 + math.exp(-(of_score * score + of_cosine * cosine + of_strange * strange + offset)))


def names_in(question: str) -> frozenset[str]:
    """The stems of the words of a question that a capital within a sentence marks as names."""
    read_words = (token.value for token in read(question) if token.kind == "word" and token.capital and not token.start)
    return frozenset(_stem(word) for word in read_words if word not in _STOP)


def kind_of(question: str) -> Asked:
    """What a question asks for: a number, a date or time, a name, or something else."""
    said = question.casefold()
    return next((kind for kind, pattern in _KINDS if pattern.search(said)), "other")


def gives(kind: Asked, said: Sequence[Token]) -> bool:
    """Whether what a sentence says, beside the question's own words, is of the kind that was asked for."""
    if kind == "number":
        return any(token.kind in ("number", "ordinal", "code") for token in said)
    if kind == "date":
        return any(
            token.kind in ("date", "time", "weekday")
            or (token.kind == "number" and (token.unit or len(token.value) == 4))
            for token in said
        )
    return kind == "name" and any(token.kind == "word" and token.capital and not token.start for token in said)


def content(text: str) -> frozenset[str]:
    """The stems of a text's words but for stop words; of all its words where nothing else is left."""
    words = [word for word in _WORD.findall(text.casefold()) if word not in _STOP]
    return frozenset(map(_stem, words)) or stems(text)


@lru_cache(maxsize=65536)
def stems(text: str) -> frozenset[str]:
    """The stems of a text's words."""
    return frozenset(map(_stem, _WORD.findall(text.casefold())))


def _stem(word: str) -> str:
    """A word without an English ending, so that `applies`, `applied` and `apply` are one."""
    for ending, instead in _ENDINGS.items():
        if word.endswith(ending) and len(word) - len(ending) >= (4 if ending == "ly" else 3):
            word = word[: -len(ending)] + instead
            break
    return word.rstrip("e") if len(word) > 3 else word


def _headings(passage: Passage) -> str:
    return " ".join((passage.title, *passage.path))
