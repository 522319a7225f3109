"""Documents in: Markdown, text, HTML, PDF and SQuAD JSON as titled sections with their heading path."""

from __future__ import annotations

import codecs
import hashlib
import io
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trimtab.base.errors import InputError
from trimtab.base.files import sha256_text
from trimtab.base.records import Document, Section
from trimtab.base.task import Task
from trimtab.base.visible import printable
from trimtab.data.sources import MB, read_bytes, read_text, resolve
from trimtab.data.squad import read_paragraphs

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.token import Token

MARKDOWN, TEXT, HTML = (".md", ".markdown"), (".txt", ".text"), (".html", ".htm", ".xhtml")
PDF, SQUAD = (".pdf",), (".json", ".json.gz")
SUFFIXES = (*MARKDOWN, *TEXT, *HTML, *PDF)
"""What is read from a listed folder; SQuAD JSON only when listed itself, since folders hold other JSON too."""

MOST_ATTRIBUTES = 5000  # of one HTML tag
PAGE_CAP = 16 * MB  # of HTML: parsing takes about 50 times its bytes of memory, and some seconds a MB
_KEYS = re.compile(r"\s|[\w.-]+\s*:|#|-\s|$")
_TITLE = re.compile(r"title\s*:(.*)")


def read_documents(task: Task) -> tuple[Document, ...]:
    """Every document of task.data.documents, in the order listed, folders sorted by path.

    A document's id is its path below the listed folder, or its name when it was listed itself; a SQuAD paragraph's is
    `{file stem}/{article}/{n}`. Raises InputError for files that cannot be read, hold no text, or share an id.
    """
    documents: dict[str, Document] = {}
    for pattern in task.data.documents:
        for path, root in resolve(task.folder, pattern, SUFFIXES, "data.documents"):
            # Relative to the task file, so that a source kept in an index holds from whichever folder it is read.
            source = path.relative_to(task.folder) if path.is_relative_to(task.folder) else path
            for read in _read(path, path.relative_to(root).as_posix(), task.data.encoding):
                document = replace(read, source=source.as_posix())
                other = documents.setdefault(document.id, document)
                if other is not document and other.source != document.source:
                    raise InputError(
                        f"shares the id {document.id!r} with {other.source}",
                        "list the folder that holds both, or rename one",
                        file=path,
                        field="data.documents",
                    )
    return tuple(documents.values())


def document_stamps(task: Task) -> tuple[tuple[str, int, int], ...]:
    """Path, time of change and size of every file that `read_documents` would read: another value says that one has changed."""
    found = []
    for pattern in task.data.documents:
        for path, _ in resolve(task.folder, pattern, SUFFIXES, "data.documents"):
            now = path.stat()
            found.append((str(path), now.st_mtime_ns, now.st_size))
    return tuple(found)


def _read(path: Path, name: str, encoding: str) -> Iterator[Document]:
    lower = path.name.lower()
    if lower.endswith(SQUAD):
        yield from _squad(path, encoding)
        return
    if not lower.endswith(SUFFIXES):
        raise InputError("unknown kind of document", f"use one of: {', '.join(SUFFIXES)}", file=path)
    data = read_bytes(path)
    stem = path.stem.replace("_", " ").replace("-", " ").strip()
    title = stem[:1].upper() + stem[1:]
    if lower.endswith(PDF):
        title, sections = _pdf(path, data, title)
    elif lower.endswith(HTML):
        title, sections = _html(path, data, title)
    elif lower.endswith(MARKDOWN):
        title, sections = parse_markdown(read_text(path, encoding), title)
    else:
        sections = (Section(path=(), text=read_text(path, encoding).strip()),)
    sections = tuple(section for section in sections if section.text)
    if not sections:
        remedy = "recognise its pages (OCR) first, or leave it out" if lower.endswith(PDF) else "leave it out"
        raise InputError("holds no text", remedy, file=path, field="data.documents")
    yield Document(id=name, title=title, source=str(path), sections=sections, digest=hashlib.sha256(data).hexdigest())


def parse_markdown(text: str, title: str) -> tuple[str, tuple[Section, ...]]:
    """Title and sections of a Markdown text: the first heading of level 1 is the title (else `title`), and stands in no path.

    Headings are CommonMark's, outside lists and quotations; front matter between `---` lines gives a title and is left out.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    blocks = _blocks(text, front_matter=True)
    if blocks and not blocks[0].level and not all(map(_KEYS.match, blocks[0].text.split("\n"))):
        blocks = _blocks(text, front_matter=False)  # two rules with text between them
    found: str | None = None
    path: list[tuple[int, str]] = []
    sections: list[Section] = []
    after = 0
    for block in [*blocks, _Block(len(lines), len(lines), 1, "")]:
        content = "\n".join(lines[after : block.start]).strip()
        if content:
            sections.append(Section(path=tuple(name for _, name in path), text=content))
        after = block.end
        if not block.level:
            titles = (_unquoted(match[1]) for match in map(_TITLE.fullmatch, block.text.split("\n")) if match)
            found = next(filter(None, titles), None)
            continue
        while path and path[-1][0] >= block.level:
            path.pop()
        if block.level == 1 and (found is None or block.text == found) and not path:
            found = block.text
        elif block.text:
            path.append((block.level, block.text))
    return found or title, tuple(sections)


def _unquoted(value: str) -> str:
    """A value of front matter without blanks around it and without one quote on either side."""
    value = value.strip()
    value = value[1:] if value.startswith(("'", '"')) else value
    return value[:-1] if value.endswith(("'", '"')) else value


class _Block(NamedTuple):
    """A heading or, with level 0, front matter: its first line, the line after its last, its text."""

    start: int
    end: int
    level: int
    text: str


def _blocks(text: str, *, front_matter: bool) -> list[_Block]:
    """The front matter, if it is to be looked for, and every heading that stands in no other block."""
    kept: list[_Block] = []
    kept += _wanted(_parser(front_matter=front_matter).parse(text, {"kept": kept}))
    return kept


@cache
def _parser(*, front_matter: bool) -> MarkdownIt:
    """A parser of blocks only: what stands inside a line stays as it is written."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.front_matter import front_matter_plugin

    def let_go(state: StateBlock, _start: int, _end: int, _silent: bool) -> bool:
        """A rule that matches nothing, tried before every block: keeps what is wanted, else memory is 600 times the text."""
        if state.level == 0:
            state.env["kept"] += _wanted(state.tokens)
            state.tokens.clear()
        return False

    parser = MarkdownIt("commonmark").enable("table")
    if front_matter:
        parser.use(front_matter_plugin)
    parser.block.ruler.before("table", "let_go", let_go)
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


def _wanted(tokens: Sequence[Token]) -> Iterator[_Block]:
    for number, token in enumerate(tokens):
        if token.level or not token.map or token.type not in ("heading_open", "front_matter"):
            continue
        start, end = token.map
        if token.type == "front_matter":
            yield _Block(start, end, 0, token.content)
        elif token.markup[0] == "#" or end - start == 2:  # a paragraph above dashes is hardly ever meant as a heading
            yield _Block(start, end, int(token.tag[1:]), tokens[number + 1].content)


def _html(path: Path, data: bytes, title: str) -> tuple[str, tuple[Section, ...]]:
    """The main text of a page, without menus and footers, headings kept; the whole text when no main text is found."""
    import trafilatura

    _quiet("trafilatura")
    _refuse_odd_page(path, data)
    whole = data if b"<html" in data[:4096].lower() else b"<html><body>" + data + b"</body></html>"
    text = trafilatura.extract(whole, output_format="markdown", include_comments=False, favor_recall=True)
    if not text:
        return title, (Section(path=(), text=trafilatura.html2txt(whole).strip()),)
    about = trafilatura.extract_metadata(whole)
    return parse_markdown(text, (about.title if about else None) or title)


def _refuse_odd_page(path: Path, data: bytes) -> None:
    """Refuse what is no page or a huge one, and a tag of so many attributes that a parser, which compares them all, would hang."""
    if len(data) > PAGE_CAP:
        raise InputError(
            f"is a page of more than {PAGE_CAP // MB} MB",
            "split it, or save its text",
            file=path,
            field="data.documents",
        )
    if b"\0" in data and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError("holds a NUL byte", "is this a page? leave it out", file=path, field="data.documents")
    for tag in re.finditer(rb"<[^<>]{%d,}" % MOST_ATTRIBUTES, data):
        named = re.sub(rb"\"[^\"]*\"|'[^']*'", b"", tag[0])
        if len(re.findall(rb"[\s/=]+", named)) > MOST_ATTRIBUTES:
            problem = f"holds a tag with more than {MOST_ATTRIBUTES:,} attributes"
            raise InputError(problem, "leave the page out", file=path, field="data.documents")


def _quiet(library: str) -> None:
    """Keep a library's log lines off the terminal: what matters of them becomes an InputError."""
    logging.getLogger(library).setLevel(logging.CRITICAL + 1)


def _pdf(path: Path, data: bytes, title: str) -> tuple[str, tuple[Section, ...]]:
    """One section a page, its path `page N`."""
    import pypdf

    _quiet("pypdf")
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError("is encrypted", "save it without a password", file=path, field="data.documents")
        named = str(reader.metadata.title or "").strip() if reader.metadata else ""
        pages = [(page.extract_text() or "").strip() for page in reader.pages]
    except InputError:
        raise
    except Exception as error:  # pypdf lets many kinds through on a damaged file
        problem = printable(str(error), 120) or type(error).__name__
        raise InputError(f"not readable as PDF ({problem})", "save it again, or as text", file=path) from error
    return named or title, tuple(
        Section(path=(f"page {number}",), text=text) for number, text in enumerate(pages, start=1)
    )


def _squad(path: Path, encoding: str) -> Iterator[Document]:
    for paragraph in read_paragraphs(path, encoding):
        if not paragraph.text.strip():
            continue
        yield Document(
            id=paragraph.id,
            title=paragraph.article.replace("_", " "),
            source=str(path),
            sections=(Section(path=(), text=paragraph.text.strip()),),
            digest=sha256_text(paragraph.text),
        )
