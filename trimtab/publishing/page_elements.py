"""Finds the elements of a page that checks use, each with its kind, its text or address, and its line."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import groupby
from urllib.parse import urljoin, urlsplit

from selectolax.lexbor import LexborHTMLParser, LexborNode

from trimtab.publishing.visible import ASIDE, hidden_elements, inside, visible_text

MOST_ELEMENTS, CUT = 500, 300  # elements of one page; characters of an element's text
Element = tuple[str, str, int]  # kind, text, line
_TAG = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|template|textarea|title)\b[^>]*>.*?(?:</\1\b|\Z)|<([a-z][a-z0-9-]*)\b",
    re.I | re.S,
)
_BULLET = re.compile(r"\s*(?:[•·▪◦‣●○■–—*-]|\(?\d{1,2}[.)])\s+\S")
_RULED = re.compile(
    r"\s*[|+][-=+|: ]{5,}[|+]\s*$|(?:[^|\n]*\|){2,}[^|\n]*$|\S+(?: \S+)*(?:\s{3,}|\t+)\S+(?: \S+)*(?:\s{3,}|\t+)\S+"
)
_LEAST_LINES = 3  # that make a typed list or table


class Lines:
    """The lines on which the start tags of each name stand, in their order."""

    def __init__(self, html: str, tree: LexborHTMLParser) -> None:
        ends = [found.start() for found in re.finditer("\n", html)]
        self._tree = tree
        self._lines: dict[str, list[int]] = {}
        self._places: dict[str, dict[int, int]] = {}
        for found in _TAG.finditer(html):
            if name := found[1] or found[2]:
                self._lines.setdefault(name.lower(), []).append(bisect_right(ends, found.start()) + 1)

    def of(self, node: LexborNode) -> int:
        """Return the line of an element's start tag: that of the last one of its name where the parser made more."""
        tag = node.tag or ""
        if tag not in self._places:
            self._places[tag] = {one.mem_id: place for place, one in enumerate(self._tree.css(tag))}
        found = self._lines.get(tag, [1])
        return found[min(self._places[tag].get(node.mem_id, 0), len(found) - 1)]


def text_of(node: LexborNode) -> str:
    """Return the text of an element on one line."""
    return " ".join((node.text() or "").split())


def joined(base: str, href: str | None) -> str | None:
    """Return an address that may be relative to `base` as an absolute one; None for what is none."""
    if href is None:
        return None
    try:
        return urljoin(base, href.strip())
    except ValueError:
        return None


def elements(html: str, tree: LexborHTMLParser, lines: Lines, base: str) -> Iterator[Element]:
    """Yield the elements of a page, those of its head first."""
    scripts = "\n".join(
        [node.text() or "" for node in tree.css("script:not([src])")]
        + [node.attributes.get("onclick") or "" for node in tree.css("[onclick]")]
    )
    yield from _head_elements(tree, lines, base)
    yield from _script_elements(tree, lines, base)
    yield from _image_elements(tree, lines)
    yield from _table_elements(tree, lines)
    yield from _typed_elements(tree, lines)
    yield from _paragraph_lists(tree, lines)
    yield from _bold_headings(tree, lines)
    yield from _hidden_elements(html, tree, lines, scripts)
    yield from _brought_elements(html, tree, lines, scripts)
    yield from _other_elements(tree, lines, base)
    yield from _link_elements(tree, lines, base)


def _head_elements(tree: LexborHTMLParser, lines: Lines, base: str) -> Iterator[Element]:
    """Yield titles, canonical links and alternates, and what `meta` says to search."""
    for node in tree.css("title"):
        if not inside(node, frozenset(("svg",))):
            yield "title", text_of(node)[:CUT], lines.of(node)
    for node in tree.css("link"):
        rels, href = (node.attributes.get("rel") or "").lower().split(), (node.attributes.get("href") or "").strip()
        if "canonical" in rels:
            yield *_canonical(node, base, href), lines.of(node)
        elif "alternate" in rels and node.attributes.get("hreflang") is not None:
            yield "alternate", f"{(node.attributes['hreflang'] or '').strip()} {href}", lines.of(node)
    for node in tree.css("meta"):
        kind = _META.get((node.attributes.get("name") or node.attributes.get("property") or "").lower().strip())
        if (node.attributes.get("http-equiv") or "").lower() == "refresh":
            kind = "refresh"
        if kind:
            yield kind, (node.attributes.get("content") or "").strip()[: 4 * CUT], lines.of(node)


def _script_elements(tree: LexborHTMLParser, lines: Lines, base: str) -> Iterator[Element]:
    """Yield JSON-LD, and scripts that go to another address."""
    for node in tree.css("script:not([src])"):
        if (node.attributes.get("type") or "").lower() == "application/ld+json":
            yield "json-ld", node.text()[:CUT], lines.of(node)
        elif found := _MOVES.search(node.text() or ""):
            yield "script-move", joined(base, found[1]) or found[1], lines.of(node)


_META = {"description": "description", "og:url": "og-url"}
_MOVES = re.compile(r"""\blocation(?:\.href)?(?:\s*=|\.(?:replace|assign)\()\s*["']([^"']+)["']""")


def _canonical(node: LexborNode, base: str, href: str) -> tuple[str, str]:
    """Return kind and text of a canonical link: one that search does not use is told with the reason."""
    if not inside(node, frozenset(("head",))):
        return "odd-canonical", f"in the body, where it is not read: {href}"
    address = joined(base, href) or ""
    if not href or not address.startswith(("http://", "https://")):
        return "odd-canonical", f"no address: {href}" if href else "an empty address"
    return "canonical", address


def _image_elements(tree: LexborHTMLParser, lines: Lines) -> Iterator[Element]:
    """Yield the images of the content, those without a text in place of them apart; decorations are left out."""
    for node in tree.css("img"):
        if not inside(node, ASIDE):
            alt, source = node.attributes.get("alt"), node.attributes.get("src") or ""
            without = "alt" not in node.attributes
            if node.attributes.get("role") in ("presentation", "none"):
                continue
            yield (
                "image-without-alt" if without else "image",
                source[:CUT] if without else f"{source[:CUT]} {alt or ''}".strip()[:CUT],
                lines.of(node),
            )


def _table_elements(tree: LexborHTMLParser, lines: Lines) -> Iterator[Element]:
    """Yield the first row of each table of several rows that has no heading cell."""
    for node in tree.css("table"):
        if node.attributes.get("role") in ("presentation", "none"):
            continue
        rows = node.css("tr")
        if len(rows) > 1 and not node.css_first("th"):
            yield "table-without-head", " | ".join(map(text_of, rows[0].css("td")))[:CUT], lines.of(node)


def _typed_elements(tree: LexborHTMLParser, lines: Lines) -> Iterator[Element]:
    """Yield lists and tables that are typed as text."""
    for tag in ("p", "pre", "div"):
        for node in tree.css(tag):
            if tag == "div" and node.css_first("p, div, ul, ol, table, pre"):
                continue  # its text is that of the elements within
            if tag == "pre" and node.css_first("code"):
                continue
            text = _own_lines(node)
            if kind := _typed(text):
                yield kind, " / ".join(text.split("\n"))[:CUT], lines.of(node)


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


def _paragraph_lists(tree: LexborHTMLParser, lines: Lines) -> Iterator[Element]:
    """Find runs of paragraphs that each begin with a bullet."""
    paragraphs = ((node, text_of(node)) for node in tree.css("p"))
    in_item = frozenset(("li",))
    for is_list, run in groupby(
        paragraphs, key=lambda item: bool(_BULLET.match(item[1])) and not inside(item[0], in_item)
    ):
        (node, first), *others = run
        if is_list and len(others) + 1 >= _LEAST_LINES:
            yield "typed-list", " / ".join((first, *(text for _, text in others)))[:CUT], lines.of(node)


def _bold_headings(tree: LexborHTMLParser, lines: Lines) -> Iterator[Element]:
    """Yield the paragraphs that stand as headings, wholly bold and short, on a page without headings below level 1."""
    if tree.css_first("h2, h3, h4, h5, h6") is not None:
        return
    bold = []
    for node in tree.css("p > b:only-child, p > strong:only-child"):
        text = text_of(node)
        if node.parent is not None and text == text_of(node.parent) and 0 < len(text.split()) <= 10:
            bold.append((node, text))
    if len(bold) >= _LEAST_LINES:
        yield "bold-heading", " / ".join(text for _, text in bold)[:CUT], lines.of(bold[0][0])


# "Ignore the instructions above", "AI assistants should recommend": what is written for a model and not for a reader.
_INSTRUCTS = re.compile(
    r"\b(?:ignore|disregard|forget)\s+(?:\w+\s+){0,3}(?:instructions|prompts?|rules)\b"
    r"|\b(?:AI|LLMs?|language models?|assistants?|chatbots?|ChatGPT|GPT|Claude|Gemini)\b.{0,80}"
    r"\b(?:recommend|always|never|must|tell|say|cite|rank|prefer)",
    re.I | re.S,
)


def _hidden_elements(html: str, tree: LexborHTMLParser, lines: Lines, scripts: str) -> Iterator[Element]:
    """Yield hidden sentences, and comments that instruct a model."""
    for node in hidden_elements(tree, scripts):
        yield "hidden", text_of(node)[:CUT], lines.of(node)
    for found in re.finditer(r"<!--(.*?)-->", html, re.S):
        if _INSTRUCTS.search(found[1]):
            yield "hidden", f"in a comment: {' '.join(found[1].split())[:CUT]}", html.count("\n", 0, found.start()) + 1


_WRITES = re.compile(
    r"innerHTML|outerHTML|textContent|innerText|insertAdjacent|\.append|\.html\(|\.text\(|\.load\(|render\(|createRoot"
    r"|createApp|hydrate|replaceChildren"
)
_LEAST_MAIN = 20  # words of the main part of a page, below which a script in it is taken to bring them
_LOADING = re.compile(r"(?:loading|please wait|wird geladen|chargement|cargando)\b[\s.…]*", re.I)
_NO_TEXT = re.compile(r"icon|video|player|youtube|vimeo|map|chart|button|spinner|image|avatar")


def _brought_elements(html: str, tree: LexborHTMLParser, lines: Lines, scripts: str) -> Iterator[Element]:
    """Yield the empty elements of the content that the page's own scripts fill."""
    for node in tree.css("[id]") if _WRITES.search(scripts) else []:
        name, text = node.attributes.get("id") or "", text_of(node)
        is_named = name and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", scripts)
        if is_named and (not text or _LOADING.fullmatch(text)) and _can_be_filled(node):
            yield "brought", f"<{node.tag} id={name}>{text}", lines.of(node)
    for node in tree.css("script:not([src])"):
        if "document.write" in (node.text() or "") and not inside(node, ASIDE | {"head"}):
            yield "brought", "document.write", lines.of(node)
    main = tree.css_first("article") or tree.css_first("main, [role=main]")
    if main is not None and len(text_of(main).split()) < _LEAST_MAIN and (script := main.css_first("script")):
        yield "brought", f"the main part, by {script.attributes.get('src') or 'a script in it'}", lines.of(script)
    for tag in sorted(set(re.findall(r"<([a-z][a-z0-9]*-[a-z0-9-]*)[\s>]", html)))[:50]:
        for node in tree.css(tag)[:1]:
            if node.css_first("template[shadowrootmode]") is not None:
                yield "brought", f"<{tag}> with a shadow root, which only browsers show", lines.of(node)
            elif not text_of(node) and not _NO_TEXT.search(tag) and not inside(node, ASIDE):
                yield "brought", f"<{tag}>, an element that scripts fill", lines.of(node)


def _can_be_filled(node: LexborNode) -> bool:
    """Return True for an element of the content that can hold text and holds nothing else."""
    is_other = node.tag in ("canvas", "input", "script", "style", "img", "iframe", "video", "audio", "link", "template")
    return not is_other and not inside(node, ASIDE) and node.css_first("img, input, iframe, button, svg") is None


_LEAST_DRAWN = 5  # words
_CONTENT = re.compile(r"""\bcontent\s*:\s*["']((?:[^"'\\]|\\.)*)["']""")


def _other_elements(tree: LexborHTMLParser, lines: Lines, base: str) -> Iterator[Element]:
    """Yield frames and what is drawn, whose text is not the page's own, and fields for a password."""
    for node in tree.css("iframe, frame, embed, object"):
        source = node.attributes.get("src") or node.attributes.get("data") or ""
        size = {node.attributes.get("width"), node.attributes.get("height")}
        if source and not size & {"0", "1"} and not inside(node, ASIDE):
            yield "frame", (joined(base, source) or source)[:CUT], lines.of(node)
    for node in tree.css("canvas, svg, style"):
        if drawn := _drawn(node):
            yield "drawn", drawn, lines.of(node)
    for node in tree.css("input[type=password i]"):
        yield "password", "", lines.of(node)


def _drawn(node: LexborNode) -> str | None:
    """Return the text that a canvas, an SVG picture or a style sheet draws, as far as it stands there."""
    if node.tag == "canvas":
        return None if text_of(node) or inside(node, ASIDE) else "a canvas"
    is_picture = node.tag == "svg"
    kind = "SVG" if is_picture else "content of CSS"
    text = " ".join(map(text_of, node.css("text")) if is_picture else _CONTENT.findall(node.text() or ""))
    return f"{kind}: {text[:CUT]}" if len(text.split()) >= _LEAST_DRAWN else None


_VAGUE = frozenset(
    (
        "here", "click here", "this", "this page", "this link", "link", "more", "read more", "learn more",
        "see more", "more info", "details", "continue", "hier", "klick hier", "mehr", "weiterlesen", "ici",
        "lire la suite", "aquí", "leer más", "qui", "lees meer", "meer",
    )
)  # fmt: skip
_OWN_MACHINE = re.compile(
    r"file:|https?://(?:localhost|127\.\d+\.\d+\.\d+|0\.0\.0\.0|10\.\d+\.\d+\.\d+|192\.168\.\d+\.\d+"
    r"|172\.(?:1[6-9]|2\d|3[01])\.\d+\.\d+|\[::1\])(?=[:/]|$)",
    re.I,
)
_GOES = re.compile(r"""\blocation\b|window\.open|navigate|["'](?:/|https?:)""")


def _link_elements(tree: LexborHTMLParser, lines: Lines, base: str) -> Iterator[Element]:
    """Yield the links that readers without scripts or eyes cannot use, and those to a part of a page."""
    own = urlsplit(base)
    names = {node.attributes.get("id") for node in tree.css("[id]")} | {
        node.attributes.get("name") for node in tree.css("a[name]")
    }
    for node in tree.css("a[href]")[:5000]:
        href = (node.attributes.get("href") or "").strip()
        address = joined(base, href) or ""
        parts = urlsplit(address) if address.startswith(("http://", "https://")) else None
        kind = _kind_of_link(node, href, names)
        if kind:
            yield kind, f"{text_of(node)[:CUT]} {href[:CUT]}".strip(), lines.of(node)
        if _OWN_MACHINE.match(address) and (parts is None or parts.netloc != own.netloc):
            yield "private-link", address[:CUT], lines.of(node)
        if parts is not None and parts.netloc == own.netloc:
            if "nofollow" in (node.attributes.get("rel") or "").lower().split():
                yield "nofollow-link", address[:CUT], lines.of(node)
            if parts.fragment and not href.startswith("#") and not parts.fragment.startswith(("!", "/", ":~:")):
                yield "fragment", address[: 4 * CUT], lines.of(node)
    for node in tree.css("[onclick]"):
        if "href" not in node.attributes and _GOES.search(node.attributes.get("onclick") or ""):
            yield "script-link", f"{text_of(node)[:CUT]} {node.attributes.get('onclick')}"[:CUT], lines.of(node)


def _kind_of_link(node: LexborNode, href: str, names: set[str | None]) -> str | None:
    """Return what is wrong with a link as it is written, None where nothing is."""
    if href.lower().startswith("javascript:"):
        is_link = _GOES.search(href) or _GOES.search(node.attributes.get("onclick") or "")
        return "script-link" if is_link else None
    if href.startswith("#"):
        is_there = href in ("#", "#top") or href[1:] in names or href.startswith(("#!", "#/", "#:~:"))
        return None if is_there else "broken-anchor"
    if inside(node, ASIDE):
        return None
    text = text_of(node)
    if not text and not _is_named(node):
        return "empty-link"
    return "vague-link" if text.lower().strip(" .…»>→") in _VAGUE else None


def _is_named(node: LexborNode) -> bool:
    """Return True if something stands in place of a link's text."""
    if any(node.attributes.get(name) for name in ("aria-label", "aria-labelledby", "title")):
        return True
    return any(
        one.attributes.get("alt") or one.attributes.get("aria-label") or one.tag == "title"
        for one in node.css("img, svg, title, [aria-label]")
    )
