"""Selects the retrieved passages that an answer can cite."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.base.records import Hit
from trimtab.measurement.contains import facts_stand_in, sentences, sentences_for, stands_in
from trimtab.measurement.metrics import has_abstained, squad_normalised

SUPPORT = 0.5  # least share of an answer's content words that a passage must hold to be cited for it
FUNCTION_WORD = 3  # letters up to which a word is taken for a function word: is, the, on, von, les


def supporting(
    answer: str, hits: Sequence[Hit], unknown: str, question: str = "", *, least: float = SUPPORT
) -> tuple[int, ...]:
    """Return the ranks of the passages with a sentence that contains the answer, else that of the passage with most of
    its content words.

    In either case all its numbers, dates and names stand there, but for those of the question, and the words are
    looked for in the sentences that hold one of them: a number that stands there for something else supports
    nothing. None for an abstention or the question said over again, and none where no passage holds at least the share
    `least` of those words.
    """
    if not answer.strip() or has_abstained(answer, unknown) or squad_normalised(answer) == squad_normalised(question):
        return ()
    texts = {hit.rank: hit.passage.text for hit in hits}
    whole = tuple(
        rank
        for rank, text in texts.items()
        if answer.strip() == text.strip() or any(stands_in(one, answer) for one in sentences(text))
    )
    words = content_words(answer)
    if whole or not words:
        return whole
    holding = [rank for rank, text in texts.items() if facts_stand_in(text, answer, question)]
    shares = {
        rank: len(words & content_words(" ".join(sentences_for(texts[rank], answer)))) / len(words) for rank in holding
    }
    best = max(shares, key=lambda rank: shares[rank], default=None)
    return (best,) if best is not None and shares[best] >= least else ()


def used_sentences(answer: str, passage: str) -> tuple[str, ...]:
    """Return the sentences of a cited passage that contain the answer, else those with its facts and any of its content
    words."""
    whole = tuple(one for one in sentences(passage) if stands_in(one, answer))
    if whole:
        return whole
    words = content_words(answer)
    return tuple(one for one in sentences_for(passage, answer) if words & content_words(one))


def content_words(text: str) -> set[str]:
    """Return the words of a text that are not function words, and its numbers."""
    return {word for word in squad_normalised(text).split() if len(word) > FUNCTION_WORD or not word.isalpha()}
