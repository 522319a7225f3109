"""Unpacks gzip of unknown origin in pieces of bounded size, so that the caller can stop at a limit of its own."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PIECE = 64 * 1024
"""Most bytes of an unpacked piece."""
_SLICE = 8 * 1024  # packed bytes taken at once: so closely packed and unpacked bytes are compared


class Gunzip:
    """The unpacked bytes of a gzip stream, which has one or more members and is fed piece by piece.

    `packed`, `unpacked`: bytes taken and given so far. `has_trailing_data`: True once something else than members and
    zeros came behind a member; it and all that follows is dropped.
    """

    def __init__(self) -> None:
        self.packed = self.unpacked = 0
        self.has_trailing_data = False
        self._member = zlib.decompressobj(wbits=31)
        self._start = b""  # the first byte of what may be a member

    @property
    def is_whole(self) -> bool:
        """True if the stream may end here."""
        return self._member.eof and not self._start

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what these bytes unpack to, in pieces of at most PIECE bytes; raises zlib.error for damaged data."""
        for start in range(0, len(data), _SLICE):
            rest = data[start : start + _SLICE]
            self.packed += len(rest)
            while rest := self._next_member(rest) if self._member.eof else rest:
                piece = self._member.decompress(rest, PIECE)
                self.unpacked += len(piece)
                yield piece
                rest = self._member.unused_data or self._member.unconsumed_tail

    def _next_member(self, data: bytes) -> bytes:
        """Begin the next member with these bytes and return them; none if they do not show that there is one."""
        data = self._start + data if self._start else data.lstrip(b"\0")  # files may be padded with zeros
        self._start = b""
        if self.has_trailing_data or not data:
            return b""
        if data == b"\x1f":
            self._start = data
            return b""
        if not data.startswith(b"\x1f\x8b"):
            self.has_trailing_data = True
            return b""
        self._member = zlib.decompressobj(wbits=31)
        return data
