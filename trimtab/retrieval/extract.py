"""Extractive question answering without a language model: score every retrieved sentence, return the best.

A score is a weighted sum of six features: embedding similarity and term overlap weighted by inverse document frequency
(each of the sentence, and of its neighbourhood), answer type, and numbers. The weights were chosen once, on public
questions (docs/benchmarks/quality.md), and are the same for all documents. Stop words, stemming and answer types are
English; for other languages similarity, terms and numbers remain.
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
from trimtab.measurement.numerals import words
from trimtab.measurement.tokens import TextToken
from trimtab.retrieval.chunk import WORDS
from trimtab.retrieval.index import Index
from trimtab.retrieval.search import candidates, neighbours
from trimtab.retrieval.sentences import can_answer, count_words

AnswerType = Literal["number", "date", "name", "method", "other"]
DEPTH = 40  # sentences scored from each of the two searches
REACH = 2  # sentences before and after one that are nearby, if they stand under the same heading
FEATURES = ("cosine", "cosine nearby", "terms", "terms nearby", "answer type", "numbers")
WEIGHTS = (10.0, 15.0, 6.0, 4.0, 3.0, 3.0)  # of the features
# Logistic regression for the probability that a sentence answers: weights of score and of the share of unknown names;
# intercept.
CALIBRATION = (0.245, -2.271, -5.691)
SURE = 0.5  # least probability at which a sentence is said to hold the answer; below it, it may

_WORD = re.compile(r"\w+(?:\.\w+)*")
_STOP_WORDS = frozenset(
    words(
        "a an the of in on at to for by with from as into than then about up out is are was were be been am do does "
        "did have has had having i me my mine we us our you your he she it its they them their his her this that these "
        "those there here and or not no nor if but so who whom whose what when where which why how many much long "
        "often old far can could may might must should would will shall any some one s t"
    )
)
_ENDINGS = {"ings": "", "ing": "", "edly": "", "ied": "y", "ed": "", "ies": "y", "es": "", "s": "", "ly": ""}
_ANSWER_TYPES: tuple[tuple[AnswerType, re.Pattern[str]], ...] = (
    (
        "date",
        re.compile(
            r"\bwhen\b|\b(?:what|which) (?:time|year|date|day|month|hour|decade|century|weekday)s?\b"
            r"|\bhow (?:late|early|soon)\b"
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
            r"|\b(?:what|which) (?:person|people|colleague|team|company|city|country|place|town|room|floor"
            r"|building|state)\b"
        ),
    ),
    (
        "method",
        re.compile(
            r"\bhow (?:do|can|could|would|should|to)\b|\b(?:what|which) (?:command|option|setting|key|flag)s?\b"
            r"|\b(?:should|must|can|do) (?:i|we) (?:add|change|enable|press|run|set|type|use|write)\b"
        ),
    ),
)
# A log of changes tells what was so in one version; only a question about changes asks for that.
_CHANGES = re.compile(r"(?:^|\W)(?:change[ _-]?logs?|changes|release[ _-]?notes)(?:\W|$)", re.I)
_ASKS_FOR_CHANGES = re.compile(
    r"\b(?:versions?|releases?|release notes|changelog|what(?:'s| is| was)? new|since|deprecated)\b|\bv?\d+\.\d"
    r"|\b(?:is|was|were|been|has|have|got) (?:added|changed|fixed|removed|renamed)\b",
    re.I,
)


class SentenceScorer:
    """Scores sentences (`chunk_document` with `words=SENTENCE`) as answers; terms are weighted by inverse document
    frequency."""

    def __init__(self, passages: Mapping[str, Passage]) -> None:
        self.passages = passages
        # The number of sentences with each stem.
        self._counts = Counter(
            word for passage in passages.values() for word in stems(passage.text) | stems(_headings(passage))
        )

    def best(self, question: str, cosines: Mapping[str, float], k: int) -> tuple[Hit, ...]:
        """Return the `k` sentences of `cosines` that most likely answer, best first; the score of a hit is that
        probability."""
        unknown = self.unknown_names(question)
        names, features_CF = self.features(question, cosines)
        scores_C = features_CF @ np.array(WEIGHTS)
        order = sorted(range(len(names)), key=lambda index: (-scores_C[index], names[index]))[:k]
        return tuple(
            Hit(
                passage=self.passages[names[index]],
                rank=rank,
                score=answer_probability(scores_C[index], unknown),
                similarity=cosines[names[index]],
            )
            for rank, index in enumerate(order, 1)
        )

    def features(self, question: str, cosines: Mapping[str, float]) -> tuple[list[str], NDArray[np.float64]]:
        """Compute the FEATURES of the candidate sentences; return their ids and the features [C, F].

        `cosines`: of the retrieved sentences, by id. Only what `can_answer` is a candidate; a log of changes only for
        a question about changes.
        """
        passages = self.passages
        with_changes = bool(_ASKS_FOR_CHANGES.search(question))
        names = [name for name in cosines if can_answer(passages[name].text)]
        names = [
            name for name in names if with_changes or not is_of_changes(passages[name].title, passages[name].document)
        ] or names
        question_terms = self._question_terms(question)
        question_tokens, kind = read(question), answer_type(question)
        question_values = {token.value for token in question_tokens}
        numbers = {token.value for token in question_tokens if token.kind in ("number", "code", "date", "time")}

        rows = []
        for name in names:
            passage = passages[name]
            around, beside = nearby(passages, passage, REACH), nearby(passages, passage, 1)
            sentence_stems = stems(passage.text) | stems(_headings(passage))
            tokens = read(passage.text)
            values = {token.value for token in tokens} | set(_WORD.findall(_headings(passage).casefold()))
            rows.append(
                (
                    cosines[name],
                    float(np.mean([cosines[other.id] for other in around if other.id in cosines])),
                    _share(question_terms, sentence_stems),
                    _share(question_terms, sentence_stems.union(*(stems(one.text) for one in beside))),
                    float(_fits_type(kind, passage.text, [one for one in tokens if one.value not in question_values])),
                    len(numbers & values) / len(numbers) if numbers else 1.0,
                )
            )
        return names, np.array(rows, dtype=float).reshape(len(names), len(FEATURES))

    def shared_terms(self, question: str, text: str) -> float:
        """Compute the share of a question's content words, weighted by inverse document frequency, that a text holds; 0
        to 1."""
        return _share(self._question_terms(question), stems(text))

    def missing_terms(self, question: str, text: str) -> tuple[str, ...]:
        """Return the content words of a question whose stems a text lacks, as written, the rarest in the documents
        first."""
        present = stems(text)
        rarity = {
            word: self._idf(stem) for word in _WORD.findall(question) if (stem := _stem(word.casefold())) not in present
        }
        return tuple(
            sorted((word for word in rarity if word.casefold() not in _STOP_WORDS), key=lambda word: -rarity[word])
        )

    def unknown_names(self, question: str) -> float:
        """Compute the share of the names in a question that occur in no document; 0 for a question without names."""
        names = names_in(question)
        return sum(not self._counts[name] for name in names) / len(names) if names else 0.0

    def _question_terms(self, question: str) -> dict[str, float]:
        """Return the stems of a question's content words with their inverse document frequencies."""
        return {word: self._idf(word) for word in content_stems(question)}

    def _idf(self, word: str) -> float:
        """Return the inverse document frequency of a stem, as in BM25."""
        count, sentences = self._counts[word], len(self.passages)
        return math.log(1 + (sentences - count + 0.5) / (count + 0.5))


def _share(question_terms: Mapping[str, float], present: frozenset[str]) -> float:
    """Compute the share of the weights in `question_terms` whose words are present; 0 without any."""
    return sum(weight for word, weight in question_terms.items() if word in present) / (
        sum(question_terms.values()) or 1.0
    )


def is_of_changes(title: str, document: str) -> bool:
    """True for a log of changes, by its title or its name."""
    return bool(_CHANGES.search(title) or _CHANGES.search(document))


class Extractor:
    """Answers questions from an index whose passages are sentences (`chunk_document` with `words=SENTENCE`)."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._scorer: SentenceScorer | None = None

    @property
    def scorer(self) -> SentenceScorer:
        """The scorer of the index's present version, built once for each version."""
        if self._scorer is None or self._scorer.passages is not self.index.passages:
            self._scorer = SentenceScorer(self.index.passages)
        return self._scorer

    def best(self, questions: Sequence[str], k: int) -> list[tuple[Hit, ...]]:
        """Return the `k` sentences that most likely answer each question, best first; the score of a hit is that
        probability."""
        found = candidates(self.index, questions, DEPTH, reach=REACH)
        return [self.scorer.best(question, cosines, k) for question, cosines in zip(questions, found, strict=True)]


def in_context(passages: Mapping[str, Passage], sentence: Passage) -> str:
    """Return a sentence with the one before and the one after it, as far as they stand under its heading and all have
    at most WORDS words."""
    found = nearby(passages, sentence, 1)
    room = WORDS - count_words(sentence.text)
    kept = []
    for other in found:
        if other.id != sentence.id:
            size = count_words(other.text)
            if size > room:
                continue
            room -= size
        kept.append(other.text)
    return "\n".join(kept)


def nearby(passages: Mapping[str, Passage], sentence: Passage, reach: int) -> list[Passage]:
    """Return a sentence with up to `reach` before and after it under the same heading, in their order."""
    found = map(passages.get, neighbours(sentence.id, reach))
    return [other for other in found if other and other.path == sentence.path]


def answer_probability(score: float, unknown: float = 0.0) -> float:
    """Return the probability that a sentence answers; `unknown`: share of the question's names that occur in no
    document."""
    score_weight, unknown_weight, intercept = CALIBRATION
    return 1 / (1 + math.exp(-(score_weight * score + unknown_weight * unknown + intercept)))


def names_in(question: str) -> frozenset[str]:
    """Return the stems of the names in a question: capitalised words that begin no sentence."""
    read_words = (token.value for token in read(question) if token.kind == "word" and token.capital and not token.start)
    return frozenset(_stem(word) for word in read_words if word not in _STOP_WORDS)


def answer_type(question: str) -> AnswerType:
    """Return the answer type of a question: a number, a date or time, a name, a method, or other."""
    text = question.casefold()
    return next((kind for kind, pattern in _ANSWER_TYPES if pattern.search(text)), "other")


def matches_answer_type(kind: AnswerType, tokens: Sequence[TextToken]) -> bool:
    """True if the tokens of a sentence contain something of the answer type."""
    if kind == "number":
        return any(token.kind in ("number", "ordinal", "code") for token in tokens)
    if kind == "date":
        return any(
            token.kind in ("date", "time", "weekday")
            or (token.kind == "number" and (token.unit or len(token.value) == 4))
            for token in tokens
        )
    return kind == "name" and any(token.kind == "word" and token.capital and not token.start for token in tokens)


def _fits_type(kind: AnswerType, text: str, tokens: Sequence[TextToken]) -> bool:
    """True if a sentence contains something of the answer type; for a method, code."""
    return "`" in text if kind == "method" else matches_answer_type(kind, tokens)


def content_stems(text: str) -> frozenset[str]:
    """Return the stems of a text without stop words; with them if there are no others."""
    kept = [word for word in _WORD.findall(text.casefold()) if word not in _STOP_WORDS]
    return frozenset(map(_stem, kept)) or stems(text)


@lru_cache(maxsize=65536)
def stems(text: str) -> frozenset[str]:
    """Return the stems of the words of a text."""
    return frozenset(map(_stem, _WORD.findall(text.casefold())))


def _stem(word: str) -> str:
    """Strip an English ending, so that `applies`, `applied` and `apply` have one stem."""
    for ending, replacement in _ENDINGS.items():
        if word.endswith(ending) and len(word) - len(ending) >= (4 if ending == "ly" else 3):
            word = word[: -len(ending)] + replacement
            break
    return word.rstrip("e") if len(word) > 3 else word


def _headings(passage: Passage) -> str:
    return " ".join((passage.title, *passage.path))
