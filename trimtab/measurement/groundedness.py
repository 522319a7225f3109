"""Tells of each sentence of an answer whether the retrieved passages support it, contradict it, or do not say it.

A judge says so where a task has one that is asked (`judge.py`). Else facts and words tell, without a model: what no
passage says in nearly these words counts as not there, so that the share of supported sentences is a floor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from trimtab.base.records import Answer, Hit
from trimtab.measurement.citations import SUPPORT, content_words, supporting
from trimtab.measurement.contains import disagrees, facts_stand_in, sentences
from trimtab.measurement.metrics import has_abstained

# Least share of a sentence's content words that a passage must hold to support it (`benchmarks/groundedness.py`).
SAID = 2 / 3
Groundedness = Literal["supported", "contradicted", "not_there"]
# Answers with passages, and the text of an abstention -> the groundedness of each of their `statements`.
SentenceJudge = Callable[[Sequence[Answer], str], Sequence[Groundedness]]
JUDGED_SENTENCES = "sentences_judged"  # figure: how many the judge was asked about; absent where facts and words tell


def statements(answer: str, unknown: str, question: str = "") -> list[str]:
    """Return the sentences of an answer that state something: no questions, no abstention, and nothing that repeats the
    question.
    """
    known = content_words(question)
    return [
        sentence
        for sentence in sentences(answer)
        if not sentence.endswith("?") and not has_abstained(sentence, unknown) and content_words(sentence) - known
    ]


def groundedness_of(answer: str, hits: Sequence[Hit], unknown: str, question: str = "") -> list[Groundedness]:
    """Return the groundedness of each of an answer's `statements` by facts and words."""
    found: list[Groundedness] = []
    passages = [one for hit in hits for one in sentences(hit.passage.text)]
    for sentence in statements(answer, unknown, question):
        words = content_words(sentence)
        if supporting(sentence, hits, unknown, question, least=SAID):
            found.append("supported")
        elif any(facts_stand_in(hit.passage.text, sentence, question) for hit in hits):
            found.append("not_there")
        else:
            other = any(_contradicts(passage, sentence, words, question) for passage in passages)
            found.append("contradicted" if other else "not_there")
    return found


def groundedness_shares(
    answers: Sequence[Answer], unknown: str, judge: SentenceJudge | None = None
) -> dict[str, float]:
    """Return the share of sentences of each groundedness, as `sentences_supported` and so on; empty where no answer
    that was given with passages states anything. By `judge`, with the number of sentences that it was asked about as
    JUDGED_SENTENCES, or without one by facts and words.
    """
    shown = [answer for answer in answers if answer.hits and not answer.abstained]
    counts = Counter((judge or _by_facts)(shown, unknown))
    kinds: tuple[Groundedness, ...] = ("supported", "contradicted", "not_there")
    total = counts.total()
    shares = {f"sentences_{kind}": counts[kind] / total for kind in kinds} if total else {}
    return shares | ({JUDGED_SENTENCES: float(total)} if judge and total else {})


def _by_facts(answers: Sequence[Answer], unknown: str) -> list[Groundedness]:
    return [kind for answer in answers for kind in groundedness_of(answer.answer, answer.hits, unknown, answer.input)]


def _contradicts(passage: str, sentence: str, words: set[str], question: str) -> bool:
    """True if a sentence of a passage has at least half of these words, and other numbers, dates or times."""
    shared = len(words & content_words(passage)) / len(words)
    return shared >= SUPPORT and disagrees(sentence, (passage,), question)
