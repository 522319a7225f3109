"""The process that reads the links of pages: a line of JSON and the page's bytes in, a line of JSON out.

A parser of HTML as browsers parse it takes time with the square of how deep a page is nested, so a small page can
take hours: the limits of this process end it.
"""

from __future__ import annotations

import json
from typing import Any

from selectolax.lexbor import LexborHTMLParser

from trimtab.base.worker import answer_requests


def read_links(content: bytes, most: int, longest: int) -> dict[str, Any]:
    """Return the `href` of `base` and those of links, each once."""
    tree = LexborHTMLParser(content)
    base = tree.css_first("base[href]")
    found: dict[str, None] = {}
    for anchor in tree.css("a[href], area[href]"):
        written = anchor.attributes.get("href") or ""
        if len(written) <= longest:
            found[written] = None
        if len(found) >= most:
            break
    return {
        "base": (base.attributes.get("href") or "")[:longest] if base is not None else None,
        "links": list(found),
    }


if __name__ == "__main__":
    answer_requests(lambda asked, content: json.dumps(read_links(content, asked["most"], asked["longest"])))
