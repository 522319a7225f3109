"""Pages as they read: structure, main text, dates, author, JSON-LD and directives of an HTML page, and the text of a
PDF."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from queue import SimpleQueue
from typing import Any, Literal
from urllib.parse import unquote, urljoin, urlsplit

from trimtab.base.errors import InputError
from trimtab.base.machine import cores, memory_use
from trimtab.base.progress import Progress
from trimtab.base.records import Document
from trimtab.base.worker import Worker
from trimtab.data.markdown import parse_markdown
from trimtab.data.text_extraction import extract_content
from trimtab.measurement.numerals import words
from trimtab.publishing.charset import decoded
from trimtab.publishing.page_links import MOST_MEGABYTES, is_html, media_type
from trimtab.publishing.records import Dated, Fetched, PageElement, PageHeading, SitePage
from trimtab.retrieval.chunk import chunk_document

SECONDS, SECONDS_EACH, MEGABYTES, MEGABYTES_EACH = 5, 5, 512, 128
"""Seconds of processor time and MB of memory that reading a page may take, each with what a MB of the page adds; of
memory at most MOST_MEGABYTES."""
LONGEST_ANSWER = 1 << 27  # bytes
DIRECTIVES = frozenset(
    words(
        "all index follow noindex nofollow none noarchive nocache nosnippet noimageindex notranslate indexifembedded "
        "noai noimageai max-snippet max-image-preview max-video-preview unavailable_after"
    )
)
_AGENT_PREFIX = re.compile(r"\s*([A-Za-z][\w.-]*)\s*:\s*(.*)", re.S)


def read_page(fetched: Fetched) -> SitePage:
    """Read an answer of a site as a page: HTML and PDF as what they hold, everything else as text where it is text.

    Parsing happens in a process with limits; a page beyond them comes back with `unread` set and no text. Never
    raises for what a page holds.
    """
    return _read(fetched, _reader)


def _read(fetched: Fetched, reader: Worker) -> SitePage:
    kind = kind_of(fetched)
    if kind == "html":
        return _html(fetched, reader)
    if kind == "pdf":
        return _pdf(fetched)
    return _plain(fetched)


def headed_passages(page: SitePage) -> Iterator[tuple[str, str]]:
    """Cut a page's main text into passages as a retriever would: of about 120 words, never across a heading.

    Each is a pair: the title and the headings above it, joined by ` > `, and its text verbatim.
    """
    if not page.text:
        return
    title, sections = parse_markdown(page.text, page.title)
    document = Document(id=page.url, title=title, source=page.url, sections=sections, digest="")
    for passage in chunk_document(document):
        names = dict.fromkeys(name for name in (page.title, title, *passage.path) if name)
        yield " > ".join(names), passage.text


def kind_of(fetched: Fetched) -> Literal["html", "pdf", "other"]:
    """Tell the kind of an answer by its Content-Type, else by its first bytes."""
    if media_type(fetched) == "application/pdf" or fetched.content[:1024].lstrip().lower().startswith(b"%pdf-"):
        return "pdf"
    return "html" if is_html(fetched) else "other"


def _new_reader() -> Worker:
    return Worker(Path(__file__).with_name("page_worker.py"), [], seconds=120, longest=LONGEST_ANSWER)


_reader = _new_reader()
"""The process for pages that are read one by one."""


def reader_count(cores: int, free_bytes: int) -> int:
    """Return how many processes read pages at the same time: one a core, and together at most half of the free
    memory."""
    return max(1, min(cores, free_bytes // 2 // (MOST_MEGABYTES << 20)))


def read_pages(answers: Sequence[Fetched], progress: Progress | None = None) -> tuple[SitePage, ...]:
    """Read answers of a site as pages, in their order, in a process for each core, as far as half of the free memory
    suffices for them."""
    count = reader_count(cores(), memory_use().available)
    readers: SimpleQueue[Worker] = SimpleQueue()
    for _ in range(min(count, len(answers))):
        readers.put(_new_reader())

    def read(fetched: Fetched) -> SitePage:
        reader = readers.get()
        try:
            return _read(fetched, reader)
        finally:
            readers.put(reader)

    pages: list[SitePage] = []
    try:
        with ThreadPoolExecutor(count) as pool:
            for page in pool.map(read, answers):
                pages.append(page)
                if progress is not None:
                    progress.emit("read", step=len(pages), of=len(answers))
    finally:
        while not readers.empty():
            readers.get().close()
    return tuple(pages)


def _html(fetched: Fetched, reader: Worker) -> SitePage:
    data = decoded(fetched).encode("utf-8", "replace")
    size = len(data) / (1 << 20)
    seconds = round(SECONDS + SECONDS_EACH * size)
    megabytes = min(MOST_MEGABYTES, round(MEGABYTES + MEGABYTES_EACH * size))
    asked = {"url": fetched.url, "size": len(data), "seconds": seconds, "megabytes": megabytes}
    answer = reader.ask(json.dumps(asked), data, seconds=3 * seconds)
    if answer is None:
        answer = {"unread": f"takes more than {seconds} s of processor time or {megabytes:,} MB of memory to read"}
    if "unread" in answer:
        return _page(fetched, "html", unread=answer["unread"])
    metas: list[tuple[str, str]] = [(name, content.strip()) for name, content in answer["metas"]]
    named = dict(reversed(metas))
    objects, broken = _json_ld(answer["json_ld"])
    elements = tuple(PageElement(kind=kind, text=text, line=line) for kind, text, line in answer["elements"])
    canonical = next((one.text for one in elements if one.kind == "canonical"), None)
    visible: str = answer["visible"]
    return _page(
        fetched,
        "html",
        title=answer["title"],
        canonical=canonical or canonical_of_header(fetched),
        language=(
            answer["language"] or named.get("content-language") or fetched.headers.get("content-language") or ""
        ).strip()
        or None,
        author=_author(objects, named, answer["authors"], visible),
        headings=tuple(PageHeading(level=level, text=text, line=line) for level, text, line in answer["headings"]),
        text=answer["text"],
        words=len(visible.split()),
        directives=_directives(fetched, metas, not_quoted=answer["nosnippet"]),
        json_ld=objects,
        broken_json_ld=broken,
        dates=(*_visible_dates(visible, answer["times"]), *_stated_dates(objects, named), *_header_date(fetched)),
        links=tuple(answer["links"]),
        visible=visible,
        linked=tuple(answer["linked"]),
        elements=elements,
        anchors=tuple(answer["anchors"]),
        scripts=answer["scripts"],
        script_bytes=answer["script_bytes"],
    )


def _pdf(fetched: Fetched) -> SitePage:
    name = PurePosixPath(unquote(urlsplit(fetched.url).path)).name or fetched.url
    try:
        answer = extract_content("PDF", Path(name), fetched.content)
    except InputError as error:
        return _page(fetched, "pdf", unread=error.problem)
    text = "\n\n".join(content for _, content in answer["sections"]).strip()
    return _page(fetched, "pdf", title=answer["title"], text=text, words=len(text.split()), visible=text)


def _plain(fetched: Fetched) -> SitePage:
    media = media_type(fetched)
    if not media.startswith("text/") or media in ("text/css", "text/javascript"):
        return _page(fetched, "other")
    text = decoded(fetched).strip()
    title = parse_markdown(text, "")[0] if media in ("text/markdown", "text/plain") else ""
    return _page(fetched, "other", title=title, text=text, words=len(text.split()), visible=text)


def _page(fetched: Fetched, kind: Literal["html", "pdf", "other"], **content: Any) -> SitePage:
    of_headers = {
        "canonical": canonical_of_header(fetched),
        "language": fetched.headers.get("content-language"),
        "directives": _directives(fetched, (), not_quoted=0),
        "dates": tuple(_header_date(fetched)),
    }
    return SitePage(url=fetched.url, status=fetched.status, kind=kind, **{**of_headers, **content})


def canonical_of_header(fetched: Fetched) -> str | None:
    """Return the canonical address of the header Link (RFC 6596), None without one."""
    for part in fetched.headers.get("link", "").split(","):
        target, _, rest = part.strip().partition(">")
        if target.startswith("<") and re.search(r"""rel\s*=\s*"?[^";]*\bcanonical\b""", rest, re.I):
            return urljoin(fetched.url, target[1:].strip())
    return None


def _directives(
    fetched: Fetched, metas: Sequence[tuple[str, str]], *, not_quoted: int
) -> Mapping[str, tuple[str, ...]]:
    """Collect the directives for each agent from `meta` (a name whose whole content is directives is an agent) and
    X-Robots-Tag."""
    found: dict[str, list[str]] = {}
    for name, content in metas:
        parts = _split_directives(content)
        if parts and all(map(_is_directive, parts)) and re.fullmatch(r"[a-z][\w.-]*", name):
            found.setdefault("*" if name == "robots" else name, []).extend(parts)
    agent = "*"
    for part in re.split(r"[,\n]", fetched.headers.get("x-robots-tag", "")):
        prefixed = _AGENT_PREFIX.fullmatch(part)
        if prefixed and prefixed[1].lower() not in DIRECTIVES:
            agent, part = prefixed[1].lower(), prefixed[2]
        if part.strip() and _is_directive(part):
            found.setdefault(agent, []).append(" ".join(part.lower().split()))
    if not_quoted:
        found.setdefault("*", []).append(f"data-nosnippet: {not_quoted}")
    return {agent: tuple(dict.fromkeys(parts)) for agent, parts in found.items()}


def _split_directives(content: str) -> list[str]:
    return [" ".join(part.lower().split()) for part in content.split(",") if part.strip()]


def _is_directive(part: str) -> bool:
    return part.partition(":")[0].strip().lower() in DIRECTIVES


def _json_ld(blocks: Sequence[str]) -> tuple[tuple[Mapping[str, Any], ...], tuple[str, ...]]:
    """Parse blocks of JSON-LD into objects, those of lists and of `@graph` each by itself; return them and the
    blocks that do not parse."""
    objects: list[Mapping[str, Any]] = []
    broken: list[str] = []
    for block in blocks:
        try:
            value = json.loads(block)
        except (ValueError, RecursionError):
            broken.append(block)
            continue
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, dict):
                broken.append(block)
                break
            graph = one.get("@graph")
            objects += [part for part in graph if isinstance(part, dict)] if isinstance(graph, list) else [one]
    return tuple(objects), tuple(broken)


def types_of(item: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the schema.org types of a JSON-LD object, without prefix."""
    given = item.get("@type")
    names = given if isinstance(given, list) else [given]
    return tuple(name.rpartition("/")[2].removeprefix("schema:") for name in names if isinstance(name, str))


def name_of(value: Any) -> str | None:
    """Return the name of a person or an organisation in JSON-LD, written as text, as an object or as a list of them."""
    if isinstance(value, list):
        return next((name for one in value if (name := name_of(one))), None)
    if isinstance(value, dict):
        return name_of(value.get("name"))
    return " ".join(value.split()) or None if isinstance(value, str) else None


_NAME = r"(?:[A-Z]\.|[^\W\d_a-z][\w'’-]+)"
_BYLINE = re.compile(
    rf"^(?:[Bb]y|[Ww]ritten by|[Aa]uthor:?|[Vv]on|[Pp]ar)\s+({_NAME}(?:\s+(?:(?:van|von|de|der|den|la"
    rf"|le)\s+)*{_NAME}){{1,3}})",
    re.M,
)


def byline_of(visible: str) -> str | None:
    """Return the name in a visible line that begins with `By` and a name, None without one."""
    match = _BYLINE.search(visible)
    return match[1].rstrip(".,") if match else None


def _author(
    objects: Sequence[Mapping[str, Any]], named: Mapping[str, str], marked: Sequence[str], visible: str
) -> str | None:
    """Return the first author that JSON-LD, `meta`, a marked element or a byline gives."""
    stated = next((name for one in objects if (name := name_of(one.get("author")))), None)
    return (
        stated
        or named.get("author")
        or named.get("article:author")
        or byline_of(visible)
        or next(filter(None, marked), None)
    )


_MONTHS = {
    name: number
    for names in (
        "january february march april may june july august september october november december",
        "jan feb mar apr may jun jul aug sep oct nov dec",
        "januar februar märz april mai juni juli august september oktober november dezember",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    )
    for number, name in enumerate(names.split(), start=1)
} | {"sept": 9}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DAY = r"(?:\d{1,2}(?:st|nd|rd|th)?)"
_DATE = (
    rf"\d{{4}}-\d\d-\d\d(?:[T ]\d\d:\d\d\S*)?|{_DAY}\.?\s+(?:de\s+)?(?:{_MONTH})\.?,?\s+(?:de\s+)?\d{{4}}"
    rf"|(?:{_MONTH})\.?\s+{_DAY},?\s+\d{{4}}|\d{{1,2}}\.\d{{1,2}}\.\d{{4}}"
)
_PUBLISHED = r"(?:first )?published|posted|created|veröffentlicht|publié|publicado"
_MODIFIED = (
    r"(?:last |page )*(?:updated|modified|revised|reviewed|changed)|last (?:update|change|review)|aktualisiert"
    r"|stand|geändert"
    r"|mis à jour|modifié|actualizado"
)
_SAID_DATE = re.compile(rf"\b(?:({_PUBLISHED})|({_MODIFIED}))(?:\s+(?:on|at|am|le|el))?\s*[:–-]?\s*({_DATE})", re.I)
_ONLY_DATE = re.compile(rf"^\s*({_DATE})\s*$", re.I)


_ANY_DATE = re.compile(rf"(?<![\w.-])(?:{_DATE})(?![\w-])", re.I)


def dates_in(text: str) -> tuple[datetime, ...]:
    """Find every date with day, month and year in a text."""
    found = (parse_time(match[0]) for match in _ANY_DATE.finditer(text))
    return tuple(when for when in found if when is not None)


def parse_time(written: str) -> datetime | None:
    """Read a date as pages, JSON-LD and headers write it, as a time in UTC; None for no date, or one that could be
    two (03/04/2026)."""
    text = " ".join(written.split()).strip()
    when: datetime | None
    try:
        when = datetime.fromisoformat(f"{text}-01" if re.fullmatch(r"\d{4}-\d\d", text) else text)
    except ValueError:
        when = _spelled(text)
    if when is None:
        return None
    return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)


def _spelled(text: str) -> datetime | None:
    if re.match(r"[A-Za-z]{3,9},? \d{1,2}[ -][A-Za-z]{3}[ -]\d{2,4} ", text):
        try:
            return parsedate_to_datetime(text)
        except ValueError:
            return None
    digits = [int(part) for part in re.findall(r"\d+", text)]
    month = next((number for word in re.findall(r"[^\W\d_]+", text.lower()) if (number := _MONTHS.get(word))), None)
    try:
        if month and len(digits) == 2:
            return datetime(digits[1], month, digits[0])
        if re.fullmatch(r"\d{1,2}\.\d{1,2}\.\d{4}", text):
            return datetime(digits[2], digits[1], digits[0])
    except ValueError:
        return None
    return None


def _visible_dates(visible: str, times: Sequence[tuple[str, str]]) -> Iterator[Dated]:
    """Find the dates that a reader sees and whose words before them say which date it is."""
    seen = set()
    for found in _SAID_DATE.finditer(visible):
        kind: Literal["published", "modified"] = "published" if found[1] else "modified"
        if kind not in seen:
            seen.add(kind)
            yield Dated(place="visible", kind=kind, written=found[3], when=parse_time(found[3]))
    for written, before in times:
        if re.search(rf"(?:{_MODIFIED})\W*(?:on)?\W*$", before, re.I):
            kind = "modified"
        elif re.search(rf"(?:{_PUBLISHED})\W*(?:on)?\W*$", before, re.I):
            kind = "published"
        else:
            continue
        if kind not in seen:
            seen.add(kind)
            yield Dated(place="visible", kind=kind, written=" ".join(written.split()), when=parse_time(written))


def _stated_dates(objects: Sequence[Mapping[str, Any]], named: Mapping[str, str]) -> Iterator[Dated]:
    for key, kind in (("datePublished", "published"), ("dateModified", "modified")):
        written = next((one[key] for one in objects if isinstance(one.get(key), str)), None)
        if written is not None:
            yield Dated(place="json-ld", kind=kind, written=written, when=parse_time(written))  # type: ignore[arg-type]
    for name, kind in _META_DATES.items():
        if written := named.get(name):
            yield Dated(place="meta", kind=kind, written=written, when=parse_time(written))


_META_DATES: Mapping[str, Literal["published", "modified"]] = {
    "article:published_time": "published",
    "article:modified_time": "modified",
    "last-modified": "modified",
    "dcterms.created": "published",
    "dcterms.modified": "modified",
}


def _header_date(fetched: Fetched) -> Iterator[Dated]:
    if written := fetched.headers.get("last-modified"):
        yield Dated(place="last-modified", kind="modified", written=written, when=parse_time(written))
