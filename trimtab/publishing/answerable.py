"""Prepares the documents of pages for answering: pages that are not there are left out, and a question that a page asks
heads its answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from trimtab.base.records import Document, Section

LONGEST_ERROR = 150  # words of an error page; a longer one explains the error
BARE_ERROR = 60  # words of an error page whose title does not say that it is one
LONGEST_QUESTION = 30  # words of a line that is a question
_NOT_THERE = re.compile(
    r"(?:page|file|site|seite|document)\b.{0,30}\b(?:not found|(?:cannot|can['’]t|could not|couldn['’]t) (?:be )?found"
    r"|(?:does not|doesn['’]t|no longer) exists?|nicht gefunden)"
    r"|(?:could not|couldn['’]t|cannot|can['’]t) find\b.{0,30}\bpage|page introuvable|página no encontrada"
    r"|something went wrong|(?:an|unexpected) error (?:has )?occurred|fehler ist aufgetreten"
    r"|pagina non trovata|pagina niet gevonden|página não encontrada",
    re.I | re.S,
)
_ERROR_TITLE = re.compile(r"\W*(?:(?:http )?(?:error|fehler|status)\W*)?(?:404|410|50[0234x])\b|\W*not found\W*$", re.I)
_ERROR_FILE = re.compile(r"(?:404|410|50[0234x])(?:\.\w+)?", re.I)
_QUESTION = re.compile(
    r"[ \t]*(?:[-*+•]|\d{1,3}[.)])?[ \t]*(?:\*\*|__)?(?:Q(?:uestion)?\s*\d*\s*[:.)]\s*)?"
    r"(?P<asked>[^\W\d_][^\n?？]*[?？])(?:\*\*|__)?[ \t]*\\?",
    re.I,
)
_ANSWER_MARK = re.compile(r"\s*(?:[-*+•][ \t]+)?(?:\*\*|__)?A(?:nswer)?\s*[:.)](?:\*\*|__)?\s+")
_FENCE = re.compile(r"\s*(?:```|~~~)")


def why_not_there(document: Document) -> str | None:
    """Return why a document is the page that a server shows where there is none; None for any other."""
    text = " ".join(section.text for section in document.sections)
    heads = [document.title, *(name for section in document.sections[:2] for name in section.path)]
    named = says_error(heads, text)
    is_short = len(text.split()) <= LONGEST_ERROR
    if named is None and is_short and _ERROR_FILE.fullmatch(PurePosixPath(document.source.rstrip("/")).name):
        named = document.source
    return None if named is None else f"it is what the server shows where no page is (“{' '.join(named.split())[:80]}”)"


def says_error(heads: Iterable[str], text: str) -> str | None:
    """Return the words by which a page with this title, these headings and this text says that it is an error; None for
    any other page."""
    size = len(text.split())
    if size > LONGEST_ERROR:
        return None
    named = next((head for head in heads if _ERROR_TITLE.match(head) or _NOT_THERE.search(head)), None)
    if named is None and size <= BARE_ERROR and (match := _NOT_THERE.search(text)):
        named = match[0]
    return named


def with_questions_as_headings(document: Document) -> Document:
    """Return a document in which a line that is a question heads what stands below it, up to the next question."""
    return replace(document, sections=tuple(part for section in document.sections for part in _parts(section)))


def _parts(section: Section) -> Iterator[Section]:
    """Cut a section at its questions; a question without anything below it stays in the text."""
    asked, lines, in_code = "", list[str](), False

    def part() -> Iterator[Section]:
        text = "\n".join(lines).strip("\n")
        if text.strip():
            headed = Section(path=(*section.path, asked), text=_ANSWER_MARK.sub("", text, count=1))
            yield headed if asked else Section(path=section.path, text=text)
        elif asked:
            yield Section(path=section.path, text=asked)

    for line in section.text.split("\n"):
        in_code ^= bool(_FENCE.match(line))
        match = None if in_code else _QUESTION.fullmatch(line)
        if match is None or len(line.split()) > LONGEST_QUESTION:
            lines.append(line)
            continue
        yield from part()
        asked, lines = match["asked"].strip(), []
    yield from part()
