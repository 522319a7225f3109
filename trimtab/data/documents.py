"""Reads documents (Markdown, reStructuredText, text, HTML, PDF, Word, Excel, PowerPoint, SQuAD JSON) into sections with
heading paths."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from trimtab.base.errors import DocumentsError, EmptyDocumentError, InputError
from trimtab.base.files import sha256_text, split_sheet
from trimtab.base.records import Document, Refusal, Section
from trimtab.base.sanitize import printable
from trimtab.base.task import Task
from trimtab.data import readers, signatures
from trimtab.data.markdown import parse_markdown
from trimtab.data.rst import markdown_of
from trimtab.data.sources import MB, files_below, read_bytes, read_text, resolve_pattern
from trimtab.data.squad import read_paragraphs
from trimtab.data.text_extraction import PACKAGES, extract_content

MARKDOWN, TEXT, HTML = (".md", ".markdown"), (".txt", ".text"), (".html", ".htm", ".xhtml")
RST, PDF, SQUAD = (".rst", ".rest"), (".pdf",), (".json", ".json.gz")
OFFICE: Mapping[str, str] = {".docx": "Word", ".xlsx": "Excel", ".pptx": "PowerPoint"}
SUFFIXES = (*MARKDOWN, *RST, *TEXT, *HTML, *PDF, *OFFICE)
"""File types read from a listed folder; SQuAD JSON only if the file itself is listed, as folders hold other JSON too.
"""

MOST_ATTRIBUTES = 5000  # of one HTML tag
PAGE_CAP = 16 * MB  # of HTML: parsing takes about 50 times its size in memory, and some seconds per MB
FileStamps = tuple[tuple[str, int, int], ...]
"""Path, modification time (ns) and size of files."""


def read_documents(task: Task) -> tuple[Document, ...]:
    """Read every document of task.data.documents in the listed order; folders are sorted by path.

    A document's id is its path below the listed folder, or its name if the file was listed; a SQuAD paragraph's is
    `{file stem}/{article}/{n}`. A page of a folder that holds no text is left out (`empty_pages` names it), if others
    hold some. Raises DocumentsError with every file that is unreadable, empty, or shares an id, and
    InputError if a listed file or folder does not exist.
    """
    documents: dict[str, Document] = {}
    errors: list[InputError] = []
    listed, may_be_left_out = {task.folder / pattern for pattern in task.data.documents}, True
    for path, root in _document_files(task):
        try:
            _add(path, root, task, documents)
        except InputError as error:
            errors.append(error)
            may_be_left_out &= isinstance(error, EmptyDocumentError) and path not in listed
    if errors and not (may_be_left_out and documents):
        raise DocumentsError(errors)
    return tuple(documents.values())


def read_below(folder: Path, encoding: str = "utf-8") -> tuple[tuple[Document, ...], tuple[InputError, ...]]:
    """Read every document below a folder, or one file, without a task; also return the errors of unreadable files.

    Ids are paths below the folder. Raises InputError if no file could be a document.
    """
    documents: list[Document] = []
    errors: list[InputError] = []
    for path, root in resolve_pattern(Path(), str(folder), SUFFIXES, "folder"):
        try:
            documents += _read(path, path.relative_to(root).as_posix(), encoding)
        except InputError as error:  # without the task file's key that it names
            errors.append(InputError(error.problem, error.remedy, file=error.file, line=error.line))
    return tuple(documents), tuple(errors)


def _add(path: Path, root: Path, task: Task, documents: dict[str, Document]) -> None:
    """Read the documents of one file into `documents` by id."""
    # Relative to the task file, so that sources in an index do not depend on the working directory.
    source = path.relative_to(task.folder) if path.is_relative_to(task.folder) else path
    for content in _read(path, path.relative_to(root).as_posix(), task.data.encoding):
        document = replace(content, source=source.as_posix())
        other = documents.setdefault(document.id, document)
        if other is not document and other.source != document.source:
            raise InputError(
                f"shares the id {document.id!r} with {other.source}",
                "list the folder that holds both, or rename one",
                file=path,
                field="data.documents",
            )


def document_stamps(task: Task) -> FileStamps:
    """Return path, modification time and size of every file that `read_documents` would read, to detect changes."""
    states = ((path, path.stat()) for path, _ in _document_files(task))
    return tuple((str(path), status.st_mtime_ns, status.st_size) for path, status in states)


def empty_pages(task: Task, documents: Iterable[Document]) -> tuple[Refusal, ...]:
    """Return the files of the documents' folders that `read_documents` left out, as they hold no text."""
    held = {(task.folder / document.source).resolve() for document in documents}
    return tuple(
        Refusal(file=str(path), line=0, reason="holds no text", remedy="it is left out")
        for path, _ in _document_files(task)
        if path.resolve() not in held
    )


def unread_files(task: Task) -> tuple[Refusal, ...]:
    """Return every file in the folders of task.data.documents that is no document, with the reason; hidden files
    excluded."""
    rows, read = _row_files(task), {path.resolve() for path, _ in _document_files(task)}
    folders = (folder for pattern in task.data.documents if (folder := task.folder / pattern).is_dir())
    unread = dict.fromkeys(path for folder in folders for path in files_below(folder))
    return tuple(
        Refusal(file=str(path), line=0, reason=printable(reason), remedy=remedy)
        for path in unread
        if path.resolve() not in read | rows | {task.file and task.file.resolve()}
        for reason, remedy in [_unread_reason(path)]
    )


def _unread_reason(path: Path) -> tuple[str, str]:
    kind = path.suffix.lower()
    remedy = _REMEDIES.get(kind, f"to be read it must be one of: {', '.join(SUFFIXES)}")
    return f"a {kind} file is no document" if kind else "a file without an ending is no document", remedy


_REMEDIES: Mapping[str, str] = {
    ".doc": "save it as .docx",
    ".odt": "save it as .docx",
    ".rtf": "save it as .docx",
    ".pages": "save it as .docx",
    ".xls": "save it as .xlsx",
    ".ods": "save it as .xlsx",
    ".ppt": "save it as .pptx",
    ".odp": "save it as .pptx",
    ".epub": "save its text",
    ".zip": "unpack it",
    ".7z": "unpack it",
    ".tar": "unpack it",
    ".gz": "unpack it",
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff"), "recognise its text (OCR), or leave it"),
}


def _document_files(task: Task) -> Iterator[tuple[Path, Path]]:
    """Yield every document file and the folder it was listed by; a file of rows only if it is listed itself."""
    rows = _row_files(task)
    for pattern in task.data.documents:
        is_folder = (task.folder / pattern).is_dir()
        for path, root in resolve_pattern(task.folder, pattern, SUFFIXES, "data.documents"):
            if not (is_folder and path.resolve() in rows):
                yield path, root


def _row_files(task: Task) -> set[Path]:
    """Return the files of rows, whose answers must not be found in the documents."""
    data = task.data
    found: set[Path] = set()
    for pattern in (*data.examples, *data.test, *data.preferences):
        with suppress(InputError):  # a dataset of the hub; missing files are reported by their reader
            found |= {
                split_sheet(path)[0].resolve()
                for path, _ in resolve_pattern(task.folder, pattern, readers.row_suffixes(), "data")
            }
    return found


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
    kind = signatures.file_kind_of_bytes(data)
    if kind == "PDF" or lower.endswith(PDF):
        title, sections = _extracted("PDF", path, data, title)
    elif kind in PACKAGES:
        title, sections = _extracted(kind, path, data, title)
    elif kind:
        raise InputError(*signatures.kind_refusal(kind), file=path, field="data.documents")
    elif lower.endswith(tuple(OFFICE)):
        what = OFFICE[Path(lower).suffix]
        problem, remedy = f"is no file of {what}, whatever its name says", "save it again, or leave it out"
        raise InputError(problem, remedy, file=path, field="data.documents")
    elif lower.endswith(HTML):
        title, sections = _html(path, data, title)
    elif lower.endswith((*MARKDOWN, *RST)):
        text = read_text(path, encoding)
        title, sections = parse_markdown(markdown_of(text) if lower.endswith(RST) else text, title)
    else:
        sections = (Section(path=(), text=read_text(path, encoding).strip()),)
    sections = tuple(section for section in sections if section.text)
    if not sections:
        raise _without_text(path, is_pdf=lower.endswith(PDF))
    yield Document(id=name, title=title, source=str(path), sections=sections, digest=hashlib.sha256(data).hexdigest())


def _without_text(path: Path, *, is_pdf: bool) -> InputError:
    if is_pdf:
        return InputError(
            "holds no text", "recognise its pages (OCR) first, or leave it out", file=path, field="data.documents"
        )
    return EmptyDocumentError("holds no text", "leave it out", file=path, field="data.documents")


def _html(path: Path, data: bytes, title: str) -> tuple[str, tuple[Section, ...]]:
    """Extract the main text of a page with its headings, without menus and footers; the whole text if there is no main
    text."""
    _refuse_odd_page(path, data)
    return _extracted("HTML", path, data, title)


def _refuse_odd_page(path: Path, data: bytes) -> None:
    """Refuse binary or huge pages, and tags with so many attributes that the parser would take quadratic time."""
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
        without_values = re.sub(rb"\"[^\"]*\"|'[^']*'", b"", tag[0])
        if len(re.findall(rb"[\s/=]+", without_values)) > MOST_ATTRIBUTES:
            problem = f"holds a tag with more than {MOST_ATTRIBUTES:,} attributes"
            raise InputError(problem, "leave the page out", file=path, field="data.documents")


def _extracted(kind: str, path: Path, data: bytes, title: str) -> tuple[str, tuple[Section, ...]]:
    """Return title and sections of a file, extracted by the worker process."""
    answer = extract_content(kind, path, data, title)
    return answer["title"], tuple(Section(path=tuple(headings), text=text) for headings, text in answer["sections"])


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
