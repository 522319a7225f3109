"""The HTML page of a site audit: findings by severity, access of agents, findings on the whole site, and changes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from trimtab.publishing.records import AgentAccess, LogSummary, SurfaceAudit, SurfaceFinding
from trimtab.reports.components import Cell, Column, Grid
from trimtab.reports.formatting import DASH
from trimtab.reports.page import render_page

MOST_SHOWN = 100  # findings of one check
MOST_MONTHS = 12  # of access logs, the last ones
_TITLES = {
    "blocks": ("Blocks", "Keeps assistants from reading a page."),
    "hinders": ("Hinders", "Can be read, and is likely to be misread, missed or not cited."),
    "note": ("Notes", "True, and perhaps meant so."),
}
_ROLES = {"search": "search", "user": "on a user's behalf", "training": "training"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckView:
    """The findings of one check: its name, meaning and remedy, and the number of findings beyond those in the grid."""

    name: str
    says: str
    count: int
    pages: int
    remedy: str
    grid: Grid
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeverityView:
    """The findings of one severity, by check."""

    id: str
    title: str
    lead: str
    count: int
    checks: tuple[CheckView, ...]


def render_audit(audit: SurfaceAudit, meanings: Mapping[str, str]) -> str:
    """Return the page as HTML, without scripts and requests; `meanings`: a sentence for each check, by name."""
    severities = tuple(_severity(audit, severity, meanings) for severity in _TITLES)
    changed = audit.changes
    return render_page(
        "surface_audit.html.j2",
        package="trimtab.publishing",
        title=f"Audit of {audit.origin}",
        script="",
        audit=audit,
        severities=severities,
        agents=_agents(audit.agents),
        sources=_sources(audit.agents),
        logs=_log_tables(audit.logs),
        changes=changed,
        new=_finding_grid(changed.new, audit.origin, "New findings") if changed else None,
        gone=_finding_grid(changed.gone, audit.origin, "Findings that are gone") if changed else None,
        since=f"{changed.since:%Y-%m-%d}" if changed else "",
        when=f"{audit.when:%Y-%m-%d %H:%M} UTC",
    )


def _severity(audit: SurfaceAudit, severity: str, meanings: Mapping[str, str]) -> SeverityView:
    by_check: dict[str, list[SurfaceFinding]] = {}
    for finding in audit.findings:
        if finding.severity == severity:
            by_check.setdefault(finding.check, []).append(finding)
    title, lead = _TITLES[severity]
    checks = tuple(_check(name, part, audit.origin, meanings.get(name, "")) for name, part in by_check.items())
    return SeverityView(id=severity, title=title, lead=lead, count=sum(map(len, by_check.values())), checks=checks)


def _check(name: str, findings: Sequence[SurfaceFinding], origin: str, says: str) -> CheckView:
    remedies = list(dict.fromkeys(finding.remedy for finding in findings))
    shown = findings[:MOST_SHOWN]
    columns = {
        "Page": [_page_name(finding.page, origin) for finding in shown],
        "As it stands there": [finding.evidence for finding in shown],
    }
    if any(finding.line is not None for finding in findings):
        columns["Line"] = [DASH if finding.line is None else str(finding.line) for finding in shown]
    if len(remedies) > 1:
        columns["What to do"] = [finding.remedy for finding in shown]
    return CheckView(
        name=name,
        says=says,
        count=len(findings),
        pages=len({finding.page for finding in findings}),
        remedy=remedies[0] if len(remedies) == 1 else "",
        grid=grid(name, columns, zip(*columns.values(), strict=True), figures=("Line",)),
        more=max(0, len(findings) - MOST_SHOWN),
    )


def grid(label: str, titles: Iterable[str], rows: Iterable[tuple[Cell, ...]], *, figures: Collection[str] = ()) -> Grid:
    """Make a table whose columns hold text, but for those of `figures`."""
    columns = [Column(title=title, text=number > 0 and title not in figures) for number, title in enumerate(titles)]
    return Grid(label=label, columns=tuple(columns), rows=tuple(rows))


def _page_name(page: str, origin: str) -> str:
    return "the whole site" if page == origin else page.removeprefix(origin) or page


def _agents(agents: Iterable[AgentAccess]) -> Grid:
    rows = (
        (
            access.agent,
            access.vendor,
            _ROLES[access.role],
            "yes" if access.obeys else "no",
            f"{access.allowed:,} of {access.pages:,}",
            "; ".join(f"{line} ({count:,})" for line, count in access.decided_by.items()) or DASH,
        )
        for access in agents
    )
    titles = ("Agent", "Vendor", "For", "Obeys robots.txt", "May read", "Lines that forbid (pages)")
    return grid("Agents", titles, rows, figures=("May read",))


def _sources(agents: Iterable[AgentAccess]) -> Grid:
    rows = ((access.agent, access.source or DASH, access.checked) for access in agents)
    return grid("Sources", ("Agent", "The vendor's page", "Seen on"), rows, figures=("Seen on",))


def _log_tables(logs: LogSummary | None) -> tuple[Grid, ...]:
    """Make the tables of access logs: agents, people whom assistants sent, and other bots, each by month."""
    if logs is None:
        return ()
    shown = sorted(logs.days)[-MOST_MONTHS:] if len(logs.days) > 1 else []

    def by_month(visits: Mapping[str, int]) -> tuple[str, ...]:
        return tuple(f"{visits.get(month, 0):,}" for month in shown)

    agents = (
        (
            visits.agent,
            f"{visits.requests:,}",
            DASH if visits.verified is None else f"{visits.verified:,}",
            f"{visits.pages:,}",
            ", ".join(f"{status}: {count:,}" for status, count in sorted(visits.statuses.items())) or DASH,
            f"{visits.first:%Y-%m-%d} to {visits.last:%Y-%m-%d}" if visits.first and visits.last else DASH,
            *by_month(visits.months),
        )
        for visits in logs.agents
    )
    people = (
        (
            sent.assistant,
            f"{sent.visits:,}",
            ", ".join(f"{page} ({count:,})" for page, count in sent.pages.items()),
            *by_month(sent.months),
        )
        for sent in logs.people
    )
    bots = (
        (bot.name, f"{bot.requests:,}", f"{bot.pages:,}", bot.words, *by_month(bot.months)) for bot in logs.other_bots
    )
    titles = (
        ("Agents of assistants", ("Agent", "Requests", "Verified", "Pages", "By status", "When"), agents),
        ("People from assistants", ("Assistant", "Visits", "Most visited pages"), people),
        ("Other bots, in their own words", ("Bot", "Requests", "Pages", "User-Agent"), bots),
    )
    figures = ("Requests", "Verified", "Pages", "Visits", *shown)
    tables = (grid(label, (*columns, *shown), rows, figures=figures) for label, columns, rows in titles)
    return tuple(table for table in tables if table.rows)


def _finding_grid(findings: Sequence[SurfaceFinding], origin: str, label: str) -> Grid:
    rows = (
        (_page_name(finding.page, origin), finding.severity, finding.check, finding.evidence)
        for finding in findings[:MOST_SHOWN]
    )
    return grid(label, ("Page", "Severity", "Check", "As it stands there"), rows)
