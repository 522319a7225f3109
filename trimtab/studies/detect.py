"""Detection of a folder's contents for `init`: files of rows, preferences and documents, and their encoding."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trimtab.base.errors import InputError
from trimtab.data import documents
from trimtab.data.columns import ColumnRequest
from trimtab.data.encodings import ASCII, UTF8, detect_encoding, non_ascii_words, reads_correctly
from trimtab.data.formats import NO_REQUEST, DetectedFormat, detect, detect_hub
from trimtab.data.preferences import is_preference
from trimtab.data.raw_rows import RawRow
from trimtab.data.readers import has_hub_test, read_raw_rows, row_suffixes
from trimtab.data.sources import files_below, read_text_lines
from trimtab.studies.parallel_files import find_parallel_files

MANY_DOCUMENTS = 2
"""From so many documents of one kind on, a pattern names them, which takes later ones too."""

MANY_QUESTIONS = 3
"""From so many questions on, a text of little else is a list of them."""

QUESTIONS_BYTES = 1_000_000
"""No larger text is looked through for questions."""

EXCEL = ".xlsx"

_FASTTEXT = "__label__"
_ASKS = ("?", "？", "؟")

_ROWS_LEFT_OUT = frozenset(("package", "package-lock", "tsconfig", "jsconfig", "config", "manifest"))
_FOREIGN = re.compile(r"\.|node_modules$|venv$|env$|__pycache__$|.*\.egg-info$")
"""Folders that are not the user's data."""
_ABOUT = re.compile(r"(readme|licen[cs]e|changelog|contributing|security|notice|authors|requirements)\b", re.I)
_DOCUMENT_FOLDERS = ("documents", "docs", "handbook", "kb", "knowledge", "pages", "content")


@dataclass(slots=True)
class FolderContents:
    """The files of a folder by the role they can have; paths are relative to it. `words`: sample words in a guessed
    encoding.

    `tests`: the names of `rows` that are a fixed test set, if known.
    """

    encoding: str = UTF8
    words: tuple[str, ...] = ()
    rows: dict[str, DetectedFormat] = field(default_factory=dict)
    tests: list[str] = field(default_factory=list)
    preferences: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    errors: list[InputError] = field(default_factory=list)


def detect_hub_dataset(name: str, wish: ColumnRequest = NO_REQUEST) -> FolderContents:
    """Return the contents of a Hugging Face dataset: its split `train`, and a `test` if it has one."""
    found = FolderContents(rows={name: detect_hub(name, wish)})
    if has_hub_test(name):
        found.tests.append(name)
    return found


def detect_folder(folder: Path, only: Path | None = None, wish: ColumnRequest = NO_REQUEST) -> FolderContents:
    """Return the contents of `folder`; files that cannot be read, alone or together with the rest, are left out with
    the reason.

    `only`: one file in it instead of everything. `wish`: what is already known of the rows.
    """
    found = FolderContents()
    is_rows = only is not None and only.name.lower().endswith(row_suffixes())
    files = _data_files(folder) if only is None else [only] if is_rows else []
    sheets = {path: _look(path, wish) for path in files if path.name.lower().endswith(EXCEL)}
    lists = _no_prose([only] if only is not None else sorted(folder.iterdir()))
    near = files_below(folder) if only is None else [path for path in folder.iterdir() if path.is_file()]
    parallel, halves = find_parallel_files(path for path in near if not _is_foreign(path.relative_to(folder)))
    halves = halves if only is None or only in parallel else ()
    are_the_data = bool(halves) and not files
    for error in (*lists.values(), *halves):
        found.errors.append(error)
        found.left_out.append(f"{_name_below(folder, error)}: {error.problem}; {error.remedy}")
    if only is None:
        files = [path for path in files if path not in sheets or not _is_document(path, sheets[path])]
        listed = list(_document_places(folder, {*files, *lists, *parallel}, found.left_out))
        about = sorted(path.name for path in folder.iterdir() if path.is_file() and _is_about(path))
        if about and (listed or files or found.errors):
            found.left_out.append(
                f"{', '.join(about)}: about this folder by name; name it under data.documents to read it"
            )
        listed = [] if are_the_data else listed if listed or files or found.errors else about
    else:
        listed = [] if is_rows or found.errors else [only.name]
    places = {place: _text_documents(folder, place) for place in listed}
    texts = (
        *(path for path in files if path.name.lower().endswith(row_suffixes(text_only=True))),
        *itertools.chain.from_iterable(places.values()),
    )
    encodings, broken = _encodings(texts)
    found.encoding = _prevailing(encodings)
    found.words = _words(encodings, found.encoding)
    for path in files:
        name = path.relative_to(folder).as_posix()
        try:
            _refuse_other(path, encodings, found.encoding)
            _add_rows(found, name, path, sheets.get(path), wish)
        except InputError as error:
            found.errors.append(error)
            found.left_out.append(f"{name}: {error.problem}; {error.remedy}")
    for place, inside in places.items():
        try:
            for path in inside:
                if path in broken:
                    raise broken[path]
                _refuse_other(path, encodings, found.encoding)
            found.documents.append(place)
            found.left_out += _no_documents(folder, place, files)
        except InputError as error:
            found.errors.append(error)
            what = place if (folder / place).is_file() else f"{place}: {Path(error.file or '').name}"
            found.left_out.append(f"{what}: {error.problem}; {error.remedy}")
    return found


def _name_below(folder: Path, error: InputError) -> str:
    return Path(error.file or folder).relative_to(folder).as_posix()


def _add_rows(
    found: FolderContents, name: str, path: Path, seen: DetectedFormat | InputError | None, wish: ColumnRequest
) -> None:
    """Add a data file to the rows or to the judged answers; `seen`: what its sheet was already found to be."""
    if isinstance(seen, InputError):
        raise seen
    if seen is None and _holds_preferences(path, found.encoding):
        found.preferences.append(name)
    else:
        found.rows[name] = seen or detect(path, found.encoding, wish)


def _no_prose(paths: Iterable[Path]) -> dict[Path, InputError]:
    """Return the text files that are lists of questions or of rows, with the reason to leave them out: they contain no
    answers.
    """
    found = {}
    for path in paths:
        if path.suffix.lower() not in documents.TEXT or not path.is_file():
            continue
        try:
            lines = read_text_lines(path, detect_encoding(path))
            first = next(lines, "")
            if path.stat().st_size > QUESTIONS_BYTES:
                lines = iter(())
            lines_of_text = [line.strip() for line in (first, *lines) if line.strip()]
        except InputError:  # reported where it is read as a document
            continue
        asked = sum(line.endswith(_ASKS) for line in lines_of_text)
        if first.startswith(_FASTTEXT):
            problem = f"its lines begin with {_FASTTEXT}: rows of fastText, and no document"
            found[path] = InputError(problem, "write them to a .csv with the columns label and text", file=path)
        elif asked >= MANY_QUESTIONS and asked >= 0.9 * len(lines_of_text):
            found[path] = InputError(
                f"{asked:,} of {len(lines_of_text):,} lines are questions, so it is no document",
                "write the right answer to each in a .csv with the columns question and answer",
                file=path,
            )
    return found


def _no_documents(folder: Path, place: str, rows: Iterable[Path]) -> list[str]:
    """Return remarks on files in a folder of documents that are none: their number and kinds."""
    inside = files_below(folder / place) if (folder / place).is_dir() else []
    other = [path for path in inside if not path.name.lower().endswith(documents.SUFFIXES) and path not in rows]
    if not other:
        return []
    count = f"{len(other):,} file{'s that are no documents' if len(other) > 1 else ' that is no document'}"
    kinds = ", ".join(sorted({path.suffix.lower() or path.name for path in other})[:8])
    return [f"{place}: {count} ({kinds}); `trimtab check` names each"]


def _look(path: Path, wish: ColumnRequest) -> DetectedFormat | InputError:
    """Return the content of a workbook, or the reason that it is unclear."""
    try:
        return detect(path, request=wish)
    except InputError as error:
        return error


def _is_document(path: Path, seen: DetectedFormat | InputError) -> bool:
    """True if a workbook is a document: it is beside documents, and its columns do not name questions and answers."""
    known = isinstance(seen, DetectedFormat) and not seen.is_guess
    beside = (item for item in path.parent.iterdir() if item.is_file() and not item.name.lower().endswith(EXCEL))
    return not known and any(map(_is_document_name, beside))


def _is_document_name(path: Path) -> bool:
    return path.name.lower().endswith(documents.SUFFIXES) and not _is_about(path)


def _is_about(path: Path) -> bool:
    """True if a document is about its folder by its name, as a README is; it is read only where nothing else is."""
    return path.name.lower().endswith(documents.SUFFIXES) and _ABOUT.match(path.name) is not None


def _encodings(paths: Iterable[Path]) -> tuple[dict[Path, str], dict[Path, InputError]]:
    """Return the encoding of each readable file, and the error of each other."""
    found: dict[Path, str] = {}
    broken: dict[Path, InputError] = {}
    for path in paths:
        try:
            found[path] = detect_encoding(path)
        except InputError as error:
            broken[path] = error
    return found, broken


def _prevailing(encodings: Mapping[Path, str]) -> str:
    """Return the encoding of most bytes; UTF-8 if all is ASCII."""
    sizes = Counter[str]()
    for path, encoding in encodings.items():
        sizes[encoding] += path.stat().st_size
    del sizes[ASCII]
    return max(sizes, key=lambda encoding: sizes[encoding], default=UTF8)


def _words(encodings: Mapping[Path, str], encoding: str) -> tuple[str, ...]:
    """Return words of the first file in a guessed encoding, by which a reader sees whether the guess is right."""
    first = next((path for path, own in encodings.items() if own == encoding), None)
    return non_ascii_words(read_text_lines(first, encoding)) if first and encoding != UTF8 else ()


def _refuse_other(path: Path, encodings: Mapping[Path, str], encoding: str) -> None:
    own = encodings.get(path, encoding)
    if not reads_correctly(own, encoding):
        raise InputError(f"is {own.upper()}, and most here is {encoding.upper()}", "save it as UTF-8", file=path)


def _text_documents(folder: Path, place: str) -> list[Path]:
    """Return the documents of a place that are read in the task's encoding."""
    path = folder / place
    inside = path.rglob("*") if path.is_dir() else [path] if path.is_file() else folder.glob(place)
    suffixes = (*documents.MARKDOWN, *documents.TEXT)
    return [item for item in sorted(inside) if item.is_file() and item.name.lower().endswith(suffixes)]


def _data_files(folder: Path) -> list[Path]:
    """Return the files of rows in the folder and directly below, sorted; a file reached by two links is listed once."""
    near = (path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern)))
    once: dict[Path, Path] = {}
    for path in near:
        if (
            path.is_file()
            and path.name.lower().endswith(row_suffixes())
            and not _is_foreign(path.relative_to(folder))
            and path.name.isprintable()
            and path.name.split(".")[0] not in _ROWS_LEFT_OUT
        ):
            once.setdefault(path.resolve(), path)
    return list(once.values())


def _is_foreign(path: Path) -> bool:
    return any(_FOREIGN.match(part) for part in path.parts)


def _leads_back(path: Path) -> bool:
    """True if a link leads to its own folder or above: everything there would be found twice."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _holds_preferences(path: Path, encoding: str) -> bool:
    first = next((row for row in itertools.islice(read_raw_rows(path, encoding), 20) if isinstance(row, RawRow)), None)
    return first is not None and is_preference(first)


def _document_places(folder: Path, rows: set[Path], left_out: list[str]) -> Iterator[str]:
    """Yield folders of documents, then loose documents; a folder that repeats another's file name is left out.

    Where folders share only names such as README.md, the folder that holds them all is yielded: a document's id is its
    path below the listed folder.
    """
    taken: set[str] = set()
    kept: list[str] = []
    read: list[str] = []  # also READMEs, which make no folder one of documents, and are read with it
    left_before = len(left_out)
    places = [
        path for path in folder.iterdir() if path.is_dir() and not _FOREIGN.match(path.name) and not _leads_back(path)
    ]
    for place in sorted(places, key=lambda path: (path.name.lower() not in _DOCUMENT_FOLDERS, path.name)):
        names = {
            path.relative_to(place).as_posix()
            for path in place.rglob("*")
            if path.is_file() and _is_document_name(path) and path not in rows
        }
        if not names or not place.name.isprintable():
            continue
        if names & taken:
            left_out.append(
                f"{place.name}/: documents of the same names are in another folder, is it another version? "
                "If the folders are classes, write one .csv with the columns text and label"
            )
            continue
        taken |= names
        kept.append(f"{place.name}/")
        inside = (path for path in place.rglob("*") if path.is_file() and path not in rows)
        read += (
            path.relative_to(place).as_posix() for path in inside if path.name.lower().endswith(documents.SUFFIXES)
        )
    mixed = any(path.name.lower().endswith(documents.SUFFIXES) for path in rows)  # the whole folder would take them
    if len(set(read)) < len(read) and len(left_out) == left_before and not mixed:
        yield "."
        return
    yield from kept
    yield from _loose_documents(folder, rows, taken)


def _loose_documents(folder: Path, rows: set[Path], taken: set[str]) -> Iterator[str]:
    """Yield the documents beside the task file: one by one, or as a pattern if it matches many and nothing else."""
    named = sorted(path for path in folder.iterdir() if path.is_file() and path.name.isprintable())
    loose = {path.name for path in named if _is_document_name(path) and path not in rows and path.name not in taken}
    for suffix in sorted({Path(name).suffix for name in loose}):
        alike = sorted(name for name in loose if name.endswith(suffix))
        if len(alike) >= MANY_DOCUMENTS and len(alike) == len(list(folder.glob(f"*{suffix}"))):
            yield f"*{suffix}"
        else:
            yield from alike
