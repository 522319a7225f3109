"""Extracts the main text of an HTML page as Markdown, with the structure of short pages and of lists of terms."""

from __future__ import annotations

import re

_SHORT = 250  # characters of main text below which trafilatura takes the whole page, and loses its structure
_TERMS = re.compile(r"(</?d[ltd])(?:\s[^<>]*)?>", re.I)
# A term heads its description, as a question its answer; end tags may be missing.
_BLOCKS = {"<dl": "<div>", "</dl": "</div>", "<dt": "</p><h6>", "</dt": "</h6>", "<dd": "</h6><p>", "</dd": "</p>"}


def html_markdown(html: str | bytes) -> str:
    """Return the main text of an HTML page as Markdown, without menus and footers; empty without one.

    It is what trafilatura finds, and of two readings of a short page the one with structure, unless it holds less
    than half of the other. A term of a description list is a heading of the lowest level.
    """
    import trafilatura
    from trafilatura.settings import use_config
    from trafilatura.utils import decode_file

    page = html if isinstance(html, str) else decode_file(html)
    whole = page if "<html" in page[:4096].lower() else f"<html><body>{page}</body></html>"
    whole = _TERMS.sub(lambda tag: _BLOCKS[tag[1].lower()], whole)
    config = use_config()
    config.set("DEFAULT", "MIN_EXTRACTED_SIZE", "0")

    def extract(**settings: object) -> str:
        found = trafilatura.extract(
            whole, output_format="markdown", include_comments=False, favor_recall=True, **settings
        )
        return found or ""

    text = extract(config=config)
    if len(text) >= _SHORT:
        return text
    plain = extract()
    return plain if len(text.split()) < len(plain.split()) / 2 else text
