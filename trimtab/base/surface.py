"""What a site publishes, as it was fetched and as it reads, and what is found about it: shared by publishing, reports and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from trimtab.base.show import Row, Shown

Severity = Literal["blocks", "hinders", "note"]
AgentRole = Literal["search", "user", "training"]
CoverageStatus = Literal["answered", "partly", "retrieved", "absent", "competitor"]
SEVERITIES: tuple[Severity, ...] = ("blocks", "hinders", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One answer of a site, or one file of a folder as it would be served.

    `url`: where it was found in the end; `asked`: the address that was asked for, with `redirects` between the two, in their order.
    `headers`: by their names in small letters. `content`: its bytes, at most as many as the limit allows; `cut` where there were more.
    """

    url: str
    asked: str
    status: int
    headers: Mapping[str, str]
    content: bytes
    when: datetime
    redirects: tuple[str, ...] = ()
    cut: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfetched:
    """An address that was not fetched, and why, in words."""

    url: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SitemapEntry:
    """A page that a sitemap names, and when it says that the page was changed last, as written there."""

    url: str
    lastmod: str | None
    sitemap: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site as it was crawled, or a folder as it would be served: `origin` is the scheme and host that its pages have.

    `robots`: its robots.txt, None where it could not be fetched at all. `pages`: every answer that is no redirect, errors included.
    `links`: by page the addresses that it links to on the same host. `redirects`: by address where it led, for those that were asked for.
    """

    origin: str
    source: str
    when: datetime
    robots: Fetched | None
    sitemaps: tuple[Fetched, ...]
    entries: tuple[SitemapEntry, ...]
    pages: tuple[Fetched, ...]
    unfetched: tuple[Unfetched, ...] = ()
    links: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    redirects: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A heading of a page: its level from 1 to 6, its text, and its line in the HTML."""

    level: int
    text: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dated:
    """A date that a page gives: where (`visible`, `json-ld`, `meta`, `sitemap`, `last-modified`), which, and as it is written there."""

    place: str
    kind: Literal["published", "modified"]
    written: str
    when: datetime | None


ElementKind = Literal[
    "title",
    "canonical",
    "image",
    "image-without-alt",
    "table",
    "table-without-head",
    "typed-list",
    "typed-table",
    "json-ld",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageElement:
    """An element that checks look at: its text or address, cut to a few hundred characters, and its line in the HTML.

    `image-without-alt`: no `alt` attribute, of an image in the main content. `typed-list`, `typed-table`: paragraphs or `pre` that draw
    a list or a table with characters.
    """

    kind: ElementKind
    text: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page as it reads: what its HTML says of it, and its main text.

    `text`: the main text in blocks, a blank line between two; `words` of the whole visible text, so that the share of the main text is
    known. `directives`: of `meta name=robots` and the header X-Robots-Tag, by the agent that they are for (`*` for all). `json_ld`: every
    object that parses; `broken_json_ld`: the others, as written. `rendered`: the main text after scripts ran, None where nobody looked.
    `visible`: the whole visible text, a line for each block. `linked`: paragraphs and list items of it that hold a link. `scripts`: external scripts, and `script_bytes` of the inline ones.
    `unread`: why the page could not be read within limits, None where it could.
    """

    url: str
    status: int
    kind: Literal["html", "pdf", "other"]
    title: str
    description: str
    canonical: str | None
    language: str | None
    author: str | None
    headings: tuple[Heading, ...]
    text: str
    words: int
    directives: Mapping[str, tuple[str, ...]]
    json_ld: tuple[Mapping[str, Any], ...]
    broken_json_ld: tuple[str, ...]
    dates: tuple[Dated, ...]
    links: tuple[str, ...]
    rendered: str | None = None
    visible: str = ""
    linked: tuple[str, ...] = ()
    elements: tuple[PageElement, ...] = ()
    scripts: int = 0
    script_bytes: int = 0
    unread: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fact about a site: what was checked, how much it matters, the evidence as it stands there, and what to do.

    `page`: an address; the site's origin for what holds of all of it. `line`: of the page's HTML or of robots.txt, None where it has none.
    """

    page: str
    check: str
    severity: Severity
    evidence: str
    remedy: str
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentAccess:
    """What an assistant's agent may read: `allowed` of `pages`, and by each line of robots.txt that decides how many it forbids.

    `obeys`: whether the vendor says that the agent obeys robots.txt. `source` and `checked`: the vendor's page, and when it was looked at.
    """

    agent: str
    vendor: str
    role: AgentRole
    obeys: bool
    pages: int
    allowed: int
    decided_by: Mapping[str, int]
    source: str
    checked: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentVisits:
    """What one agent did by the access logs: `requests`, how many of them by each `status`, and how many different `pages` it got (200).

    `verified`: requests from an address of the vendor's published ranges, None where no ranges of it were given.
    """

    agent: str
    vendor: str
    role: AgentRole
    requests: int
    verified: int | None
    statuses: Mapping[int, int]
    pages: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """Access logs as they were read: `lines` of them, `unread` of these in no known form, and each agent that came.

    `never_read`: pages of the site that no agent for search or for users got; empty where no site was given.
    """

    lines: int
    unread: int
    first: datetime | None
    last: datetime | None
    agents: tuple[AgentVisits, ...]
    never_read: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceChanges:
    """What differs between two audits of a site: findings that are new and gone, and agents that may read more or fewer pages.

    `since`: when the earlier one was made, of `pages_before` pages. `agents`: a sentence for each agent whose share of pages changed.
    """

    since: datetime
    pages_before: int
    new: tuple[Finding, ...]
    gone: tuple[Finding, ...]
    agents: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SurfaceAudit(Shown):
    """What an audit of a site found: who may read it, and facts by severity. No total score is made of them.

    `notes`: what holds of the site and is no fault. `logs`: what agents did by the access logs that were given, `changes`: what differs
    from an earlier audit that was given. `page`: where its page was written.
    """

    origin: str
    source: str
    when: datetime
    pages: int
    unfetched: int
    agents: tuple[AgentAccess, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    logs: LogSummary | None = None
    changes: SurfaceChanges | None = None
    page: str | None = None

    @property
    def blocks(self) -> bool:
        """Whether something keeps assistants from reading."""
        return any(one.severity == "blocks" for one in self.findings)

    @property
    def headline(self) -> str:
        """How many facts of each severity, in one line."""
        counts = ", ".join(
            f"{sum(one.severity == severity for one in self.findings):,} that {said}"
            for severity, said in (("blocks", "block"), ("hinders", "hinder"), ("note", "are notes"))
        )
        return f"{self.origin}: {self.pages:,} pages, {len(self.findings):,} findings ({counts})"

    def screen(self) -> Sequence[Row]:
        """One row for each kind of finding."""
        rows: dict[tuple[str, str], list[Finding]] = {}
        for one in self.findings:
            rows.setdefault((one.severity, one.check), []).append(one)
        return [
            {
                "severity": severity,
                "check": check,
                "pages": len({one.page for one in found}),
                "for example": found[0].page,
            }
            for (severity, check), found in sorted(rows.items(), key=lambda item: SEVERITIES.index(item[0][0]))
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveredQuestion:
    """A question asked of a simulated assistant: whether it was answered from the publisher's own pages, and on what.

    `rank`: of the first own passage that answers it, None where none was retrieved. `cited`: whether the answer names an own page;
    `page` and `span`: the page, and the words of it that show the status. `engine` and `date`: which assistant was simulated, and when.
    """

    question: str
    group: str
    status: CoverageStatus
    page: str | None
    span: str | None
    rank: int | None
    cited: bool
    engine: str
    date: str
