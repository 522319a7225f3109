"""The text of a page that a browser shows, and the elements that its styles hide."""

from __future__ import annotations

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from trimtab.measurement.numerals import words

UNSEEN = frozenset(("script", "style", "template", "noscript", "svg", "head", "iframe", "object", "textarea", "select"))
ASIDE = frozenset(("nav", "header", "footer", "aside"))
_BLOCKS = frozenset(
    words(
        "address article aside blockquote body br button caption dd details dialog div dl dt fieldset figcaption "
        "figure footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol option p pre section summary table tbody tfoot "
        "thead tr ul"
    )
)
_MARKS = {f"h{level}": f"{'#' * level} " for level in range(1, 7)} | {"li": "- "}  # of Markdown


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
        elif tag not in UNSEEN and tag not in without and not is_hidden(node):
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


def is_hidden(node: LexborNode) -> bool:
    """Return True if an element's own attributes hide it."""
    attributes = node.attributes
    return bool(attributes) and ("hidden" in attributes or hides(attributes.get("style") or ""))


def inside(node: LexborNode, tags: frozenset[str]) -> bool:
    """Return True if an element stands in one of these."""
    above = node.parent
    while above is not None:
        if above.tag in tags:
            return True
        above = above.parent
    return False


_HIDES = re.compile(
    r"(?:^|;)(?:display:none|visibility:hidden|opacity:0(?:\.0+)?(?![.\d])|font-size:[01](?:px|em|rem|%|pt)?(?![.\d])"
    r"|(?:left|right|top|text-indent|margin-left):-\d{3,})"
)
_COLOUR = re.compile(r"(?:^|;)(background(?:-color)?|color):([^;!]+)")
_WHITE = {"white": "#ffffff", "#fff": "#ffffff", "rgb(255,255,255)": "#ffffff", "black": "#000000", "#000": "#000000"}


def hides(style: str) -> bool:
    """Return True if declarations of CSS keep an element's text from a reader's eyes."""
    if not style:
        return False
    written = re.sub(r"\s+", "", style).lower()
    colours = {name[:5]: _WHITE.get(value, value) for name, value in _COLOUR.findall(written)}
    return (
        _HIDES.search(written) is not None
        or (
            "overflow:hidden" in written
            and re.search(r"(?:^|;)(?:max-)?(?:height|width):0(?![.\d])", written) is not None
        )
        or ("color" in colours and colours["color"] == colours.get("backg"))
    )


_LEAST_HIDDEN = 5  # words that make a sentence
_SHOWN_LATER = re.compile(
    r"modal|pop|tip|drop|menu|tab|search|sr-|screen|visually|collaps|accordion|toast|dialog|print|toggle|nav", re.I
)
_INTERACTIVE = frozenset(words("dialog form menu template noscript button label option select details svg")) | ASIDE
_AT_RULE = re.compile(r"@[^{}]+\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}|/\*.*?\*/", re.S)
_SIMPLE_RULE = re.compile(r"(?:^|\})\s*([.#][A-Za-z_][\w-]*)\s*\{([^{}]*)\}")


def hidden_elements(tree: LexborHTMLParser, scripts: str) -> Iterator[LexborNode]:
    """Yield the outermost elements of the content with a sentence that attributes or the page's own styles hide.

    What menus, dialogs, tabs and the like hide until they are used is left out, and what a link, a label or one of
    the page's `scripts` names.
    """
    named = {
        (node.attributes.get(name) or "").lstrip("#")
        for name in ("aria-controls", "aria-describedby", "data-target", "data-bs-target", "for", "href")
        for node in tree.css(f"[{name}]")
    }
    chosen = [node for node in tree.css("[style], [hidden]") if is_hidden(node)]
    chosen += [node for sign in _hidden_by_styles(tree) for node in tree.css(sign)]
    hidden = {node.mem_id for node in chosen}
    for node in chosen:
        signs = [node.attributes.get("id") or "", *(node.attributes.get("class") or "").split()]
        is_used = any(sign in scripts for sign in signs if sign) or (signs[0] != "" and signs[0] in named)
        is_control = _SHOWN_LATER.search(" ".join((*signs, node.attributes.get("role") or "")))
        if is_used or is_control or node.tag in _INTERACTIVE or inside(node, _INTERACTIVE) or _within(node, hidden):
            continue
        if len((node.text() or "").split()) >= _LEAST_HIDDEN:
            yield node


def _within(node: LexborNode, hidden: set[int]) -> bool:
    above = node.parent
    while above is not None and above.mem_id not in hidden:
        above = above.parent
    return above is not None


def _hidden_by_styles(tree: LexborHTMLParser) -> Iterator[str]:
    """Yield the classes and ids that a `style` element of the page hides, in no other state than always."""
    css = _AT_RULE.sub("", "\n".join(node.text() for node in tree.css("style")))
    for sign, declarations in _SIMPLE_RULE.findall(css):
        if hides(declarations) and len(re.findall(rf"{re.escape(sign)}(?![\w-])", css)) == 1:
            yield sign
