"""The pages of a crawled site with the look-ups that checks share, and the type of what a check finds."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from trimtab.data.duplicates import DuplicatePair, ellipsize, find_duplicates
from trimtab.publishing.pages import parse_time
from trimtab.publishing.records import ElementKind, Site, SitePage

Fact = tuple[str, str, int | None]
"""One fact that a check finds: the page's address, the evidence as it stands there, the line or None."""

MOST_EVIDENCE = 160  # characters


@dataclass(frozen=True, kw_only=True)
class CrawledPages:
    """A site with its pages as they read, and the look-ups that several checks share."""

    site: Site
    pages: tuple[SitePage, ...]

    @cached_property
    def read(self) -> tuple[SitePage, ...]:
        """Return the HTML pages that were fetched and read."""
        return tuple(page for page in self.pages if page.status == 200 and page.kind == "html" and page.unread is None)

    @cached_property
    def listed(self) -> tuple[SitePage, ...]:
        """Return the pages of `read` that may be listed under their own address."""
        return tuple(
            page for page in self.read if not forbids_listing(page) and self.same(page.canonical or page.url, page.url)
        )

    @cached_property
    def by_address(self) -> Mapping[str, SitePage]:
        """Map every address that leads to a page to that page."""
        pages = {plain_address(page.url): page for page in reversed(self.pages)}
        for asked, url in self.redirected.items():
            page = pages.get(plain_address(url))
            if page is not None:
                pages.setdefault(asked, page)
        return pages

    @cached_property
    def links_to(self) -> Mapping[str, tuple[str, ...]]:
        """Map the address of each page to the other pages that link to it."""
        sources_of: dict[str, dict[str, None]] = defaultdict(dict)
        for source, targets in self.site.links.items():
            for target in targets:
                page = self.page(target)
                if page is not None and not self.same(source, page.url):
                    sources_of[page.url][source] = None
        return {url: tuple(sources) for url, sources in sources_of.items()}

    @cached_property
    def in_sitemap(self) -> frozenset[str]:
        """Return the addresses of the pages that a sitemap names."""
        return frozenset(page.url for entry in self.site.entries if (page := self.page(entry.url)) is not None)

    @cached_property
    def entry_dates(self) -> Mapping[str, tuple[str, str, datetime]]:
        """Map the address of a page to the date of change that a sitemap gives: its place, as written, as a time."""
        dates = {}
        for entry in self.site.entries:
            page, written = self.page(entry.url), entry.lastmod or ""
            when = parse_time(written)
            if page is not None and when is not None:
                dates[page.url] = ("sitemap", written, when)
        return dates

    @cached_property
    def redirected(self) -> Mapping[str, str]:
        """Map the addresses that redirect to where they lead."""
        plain = ((plain_address(address), led.path[-1]) for address, led in self.site.redirects.items())
        return {address: url for address, url in plain if address != plain_address(url)}

    @cached_property
    def alike(self) -> tuple[tuple[SitePage, SitePage, DuplicatePair], ...]:
        """Find the pages whose main texts are equal or nearly so, as few pairs as connect all that belong together."""
        pages = [page for page in self.read if len(page.text.split()) >= 20]
        pairs = find_duplicates([page.text for page in pages]).pairs()
        return tuple((pages[pair.a], pages[pair.b], pair) for pair in pairs)

    @property
    def is_folder(self) -> bool:
        """Return True if the site was read from a folder, so that an address that is no page of it does not exist."""
        return "://" not in self.site.source

    def page(self, address: str) -> SitePage | None:
        """Return the page at an address; None without one."""
        return self.by_address.get(plain_address(address))

    def same(self, address: str, other: str) -> bool:
        """Return True if two addresses lead to one page."""
        page = self.page(address)
        return plain_address(address) == plain_address(other) or (page is not None and page is self.page(other))


def line_of(page: SitePage, kind: ElementKind) -> int | None:
    """Return the line of the first element of a kind; None without one."""
    return next((element.line for element in page.elements if element.kind == kind), None)


def forbids_listing(page: SitePage) -> bool:
    """Return True if a page asks every agent not to list it."""
    return bool({"noindex", "none"} & set(page.directives.get("*", ())))


def quoted(text: str) -> str:
    """Quote evidence as it stands on the page, on one line, long text cut."""
    return f"“{ellipsize(text, MOST_EVIDENCE)}”"


def words_of(text: str) -> int:
    """Count the words of a text; signs of Markdown are none."""
    return len(re.findall(r"\w[\w'’.,-]*", text))


def plain_address(address: str) -> str:
    """Return an address without fragment and without endings that static hosts add (`/index.html`, `.html`, `/`)."""
    address = address.partition("#")[0]
    head, query, rest = address.partition("?")
    for ending in ("/index.html", "/index.htm", ".html", ".htm", "/"):
        if head.endswith(ending):
            head = head[: -len(ending)]
            break
    return head + query + rest
