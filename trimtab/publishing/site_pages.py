"""A site with its pages as they read, as checks look at it, and what a check of it is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from trimtab.base.surface import Severity, Site, SitePage, SurfaceFinding
from trimtab.data.duplicates import Pair, compare, short
from trimtab.publishing.pages import moment_of

Found = tuple[str, str, int | None]
"""What a check finds: the page's address, the evidence as it stands there, the line or None."""

MOST_EVIDENCE = 160  # characters


@dataclass(frozen=True, kw_only=True)
class CrawledPages:
    """A site with its pages as they read, and what several checks look up in them."""

    site: Site
    pages: tuple[SitePage, ...]

    @cached_property
    def read(self) -> tuple[SitePage, ...]:
        """The HTML pages that were fetched and read."""
        return tuple(page for page in self.pages if page.status == 200 and page.kind == "html" and page.unread is None)

    @cached_property
    def listed(self) -> tuple[SitePage, ...]:
        """Those of them that ask for no other address in their place, and do not forbid to be listed."""
        return tuple(
            page for page in self.read if not forbids_listing(page) and self.same(page.canonical or page.url, page.url)
        )

    @cached_property
    def by_address(self) -> Mapping[str, SitePage]:
        """Pages by every address that leads to them."""
        found = {plain_address(page.url): page for page in reversed(self.pages)}
        for asked, url in self.redirected.items():
            page = found.get(plain_address(url))
            if page is not None:
                found.setdefault(asked, page)
        return found

    @cached_property
    def links_to(self) -> Mapping[str, tuple[str, ...]]:
        """By page the other pages that link to it."""
        found: dict[str, dict[str, None]] = defaultdict(dict)
        for source, targets in self.site.links.items():
            for target in targets:
                page = self.page(target)
                if page is not None and not self.same(source, page.url):
                    found[page.url][source] = None
        return {url: tuple(sources) for url, sources in found.items()}

    @cached_property
    def in_sitemap(self) -> frozenset[str]:
        """The pages that a sitemap names."""
        return frozenset(page.url for entry in self.site.entries if (page := self.page(entry.url)) is not None)

    @cached_property
    def entry_dates(self) -> Mapping[str, tuple[str, str, datetime]]:
        """By page the date of change that a sitemap gives: its place, as written, as a time."""
        found = {}
        for entry in self.site.entries:
            page, when = self.page(entry.url), moment_of(entry.lastmod or "")
            if page is not None and entry.lastmod is not None and when is not None:
                found[page.url] = ("sitemap", entry.lastmod, when)
        return found

    @cached_property
    def redirected(self) -> Mapping[str, str]:
        """The addresses that were asked for and lead elsewhere."""
        asked = {one.asked: one.url for one in self.site.pages if one.redirects} | dict(self.site.redirects)
        return {plain_address(one): url for one, url in asked.items() if plain_address(one) != plain_address(url)}

    @cached_property
    def alike(self) -> tuple[tuple[SitePage, SitePage, Pair], ...]:
        """Pages whose main texts are equal or nearly so, as few pairs as connect all that belong together."""
        pages = [page for page in self.read if len(page.text.split()) >= 20]
        pairs = compare([page.text for page in pages]).pairs()
        return tuple((pages[pair.a], pages[pair.b], pair) for pair in pairs)

    @property
    def is_folder(self) -> bool:
        """True if the site was read from a folder, so that what is not among its pages is not there."""
        return "://" not in self.site.source

    def page(self, address: str) -> SitePage | None:
        """The page at an address."""
        return self.by_address.get(plain_address(address))

    def same(self, one: str, other: str) -> bool:
        """True if two addresses lead to one page."""
        left, right = self.page(one), self.page(other)
        return plain_address(one) == plain_address(other) or (
            left is not None and right is not None and left.url == right.url
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check of the table: what it finds in one sentence, how much that matters, and what to do about it."""

    name: str
    severity: Severity
    says: str
    remedy: str
    find: Callable[[CrawledPages], Iterator[Found]]

    def findings(self, pages: CrawledPages) -> Iterator[SurfaceFinding]:
        """What it finds on a site."""
        for page, evidence, line in self.find(pages):
            yield SurfaceFinding(
                page=page, check=self.name, severity=self.severity, evidence=evidence, remedy=self.remedy, line=line
            )


def forbids_listing(page: SitePage) -> bool:
    """True if a page asks every agent not to list it."""
    return bool({"noindex", "none"} & set(page.directives.get("*", ())))


def quoted(text: str) -> str:
    """Evidence as it stands on the page, on one line, long text cut."""
    return f"“{short(text, MOST_EVIDENCE)}”"


def words_of(text: str) -> int:
    """How many words a text has; signs of Markdown are none."""
    return len(re.findall(r"\w[\w'’.,-]*", text))


def plain_address(address: str) -> str:
    """An address without its fragment, and without what static hosts add to the same page."""
    address = address.partition("#")[0]
    head, query, rest = address.partition("?")
    for ending in ("/index.html", "/index.htm", ".html", ".htm", "/"):
        if head.endswith(ending):
            head = head[: -len(ending)]
            break
    return head + query + rest
