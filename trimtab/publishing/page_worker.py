"""The process that parses HTML pages, or reads only their links: JSON and the page's bytes in, a line of JSON out.

Pages come from strangers, and a browser's algorithm takes quadratic time on deep nesting and on many attributes: the
limits of this process end it.
"""

from __future__ import annotations

import json
import math
from itertools import islice
from typing import Any
from urllib.parse import urldefrag

from selectolax.lexbor import LexborHTMLParser, LexborNode

from trimtab.base.worker import answer_requests
from trimtab.data.html_text import html_markdown
from trimtab.publishing.page_elements import CUT, MOST_ELEMENTS, Lines, elements, joined, text_of
from trimtab.publishing.visible import ASIDE, inside, visible_text

MOST_LINKS, MOST_JSON_LD = 5000, 100  # of one page
LEAST_OF, MOST_BEYOND = 1 / 3, 1.5  # times the words that are marked as main, between which main text has its own
FEW_WORDS = 20  # signs of Markdown among them
MOST_PARAGRAPH = 5000  # characters

_PARAGRAPHS = frozenset(("p", "li", "td", "th", "dd", "blockquote", "figcaption"))


def _parse_within_limits(html: str, url: str) -> dict[str, Any]:
    try:
        return parse(html, url)
    except MemoryError:
        return {"unread": "takes too much memory to read"}
    except RecursionError:
        return {"unread": "is nested too deeply to read"}


def parse(html: str, url: str) -> dict[str, Any]:
    """Parse the HTML of a page into plain values, as `pages.py` takes them."""
    html = html.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    tree = LexborHTMLParser(html)
    lines = Lines(html, tree)
    base = tree.css_first("base[href]")
    base_url = joined(url, base.attributes.get("href") if base else None) or url
    title = tree.css_first("head > title") or tree.css_first("title")
    metas = [
        [
            (
                meta.attributes.get("name")
                or meta.attributes.get("property")
                or meta.attributes.get("http-equiv")
                or ""
            ).lower(),
            content,
        ]
        for meta in tree.css("meta")
        if (content := meta.attributes.get("content")) is not None
    ]
    root = tree.css_first("html")
    visible = visible_text(tree.body) if tree.body else ""
    return {
        "title": " ".join(title.text().split()) if title else "",
        "language": (root.attributes.get("lang") or root.attributes.get("xml:lang")) if root else None,
        "metas": metas,
        "headings": _headings(tree, lines),
        "text": main_text(html, tree),
        "visible": visible,
        "json_ld": [node.text()[:1_000_000] for node in tree.css('script[type="application/ld+json" i]')][
            :MOST_JSON_LD
        ],
        "times": [[node.attributes.get("datetime") or node.text(), _before(node)] for node in tree.css("time")][:50],
        "authors": [text_of(node)[:CUT] for node in tree.css('[rel~="author"], [itemprop~="author"]')][:5]
        + [text_of(node)[:CUT] for node in tree.css('[class~="author"], [class~="byline"]')][:5],
        "links": list(
            dict.fromkeys(
                urldefrag(found)[0]
                for node in tree.css("a[href]")[: 2 * MOST_LINKS]
                if (found := joined(base_url, node.attributes.get("href"))) and found.startswith(("http:", "https:"))
            )
        )[:MOST_LINKS],
        "linked": _linked(tree),
        "elements": list(islice(elements(html, tree, lines, base_url), MOST_ELEMENTS)),
        "scripts": len(tree.css("script[src]")),
        "script_bytes": sum(
            len(node.text())
            for node in tree.css("script:not([src])")
            if "json" not in (node.attributes.get("type") or "")
        ),
        "anchors": list(
            dict.fromkeys(
                node.attributes.get("id") or node.attributes.get("name") for node in tree.css("[id], a[name]")
            )
        )[:MOST_LINKS],
        "nosnippet": len(tree.css("[data-nosnippet]")),
    }


def main_text(html: str, tree: LexborHTMLParser) -> str:
    """Return the main text as Markdown in blocks, without menus and footers; empty without one.

    It is what trafilatura finds. Where that is less than LEAST_OF of the words in the page's `article` or `main`, or
    more than MOST_BEYOND times them (it takes the menus of pages of few words), it is the text of `article` or
    `main`.
    """
    text = html_markdown(html)
    main = tree.css_first("article") or tree.css_first("main, [role=main]")
    if main is not None:
        marked = visible_text(main, ASIDE - {"header"})
        least, longest = LEAST_OF * len(marked.split()), MOST_BEYOND * len(marked.split()) + FEW_WORDS
    else:
        marked = visible_text(tree.body, ASIDE) if tree.body else ""
        least, longest = 1, math.inf
    found = len(text.split())
    return "\n\n".join(marked.split("\n")) if not least <= found <= longest else text.strip()


def _headings(tree: LexborHTMLParser, lines: Lines) -> list[tuple[int, str, int]]:
    nodes = tree.css("h1, h2, h3, h4, h5, h6")[:MOST_ELEMENTS]
    return [(int((node.tag or "h1")[1]), text_of(node).strip("¶# ")[:CUT], lines.of(node)) for node in nodes]


def _linked(tree: LexborHTMLParser) -> list[str]:
    """Return the texts of paragraphs, list items, cells and quotations of the main content in which a link or a note
    stands."""
    texts: dict[int, str] = {}
    for link in tree.css("a[href], sup, cite"):
        above = link.parent
        while above is not None and above.tag not in _PARAGRAPHS:
            above = above.parent
        if above is not None and above.mem_id not in texts and not inside(above, ASIDE):
            texts[above.mem_id] = text_of(above)[:MOST_PARAGRAPH]
            if len(texts) >= MOST_ELEMENTS:
                break
    return list(texts.values())


def _before(node: LexborNode) -> str:
    """Return the words before a `time` element, in its parent: they say which date it is."""
    above = node.parent
    if above is None:
        return ""
    text, own = above.text(), node.text()
    return " ".join(text.partition(own)[0].split())[-60:] if own else ""


def read_links(content: bytes, most: int, longest: int) -> dict[str, Any]:
    """Return the `href` of `base` and those of links, each once, and the other addresses that the head names."""
    tree = LexborHTMLParser(content)
    base = tree.css_first("base[href]")
    found: dict[str, None] = {}
    for anchor in tree.css("a[href], area[href]"):
        written = anchor.attributes.get("href") or ""
        if len(written) <= longest:
            found[written] = None
        if len(found) >= most:
            break
    named = [node.attributes.get("href") for node in tree.css('link[rel~="canonical" i], link[hreflang]')]
    named += [
        (node.attributes.get("content") or "").partition("=")[2].strip(" '\"")
        for node in tree.css('meta[http-equiv="refresh" i]')
    ]
    return {
        "named": [address for address in named if address and len(address) <= longest][:100],
        "base": (base.attributes.get("href") or "")[:longest] if base is not None else None,
        "links": list(found),
    }


def _answer(request: dict[str, Any], content: bytes) -> str:
    if "url" in request:
        return json.dumps(_parse_within_limits(content.decode("utf-8", "replace"), request["url"]))
    return json.dumps(read_links(content, request["most"], request["longest"]))


if __name__ == "__main__":
    answer_requests(_answer)
