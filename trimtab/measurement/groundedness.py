"""Tells of each sentence of an answer whether the retrieved passages support it, contradict it, or do not say it.

By facts and words, without a model: what no passage says in nearly these words counts as not there, so that the share
of supported sentences is a floor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from trimtab.base.records import Answer, Hit
from trimtab.measurement.citations import SUPPORT, content_words, supporting
from trimtab.measurement.contains import disagrees, facts_stand_in, sentences
from trimtab.measurement.metrics import has_abstained

# Least share of a sentence's content words that a passage must hold to support it (`benchmarks/groundedness.py`).
SAID = 2 / 3
Groundedness = Literal["supported", "contradicted", "not_there"]


def groundedness_of(answer: str, hits: Sequence[Hit], unknown: str, question: str = "") -> list[Groundedness]:
    """Return the groundedness of each sentence that states something: no questions, no abstention, and nothing that
    repeats the question.
    """
    found: list[Groundedness] = []
    passages = [one for hit in hits for one in sentences(hit.passage.text)]
    known = content_words(question)
    for sentence in sentences(answer):
        words = content_words(sentence)
        if sentence.endswith("?") or has_abstained(sentence, unknown) or not words - known:
            continue
        if supporting(sentence, hits, unknown, question, least=SAID):
            found.append("supported")
        elif any(facts_stand_in(hit.passage.text, sentence, question) for hit in hits):
            found.append("not_there")
        else:
            other = any(_contradicts(passage, sentence, words, question) for passage in passages)
            found.append("contradicted" if other else "not_there")
    return found


def groundedness_shares(answers: Sequence[Answer], unknown: str) -> dict[str, float]:
    """Return the share of sentences of each groundedness, as `sentences_supported` and so on; empty where no answer
    that was given with passages states anything.
    """
    counts: Counter[Groundedness] = Counter()
    for answer in answers:
        if answer.hits and not answer.abstained:
            counts.update(groundedness_of(answer.answer, answer.hits, unknown, answer.input))
    kinds: tuple[Groundedness, ...] = ("supported", "contradicted", "not_there")
    total = counts.total()
    return {f"sentences_{kind}": counts[kind] / total for kind in kinds} if total else {}


def _contradicts(passage: str, sentence: str, words: set[str], question: str) -> bool:
    """True if a sentence of a passage has at least half of these words, and other numbers, dates or times."""
    shared = len(words & content_words(passage)) / len(words)
    return shared >= SUPPORT and disagrees(sentence, (passage,), question)
