"""Documents in: Markdown, text, HTML, PDF and SQuAD JSON as titled sections with their heading path."""

from __future__ import annotations

import codecs
import hashlib
import io
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from trimtab.base.errors import InputError
from trimtab.base.files import sha256_text
from trimtab.base.records import Document, Section
from trimtab.base.task import Task
from trimtab.data.readers import printable
from trimtab.data.sources import read_bytes, read_text, resolve
from trimtab.data.squad import read_paragraphs

MARKDOWN, TEXT, HTML = (".md", ".markdown"), (".txt", ".text"), (".html", ".htm", ".xhtml")
PDF, SQUAD = (".pdf",), (".json", ".json.gz")
SUFFIXES = (*MARKDOWN, *TEXT, *HTML, *PDF)
"""What is read from a listed folder; SQuAD JSON only when listed itself, since folders hold other JSON too."""

MOST_ATTRIBUTES = 5000  # of one HTML tag
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_NO_TEXT_LINE = re.compile(r"\s*(?:[-*+>|#]|\d+[.)]|$)|(?: {4}|\t)")


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

    Headings inside code fences are text; front matter between `---` lines gives a title and is left out.
    """
    lines, given = _front_matter(text.replace("\r\n", "\n").split("\n"))
    found: str | None = given
    path: list[tuple[int, str]] = []
    body: list[str] = []
    sections: list[Section] = []

    def close() -> None:
        content = "\n".join(body).strip()
        if content:
            sections.append(Section(path=tuple(name for _, name in path), text=content))
        body.clear()

    for level, line in _headings(lines):
        if level == 0:
            body.append(line)
            continue
        close()
        while path and path[-1][0] >= level:
            path.pop()
        if level == 1 and (found is None or line == found) and not path:
            found = line
        elif line:
            path.append((level, line))
    close()
    return found or title, tuple(sections)


def _front_matter(lines: list[str]) -> tuple[list[str], str | None]:
    if lines[0].rstrip() != "---" or "---" not in [line.rstrip() for line in lines[1:]]:
        return lines, None
    end = [line.rstrip() for line in lines].index("---", 1)
    if not all(re.match(r"\s|[\w.-]+\s*:|#|-\s|$", line) for line in lines[1:end]):
        return lines, None
    titles = (re.fullmatch(r"title\s*:\s*[\"']?(.*?)[\"']?\s*", line) for line in lines[1:end])
    return lines[end + 1 :], next((match[1] for match in titles if match and match[1]), None)


def _headings(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Each line with its heading level, 0 for text. A line underlined with === or --- is a heading."""
    fence = ""
    skip = False
    for number, line in enumerate(lines):
        if skip:
            skip = False
            continue
        mark = _FENCE.match(line)
        if mark and (not fence or (mark[1].startswith(fence) and not line.strip().strip(fence[0]))):
            fence = "" if fence else mark[1]
        heading = None if fence else _HEADING.fullmatch(line)
        if heading:
            yield len(heading[1]), (heading[2] or "").strip()
            continue
        below = lines[number + 1] if number + 1 < len(lines) else ""
        alone = number == 0 or not lines[number - 1].strip() or bool(_HEADING.fullmatch(lines[number - 1]))
        under = _UNDERLINE.fullmatch(below)
        if under and alone and not fence and not mark and not _NO_TEXT_LINE.match(line):
            skip = True
            yield (1 if under[1][0] == "=" else 2), line.strip()
            continue
        yield 0, line


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
    """Refuse what is no page, and a tag of so many attributes that a parser, which compares them all, would hang."""
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
