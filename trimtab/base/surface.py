"""What a site publishes, as it was fetched and as it reads, and what is found about it: shared by publishing, reports and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from trimtab.base.results import Estimate
from trimtab.base.show import Row, Shown

Severity = Literal["blocks", "hinders", "note"]
AgentRole = Literal["search", "user", "training"]
CoverageStatus = Literal["answered", "partly", "retrieved", "absent", "competitor"]
COVERAGE_STATUSES: tuple[CoverageStatus, ...] = ("answered", "partly", "retrieved", "absent", "competitor")
TrialVerdict = Literal["better", "not worse", "not shown", "worse"]
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
class PageHeading:
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
class SitePage:
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
    headings: tuple[PageHeading, ...]
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
class SurfaceFinding:
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
    new: tuple[SurfaceFinding, ...]
    gone: tuple[SurfaceFinding, ...]
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
    findings: tuple[SurfaceFinding, ...]
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
        words = {"blocks": ("blocks", "block"), "hinders": ("hinders", "hinder"), "note": ("is a note", "are notes")}
        numbers = {severity: sum(one.severity == severity for one in self.findings) for severity in SEVERITIES}
        counts = ", ".join(f"{count:,} that {words[severity][count != 1]}" for severity, count in numbers.items())
        return f"{self.origin}: {self.pages:,} pages, {len(self.findings):,} findings ({counts})"

    def screen(self) -> Sequence[Row]:
        """One row for each kind of finding."""
        rows: dict[tuple[str, str], list[SurfaceFinding]] = {}
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
class SurfaceQuestion:
    """A question as people ask it, and the file or store that it was read from.

    `demand`: how often it was asked or shown there (impressions, searches, tickets), None where the source does not say.
    `references`: right answers, `page`: the page that should answer, where the source gives them.
    """

    text: str
    source: str
    demand: float | None = None
    references: tuple[str, ...] = ()
    page: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveredQuestion:
    """A question asked of a simulated assistant: whether it was answered from the publisher's own pages, and on what.

    `rank`: of the first own passage that answers it, None where none was retrieved. `cited`: whether the answer names an own page;
    `page` and `span`: the page, and the words of it that show the status. `engine` and `date`: which assistant was simulated, and when.
    `answer`: with its numbered sources. `share`: the share of the answer's words that cite own pages, `adjusted_share` with words that
    come first weighing more (0 where nothing is cited). `supported`: the share of own citations whose passage holds what is cited for
    it, None without one. `owner`: whose page the span is of. `labelled`: whether the right passage is known from a label.
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
    answer: str = ""
    share: float = 0.0
    adjusted_share: float = 0.0
    supported: float | None = None
    demand: float | None = None
    owner: str | None = None
    labelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCoverage:
    """The figures of a group of questions that mean alike, with 95% intervals over its questions.

    `demand`: the sum of its questions', None where none has any. `stability`: the mean Jaccard index with the most similar group when
    a fifth of the questions is left out (Hennig 2007): from .75 on a group is stable, below .6 it is not one. None for all questions.
    `found`: a right own passage is among those retrieved. `top`: it is the first. `cited`, `answered`: by status. `share`: as of a question.
    """

    group: str
    questions: int
    demand: float | None
    stability: float | None
    found: Estimate
    top: Estimate
    cited: Estimate
    answered: Estimate
    share: Estimate
    statuses: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedAgreement:
    """How the simulation orders questions beside real answers that the user collected: Spearman's correlation, and its 95% interval."""

    source: str
    questions: int
    correlation: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageChange:
    """A question whose status is another than in an earlier result; None where it was not asked then, or is not asked now."""

    question: str
    before: CoverageStatus | None
    after: CoverageStatus | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SurfaceCoverage(Shown):
    """How far the publisher's own pages answer the questions that people ask, as a simulated assistant finds and cites them.

    `limits`: what the simulation cannot say about a real assistant. `k`: passages that an answer is written from. `overall`: all
    questions, its intervals by group. `obeyed`: the share of answers that followed an instruction planted in a passage.
    """

    source: str
    engine: str
    embedding: str
    date: str
    limits: tuple[str, ...]
    k: int
    pages: int
    passages: int
    competitors: tuple[str, ...]
    overall: GroupCoverage
    groups: tuple[GroupCoverage, ...]
    questions: tuple[CoveredQuestion, ...]
    findings: tuple[SurfaceFinding, ...]
    obeyed: Estimate
    observed: ObservedAgreement | None = None
    since: str | None = None
    changes: tuple[CoverageChange, ...] = ()
    notes: tuple[str, ...] = ()
    page: str | None = None

    @property
    def headline(self) -> str:
        """How many questions have each status, in one line."""
        counts = ", ".join(f"{self.overall.statuses.get(status, 0):,} {status}" for status in COVERAGE_STATUSES)
        return f"{self.source}: {len(self.questions):,} questions to a simulated assistant ({self.engine}, {self.date}): {counts}"

    def screen(self) -> Sequence[Row]:
        """One row for all questions, and one for each group of several, the most asked first."""
        return [
            {
                "group": one.group,
                "questions": one.questions,
                "demand": one.demand,
                "found": in_words(one.found),
                "cited": in_words(one.cited),
                "answered": in_words(one.answered),
            }
            for one in (self.overall, *(group for group in self.groups if group.questions > 1))
        ]


def in_words(found: Estimate) -> str:
    """A share with its interval."""
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotedFact:
    """A sentence word for word, with the document and the headings above it, and the probability that it answers the question."""

    question: str
    quote: str
    document: str
    path: tuple[str, ...]
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentBrief:
    """What to do so that a group of questions is answered: facts that are at hand, quoted; no text for publication.

    `priority` = demand × gap × evidence, each a share: of all demand (of all questions where no demand is known), of the group's
    questions that are not answered (partly counts half), of these the ones that a document at hand answers. `page`: the own page
    that should answer, None where no own page is near. `competing`: other own pages retrieved for the same questions.
    """

    group: str
    questions: tuple[str, ...]
    demand: float | None
    gap: float
    evidence: float
    priority: float
    page: str | None
    lacks: tuple[str, ...]
    facts: tuple[QuotedFact, ...]
    structure: tuple[str, ...]
    remove: tuple[str, ...]
    cited_instead: tuple[str, ...]
    competing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SurfacePlan(Shown):
    """Which questions to answer next, the most rewarding first, with a brief for each group that is not answered."""

    source: str
    engine: str
    date: str
    demand_known: bool
    briefs: tuple[ContentBrief, ...]
    limits: tuple[str, ...]
    notes: tuple[str, ...] = ()
    page: str | None = None

    @property
    def headline(self) -> str:
        """How many groups want work, and for how many the facts are at hand."""
        ready = sum(one.evidence > 0 for one in self.briefs)
        return f"{self.source}: {len(self.briefs):,} groups of questions want work; for {ready:,} of them facts are at hand"

    def screen(self) -> Sequence[Row]:
        """One row for each brief."""
        return [
            {
                "group": one.group,
                "demand": one.demand,
                "gap": one.gap,
                "evidence": one.evidence,
                "priority": one.priority,
                "page": one.page or "(a new page)",
            }
            for one in self.briefs
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOutcome:
    """One figure of an edited page beside the present one, paired by question, while a share of the competitors adopts the edit.

    `difference`: edited less present, with the 95% interval; `p`: two-sided, adjusted over all outcomes (Holm 1979).
    `p_not_worse`: one-sided, of "worse by the margin or more". `smallest`: the least difference these questions show with 80% power.
    """

    outcome: str
    adoption: float
    present: float
    edited: float
    difference: float
    low: float
    high: float
    p: float
    p_not_worse: float
    smallest: float
    verdict: TrialVerdict


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SurfaceTrial(Shown):
    """What an edit does to how a simulated assistant finds and cites the publisher, and a placebo: the present page against itself.

    `verdict`: of the share of the answer that cites own pages, at no adoption; "not shown" where the placebo differs.
    `touched`: questions for which a passage of an edited page is retrieved, before or after.
    """

    source: str
    edits: tuple[str, ...]
    engine: str
    date: str
    questions: int
    touched: int
    seeds: int
    margin: float
    outcomes: tuple[TrialOutcome, ...]
    placebo: tuple[TrialOutcome, ...]
    verdict: TrialVerdict
    limits: tuple[str, ...]
    notes: tuple[str, ...] = ()
    page: str | None = None

    @property
    def headline(self) -> str:
        """The verdict in one sentence."""
        first = self.outcomes[0]
        return (
            f"{', '.join(self.edits)}: {self.verdict} (share of the answer that cites {self.source}: {first.present:.3f} → "
            f"{first.edited:.3f}, difference {first.difference:+.3f}, 95% interval {first.low:+.3f} to {first.high:+.3f})"
        )

    def screen(self) -> Sequence[Row]:
        """One row for each outcome and adoption."""
        return [
            {
                "outcome": one.outcome,
                "adoption": f"{one.adoption:.0%}",
                "difference": f"{one.difference:+.3f} ({one.low:+.3f} to {one.high:+.3f})",
                "p (Holm)": one.p,
                "smallest": one.smallest,
                "verdict": one.verdict,
            }
            for one in self.outcomes
        ]
