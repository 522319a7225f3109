"""Reads the content of a publisher and its competitors: documents of folders and sites, each with owner and page."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trimtab.base.errors import InputError
from trimtab.base.files import sha256_text
from trimtab.base.progress import Progress
from trimtab.base.records import Document
from trimtab.data.documents import read_below
from trimtab.data.markdown import parse_markdown
from trimtab.publishing import CACHE
from trimtab.publishing.answerable import why_not_there, with_questions_as_headings
from trimtab.publishing.crawl import crawl
from trimtab.publishing.pages import read_pages
from trimtab.publishing.records import SitePage

OWN = "own"  # whose the publisher's pages are; competitors have the names of their folders or hosts


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedContent:
    """The documents of one publisher, with ids `{owner}/{page}`; `unread`: each page not read, and why."""

    owner: str
    source: str
    documents: tuple[Document, ...]
    unread: tuple[str, ...] = ()


def owner_and_page(document: str) -> tuple[str, str]:
    """Split the id of a document into its owner and its page."""
    owner, _, page = document.partition("/")
    return owner, page


def page_label(document: str) -> str:
    """Return the page of a document's id, for others than the publisher's with their owner before it."""
    owner, page = owner_and_page(document)
    return page if owner == OWN else f"{owner}: {page}"


def content_of(
    source: str | Path, owner: str = OWN, *, cache: Path = CACHE, progress: Progress | None = None
) -> PublishedContent:
    """Read the documents of a folder, a file or a site, whose address is crawled into `cache`.

    Raises InputError where nothing can be read.
    """
    if str(source).startswith(("http://", "https://")):
        return _of_site(str(source), owner, cache, progress)
    folder = Path(source)
    documents, errors = read_below(folder)
    if not documents:
        raise errors[0] if errors else InputError("holds no document", "give a folder of pages", file=folder)
    return _answerable(owner, folder.name or str(folder), documents, map(str, errors))


def _answerable(owner: str, source: str, documents: Collection[Document], unread: Iterable[str]) -> PublishedContent:
    """Leave out the pages that are not there, and put the others' questions above their answers."""
    reasons = {document.id: why_not_there(document) for document in documents}
    kept = [with_questions_as_headings(document) for document in documents if reasons[document.id] is None]
    if not kept:
        raise InputError("holds no page but error pages", "give the folder or address of its pages", file=Path(source))
    return PublishedContent(
        owner=owner,
        source=source,
        documents=tuple(with_owner(document, owner) for document in kept),
        unread=(*unread, *(f"{page}: {why}" for page, why in reasons.items() if why)),
    )


def with_owner(document: Document, owner: str) -> Document:
    """Return a document with its owner in its id and its page as its source."""
    return replace(document, id=f"{owner}/{document.id}", source=document.id)


def competitors_of(
    sources: Sequence[str | Path], *, cache: Path = CACHE, progress: Progress | None = None
) -> tuple[PublishedContent, ...]:
    """Read the content of each competitor, named by its folder or host; a second one of a name gets `-2`."""
    contents: dict[str, PublishedContent] = {}
    for source in sources:
        _, scheme, address = str(source).rpartition("://")
        name = address.strip("/").split("/")[0 if scheme else -1].split("?")[0] or "competitor"
        while name in contents or name == OWN:
            name += "-2"
        contents[name] = content_of(source, name, cache=cache, progress=progress)
    return tuple(contents.values())


def _of_site(address: str, owner: str, cache: Path, progress: Progress | None) -> PublishedContent:
    site = crawl(address, cache=cache, progress=progress)
    documents: dict[str, Document] = {}
    for page in read_pages([answer for answer in site.pages if answer.status == 200], progress):
        document = document_of(page)
        if document is not None:
            documents.setdefault(page.url, document)
    if not documents:
        raise InputError("no page with text was fetched", "see `trimtab surface audit` for why", file=address)
    unread = (f"{address.url}: {address.why}" for address in site.unfetched)
    return _answerable(owner, site.origin, documents.values(), unread)


def document_of(page: SitePage) -> Document | None:
    """Make a document of a page: its main text under its headings; None where it has no text."""
    title, sections = parse_markdown(page.text, page.title)
    if not sections:
        return None
    digest = sha256_text(page.title, page.text)
    return Document(id=page.url, title=page.title or title, source=page.url, sections=sections, digest=digest)
