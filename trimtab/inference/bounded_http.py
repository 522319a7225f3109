"""Reads replies of untrusted servers within limits on size, time and numbers, and masks secrets in their text."""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx

from trimtab.base.gunzip import Gunzip

MAX_REPLY_BYTES = 16 * 1024 * 1024  # bytes of a decoded reply; the longest answers are a few hundred kilobytes
ACCEPTED_ENCODINGS = "gzip, identity"  # decoded here, in bounded pieces; httpx would decode a piece to any size
MAX_TOKENS = 100_000_000  # of one request; ten times the longest context in use
MAX_WAIT_SECONDS = 60.0  # seconds that a server may ask for
MASKED_RUN = 6  # consecutive characters of a key that are masked
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class ReplyTooLargeError(Exception):
    """A reply that exceeds a limit; the text says which."""


def read_within(response: httpx.Response, deadline: float) -> bytes:
    """Return the decoded body.

    Raises ReplyTooLargeError beyond MAX_REPLY_BYTES, httpx.ReadTimeout after `deadline` (of `time.monotonic`).
    """
    body = bytearray()
    for piece in _decoded(response, deadline):
        body += piece
        if len(body) > MAX_REPLY_BYTES:
            raise ReplyTooLargeError(f"the reply is longer than {MAX_REPLY_BYTES // 1024 // 1024} MB")
    return bytes(body)


def _decoded(response: httpx.Response, deadline: float) -> Iterator[bytes]:
    unpacked = content_decoder(response)
    if unpacked is None:
        raise ReplyTooLargeError("the reply is in a content encoding that was not requested")
    for piece in response.iter_raw():
        if time.monotonic() > deadline:  # each read has its own timeout, so this is reached
            raise httpx.ReadTimeout("the reply does not end")
        try:
            yield from unpacked(piece)
        except zlib.error:
            raise ReplyTooLargeError("the reply is not valid gzip") from None


def content_decoder(response: httpx.Response) -> Callable[[bytes], Iterator[bytes]] | None:
    """Return what decodes the pieces of a body, each into pieces of bounded size; None for an encoding that was not
    requested.

    Called with a piece of a body, it raises zlib.error if the body is not the gzip that it claims to be.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("gzip", "x-gzip"):
        return Gunzip().feed
    return (lambda piece: iter((piece,))) if encoding in ("identity", "") else None


def parse_reply(body: bytes) -> Any:
    """Return the JSON value of a body; raises ValueError if it is none, or nested too deep.

    Integers that are too long for any count become infinite, for the caller to refuse if it needs the number.
    """
    try:
        return json.loads(body, parse_int=lambda digits: int(digits) if len(digits) < 20 else math.inf)
    except RecursionError:
        raise ValueError("nested too deep") from None


def token_count(value: Any) -> int:
    """Return the server's token count, 0 if it gives none; raises ValueError if it is not a plausible count."""
    if value is None:
        return 0
    if type(value) not in (int, float) or not 0 <= value <= MAX_TOKENS or value != int(value):
        raise ValueError
    return int(value)


def replace_lone_surrogates(text: str) -> str:
    """Return the text with lone surrogates, which no file can hold, as replacement characters."""
    return _LONE_SURROGATE.sub("\ufffd", text)


def retry_after_seconds(value: str | None) -> float | None:
    """Return the seconds of a `Retry-After`, a number or a date, at most MAX_WAIT_SECONDS; None if it is absent or
    invalid.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(value)
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)  # `-0000` gives none
        try:
            seconds = (when - datetime.now(UTC)).total_seconds()
        except OverflowError:
            return None
    return None if math.isnan(seconds) else min(MAX_WAIT_SECONDS, max(0.0, seconds))


def mask_secret(text: str, secret: str) -> str:
    """Return `text` with `***` for `secret` and for any MASKED_RUN consecutive characters of it."""
    if not secret:
        return text
    text = text.replace(secret, "***")
    runs = {secret[at : at + MASKED_RUN] for at in range(len(secret) - MASKED_RUN + 1)}
    hidden = [False] * len(text)
    for at in range(len(text) - MASKED_RUN + 1):
        if text[at : at + MASKED_RUN] in runs:
            hidden[at : at + MASKED_RUN] = [True] * MASKED_RUN
    pieces, before = [], False
    for letter, hide in zip(text, hidden, strict=True):
        pieces.append(("" if before else "***") if hide else letter)
        before = hide
    return "".join(pieces)
