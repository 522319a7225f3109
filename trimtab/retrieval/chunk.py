"""Cuts documents into passages: whole paragraphs if they fit, never across a heading, verbatim."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trimtab.base.grammar import SENTENCE
from trimtab.base.records import Document, Passage
from trimtab.retrieval.sentences import SENTENCE_END, Span, count_words, sentence_spans, split_span, word_runs

WORDS = 120  # of a passage
OVERLAP_FRACTION = 6  # a passage repeats at most a sixth of its length from the one before

_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n\s*")


def chunk_document(document: Document, *, words: int = WORDS, overlap: int | None = None) -> tuple[Passage, ...]:
    """Cut a document into passages of about `words` words, at most `words + overlap`, in reading order; ids are
    `{document id}#{n}`.

    Each passage lies inside one section and carries its heading path; short sections stay passages of their own, empty
    ones give none. Paragraphs are packed whole, longer ones are cut between sentences, and sentences only if they are
    longer than a passage. A passage that continues a section repeats the last whole sentences of the one before it, up
    to `overlap` words (default: a sixth of `words`). With `words=SENTENCE` (1) each sentence is a passage, cut only if
    it has more than WORDS words.
    """
    overlap = default_overlap(words) if overlap is None else overlap
    passages: list[Passage] = []
    for section in document.sections:
        for start, end in _spans(section.text, words, overlap):
            passages.append(
                Passage(
                    id=f"{document.id}#{len(passages)}",
                    document=document.id,
                    title=document.title,
                    path=section.path,
                    text=section.text[start:end],
                    source=document.source,
                )
            )
    return tuple(passages)


def default_overlap(words: int) -> int:
    """Return the words that a passage of `words` words may repeat from the one before it."""
    return words // OVERLAP_FRACTION


def _spans(text: str, words: int, overlap: int) -> Iterator[Span]:
    """Yield the passages of one section as spans of its text, without outer white space."""
    if words == SENTENCE:
        yield from sentence_spans(text, WORDS)
        return
    first: int | None = None
    last, words_held = 0, 0
    for start, end in _pieces(text, words):
        count = count_words(text[start:end])
        if first is not None and words_held + count > words:
            yield first, last
            first, words_held = _overlap_start(text, (first, last), overlap, start), 0
        first = start if first is None else first
        last, words_held = end, words_held + count
    if first is not None:
        yield first, last


def _overlap_start(text: str, span: Span, overlap: int, next_start: int) -> int:
    """Return the start of the next passage: the earliest sentence of `span` from which at most `overlap` words are
    left."""
    for start, _ in list(split_span(text, span, SENTENCE_END))[1:]:
        if count_words(text[start : span[1]]) <= overlap:
            return start
    return next_start


def _pieces(text: str, words: int) -> Iterator[Span]:
    """Yield the units that are never cut further: paragraphs of up to `words` words, else sentences, else runs of
    words."""
    for paragraph in split_span(text, (0, len(text)), _PARAGRAPH_END):
        if count_words(text[slice(*paragraph)]) <= words:
            yield paragraph
            continue
        for sentence in split_span(text, paragraph, SENTENCE_END):
            yield from word_runs(text, sentence, words)
