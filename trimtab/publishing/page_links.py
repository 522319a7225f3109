"""Links of a page, as canonical addresses on the same host."""

from __future__ import annotations

from trimtab.base.errors import PackageError
from trimtab.base.surface import Fetched
from trimtab.publishing.addresses import canonical_address, origin_of

MOST_LINKS = 5_000  # of one page


def is_html(answer: Fetched) -> bool:
    """True if an answer says that it is HTML, or says nothing and begins as HTML does."""
    kind = media_type(answer)
    if kind:
        return kind in ("text/html", "application/xhtml+xml")
    return answer.content.lstrip()[:1] == b"<"


def media_type(answer: Fetched) -> str:
    """The media type of an answer in small letters, without parameters; empty where it has none."""
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower()


def links_of(answer: Fetched) -> tuple[str, ...]:
    """The addresses that a page links to on its own host, in their order, each once; at most MOST_LINKS.

    Raises PackageError where selectolax is not installed.
    """
    if not is_html(answer) or not answer.content:
        return ()
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise PackageError("selectolax", "publish", "reading pages") from None
    tree = LexborHTMLParser(answer.content)
    base, origin = answer.url, origin_of(answer.url)
    first = tree.css_first("base[href]")
    if first is not None:
        base = canonical_address(first.attributes.get("href") or "", base) or base
    found: dict[str, None] = {}
    for anchor in tree.css("a[href], area[href]"):
        address = canonical_address(anchor.attributes.get("href") or "", base)
        if address is not None and origin_of(address) == origin:
            found[address] = None
            if len(found) >= MOST_LINKS:
                break
    return tuple(found)
