"""Streams text as whole characters, holding back a possible start of a stop string; also gives each token's bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

_BYTE = re.compile("<0x([0-9A-F]{2})>")  # SentencePiece's token for a byte

Decode = Callable[[list[int]], str]


class TextStream:
    """The text of one answer, piece by piece; `stopped` once one of the `stops` has come, before which the text ends.

    Pieces add up to the text as long as `decode` only ever appends to the text of earlier tokens (all byte-level and
    most SentencePiece tokenizers do, apart from incomplete characters).
    """

    def __init__(self, decode: Decode, stops: Sequence[str]) -> None:
        self.stopped = False
        self._decode, self._stops, self._emitted = decode, stops, 0

    def add(self, ids: list[int], last: bool) -> str:
        """Return the new piece, given all tokens so far; `last` if no more will come."""
        whole = self._decode(ids)
        text = cut_at_stop(whole, self._stops)
        self.stopped = len(text) < len(whole)
        end = len(text) if last or self.stopped else self._stable_length(text)
        piece = text[self._emitted : end]
        self._emitted = max(self._emitted, end)
        return piece

    def _stable_length(self, text: str) -> int:
        """Return how many characters no later token can change or remove."""
        whole = text.rstrip("\N{REPLACEMENT CHARACTER}")  # bytes of an incomplete character
        begun = [size for stop in self._stops for size in range(1, len(stop)) if whole.endswith(stop[:size])]
        return len(whole) - max(begun, default=0)


def token_bytes(text: str, vocabulary_entry: str) -> bytes | None:
    """Return the bytes of a token that decodes to `text` and is `vocabulary_entry` in its vocabulary; None if
    unknown.
    """
    if "\N{REPLACEMENT CHARACTER}" not in text:
        return text.encode()
    if byte := _BYTE.fullmatch(vocabulary_entry):
        return bytes.fromhex(byte[1])
    return byte_level(vocabulary_entry)


def byte_level(vocabulary_entry: str) -> bytes | None:
    """Return the bytes of a token of a byte-level vocabulary; None if it is written otherwise."""
    letters = _byte_letters()
    return bytes(letters[one] for one in vocabulary_entry) if letters.keys() >= set(vocabulary_entry) else None


def byte_fallback(vocabulary_entry: str) -> bytes:
    """Return the bytes of a token of a SentencePiece vocabulary, which has tokens for single bytes too."""
    byte = _BYTE.fullmatch(vocabulary_entry)
    return bytes.fromhex(byte[1]) if byte else vocabulary_entry.replace("▁", " ").encode()


@cache
def _byte_letters() -> dict[str, int]:
    """Return how byte-level vocabularies (GPT-2) write bytes: visible Latin-1 letters as themselves, others from 256
    on.
    """
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + place): byte for place, byte in enumerate(unseen)}


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """Return the text before the first of the stop strings."""
    found = [place for place in map(text.find, stops) if place >= 0]
    return text[: min(found, default=len(text))]
