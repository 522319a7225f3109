"""Links of a page, as canonical addresses on the same host; read in a process with limits."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.base.errors import PackageError
from trimtab.base.worker import Worker
from trimtab.publishing.addresses import LONGEST, canonical_address, origin_of
from trimtab.publishing.records import Fetched

PAGE_TYPES = ("text/html", "application/xhtml+xml", "application/pdf", "text/plain", "text/markdown")
"""Media types of pages; of answers of other types no content is read."""
MOST_LINKS = 5_000  # of one page
SECONDS, MEGABYTES = 3, 256
"""Processor time and memory that reading a page may take, beside what its size adds."""
SECONDS_EACH, MEGABYTES_EACH = 1, 100
"""Seconds and MB that each MB of a page adds to them; some ten times the usual."""
MOST_MEGABYTES = 1024
"""Memory (MB) that reading a page may take, whatever its size; a page of 8 MB of links or tables takes most of it."""


_MARKDOWN_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)")


class OddPageError(Exception):
    """Raised for a page that cannot be read within limits."""


def is_html(answer: Fetched) -> bool:
    """True if an answer says that it is HTML, or says nothing and begins as HTML does."""
    kind = media_type(answer)
    if kind:
        return kind in ("text/html", "application/xhtml+xml")
    return answer.content.lstrip()[:1] == b"<"


def media_type(answer: Fetched) -> str:
    """Return the media type of an answer in small letters, without parameters; empty if it has none."""
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower()


def links_of(answer: Fetched) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the addresses that a page links to on its own host, in their order, each once, at most MOST_LINKS; and
    those that its head names: canonical ones, versions in other languages, where it refreshes to.

    Raises OddPageError for a page that is made to take long, and PackageError where selectolax is not installed.
    """
    if not is_html(answer) or not answer.content:
        return (), ()
    read = _read(answer.content)
    base, origin = answer.url, origin_of(answer.url)
    if read["base"] is not None:
        base = canonical_address(read["base"], base) or base

    def own(written: Sequence[str]) -> tuple[str, ...]:
        addresses = (canonical_address(one, base) for one in written)
        return tuple(dict.fromkeys(one for one in addresses if one is not None and origin_of(one) == origin))

    return own(read["links"]), own(read["named"])


def llms_links(answer: Fetched) -> tuple[str, ...]:
    """Return the addresses of llms.txt, each once, as it writes them: `[name](address)` (llmstxt.org)."""
    text = answer.content.decode("utf-8", "replace")
    found = (canonical_address(written, answer.url) for written in _MARKDOWN_LINK.findall(text)[:MOST_LINKS])
    return tuple(dict.fromkeys(address for address in found if address is not None))


def _read(content: bytes) -> dict[str, Any]:
    if importlib.util.find_spec("selectolax") is None:
        raise PackageError("selectolax", "publish", "reading pages")
    size = len(content) / 1024**2
    seconds = math.ceil(SECONDS + SECONDS_EACH * size)
    megabytes = min(MOST_MEGABYTES, math.ceil(MEGABYTES + MEGABYTES_EACH * size))
    limits = {"seconds": seconds, "megabytes": megabytes, "most": MOST_LINKS, "longest": LONGEST}
    asked = json.dumps({"size": len(content), **limits})
    answer: dict[str, Any] | None = _reader.ask(asked, content, seconds=4.0 * seconds)
    if answer is None:
        raise OddPageError(f"takes more than {seconds} s of processor time or {megabytes:,} MB of memory to read")
    return answer


_reader = Worker(Path(__file__).with_name("page_worker.py"), [], seconds=60, longest=8 * LONGEST * MOST_LINKS)
"""One process for all pages."""
