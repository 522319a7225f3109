"""Documents in: Markdown, text, HTML, PDF and SQuAD JSON as titled sections with their heading path."""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from trimtab.base.errors import DocumentsError, InputError
from trimtab.base.files import sha256_text
from trimtab.base.records import Document, Section
from trimtab.base.task import Task
from trimtab.base.visible import printable
from trimtab.base.worker import Worker
from trimtab.data.markdown import parse_markdown
from trimtab.data.sources import BOMB_FLOOR, BOMB_RATIO, MB, read_bytes, read_text, resolve
from trimtab.data.squad import read_paragraphs

MARKDOWN, TEXT, HTML = (".md", ".markdown"), (".txt", ".text"), (".html", ".htm", ".xhtml")
PDF, SQUAD = (".pdf",), (".json", ".json.gz")
SUFFIXES = (*MARKDOWN, *TEXT, *HTML, *PDF)
"""What is read from a listed folder; SQuAD JSON only when listed itself, since folders hold other JSON too."""

MOST_ATTRIBUTES = 5000  # of one HTML tag
PAGE_CAP = 16 * MB  # of HTML: parsing takes about 50 times its bytes of memory, and some seconds a MB
SECONDS, MEGABYTES = 10, 512
"""Processor time and memory that extracting text from HTML or PDF may take, beside what the size of the file adds."""
_SECONDS_EACH, _MEGABYTES_EACH = (
    {"HTML": 10, "PDF": 40},
    {"HTML": 64, "PDF": 16},
)  # for each MB; about four times the usual
LONGEST_SECONDS, MOST_LETTERS = 600, 32 * MB
"""The most processor time and letters whatever the size."""

Stamps = tuple[tuple[str, int, int], ...]
"""Path, time of change (ns) and size of files."""


def read_documents(task: Task) -> tuple[Document, ...]:
    """Every document of task.data.documents, in the order listed, folders sorted by path.

    A document's id is its path below the listed folder, or its name when it was listed itself; a SQuAD paragraph's is
    `{file stem}/{article}/{n}`. Raises DocumentsError with every file that cannot be read, holds no text, or shares an
    id, and InputError where a listed file or folder is not there.
    """
    documents: dict[str, Document] = {}
    errors: list[InputError] = []
    for pattern in task.data.documents:
        for path, root in resolve(task.folder, pattern, SUFFIXES, "data.documents"):
            try:
                _add(path, root, task, documents)
            except InputError as error:
                errors.append(error)
    if errors:
        raise DocumentsError(errors)
    return tuple(documents.values())


def _add(path: Path, root: Path, task: Task, documents: dict[str, Document]) -> None:
    """Read the documents of one file into `documents`, by their ids."""
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


def document_stamps(task: Task) -> Stamps:
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


def _html(path: Path, data: bytes, title: str) -> tuple[str, tuple[Section, ...]]:
    """The main text of a page, without menus and footers, headings kept; the whole text when no main text is found."""
    _refuse_odd_page(path, data)
    return _extracted("HTML", path, data, title)


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


def _pdf(path: Path, data: bytes, title: str) -> tuple[str, tuple[Section, ...]]:
    """One section a page, its path `page N`."""
    return _extracted("PDF", path, data, title)


def _extracted(kind: str, path: Path, data: bytes, title: str) -> tuple[str, tuple[Section, ...]]:
    """Title and sections of a file, extracted by the worker process within limits that grow with the file's size."""
    size = len(data) / MB
    seconds = min(LONGEST_SECONDS, math.ceil(SECONDS + _SECONDS_EACH[kind] * size))
    megabytes = math.ceil(MEGABYTES + _MEGABYTES_EACH[kind] * size)
    letters = min(MOST_LETTERS, max(BOMB_FLOOR, BOMB_RATIO * len(data)))
    asked = {"kind": kind, "title": title, "seconds": seconds, "megabytes": megabytes, "letters": letters}
    answer = _extractor.ask(json.dumps({**asked, "size": len(data)}), data, seconds=4 * seconds)
    if answer is None:
        answer = {"over": f"takes more than {seconds} s of processor time or {megabytes:,} MB of memory"}
    if "over" in answer:
        raise InputError(answer["over"], "save its text, or leave it out", file=path, field="data.documents")
    if "encrypted" in answer:
        raise InputError("is encrypted", "save it without a password", file=path, field="data.documents")
    if "error" in answer:
        problem = f"not readable as {kind} ({printable(answer['error'], 120)})"
        raise InputError(problem, "save it again, or as text", file=path, field="data.documents")
    return answer["title"], tuple(Section(path=tuple(headings), text=text) for headings, text in answer["sections"])


_extractor = Worker(
    Path(__file__).with_name("document_worker.py"),
    [],
    seconds=4 * LONGEST_SECONDS,
    longest=8 * MOST_LETTERS,
)
"""One process for all documents."""


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
