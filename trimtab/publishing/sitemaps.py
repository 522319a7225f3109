"""Reads sitemaps within bounds: XML, an index, or text, each also gzipped (https://www.sitemaps.org/protocol.html)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from xml.parsers import expat

from trimtab.base.gunzip import Gunzip
from trimtab.publishing.addresses import canonical_address
from trimtab.publishing.records import Fetched, SitemapEntry

MOST_BYTES = 50 * 1024 * 1024  # of one sitemap, unpacked, as the protocol has it
MOST_ENTRIES = 50_000  # of one sitemap, as the protocol has it
_LONGEST_VALUE = 4_000  # characters of an address or a date


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitemap:
    """A parsed sitemap: the pages that it names, or for an index its sitemaps. `problem`: what is wrong with it, in
    words."""

    entries: tuple[SitemapEntry, ...] = ()
    sitemaps: tuple[str, ...] = ()
    problem: str | None = None


def read_sitemap(answer: Fetched) -> Sitemap:
    """Read one sitemap. Entries before an error count; entities and document types are refused."""
    content, problem = answer.content, "is cut, as it is too large" if answer.cut else None
    if content.startswith(b"\x1f\x8b"):
        content, unpacking = _unpacked(content)
        problem = unpacking or problem
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        reader = _Reader(answer.url)
        return reader.read(content, problem)
    entries: dict[str, SitemapEntry] = {}
    for line in content.decode("utf-8", "replace").splitlines():
        address = canonical_address(line.strip())
        if address is not None and len(entries) < MOST_ENTRIES:
            entries[address] = SitemapEntry(url=address, lastmod=None, sitemap=answer.url)
    if not entries and content.strip():
        problem = problem or "is neither XML nor a list of addresses"
    return Sitemap(entries=tuple(entries.values()), problem=problem)


def _unpacked(content: bytes) -> tuple[bytes, str | None]:
    gunzip, unpacked = Gunzip(), bytearray()
    try:
        for piece in gunzip.feed(content):
            unpacked += piece
            if len(unpacked) > MOST_BYTES:
                return bytes(unpacked[:MOST_BYTES]), f"unpacks to more than {MOST_BYTES // 1024 // 1024} MB"
    except zlib.error:
        return b"", "is no whole gzip"
    return bytes(unpacked), None if gunzip.is_whole else "is no whole gzip"


class _StopReadingError(Exception):
    """Raised to stop the parser; the text is the problem."""


class _Reader:
    """Handlers for expat that collect `loc` and `lastmod` of each `url` or `sitemap`, by local names."""

    def __init__(self, sitemap: str) -> None:
        self._sitemap = sitemap
        self._pages: dict[str, SitemapEntry] = {}
        self._others: dict[str, None] = {}
        self._path: list[str] = []
        self._values: dict[str, str] = {}
        self._odd = 0

    def read(self, content: bytes, problem: str | None) -> Sitemap:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = self._text, self._doctype
        try:
            parser.Parse(content, True)
        except expat.ExpatError as error:
            problem = problem or f"is no well-formed XML from line {error.lineno} on"
        except _StopReadingError as error:
            problem = str(error)
        if not problem and self._odd:
            problem = f"names {self._odd:,} addresses that are none"
        return Sitemap(entries=tuple(self._pages.values()), sitemaps=tuple(self._others), problem=problem)

    def _start(self, name: str, _: object) -> None:
        self._path.append(name.rpartition(" ")[2])
        if len(self._path) > 16:
            raise _StopReadingError("is nested deeper than a sitemap is")
        if self._path[-1] in ("url", "sitemap"):
            self._values = {}

    def _text(self, text: str) -> None:
        if len(self._path) >= 2 and self._path[-2] in ("url", "sitemap") and self._path[-1] in ("loc", "lastmod"):
            self._values[self._path[-1]] = (self._values.get(self._path[-1], "") + text)[:_LONGEST_VALUE]

    def _end(self, _: str) -> None:
        name = self._path.pop()
        if name not in ("url", "sitemap"):
            return
        address = canonical_address(self._values.get("loc", ""))
        if address is None:
            self._odd += 1
        elif name == "sitemap":
            self._others[address] = None
        else:
            lastmod = self._values.get("lastmod", "").strip() or None
            self._pages[address] = SitemapEntry(url=address, lastmod=lastmod, sitemap=self._sitemap)
        if len(self._pages) + len(self._others) >= MOST_ENTRIES:
            raise _StopReadingError(f"names {MOST_ENTRIES:,} addresses or more")

    def _doctype(self, *_: object) -> None:
        raise _StopReadingError("has a document type, which a sitemap has not")
