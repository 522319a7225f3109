"""The process that parses HTML pages, or reads only their links: JSON and the page's bytes in, a line of JSON out.

Pages come from strangers, and a browser's algorithm takes quadratic time on deep nesting and on many attributes: the
limits of this process end it.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import groupby
from typing import Any
from urllib.parse import urldefrag, urljoin

from selectolax.lexbor import LexborHTMLParser, LexborNode

from trimtab.base.worker import answer_requests
from trimtab.data.html_text import html_markdown
from trimtab.measurement.numerals import words

MOST_LINKS, MOST_ELEMENTS, MOST_JSON_LD = 5000, 500, 100  # of one page
LEAST_OF, MOST_BEYOND = 1 / 3, 1.5  # times the words that are marked as main, between which main text has its own
FEW_WORDS = 20  # signs of Markdown among them
CUT, MOST_PARAGRAPH = 300, 5000  # characters of an element's text, and of a paragraph's

_UNSEEN = frozenset(
    ("script", "style", "template", "noscript", "svg", "head", "iframe", "object", "textarea", "select")
)
_BLOCKS = frozenset(
    words(
        "address article aside blockquote body br button caption dd details dialog div dl dt fieldset figcaption "
        "figure footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol option p pre section summary table tbody tfoot "
        "thead tr ul"
    )
)
_MARKS = {f"h{level}": f"{'#' * level} " for level in range(1, 7)} | {"li": "- "}  # of Markdown
_ASIDE = frozenset(("nav", "header", "footer", "aside"))
_PARAGRAPHS = frozenset(("p", "li", "td", "th", "dd", "blockquote", "figcaption"))
_TAG = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|template|textarea|title)\b[^>]*>.*?(?:</\1\b|\Z)|<([a-z][a-z0-9]*)\b",
    re.I | re.S,
)
_BULLET = re.compile(r"\s*(?:[•·▪◦‣●○■–—*-]|\(?\d{1,2}[.)])\s+\S")
_RULED = re.compile(
    r"\s*[|+][-=+|: ]{5,}[|+]\s*$|(?:[^|\n]*\|){2,}[^|\n]*$|\S+(?: \S+)*(?:\s{3,}|\t+)\S+(?: \S+)*(?:\s{3,}|\t+)\S+"
)
_LEAST_LINES = 3  # that make a typed list or table


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
    lines = _Lines(html)
    base = tree.css_first("base[href]")
    base_url = _joined(url, base.attributes.get("href") if base else None) or url
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
        "authors": [" ".join(node.text().split())[:CUT] for node in tree.css('[rel~="author"], [itemprop~="author"]')][
            :5
        ]
        + [" ".join(node.text().split())[:CUT] for node in tree.css('[class~="author"], [class~="byline"]')][:5],
        "links": list(
            dict.fromkeys(
                urldefrag(found)[0]
                for node in tree.css("a[href]")[: 2 * MOST_LINKS]
                if (found := _joined(base_url, node.attributes.get("href"))) and found.startswith(("http:", "https:"))
            )
        )[:MOST_LINKS],
        "linked": _linked(tree),
        "elements": list(_elements(tree, lines, base_url))[:MOST_ELEMENTS],
        "scripts": len(tree.css("script[src]")),
        "script_bytes": sum(
            len(node.text())
            for node in tree.css("script:not([src])")
            if "json" not in (node.attributes.get("type") or "")
        ),
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
        marked = visible_text(main, _ASIDE - {"header"})
        least, longest = LEAST_OF * len(marked.split()), MOST_BEYOND * len(marked.split()) + FEW_WORDS
    else:
        marked = visible_text(tree.body, _ASIDE) if tree.body else ""
        least, longest = 1, math.inf
    found = len(text.split())
    return "\n\n".join(marked.split("\n")) if not least <= found <= longest else text.strip()


def visible_text(body: LexborNode, without: frozenset[str] = frozenset()) -> str:
    """Return the text that a browser shows without scripts, a line for each block; elements hidden by an attribute
    are left out.

    With elements to leave out (`without`) it is for reading: headings and list items have the marks of Markdown.
    """
    parts: list[str] = []
    node: LexborNode | None = body
    while node is not None:
        tag = node.tag
        below: LexborNode | None = None
        if tag == "-text":
            parts.append(node.text_content or "")
        elif tag not in _UNSEEN and tag not in without and not _hidden(node):
            parts.append("\n" if tag in _BLOCKS else " " if tag in ("td", "th") else "")
            if without and tag in _MARKS:
                parts.append(_MARKS[tag])
            below = node.child
        if below is not None:
            node = below
            continue
        while node is not None and node.mem_id != body.mem_id and node.next is None:
            node = node.parent
            parts.append("\n" if node is not None and node.tag in _BLOCKS else "")
        node = None if node is None or node.mem_id == body.mem_id else node.next
    lines = (" ".join(line.split()) for line in "".join(parts).split("\n"))
    return "\n".join(line for line in lines if line)


def _hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    if not attributes:
        return False
    style = (attributes.get("style") or "").replace(" ", "").lower()
    return "hidden" in attributes or "display:none" in style


class _Lines:
    """The lines on which the start tags of each name stand, in their order."""

    def __init__(self, html: str) -> None:
        ends = [found.start() for found in re.finditer("\n", html)]
        self._lines: dict[str, list[int]] = {}
        for found in _TAG.finditer(html):
            if name := found[1] or found[2]:
                self._lines.setdefault(name.lower(), []).append(bisect_right(ends, found.start()) + 1)

    def of(self, tag: str, place: int) -> int:
        """Return the line of the start tag with `place` others of its name before it; of the last one where there
        are fewer."""
        found = self._lines.get(tag, [1])
        return found[min(place, len(found) - 1)]


def _headings(tree: LexborHTMLParser, lines: _Lines) -> list[tuple[int, str, int]]:
    seen: dict[str, int] = {}
    headings = []
    for node in tree.css("h1, h2, h3, h4, h5, h6"):
        tag = node.tag or ""
        place = seen[tag] = seen.get(tag, -1) + 1
        headings.append((int(tag[1]), " ".join(node.text().split()).strip("¶# ")[:CUT], lines.of(tag, place)))
    return headings[:MOST_ELEMENTS]


_Element = tuple[str, str, int]  # kind, text, line


def _elements(tree: LexborHTMLParser, lines: _Lines, base: str) -> Iterator[_Element]:
    yield from _head_elements(tree, lines, base)
    yield from _image_elements(tree, lines)
    yield from _table_elements(tree, lines)
    yield from _typed_elements(tree, lines)
    yield from _paragraph_lists(tree, lines)


def _head_elements(tree: LexborHTMLParser, lines: _Lines, base: str) -> Iterator[_Element]:
    """Yield titles, canonical links and JSON-LD."""
    for place, node in enumerate(tree.css("title")):
        if not _inside(node, frozenset(("svg",))):
            yield "title", " ".join(node.text().split())[:CUT], lines.of("title", place)
    for place, node in enumerate(tree.css("link")):
        if "canonical" in (node.attributes.get("rel") or "").lower().split():
            yield "canonical", _joined(base, node.attributes.get("href")) or "", lines.of("link", place)
    for place, node in enumerate(tree.css("script")):
        if (node.attributes.get("type") or "").lower() == "application/ld+json":
            yield "json-ld", node.text()[:CUT], lines.of("script", place)


def _image_elements(tree: LexborHTMLParser, lines: _Lines) -> Iterator[_Element]:
    """Yield the images of the content, those without a text in place of them apart; decorations are left out."""
    for place, node in enumerate(tree.css("img")):
        if not _inside(node, _ASIDE):
            alt, source = node.attributes.get("alt"), node.attributes.get("src") or ""
            without = "alt" not in node.attributes
            if node.attributes.get("role") in ("presentation", "none"):
                continue
            yield (
                "image-without-alt" if without else "image",
                source[:CUT] if without else f"{source[:CUT]} {alt or ''}".strip()[:CUT],
                lines.of("img", place),
            )


def _table_elements(tree: LexborHTMLParser, lines: _Lines) -> Iterator[_Element]:
    """Yield the first row of each table of several rows that has no heading cell."""
    for place, node in enumerate(tree.css("table")):
        if node.attributes.get("role") in ("presentation", "none"):
            continue
        rows = node.css("tr")
        if len(rows) > 1 and not node.css_first("th"):
            shown = " | ".join(" ".join(cell.text().split()) for cell in rows[0].css("td"))
            yield "table-without-head", shown[:CUT], lines.of("table", place)


def _typed_elements(tree: LexborHTMLParser, lines: _Lines) -> Iterator[_Element]:
    """Yield lists and tables that are typed as text."""
    for tag in ("p", "pre", "div"):
        for place, node in enumerate(tree.css(tag)):
            if tag == "div" and node.css_first("p, div, ul, ol, table, pre"):
                continue  # its text is that of the elements within
            if tag == "pre" and node.css_first("code"):
                continue
            text = _own_lines(node)
            if kind := _typed(text):
                yield kind, " / ".join(text.split("\n"))[:CUT], lines.of(tag, place)


def _own_lines(node: LexborNode) -> str:
    """Return the text of an element with line breaks, empty without `br`; of `pre` as it stands."""
    if node.tag == "pre":
        return (node.text() or "").strip("\n")
    return visible_text(node) if node.css_first("br") else ""


def _typed(text: str) -> str | None:
    lines = [line for line in text.split("\n")[:200] if line.strip()]
    if sum(bool(_BULLET.match(line)) for line in lines) >= _LEAST_LINES:
        return "typed-list"
    if sum(bool(_RULED.match(line)) for line in lines) >= _LEAST_LINES:
        return "typed-table"
    return None


def _paragraph_lists(tree: LexborHTMLParser, lines: _Lines) -> Iterator[tuple[str, str, int]]:
    """Find runs of paragraphs that each begin with a bullet."""
    paragraphs = ((number, node, " ".join(node.text().split())) for number, node in enumerate(tree.css("p")))
    in_item = frozenset(("li",))
    for is_list, run in groupby(
        paragraphs, key=lambda item: bool(_BULLET.match(item[2])) and not _inside(item[1], in_item)
    ):
        (number, _, first), *others = run
        if is_list and len(others) + 1 >= _LEAST_LINES:
            yield "typed-list", " / ".join((first, *(text for _, _, text in others)))[:CUT], lines.of("p", number)


def _linked(tree: LexborHTMLParser) -> list[str]:
    """Return the texts of paragraphs, list items, cells and quotations of the main content in which a link or a note
    stands."""
    texts: dict[int, str] = {}
    for link in tree.css("a[href], sup, cite"):
        above = link.parent
        while above is not None and above.tag not in _PARAGRAPHS:
            above = above.parent
        if above is not None and above.mem_id not in texts and not _inside(above, _ASIDE):
            texts[above.mem_id] = " ".join(above.text().split())[:MOST_PARAGRAPH]
            if len(texts) >= MOST_ELEMENTS:
                break
    return list(texts.values())


def _inside(node: LexborNode, tags: frozenset[str]) -> bool:
    above = node.parent
    while above is not None:
        if above.tag in tags:
            return True
        above = above.parent
    return False


def _before(node: LexborNode) -> str:
    """Return the words before a `time` element, in its parent: they say which date it is."""
    above = node.parent
    if above is None:
        return ""
    text, own = above.text(), node.text()
    return " ".join(text.partition(own)[0].split())[-60:] if own else ""


def _joined(base: str, href: str | None) -> str | None:
    if href is None:
        return None
    try:
        return urljoin(base, href.strip())
    except ValueError:
        return None


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


def _answer(request: dict[str, Any], content: bytes) -> str:
    if "url" in request:
        return json.dumps(_parse_within_limits(content.decode("utf-8", "replace"), request["url"]))
    return json.dumps(read_links(content, request["most"], request["longest"]))


if __name__ == "__main__":
    answer_requests(_answer)
