"""Constrained decoding of quotes: an answer is consecutive words of a given text, or one of given phrases.

The matcher keeps the positions in the texts at which the answer so far ends. A token is allowed if its bytes stand
at one of these positions, however the tokenizer would split the text. An answer may end only where a word ends.
Source: constrained decoding of copied spans as in De Cao et al. 2021 (arXiv 2010.00904), over all spans of a text
instead of a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from unicodedata import category, east_asian_width

import numpy as np
import torch
from torch import Tensor

from trimtab.base.errors import InputError
from trimtab.inference.constraints import vocabulary_tokens
from trimtab.inference.detokenize import byte_fallback, byte_level

MAX_CACHED_TEXTS = 256  # texts whose positions are cached per tokenizer
_CHUNK = re.compile(r"\S+")
_LINKS = frozenset(".,:;'’/@-‐‑_")  # between two letters or digits they do not end a word: 2.5, 10:30, don't, a@b.org
_NEVER = 1 << 30  # tokens: the end cannot be reached


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteConstraint:
    """Constrains an answer to consecutive words of one of the `texts`, or to one of the `phrases` as a whole."""

    texts: tuple[str, ...]
    phrases: tuple[str, ...] = ()


class QuoteMatcher:
    """The matcher of one answer of at most `room` tokens. The answer always ends at the end of a word."""

    def __init__(self, texts: Sequence[_Text], stop_ids: frozenset[int], room: int) -> None:
        self._stop_ids, self._room = stop_ids, room
        self._texts = texts
        self._places: list[tuple[_Text, int]] | None = None  # where the answer so far ends; None before its first token
        self._next: dict[int, list[tuple[_Text, int]]] = {}

    def fill(self, bits_RW: Tensor, row: int) -> None:
        """Set the bits of the tokens that may come next, in one row."""
        self._next = {}
        for text, token, end in self._following():
            if text.needs[end] < self._room:
                self._next.setdefault(token, []).append((text, end))
        if self._places and any(text.needs[place] == 0 for text, place in self._places):
            self._next.update((stop, []) for stop in self._stop_ids)
        allowed = np.zeros(bits_RW.shape[1] * 32, dtype=bool)
        allowed[list(self._next)] = True
        bits_RW[row] = torch.from_numpy(np.packbits(allowed, bitorder="little").view(np.int32))

    def accept(self, token: int) -> bool:
        """Go on by one of the tokens that may come next; False where it does not fit."""
        self._places, self._room = self._next.get(token), self._room - 1
        return self._places is not None

    def _following(self) -> Iterator[tuple[_Text, int, int]]:
        """Each token that may come next, with its text and the position after it."""
        if self._places is None:
            return ((text, token, end) for text in self._texts for token, end in text.first)
        return ((text, token, end) for text, place in self._places for token, end in text.tokens(place))


class _Text:
    """A text as bytes.

    `needs`: for each position, the fewest tokens to the next position at which an answer may end. `first`: the
    tokens that may begin an answer, with or without a leading blank, each with the position after it.
    """

    def __init__(self, text: str, tokens: TokenBytes, *, whole: bool) -> None:
        starts, ends = ((0,), frozenset({len(text)})) if whole else word_bounds(text)
        text = text[: max(ends, default=0)]
        places = np.cumsum([0, *(len(letter.encode()) for letter in text)]).tolist()
        self._bytes, self._tokens = text.encode(), tokens
        bytes_ends = {places[end] for end in ends}
        self.needs = [_NEVER] * (len(self._bytes) + 1)
        for place in reversed(range(len(self.needs))):
            ahead = (self.needs[end] for _, end in self.tokens(place))
            self.needs[place] = 0 if place in bytes_ends else 1 + min(ahead, default=_NEVER)
        begun = [places[start] for start in starts]
        self.first = [one for start in begun for lead in (b"", b" ") for one in tokens.at(self._bytes, start, lead)]

    def tokens(self, place: int) -> Iterator[tuple[int, int]]:
        """The tokens whose bytes stand at a position, each with the position after it."""
        return self._tokens.at(self._bytes, place)


class TokenBytes:
    """The vocabulary of one tokenizer by the bytes of its tokens. Threads may share it.

    Raises InputError for a tokenizer whose tokens do not tell their bytes.
    """

    def __init__(self, tokenizer: Any, stop_ids: frozenset[int], vocabulary: int) -> None:
        self._stop_ids = stop_ids
        self._spelled: dict[bytes, list[int]] = {}
        for number, spelled in _spelled(tokenizer, stop_ids, vocabulary).items():
            self._spelled.setdefault(spelled, []).append(number)
        lengths: dict[int, set[int]] = {}
        for spelled in self._spelled:
            lengths.setdefault(spelled[0], set()).add(len(spelled))
        self._lengths = {first: sorted(found) for first, found in lengths.items()}
        self._text = lru_cache(maxsize=MAX_CACHED_TEXTS)(lambda text, whole: _Text(text, self, whole=whole))

    def at(self, text: bytes, place: int, lead: bytes = b"") -> Iterator[tuple[int, int]]:
        """The tokens that spell `lead` and at least one byte of `text` from `place` on, each with the position after
        it."""
        first = (lead or text[place : place + 1])[:1]
        for length in self._lengths.get(first[0], ()) if first else ():
            end = place + length - len(lead)
            if end > len(text):
                return
            if end > place:
                for token in self._spelled.get(lead + text[place:end], ()):
                    yield token, end

    def quoting(self, quote: QuoteConstraint, room: int) -> QuoteMatcher:
        """A matcher for a new answer of at most `room` tokens."""
        texts = [self._text(text, False) for text in quote.texts]
        return QuoteMatcher([*texts, *(self._text(phrase, True) for phrase in quote.phrases)], self._stop_ids, room)


@lru_cache(maxsize=4)
def token_bytes_of(tokenizer: Any, stop_ids: frozenset[int], vocabulary: int) -> TokenBytes:
    """The vocabulary of a tokenizer, cached for all engines that use it."""
    return TokenBytes(tokenizer, stop_ids, vocabulary)


def _spelled(tokenizer: Any, stop_ids: frozenset[int], vocabulary: int) -> Mapping[int, bytes]:
    """The bytes of each token that has any; special tokens have none."""
    written = vocabulary_tokens(tokenizer, vocabulary, stop_ids)
    added = {number: token.content.encode() for number, token in tokenizer.added_tokens_decoder.items()}
    if "ByteLevel" in repr(tokenizer.backend_tokenizer.decoder):
        spell = byte_level
    elif "<0xFF>" in written:
        spell = byte_fallback
    else:
        raise InputError(
            "its tokenizer's bytes per token are unknown, so answers cannot be constrained to passages",
            "choose another base model, or take quote out of the arm's name",
            field="base.model",
        )
    own = ((number, added.get(number) or spell(token)) for number, token in enumerate(written) if token)
    return {number: spelled for number, spelled in own if spelled}


def word_bounds(text: str) -> tuple[list[int], frozenset[int]]:
    """The positions at which a quote of `text` may begin, and those at which it may end. No quote cuts a word.

    Signs between a blank and a word may belong to the quote (`€5`, `5%`). A text without words cannot be quoted.
    """
    starts: list[int] = []
    ends: set[int] = set()
    for chunk in _CHUNK.finditer(text):
        begin, end = chunk.span()
        letters = [place for place in range(begin, end) if _is_letter(text[place])]
        if letters:
            starts += range(begin, letters[0])
            starts += (place for place in letters if place == begin or not _within(text, place))
            ends |= {place + 1 for place in letters if place + 1 == end or not _within(text, place + 1)}
            ends |= {*range(letters[-1] + 2, end + 1)}
    return starts, frozenset(ends)


def _within(text: str, place: int) -> bool:
    """True if a position in a chunk lies within a word: before an invisible character, between two letters, or
    beside a sign that links two.

    In scripts without blanks between words every letter is a word.
    """
    before, behind = text[place - 1], text[place]
    if category(behind)[0] == "M" or "Cf" in (category(before), category(behind)):
        return True
    if before in _LINKS or behind in _LINKS:
        link = place if behind in _LINKS else place - 1
        return link > 0 and _is_letter(text[link - 1]) and _is_letter(text[link + 1 : link + 2] or " ")
    return (
        _is_letter(before)
        and _is_letter(behind)
        and not {"W", "F"} & {east_asian_width(before), east_asian_width(behind)}
    )


def _is_letter(letter: str) -> bool:
    """True for a letter, a digit, or a combining mark."""
    return letter.isalnum() or category(letter)[0] == "M"
