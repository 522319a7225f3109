"""Records of a published site: answers, pages, findings and results, shared by publishing, reports and the command
line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from trimtab.base.codec import from_plain
from trimtab.base.errors import InputError
from trimtab.base.files import read_own
from trimtab.base.results import Estimate
from trimtab.base.show import Shown, ShownRow

Severity = Literal["blocks", "hinders", "note"]
AgentRole = Literal["search", "user", "training"]
CoverageStatus = Literal["answered", "partly", "retrieved", "absent", "competitor"]
COVERAGE_STATUSES: tuple[CoverageStatus, ...] = ("answered", "partly", "retrieved", "absent", "competitor")
TrialVerdict = Literal["better", "not worse", "not shown", "worse"]
SEVERITIES: tuple[Severity, ...] = ("blocks", "hinders", "note")
R = TypeVar("R", "SurfaceAudit", "SurfaceCoverage", "SurfacePlan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """One HTTP answer of a site, or one file of a folder as it would be served.

    `asked`: the address that was requested. `redirects`: the addresses between it and `url`, the last one, in their
    order. `statuses`: of the redirects. `headers`: by name in small letters. `content`: the body, up to a limit. `cut`:
    there was more of it. `when`: the time of the answer. `seconds`: that it took, 0 for a file.
    """

    url: str
    asked: str
    status: int
    headers: Mapping[str, str]
    content: bytes
    when: datetime
    redirects: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    cut: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfetched:
    """An address that was not fetched, or was not read whole, and the reason in words."""

    url: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SitemapEntry:
    """A page that a sitemap names. `lastmod`: the date of its last change, as written there. `sitemap`: the address of
    the sitemap.
    """

    url: str
    lastmod: str | None
    sitemap: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirected:
    """Where an address led: the addresses after it, the last one included (`path`), and the status of each redirect."""

    path: tuple[str, ...]
    statuses: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A crawled site, or a folder as it would be served.

    `origin`: scheme and host of its pages. `source`: the address or folder that was given. `robots`: its robots.txt,
    None if it could not be fetched. `entries`: the pages that its sitemaps name. `pages`: every answer that is no
    redirect, errors included. `links`: by page, the addresses on the same host that it links to. `redirects`: by
    requested address, where it led. `llms`: its llms.txt, None without one.
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
    redirects: Mapping[str, Redirected] = field(default_factory=dict)
    llms: Fetched | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageHeading:
    """A heading of a page: its level (1 to 6), its text, and its line in the HTML."""

    level: int
    text: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dated:
    """A date that a page gives.

    `place`: where it stands (`visible`, `json-ld`, `meta`, `sitemap`, `last-modified`). `written`: as it stands there.
    `when`: as a time, None if it cannot be read.
    """

    place: str
    kind: Literal["published", "modified"]
    written: str
    when: datetime | None


ElementKind = Literal[
    "title",
    "canonical",
    "odd-canonical",
    "alternate",
    "description",
    "og-url",
    "refresh",
    "image",
    "image-without-alt",
    "table-without-head",
    "typed-list",
    "typed-table",
    "bold-heading",
    "json-ld",
    "script-move",
    "hidden",
    "brought",
    "frame",
    "drawn",
    "password",
    "empty-link",
    "vague-link",
    "script-link",
    "private-link",
    "nofollow-link",
    "broken-anchor",
    "fragment",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageElement:
    """An element of a page that checks use: its text or address, cut to a few hundred characters, and its line in the
    HTML.

    `odd-canonical`: a canonical link that search does not use, and why. `alternate`: code and address of a version in
    another language. `refresh`: what `meta http-equiv=refresh` says. `image-without-alt`: an image of the main content
    without `alt` attribute. `typed-list`, `typed-table`: paragraphs or `pre` that draw a list or a table with
    characters. `bold-heading`: bold paragraphs that stand as headings. `script-move`: the address that a script goes
    to. `hidden`: a sentence that styles hide. `brought`: an element that scripts fill. `drawn`: a canvas, or the text
    of a picture or a style sheet. Links have their text before their address; `fragment`: to a part of another page.
    """

    kind: ElementKind
    text: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePage:
    """A parsed page: its metadata, structure and main text.

    `text`: the main text in blocks, a blank line between two. `visible`: the whole visible text, a line for each block.
    `words`: the number of words of `visible`. `directives`: of `meta name=robots` and the header X-Robots-Tag, by the
    agent that they are for (`*` for all); `data-nosnippet: N` for N elements with that attribute. `json_ld`: every
    object that parses. `broken_json_ld`: the others, as written. `rendered`: the main text after scripts ran, None if
    the page was not rendered. `linked`: paragraphs and list items with a link. `scripts`: the number of external
    scripts. `script_bytes`: the size of inline scripts. `unread`: why the page could not be read within limits, else
    None.
    """

    url: str
    status: int
    kind: Literal["html", "pdf", "other"]
    title: str = ""
    canonical: str | None
    language: str | None
    author: str | None = None
    headings: tuple[PageHeading, ...] = ()
    text: str = ""
    words: int = 0
    directives: Mapping[str, tuple[str, ...]]
    json_ld: tuple[Mapping[str, Any], ...] = ()
    broken_json_ld: tuple[str, ...] = ()
    dates: tuple[Dated, ...]
    links: tuple[str, ...] = ()
    rendered: str | None = None
    visible: str = ""
    linked: tuple[str, ...] = ()
    elements: tuple[PageElement, ...] = ()
    anchors: tuple[str, ...] = ()
    scripts: int = 0
    script_bytes: int = 0
    unread: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceFinding:
    """One fact about a site: the name of the check, its severity, the evidence as it stands there, and what to do.

    `page`: an address, or the site's origin for a fact about the whole site. `line`: of the page's HTML or of
    robots.txt, else None.
    """

    page: str
    check: str
    severity: Severity
    evidence: str
    remedy: str
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentAccess:
    """The pages that an assistant's agent may read: `allowed` of `pages`.

    `decided_by`: by line of robots.txt, the number of pages that it forbids. `obeys`: the vendor says that the agent
    obeys robots.txt. `source`, `checked`: the vendor's page, and the date on which it was checked.
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
    """The visits of one agent in access logs.

    `requests`: those under its name. `verified`: those of them from the vendor's published address ranges, None if no
    ranges of it were given. The rest is over the verified requests, else over all: their number by status and by month
    (`2026-11`), the number of different pages got, and the times of the first and last; None without any.
    """

    agent: str
    vendor: str
    role: AgentRole
    requests: int
    verified: int | None
    statuses: Mapping[int, int]
    pages: int
    months: Mapping[str, int]
    first: datetime | None
    last: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferredVisits:
    """The visits of people whom an assistant sent, by referrer or `utm_source`: their number, also by page, the most
    visited ones, and by month.
    """

    assistant: str
    visits: int
    pages: Mapping[str, int]
    months: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherBot:
    """A bot that the table of agents does not know: its name, its whole `User-Agent` (`words`), and its requests."""

    name: str
    words: str
    requests: int
    pages: int
    months: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """A summary of access logs: the number of lines, how many of them could not be read, and the visits of each agent.

    `first`, `last`: the times of the first and last request. `never_read`: pages of the site that no agent for search
    or for users got; empty if no site was given. `people`: whom assistants sent. `other_bots`: those with most
    requests; `more_bots`: the number of the others. `days`: by month, the number of days with requests. `changes`: a
    sentence for each whose requests a day differ between the last two months.
    """

    lines: int
    unread: int
    first: datetime | None
    last: datetime | None
    agents: tuple[AgentVisits, ...]
    never_read: tuple[str, ...] = ()
    people: tuple[ReferredVisits, ...] = ()
    other_bots: tuple[OtherBot, ...] = ()
    more_bots: int = 0
    days: Mapping[str, int] = field(default_factory=dict)
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceChanges:
    """The differences between two audits of a site: new findings, and findings that are gone.

    `since`, `pages_before`: the time and the number of pages of the earlier audit. `agents`: a sentence for each agent
    whose share of readable pages changed.
    """

    since: datetime
    pages_before: int
    new: tuple[SurfaceFinding, ...]
    gone: tuple[SurfaceFinding, ...]
    agents: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SurfaceAudit(Shown):
    """The result of an audit of a site: who may read it, and findings by severity. There is no total score.

    `pages`, `unfetched`: the number of pages, and of addresses that were not fetched. `notes`: facts about the site
    that are no faults. `logs`: the summary of the access logs, `changes`: the differences from the earlier audit; None
    if none was given. `page`: the file of its HTML page.
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
        """True if a finding keeps assistants from reading."""
        return any(finding.severity == "blocks" for finding in self.findings)

    @property
    def headline(self) -> str:
        """Return the number of findings of each severity, in one line."""
        words = {"blocks": ("blocks", "block"), "hinders": ("hinders", "hinder"), "note": ("is a note", "are notes")}
        numbers = {severity: sum(finding.severity == severity for finding in self.findings) for severity in SEVERITIES}
        counts = ", ".join(f"{count:,} that {words[severity][count != 1]}" for severity, count in numbers.items())
        return f"{self.origin}: {self.pages:,} pages, {len(self.findings):,} findings ({counts})"

    def screen(self) -> Sequence[ShownRow]:
        """Return one row for each kind of finding."""
        rows: dict[tuple[str, str], list[SurfaceFinding]] = {}
        for finding in self.findings:
            rows.setdefault((finding.severity, finding.check), []).append(finding)
        return [
            {
                "severity": severity,
                "check": check,
                "pages": len({finding.page for finding in findings}),
                "for example": findings[0].page,
            }
            for (severity, check), findings in sorted(rows.items(), key=lambda item: SEVERITIES.index(item[0][0]))
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceQuestion:
    """A question as people ask it, and the file or store that it was read from (`source`).

    `demand`: how often it was asked or shown there (impressions, searches, tickets), None if the source does not say.
    `references`: right answers, `page`: the page that should answer, if the source gives them.
    """

    text: str
    source: str
    demand: float | None = None
    references: tuple[str, ...] = ()
    page: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContradictingPages:
    """Two pages of the publisher that state different values of the same thing, and the sentence of each."""

    pages: tuple[str, str]
    statements: tuple[str, str]

    def __str__(self) -> str:
        (page, other), (statement, others) = self.pages, self.statements
        return f"{page} says “{statement}”, and {other} says “{others}”"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveredQuestion:
    """A question asked of a simulated assistant, and whether the publisher's own pages answer it (`status`).

    `page`, `span`: the page, and its words that show the status; `owner`: whose page it is. `rank`: that of the first
    own passage that answers the question, None if none was retrieved. `cited`: the answer cites an own page. `engine`,
    `date`: the simulated assistant, and the day. `answer`: its text with numbered sources. `share`: the share of its
    words that cite own pages; `adjusted_share`: the same with earlier words weighing more. `supported`: the share of
    own citations whose passage supports what cites it, None without a citation. `labelled`: the right passage is known
    from a label. `contradictions`: what the answer cites, and another own page says otherwise.
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
    contradictions: tuple[ContradictingPages, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCoverage:
    """The figures of a group of questions with similar meaning, with 95% intervals over its questions.

    `demand`: the sum over its questions, None if none has any. `stability`: the mean Jaccard index with the most
    similar group when a fifth of the questions is left out (Hennig 2007): from .75 on a group is stable, below .6 it is
    not one; None for all questions. Shares of questions: `found`, a right own passage is retrieved; `top`, it is the
    first; `cited`, an own page is cited; `answered`, by status. `share`: the mean of the questions' `adjusted_share`.
    `statuses`: the number of questions by status.
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
    """The agreement of the simulation with real answers that the user collected: Spearman's correlation over questions,
    95% interval.
    """

    source: str
    questions: int
    correlation: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageChange:
    """A question whose status differs from that in an earlier result; None if it was not asked then, or is not asked
    now.
    """

    question: str
    before: CoverageStatus | None
    after: CoverageStatus | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SurfaceCoverage(Shown):
    """The result of asking a simulated assistant the questions of people: which ones it answers from the publisher's
    own pages.

    `limits`: what the simulation cannot say about a real assistant. `k`: the number of passages that an answer is
    written from. `overall`: the figures of all questions, with intervals by group. `obeyed`: the share of answers that
    followed an instruction planted in a passage; None where answers are sentences of the passages. `since`: the date of
    the earlier result that `changes` compares with.
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
    obeyed: Estimate | None
    observed: ObservedAgreement | None = None
    since: str | None = None
    changes: tuple[CoverageChange, ...] = ()
    notes: tuple[str, ...] = ()
    page: str | None = None

    @property
    def headline(self) -> str:
        """Return the number of questions with each status, in one line."""
        counts = ", ".join(f"{self.overall.statuses.get(status, 0):,} {status}" for status in COVERAGE_STATUSES)
        assistant = f"a simulated assistant ({self.engine}, {self.date})"
        return f"{self.source}: {len(self.questions):,} questions to {assistant}: {counts}"

    def screen(self) -> Sequence[ShownRow]:
        """Return one row for all questions and one for each group of several, in the order of `groups`."""
        return [
            {
                "group": group.group,
                "questions": group.questions,
                "demand": group.demand,
                "found": _with_interval(group.found),
                "cited": _with_interval(group.cited),
                "answered": _with_interval(group.answered),
            }
            for group in (self.overall, *(group for group in self.groups if group.questions > 1))
        ]


def _with_interval(share: Estimate) -> str:
    """Write a share with its interval."""
    return f"{share.value:.2f} ({share.low:.2f} to {share.high:.2f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotedFact:
    """A sentence word for word, its document and the headings above it, and the probability that it answers the
    question; `is_likely` where that is enough to say so.
    """

    question: str
    quote: str
    document: str
    path: tuple[str, ...]
    probability: float
    is_likely: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentBrief:
    """A brief for a group of questions that is not answered: what to write about, with quoted facts, and no text for
    publication.

    `asked`: the demand of each question. `priority` = demand × gap. Each is a share: of all demand (of all questions if
    no demand is known); of the group's questions, those not answered (partly counts half). `evidence`: the chance that
    a sentence at hand answers one of these, on average. `page`: the own page that should answer, None if no own page is
    near. `off_topic`: nothing at hand is near it. `competing`: other own pages retrieved for the same questions.
    `contradictions`: what is cited for these questions, and another own page says otherwise.
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
    asked: tuple[float | None, ...] = ()
    off_topic: bool = False
    contradictions: tuple[ContradictingPages, ...] = ()

    @property
    def place(self) -> str:
        """Return the page that should answer, or that there is none."""
        return self.page or ("none: off-topic" if self.off_topic else "a new page")


@dataclass(frozen=True, slots=True, kw_only=True)
class BriefOutcome:
    """What has become of a brief of an earlier plan.

    `questions`: the number that it named, of which `answered` and `partly` have that status now, `unasked` were not
    asked this time, and the others are open. `page`: the page that should answer. `cited`: the own pages that are cited
    now.
    """

    group: str
    page: str | None
    questions: int
    answered: int
    partly: int
    unasked: int
    cited: tuple[str, ...]

    @property
    def status(self) -> str:
        """Return "done" if every question that was asked again is answered; else "in part", "open" or "not asked"."""
        asked = self.questions - self.unasked
        if not asked:
            return "not asked"
        return "done" if self.answered == asked else "in part" if self.answered or self.partly else "open"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SurfacePlan(Shown):
    """A plan of which questions to answer next: a brief for each group that is not answered, the highest priority
    first.

    `since`: the date of the earlier plan whose briefs `outcomes` follows up, in its order.
    """

    source: str
    engine: str
    date: str
    demand_known: bool
    briefs: tuple[ContentBrief, ...]
    limits: tuple[str, ...]
    notes: tuple[str, ...] = ()
    page: str | None = None
    since: str | None = None
    outcomes: tuple[BriefOutcome, ...] = ()

    @property
    def headline(self) -> str:
        """Return how many groups want work, and for how many the facts are at hand."""
        ready = sum(any(fact.is_likely for fact in brief.facts) for brief in self.briefs)
        groups = f"{len(self.briefs):,} groups of questions want work"
        said = f"{self.source}: {groups}; for {ready:,} of them an answer is at hand"
        return f"{said}\n{self.followed_up}" if self.since else said

    @property
    def followed_up(self) -> str:
        """Return how many briefs of the earlier plan are done, in part, open, and not asked about again."""
        count = Counter(outcome.status for outcome in self.outcomes)
        told = [f"{count[status]:,} {status}" for status in ("done", "in part", "open", "not asked") if count[status]]
        return f"Of {len(self.outcomes):,} briefs of the plan of {self.since}: {', '.join(told) or 'none'}"

    def screen(self) -> Sequence[ShownRow]:
        """Return one row for each brief."""
        return [
            {
                "group": brief.group,
                "demand": brief.demand,
                "gap": brief.gap,
                "evidence": brief.evidence,
                "priority": brief.priority,
                "page": brief.place,
            }
            for brief in self.briefs
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOutcome:
    """One figure of an edited page compared with the present one, paired by question, while a share of competitors
    adopts the edit.

    `adoption`: that share. `difference`: edited minus present, with the 95% interval. `p`: two-sided, adjusted over all
    outcomes (Holm 1979). `p_not_worse`: one-sided, of "worse by the margin or more". `smallest`: the smallest
    difference that these questions show with 80% power.
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
    """The effect of an edit on how a simulated assistant finds and cites the publisher.

    `placebo`: the outcomes of the present page against itself, under other seeds. `verdict`: on the share of the
    answer that cites own pages, at no adoption; "not shown" if the placebo differs. `touched`: the number of
    questions for which a passage of an edited page is retrieved, before or after.
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
        """Return the verdict in one sentence."""
        first = self.outcomes[0]
        return (
            f"{', '.join(self.edits)}: {self.verdict} (share of the answer that cites {self.source}: "
            f"{first.present:.3f} → {first.edited:.3f}, difference {first.difference:+.3f}, "
            f"95% interval {first.low:+.3f} to {first.high:+.3f})"
        )

    def screen(self) -> Sequence[ShownRow]:
        """Return one row for each outcome and adoption."""
        return [
            {
                "outcome": outcome.outcome,
                "adoption": f"{outcome.adoption:.0%}",
                "difference": f"{outcome.difference:+.3f} ({outcome.low:+.3f} to {outcome.high:+.3f})",
                "p (Holm)": outcome.p,
                "smallest": outcome.smallest,
                "verdict": outcome.verdict,
            }
            for outcome in self.outcomes
        ]


def read_result(kind: type[R], file: Path) -> R:
    """Read an audit, a coverage or a plan from the file of its JSON; raises InputError where it is none."""
    plain = read_own(file)
    try:
        return from_plain(kind, plain)
    except ValueError as error:
        command = f"trimtab surface {kind.__name__.removeprefix('Surface').lower()} --json"
        raise InputError(f"is no result of `{command}` ({error})", "give what it printed", file=file) from None
