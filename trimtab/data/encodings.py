"""Which encoding text files are in: UTF-8 where it fits, else what their bytes look like."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from pathlib import Path

from trimtab.data.sources import open_checked, wide_encoding

PLAIN, USUAL, WESTERN = "ascii", "utf-8", "cp1252"
_BLOCK = 256 * 1024
_SAMPLE = 64 * 1024
"""Bytes that a guess is made from."""
_AROUND = re.compile(rb"[^\n]{0,40}[\x80-\xff][^\n]{0,40}")
_ODD_WORD = re.compile(r"\w{0,20}[^\s\x00-\x7f]\w{0,20}")


def encoding_of(path: Path) -> str:
    """The encoding of a text file: `ascii`, `utf-8`, UTF-16 or UTF-32, else the likeliest code page.

    `utf-8` too where nothing fits: reading the file then says at which byte. Raises InputError for one that cannot be opened.
    """
    decoder, plain = codecs.getincrementaldecoder(USUAL)("strict"), True
    with open_checked(path) as file:
        block = file.read(_BLOCK)
        wide = wide_encoding(block)
        if wide is not None:
            return wide
        try:
            while block:
                decoder.decode(block)
                plain = plain and block.isascii()
                block = file.read(_BLOCK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return _guess(_sample(path))
    return PLAIN if plain else USUAL


def _sample(path: Path) -> bytes:
    """What stands around the bytes beyond ASCII, of the beginning of a file."""
    sample = b""
    with open_checked(path) as file:
        while (block := file.read(_BLOCK)) and len(sample) < _SAMPLE:
            if not block.isascii():
                sample += b"\n".join(_AROUND.findall(block)) + b"\n"
    return sample[:_SAMPLE]


def _guess(sample: bytes) -> str:
    """The likeliest code page; of several that read the sample equally well the Western one."""
    from charset_normalizer import from_bytes

    found = list(from_bytes(sample))
    for match in found:
        as_good = match.chaos <= found[0].chaos and match.coherence >= found[0].coherence
        if as_good and WESTERN in (match.encoding, *match.could_be_from_charset):
            return WESTERN
    return found[0].encoding if found else USUAL


def fits(own: str, encoding: str) -> bool:
    """Whether a file in the encoding `own` is read right in `encoding`: plain letters are the same in all but the wide ones."""
    return own == encoding or (own == PLAIN and not encoding.startswith(("utf-16", "utf-32")))


def odd_words(lines: Iterable[str], most: int = 3) -> tuple[str, ...]:
    """The first words that hold letters beyond ASCII: what a reader sees a wrong guess by."""
    found: dict[str, None] = {}
    for line in lines:
        found.update(dict.fromkeys(_ODD_WORD.findall(line)))
        if len(found) >= most:
            break
    return tuple(found)[:most]
