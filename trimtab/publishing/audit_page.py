"""The HTML page of a site audit: findings by severity, access of agents, findings on the whole site, and changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trimtab.publishing.records import AgentAccess, SurfaceAudit, SurfaceChanges, SurfaceFinding
from trimtab.reports.components import Column, Grid
from trimtab.reports.formatting import DASH
from trimtab.reports.page import render_page

MOST_SHOWN = 100  # findings of one check
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
        logs=_logs(audit),
        changes=changed,
        new=_finding_grid(changed.new, audit.origin, "New findings") if changed else None,
        gone=_finding_grid(changed.gone, audit.origin, "Findings that are gone") if changed else None,
        since=f"{changed.since:%Y-%m-%d}" if isinstance(changed, SurfaceChanges) else "",
        when=f"{audit.when:%Y-%m-%d %H:%M} UTC",
    )


def _severity(audit: SurfaceAudit, severity: str, meanings: Mapping[str, str]) -> SeverityView:
    by_check: dict[str, list[SurfaceFinding]] = {}
    for one in audit.findings:
        if one.severity == severity:
            by_check.setdefault(one.check, []).append(one)
    title, lead = _TITLES[severity]
    checks = tuple(_check(name, found, audit.origin, meanings.get(name, "")) for name, found in by_check.items())
    return SeverityView(id=severity, title=title, lead=lead, count=sum(map(len, by_check.values())), checks=checks)


def _check(name: str, found: Sequence[SurfaceFinding], origin: str, says: str) -> CheckView:
    remedies = list(dict.fromkeys(one.remedy for one in found))
    one_remedy = len(remedies) == 1
    columns = [Column(title="Page"), Column(title="As it stands there", text=True)]
    has_lines = any(one.line is not None for one in found)
    if has_lines:
        columns.append(Column(title="Line"))
    if not one_remedy:
        columns.append(Column(title="What to do", text=True))
    rows = []
    for one in found[:MOST_SHOWN]:
        row = [_place(one.page, origin), one.evidence]
        if has_lines:
            row.append(DASH if one.line is None else str(one.line))
        if not one_remedy:
            row.append(one.remedy)
        rows.append(tuple(row))
    return CheckView(
        name=name,
        says=says,
        count=len(found),
        pages=len({one.page for one in found}),
        remedy=remedies[0] if one_remedy else "",
        grid=Grid(label=name, columns=tuple(columns), rows=tuple(rows)),
        more=max(0, len(found) - MOST_SHOWN),
    )


def _place(page: str, origin: str) -> str:
    return "the whole site" if page == origin else page.removeprefix(origin) or page


def _agents(agents: Iterable[AgentAccess]) -> Grid:
    rows = tuple(
        (
            one.agent,
            one.vendor,
            _ROLES[one.role],
            "yes" if one.obeys else "no",
            f"{one.allowed:,} of {one.pages:,}",
            "; ".join(f"{line} ({count:,})" for line, count in one.decided_by.items()) or DASH,
        )
        for one in agents
    )
    columns = (
        Column(title="Agent"),
        Column(title="Vendor", text=True),
        Column(title="For", text=True),
        Column(title="Obeys robots.txt", text=True),
        Column(title="May read"),
        Column(title="Lines that forbid (pages)", text=True),
    )
    return Grid(label="Agents", columns=columns, rows=rows)


def _sources(agents: Iterable[AgentAccess]) -> Grid:
    columns = (Column(title="Agent"), Column(title="The vendor's page", text=True), Column(title="Seen on"))
    rows = tuple((one.agent, one.source or DASH, one.checked) for one in agents)
    return Grid(label="Sources", columns=columns, rows=rows)


def _logs(audit: SurfaceAudit) -> Grid | None:
    if audit.logs is None:
        return None
    rows = tuple(
        (
            one.agent,
            f"{one.requests:,}",
            DASH if one.verified is None else f"{one.verified:,}",
            f"{one.pages:,}",
            ", ".join(f"{status}: {count:,}" for status, count in sorted(one.statuses.items())),
            f"{one.first:%Y-%m-%d} to {one.last:%Y-%m-%d}",
        )
        for one in audit.logs.agents
    )
    columns = (
        Column(title="Agent"),
        Column(title="Requests"),
        Column(title="Verified"),
        Column(title="Pages"),
        Column(title="By status", text=True),
        Column(title="When", text=True),
    )
    return Grid(label="Visits", columns=columns, rows=rows)


def _finding_grid(found: Sequence[SurfaceFinding], origin: str, label: str) -> Grid:
    rows = tuple((_place(one.page, origin), one.severity, one.check, one.evidence) for one in found[:MOST_SHOWN])
    columns = (
        Column(title="Page"),
        Column(title="Severity", text=True),
        Column(title="Check", text=True),
        Column(title="As it stands there", text=True),
    )
    return Grid(label=label, columns=columns, rows=rows)
