"""Cuts a text into sentences that can stand alone: wrapped lines are joined, and what introduces stands with what it
introduces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from trimtab.measurement.numerals import words

Span = tuple[int, int]
Kind = Literal["text", "item", "row", "code", "mark", "blank"]

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
# A word has at most 40 characters, so that a long URL or a blob cannot make a passage of any size; in scripts without
# spaces every character counts as a word.
WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]{{1,40}}")
SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\n\s*")
_SENTENCE_END_IN_LINES = re.compile(r"(?<=[.!?…])[\"'”’)\]*_`]*\s+|(?<=[。！？])")
# A full stop after one of these or after an initial ends no sentence; neither does a line that continues in lower case.
_ABBREVIATED = re.compile(
    r"\b(?:[A-Z]|(?i:dr|mr|mrs|ms|prof|st|mt|no|nos|vs|cf|eg|e\.g|ie|i\.e|etc|approx|fig|inc|ltd|jr|sr|dept|u\.s|u\.k"
    r"|a\.d|b\.c))\.$"
)
_ITEM_WORDS = 40  # an item of a list is one sentence up to here
_SHORT_LINE = 40  # characters; a shorter line is not wrapped: a capital in the next one begins something else

_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_ITEM = re.compile(r"\s*(?:[-*+•]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])\s+(?=\S)")
_ROW = re.compile(r"\s*\||.*\S \| +\S")
_QUOTED = re.compile(r"\s*(?:>[!?]?[^\S\n]*)+")
# Lines that are marks of Markdown and say nothing: rules, admonitions, link targets, attributes, tags, bare numbers.
_MARK = re.compile(
    r"(?:[-=*_~^+#|:\s.]*|\(?\d{1,3}[.)]\s*"
    r"|(?:!!!|\?\?\?\+?|===|:::+|///)(?:\s.*)?"
    r"|\[!\w+\]\s*"
    r"|\[[^\]]+\]:\s*\S+.*"
    r"|:\w[\w-]*:(?:\s.*)?"
    r"|\{[:%#].*\}"
    r"|(?:</?(?!https?:|mailto:)[a-zA-Z][^<>]*>\s*)+)$"
)
_COMMENT = re.compile(r"[^\S\n]*<!--.*?(?:-->|\Z)[^\S\n]*", re.S)
_LINE = re.compile(r"[^\n]*(?:\n|\Z)")

_MARKUP = re.compile(
    r"!?\[([^\]]*)\](?:\([^)\s]*[^)]*\)|\[[^\]]*\])?|</?[a-zA-Z][^<>]*>|\{[#:][^{}]*\}|<!--.*?-->|^\s*[`~]{3,}.*$|[*_`~|]+|^\s*(?:>\s*)+",
    re.M,
)
_COLON = re.compile(r"[:：][*_`)\s]*$")
_FOLLOWING = re.compile(r"\b(?:as follows|following|like (?:this|so)|below|example)\b[^.]{0,40}[.]?[*_`)\s]*$", re.I)
_ENDS = (".", "!", "…", "。", "！")
_LINK = re.compile(r"!?\[[^\]]*\]\([^)]*\)")
_LEAST_WORDS = 3  # beside links
_LETTER = re.compile(r"[^\W\d_]")
_STATES = re.compile(r"\d|:\s|\s[=–—-]\s")  # a number, or a name and its value
_ALIGNED = re.compile(r"\S(?:\t| {3,})\S")  # a row of a table whose columns are aligned by white space
_TITLE_WORDS = 10  # a longer line without a verb is no heading
_VERBS = frozenset(
    words(
        "is are was were be been being am has have had do does did can could may might must shall should will would "
        "cannot use uses used set sets run runs make makes made give gives take takes need needs get gets see allows "
        "isn't aren't wasn't don't doesn't can't won't it's you're we're that's it there you we they"
    )
)


class _Block(NamedTuple):
    """Lines of one kind: a paragraph, an item of a list with its further lines, a row of a table, or a block of
    code."""

    kind: Kind
    start: int
    end: int


class _Unit(NamedTuple):
    """A span that is not cut, the kind of its block, and the number of its block."""

    start: int
    end: int
    kind: Kind
    block: int


def sentence_spans(text: str, most_words: int) -> Iterator[Span]:
    """Yield the sentences of a text as spans of at most `most_words` words; marks of Markdown are left out.

    A sentence ends at its punctuation or with its paragraph, item or row, not with its line. A block of code is one
    sentence. What ends in a colon or otherwise introduces ("as follows") stands with the list, code or sentence after
    it, as far as `most_words` allow.
    """
    units = list(_units(text))
    place = 0
    while place < len(units):
        last = _last_introduced(text, units, place, most_words)
        yield from word_runs(text, (units[place].start, units[last].end), most_words)
        place = last + 1


def can_answer(text: str) -> bool:
    """True if a sentence can be an answer: it is no question, heading, block of code or mark, and does not only
    introduce what follows."""
    plain = plain_text(text)
    if text.startswith(("```", "~~~")) or plain.endswith((":", "：", "?", "？")) or not _LETTER.search(plain):
        return False
    if plain.isascii() and len(plain.split()) == 1:
        return False  # a name, an address, or a piece of a long word
    if "](" in text and len(re.findall(r"\w+", _LINK.sub("", text))) < _LEAST_WORDS:
        return False  # a list of links
    return plain.endswith(_ENDS) or not _is_heading(text, plain)


def plain_text(text: str) -> str:
    """Return a text without marks of Markdown, link targets and outer white space."""
    return " ".join(_MARKUP.sub(lambda match: match[1] or " ", text).split())


def word_runs(text: str, span: Span, most_words: int) -> Iterator[Span]:
    """Split a span into runs of at most `most_words` words, within a word only if it is longer than a run."""
    matches = list(WORD.finditer(text, *span))
    start = 0
    while start < len(matches):
        end = min(start + most_words, len(matches))
        whole = end
        while start < whole < len(matches) and _is_within_word(matches[whole - 1], matches[whole]):
            whole -= 1
        end = whole if whole > start else end
        yield matches[start].start(), matches[end - 1].end()
        start = end


def split_span(text: str, span: Span, between: re.Pattern[str]) -> Iterator[Span]:
    """Yield the non-empty parts of `span` between matches, without outer white space; a match's own marks stay."""
    start = span[0]
    ends = [match.start() + len(match.group().rstrip()) for match in between.finditer(text, *span)]
    for end in (*ends, span[1]):
        part = text[start:end]
        if part.strip():
            yield start + len(part) - len(part.lstrip()), start + len(part.rstrip())
        start = end


def count_words(text: str) -> int:
    """Count the words of a text as passages are measured."""
    return sum(1 for _ in WORD.finditer(text))


def _is_heading(text: str, plain: str) -> bool:
    """True for a short line without a verb, a number or a pair of name and value."""
    said = WORD.findall(plain)
    if len(said) > _TITLE_WORDS or "\n" in text.strip() or _STATES.search(plain):
        return False
    is_listed = bool(_ITEM.match(text) or _ROW.match(text) or _ALIGNED.search(text.strip()))
    return not (is_listed and len(said) > 2) and not any(word.casefold() in _VERBS for word in said)


def _is_within_word(before: re.Match[str], after: re.Match[str]) -> bool:
    """True if two matches are pieces of one long word."""
    return before.end() == after.start() and not re.match(rf"[{_CJK}]", before.string[before.end() - 1 : after.end()])


def _last_introduced(text: str, units: Sequence[_Unit], place: int, most_words: int) -> int:
    """Return the place of the last unit that stands with the one at `place`: itself unless that introduces others."""
    count, last = count_words(text[units[place].start : units[place].end]), place
    while last + 1 < len(units):
        before, after = units[last], units[last + 1]
        if not _introduces(text, before, after) and not (
            last > place and _is_below(text, after, units[place : last + 1])
        ):
            break
        count += count_words(text[after.start : after.end])
        if count > most_words:
            break
        last += 1
    return last


def _introduces(text: str, unit: _Unit, after: _Unit) -> bool:
    """True if a sentence ends in a colon, or announces the list, table or code after it."""
    if unit.kind not in ("text", "item"):
        return False
    begin = max(unit.start, unit.end - 80)
    return bool(
        _COLON.search(text, begin, unit.end) or (after.kind != "text" and _FOLLOWING.search(text, begin, unit.end))
    )


def _is_below(text: str, unit: _Unit, held: Sequence[_Unit]) -> bool:
    """True if a unit continues the list or table that the first of `held` introduces; an item is no part of another
    beside it."""
    first, introduced = held[0], held[1]
    if introduced.kind not in ("item", "row"):
        return False
    if unit.kind != introduced.kind:
        return False
    if unit.block == held[-1].block:
        return True
    depth = _indent(text, introduced)
    return _indent(text, unit) >= depth and not (first.kind == "item" and depth <= _indent(text, first))


def _indent(text: str, unit: _Unit) -> int:
    return unit.start - (text.rfind("\n", 0, unit.start) + 1)


def _units(text: str) -> Iterator[_Unit]:
    """Yield the sentences of paragraphs and items, the rows of tables and the blocks of code."""
    blocks = list(_blocks(text))
    for number, block in enumerate(blocks):
        if block.kind in ("text", "item"):
            spans = list(_sentences(text, block))
            if block.kind == "item" and count_words(text[spans[0][0] : spans[-1][1]]) <= _ITEM_WORDS:
                spans = [(spans[0][0], spans[-1][1])]  # its further sentences rarely name what they are about
            for start, end in spans:
                yield _Unit(start, end, block.kind, number)
        elif block.kind in ("row", "code"):
            if block.kind == "row" and number + 1 < len(blocks) and _is_rule(text, blocks[number + 1]):
                continue  # the heads of a table
            part = text[block.start : block.end]
            start = block.start + len(part) - len(part.lstrip())
            yield _Unit(start, block.start + len(part.rstrip()), block.kind, number)


def _is_rule(text: str, block: _Block) -> bool:
    return block.kind == "mark" and "|" in text[block.start : block.end]


def _sentences(text: str, block: _Block) -> Iterator[Span]:
    """Split a paragraph or item into sentences; abbreviations, wrapped lines and the mark of an item end none."""
    mark = _ITEM.match(text, block.start, block.end) if block.kind == "item" else None
    first = mark.start() if mark else block.start
    first += len(text[first : block.end]) - len(text[first : block.end].lstrip())
    held = mark.end() if mark else first
    pieces = list(_line_pieces(text, (held, block.end)))
    start = first
    for place, (_, end) in enumerate(pieces):
        if place + 1 < len(pieces) and _continues(text, end, pieces[place + 1][0]):
            continue
        yield start, end
        if place + 1 < len(pieces):
            start = pieces[place + 1][0]


def _line_pieces(text: str, span: Span) -> Iterator[Span]:
    """Yield the parts of a span between ends of sentences and ends of lines that are not wrapped."""
    for start, end in split_span(text, span, _SENTENCE_END_IN_LINES):
        first = start
        for line_end in re.finditer(r"\n[\s>]*", text[start:end]):
            at, after = start + line_end.start(), start + line_end.end()
            line_start = text.rfind("\n", span[0], at) + 1 or span[0]
            if at - line_start < _SHORT_LINE and not text[after].islower():
                yield first, at
                first = after
        yield first, end


def _continues(text: str, end: int, start: int) -> bool:
    """True if a sentence that was split at `end` continues at `start`."""
    is_abbreviated = _ABBREVIATED.search(text, max(0, end - 12), end)
    return bool(is_abbreviated) or (text[start].islower() and text[end - 1] not in "!?！？")


def _blocks(text: str) -> Iterator[_Block]:
    """Yield the blocks of a text in order; marks and comments are blocks of their own."""
    place = 0
    kind: Kind = "blank"
    start = 0
    while place < len(text):
        own, end = _block_at(text, place, kind)
        if own != kind or own in ("row", "code", "mark") or (own == "item" and _ITEM.match(text, place, end)):
            if kind != "blank":
                yield _Block(kind, start, place)
            kind, start = own, place
        place = end
    if kind != "blank":
        yield _Block(kind, start, len(text))


def _block_at(text: str, place: int, before: Kind) -> tuple[Kind, int]:
    """Return the kind of the line at `place`, in a block of kind `before`, and its end; code and comments end where
    they close."""
    line = _LINE.match(text, place)
    end = line.end() if line else len(text)
    content = text[place:end]
    if comment := _COMMENT.match(text, place):
        return "mark", comment.end() + text.startswith("\n", comment.end())
    content = _QUOTED.sub("", content, count=1) if _QUOTED.match(content) else content
    if fence := _FENCE.match(content):
        closing = re.compile(rf"^[\s>]*{fence[1][0]}{{{len(fence[1])},}}\s*$", re.M).search(text, end)
        return "code", min(closing.end(), len(text)) if closing else len(text)
    if not content.strip():
        return "blank", end
    if _MARK.match(content.strip()):
        return "mark", end
    if _ROW.match(content):
        return "row", end
    return ("item" if _ITEM.match(content) or before == "item" else "text"), end
