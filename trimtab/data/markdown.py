"""Parses Markdown into titled sections with heading paths."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from trimtab.base.records import Section

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.token import Token

_FRONT_MATTER_LINE = re.compile(r"\s|[\w.-]+\s*:|#|-\s|$")
_TITLE = re.compile(r"title\s*:(.*)")


def parse_markdown(text: str, title: str) -> tuple[str, tuple[Section, ...]]:
    """Return title and sections of a Markdown text; the first heading of level 1 is the title (else `title`), and is in
    no path.

    Headings follow CommonMark, outside lists and quotations; front matter between `---` lines may give the title and is
    left out.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    blocks = _blocks(text, front_matter=True)
    if blocks and not blocks[0].level and not all(map(_FRONT_MATTER_LINE.match, blocks[0].text.split("\n"))):
        blocks = _blocks(text, front_matter=False)  # two rules with text between them
    found_title: str | None = None
    path: list[tuple[int, str]] = []
    sections: list[Section] = []
    section_start = 0
    for block in [*blocks, _Block(len(lines), len(lines), 1, "")]:
        content = "\n".join(lines[section_start : block.start]).strip()
        if content:
            sections.append(Section(path=tuple(name for _, name in path), text=content))
        section_start = block.end
        if not block.level:
            titles = (_unquoted(match[1]) for match in map(_TITLE.fullmatch, block.text.split("\n")) if match)
            found_title = next(filter(None, titles), None)
            continue
        while path and path[-1][0] >= block.level:
            path.pop()
        if block.level == 1 and (found_title is None or block.text == found_title) and not path:
            found_title = block.text
        elif block.text:
            path.append((block.level, block.text))
    return found_title or title, tuple(sections)


def _unquoted(value: str) -> str:
    """Return a value of front matter without surrounding white space and quotes."""
    value = value.strip()
    value = value[1:] if value.startswith(("'", '"')) else value
    return value[:-1] if value.endswith(("'", '"')) else value


class _Block(NamedTuple):
    """A heading or, with level 0, front matter: first line, line after the last, and text."""

    start: int
    end: int
    level: int
    text: str


def _blocks(text: str, *, front_matter: bool) -> list[_Block]:
    """Return the front matter, if requested, and every heading outside other blocks."""
    blocks: list[_Block] = []
    blocks += _headings(_parser(front_matter=front_matter).parse(text, {"kept": blocks}))
    return blocks


@cache
def _parser(*, front_matter: bool) -> MarkdownIt:
    """Return a parser of blocks only; inline markup stays as it is."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.front_matter import front_matter_plugin

    def release_tokens(state: StateBlock, _start: int, _end: int, _silent: bool) -> bool:
        """Match nothing, but free the tokens before every block; otherwise memory is 600 times the text."""
        if state.level == 0:
            state.env["kept"] += _headings(state.tokens)
            state.tokens.clear()
        return False

    parser = MarkdownIt("commonmark").enable("table")
    if front_matter:
        parser.use(front_matter_plugin)
    parser.block.ruler.before("table", "let_go", release_tokens)
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


def _headings(tokens: Sequence[Token]) -> Iterator[_Block]:
    for number, token in enumerate(tokens):
        if token.level or not token.map or token.type not in ("heading_open", "front_matter"):
            continue
        start, end = token.map
        if token.type == "front_matter":
            yield _Block(start, end, 0, token.content)
        elif (
            token.markup[0] == "#" or end - start == 2
        ):  # a paragraph of several lines above dashes is hardly ever a heading
            yield _Block(start, end, int(token.tag[1:]), tokens[number + 1].content)
