"""Turns reStructuredText into Markdown, which `parse_markdown` reads: headings, lists, code, tables and plain inline
text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_ADORNED = re.compile(r"([=\-`:.'\"~^_*+#<>])\1+\s*$")
_DIRECTIVE = re.compile(r"\.\.\s+(?:\|[^|]+\|\s+)?([\w:.-]+?)::(?:\s+(.*))?$")
_OPTION = re.compile(r":[\w -]+:(?:\s|$)")
_CODE = frozenset(("code", "code-block", "sourcecode", "parsed-literal", "prompt", "doctest", "highlight"))
_UNREAD = frozenset(
    (
        *("image", "figure", "mermaid", "graphviz", "uml", "raw", "toctree", "include", "literalinclude", "contents"),
        *("meta", "index", "only", "math", "module", "currentmodule", "role", "default-role"),
    )
)
_DEEPEST = 20  # directives within each other that are read
_WITHIN = r"(?:[^`\n]|\n(?!\s*\n))+"  # of one paragraph
_ROLE = re.compile(rf"(?<![`\w:]):[\w:.+-]{{1,60}}:`({_WITHIN})`")
_TARGET = re.compile(r"\s*<[^<>]+>$")
_REFERENCE = re.compile(rf"(?<![`\w])`({_WITHIN})`__?(?!\w)")
_LITERAL = re.compile(rf"``({_WITHIN})``")
_FENCED = re.compile(r"(^```\n.*?^```$)", re.M | re.S)
_MARK = re.compile(r"^(\s*)(#\.|\|)\s+(?=\S)")  # of a numbered item, or of a line that is not wrapped
_CELL = re.compile(r"(?P<row>[-*]\s+)?(?P<cell>[-*])(?:\s+(?P<text>.*))?$")


def markdown_of(text: str) -> str:
    """Return a text of reStructuredText as Markdown; comments, targets, pictures and lists of contents are left out."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").expandtabs(4).split("\n")
    markdown = re.sub(r"\n{3,}", "\n\n", "\n".join(_converted(lines, [], 0)))
    parts = _FENCED.split(markdown)  # every second one is code
    return "".join(part if number % 2 else _plain_inline(part) for number, part in enumerate(parts))


def _converted(lines: Sequence[str], levels: list[str], depth: int) -> Iterator[str]:
    """Yield the lines in Markdown. `levels`: the adornments of the headings so far, the highest first; `depth`: of the
    directives around them."""
    place = 0
    while place < len(lines):
        line, end = lines[place], place + 1
        if heading := _heading_at(lines, place):
            style, title, height = heading
            if style not in levels:
                levels.append(style)
            yield from ("", f"{'#' * min(6, levels.index(style) + 1)} {title}", "")
            end = place + height
        elif line.lstrip().startswith(".. ") or line.strip() == "..":
            end = _block_end(lines, place)
            yield from _directive(lines[place:end], levels, depth + 1)
        elif line.rstrip().endswith("::"):
            yield line.rstrip()[:-1] if line.strip() != "::" else ""
            end = _block_end(lines, place)
            yield from _fenced(lines[place + 1 : end])
        else:
            yield _MARK.sub(lambda match: match[1] + ("1. " if match[2] == "#." else ""), line)
        place = end


def _heading_at(lines: Sequence[str], place: int) -> tuple[str, str, int] | None:
    """Return the adornment of the heading that begins at a line, its title and its number of lines."""
    rest = [line.rstrip() for line in lines[place : place + 3]] + ["", "", ""]
    if _ADORNED.match(rest[0]) and rest[1].strip() and rest[2] == rest[0] and len(rest[0]) >= len(rest[1].strip()):
        return rest[0][0] * 2, rest[1].strip(), 3
    is_title = rest[0] and not rest[0][0].isspace() and not _ADORNED.match(rest[0])
    if is_title and _ADORNED.match(rest[1]) and len(rest[1]) >= min(4, len(rest[0])):
        return rest[1][0], rest[0], 2
    return None


def _block_end(lines: Sequence[str], place: int) -> int:
    """Return the line after the indented block that belongs to the line at `place`."""
    depth = _indent(lines[place])
    end = last = place + 1
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > depth):
        end += 1
        last = end if lines[end - 1].strip() else last
    return last


def _directive(block: Sequence[str], levels: list[str], depth: int) -> Iterator[str]:
    """Yield the content of a directive: code fenced, a list of cells as a table, notes as plain text."""
    match = _DIRECTIVE.match(block[0].strip())
    if match is None or match[1] in _UNREAD or depth > _DEEPEST:
        return  # a comment, a target, a footnote, or nothing to read
    body = _dedented(block[1:])
    while body and (not body[0].strip() or _OPTION.match(body[0])):
        body = body[1:]
    yield ""
    if match[1] in _CODE:
        yield from _fenced(body)
    elif match[1] == "list-table":
        yield from _table(body)
    else:
        yield from (match[2] or "", "")
        yield from _converted(body, levels, depth)
    yield ""


def _fenced(lines: Sequence[str]) -> Iterator[str]:
    code = "\n".join(_dedented(lines)).strip("\n")
    if code:
        yield from ("", "```", code, "```", "")


def _table(lines: Sequence[str]) -> Iterator[str]:
    """Yield the rows of a list-table, whose cells are items of items."""
    rows: list[list[str]] = []
    for line in lines:
        match = _CELL.match(line.strip())
        if match and match["row"]:
            rows.append([match["text"] or ""])
        elif match and rows:
            rows[-1].append(match["text"] or "")
        elif line.strip() and rows:
            rows[-1][-1] += " " + line.strip()
    for number, row in enumerate(rows):
        yield "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |"
        if not number:
            yield "|" + " --- |" * len(row)


def _plain_inline(text: str) -> str:
    """Return a text with its roles and references as plain words and its literals as code of Markdown."""
    text = _ROLE.sub(lambda match: _TARGET.sub("", match[1]).lstrip("~!"), text)
    text = _REFERENCE.sub(lambda match: _TARGET.sub("", match[1]), text)
    return _LITERAL.sub(r"`\1`", text)


def _dedented(lines: Sequence[str]) -> list[str]:
    depth = min((_indent(line) for line in lines if line.strip()), default=0)
    return [line[depth:].rstrip() for line in lines]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
