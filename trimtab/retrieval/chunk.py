"""Cuts documents into passages: whole paragraphs if they fit, never across a heading, verbatim."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trimtab.base.grammar import SENTENCE
from trimtab.base.records import Document, Passage

Span = tuple[int, int]

WORDS = 120  # of a passage
OVERLAP_FRACTION = 6  # a passage repeats at most a sixth of its length from the one before

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
# A word has at most 40 characters, so that a long URL or a blob cannot make a passage of any size; in scripts without
# spaces every character counts as a word.
_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]{{1,40}}")
_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n\s*")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\n\s*")
# A full stop after one of these or after an initial ends no sentence; neither does a line that continues in lower case.
_ABBREVIATED = re.compile(
    r"\b(?:[A-Z]|(?i:dr|mr|mrs|ms|prof|st|mt|no|nos|vs|cf|eg|e\.g|ie|i\.e|approx|fig|inc|ltd|jr|sr|dept|u\.s|u\.k"
    r"|a\.d|b\.c))\.$"
)


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
        for sentence in _sentences(text, (0, len(text))):
            yield from _word_runs(text, sentence, WORDS)
        return
    first: int | None = None
    last, words_held = 0, 0
    for start, end in _pieces(text, words):
        count = _count_words(text[start:end])
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
    for start, _ in list(_split_span(text, span, _SENTENCE_END))[1:]:
        if _count_words(text[start : span[1]]) <= overlap:
            return start
    return next_start


def _pieces(text: str, words: int) -> Iterator[Span]:
    """Yield the units that are never cut further: paragraphs of up to `words` words, else sentences, else runs of
    words."""
    for paragraph in _split_span(text, (0, len(text)), _PARAGRAPH_END):
        if _count_words(text[slice(*paragraph)]) <= words:
            yield paragraph
            continue
        for sentence in _split_span(text, paragraph, _SENTENCE_END):
            yield from _word_runs(text, sentence, words)


def _sentences(text: str, span: Span) -> Iterator[Span]:
    """Split a span into sentences. Abbreviations and wrapped lines end no sentence."""
    first: int | None = None
    last = 0
    for start, end in _split_span(text, span, _SENTENCE_END):
        if first is not None and not _continues(text, last, start):
            yield first, last
            first = None
        first, last = start if first is None else first, end
    if first is not None:
        yield first, last


def _continues(text: str, end: int, start: int) -> bool:
    """True if a sentence that was split at `end` continues at `start`."""
    between = text[end:start]
    if between.count("\n") > 1:
        return False
    if "\n" in between and text[end - 1] not in ".!?…:;":
        return text[start].islower()
    return bool(_ABBREVIATED.search(text, max(0, end - 12), end)) or (text[end - 1] == "." and text[start].islower())


def _word_runs(text: str, span: Span, words: int) -> Iterator[Span]:
    """Split a span into runs of at most `words` words."""
    word_matches = list(_WORD.finditer(text, *span))
    for index in range(0, len(word_matches), words):
        run = word_matches[index : index + words]
        yield run[0].start(), run[-1].end()


def _split_span(text: str, span: Span, between: re.Pattern[str]) -> Iterator[Span]:
    """Yield the non-empty parts of `span` between matches, without outer white space; a match's own marks stay."""
    start = span[0]
    ends = [match.start() + len(match.group().rstrip()) for match in between.finditer(text, *span)]
    for end in (*ends, span[1]):
        part = text[start:end]
        if part.strip():
            yield start + len(part) - len(part.lstrip()), start + len(part.rstrip())
        start = end


def _count_words(text: str) -> int:
    return sum(1 for _ in _WORD.finditer(text))
