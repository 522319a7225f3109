"""`surface audit`: who may read a site, what they read of it, and what of it can be cited, as facts by severity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.base.errors import PackageError
from trimtab.base.files import write_atomic
from trimtab.base.progress import Progress
from trimtab.publishing import CACHE
from trimtab.publishing.records import (
    SEVERITIES,
    AgentAccess,
    LogSummary,
    SurfaceAudit,
    SurfaceChanges,
    SurfaceFinding,
    read_result,
)

if TYPE_CHECKING:
    from trimtab.publishing.site_pages import CrawledPages


def surface_audit(
    source: str | Path,
    *,
    pages: int = 10_000,
    depth: int = 20,
    rate: float = 5.0,
    base: str | None = None,
    private: bool = False,
    render: int = 0,
    as_agents: int = 0,
    logs: Sequence[str | Path] = (),
    ranges: str | Path | None = None,
    against: str | Path | SurfaceAudit | None = None,
    page: str | Path | None = None,
    cache: str | Path = CACHE,
    progress: Progress | None = None,
) -> SurfaceAudit:
    """Audit a site, or a folder as it would be served: facts by severity, each with page, evidence and what to do;
    no total score.

    `source`: an address or a folder, whose pages go below the address `base`. At most `pages` pages, `depth` links
    from the first, at `rate` requests a second; `private` lets the host be one of a private network. `render`: of
    how many pages with scripts Chromium renders the text, for what is missing without. `as_agents`: how many pages
    are asked for again under the name of each agent. `logs`: access logs, with `ranges`, the address ranges that
    vendors publish (JSON). `against`: an earlier audit, or the file of its JSON, to tell what has changed. `page`: a
    file to which the report is written.

    Raises InputError or MissingError for a source, a log or an earlier audit that cannot be used, RemoteError where
    the site's first page cannot be fetched, and PackageError where a package of the extra `publish` is missing.
    """
    before = (
        against if against is None or isinstance(against, SurfaceAudit) else read_result(SurfaceAudit, Path(against))
    )
    try:
        from trimtab.publishing.access import access_of
        from trimtab.publishing.agent_answers import answers_to_agents
        from trimtab.publishing.check_table import CHECKS
        from trimtab.publishing.checks import findings_of
        from trimtab.publishing.crawl import crawl
        from trimtab.publishing.logs import read_logs
        from trimtab.publishing.pages import read_pages
        from trimtab.publishing.rendering import with_rendered
        from trimtab.publishing.site_pages import CrawledPages
    except ModuleNotFoundError as error:
        raise PackageError(error.name or "selectolax", "publish", "auditing a site") from None

    site = crawl(
        str(source),
        cache=Path(cache),
        pages=pages,
        depth=depth,
        rate=rate,
        base=base,
        private=private,
        progress=progress,
    )
    answers = {answer.url: answer for answer in site.pages}
    read = read_pages(tuple(answers.values()), progress)
    if render:
        read = with_rendered(site, read, most=render, private=private, progress=progress)
    crawled = CrawledPages(site=site, pages=read)
    agents, about_access = access_of(site, read)
    findings = [*about_access, *findings_of(crawled, progress)]
    if as_agents:
        findings += answers_to_agents(site, pages=as_agents, rate=rate, private=private, progress=progress)
    summary: LogSummary | None = None
    if logs:
        summary, about_logs = read_logs([Path(log) for log in logs], Path(ranges) if ranges else None, site)
        findings += about_logs
    result = SurfaceAudit(
        origin=site.origin,
        source=site.source,
        when=site.when,
        pages=len(read),
        unfetched=len(site.unfetched),
        agents=agents,
        findings=in_order(findings),
        notes=tuple(_notes(crawled)),
        logs=summary,
    )
    if before is not None:
        result = replace(result, changes=changes(before, result))
    if page is not None:
        from trimtab.publishing.audit_page import render_audit

        result = replace(result, page=str(page))
        write_atomic(Path(page), render_audit(result, {check.name: check.says for check in CHECKS}))
    return result


def in_order(findings: Sequence[SurfaceFinding]) -> tuple[SurfaceFinding, ...]:
    """Sort findings by severity, each once, those of one severity as they were found."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda finding: SEVERITIES.index(finding.severity)))


def changes(before: SurfaceAudit, now: SurfaceAudit) -> SurfaceChanges:
    """Compare two audits. A finding is the same where page, check and evidence are."""
    key = attrgetter("page", "check", "evidence")
    old, new = set(map(key, before.findings)), set(map(key, now.findings))
    return SurfaceChanges(
        since=before.when,
        pages_before=before.pages,
        new=tuple(finding for finding in now.findings if key(finding) not in old),
        gone=tuple(finding for finding in before.findings if key(finding) not in new),
        agents=tuple(_changed_agents(before.agents, now.agents)),
    )


def _changed_agents(before: Sequence[AgentAccess], now: Sequence[AgentAccess]) -> Iterator[str]:
    earlier = {access.agent: access for access in before}
    for access in now:
        old = earlier.get(access.agent)
        if old is None:
            yield f"{access.agent} is new in the table of agents"
        elif access.allowed * old.pages != old.allowed * access.pages:
            may_read = f"{access.agent} may read {access.allowed:,} of {access.pages:,} pages"
            yield f"{may_read}; before {old.allowed:,} of {old.pages:,}"


def _notes(crawled: CrawledPages) -> Iterator[str]:
    """Note what holds of the whole site, and what was measured about it elsewhere."""
    from trimtab.publishing.citable import count_claims
    from trimtab.publishing.structured_data import types_on

    site, read = crawled.site, crawled.read
    statuses = Counter(page.status for page in crawled.pages)
    kinds = Counter(page.kind for page in crawled.pages if page.status == 200)
    yield (
        f"{statuses[200]:,} of {len(crawled.pages):,} addresses answer 200: {kinds['html']:,} HTML, "
        f"{kinds['pdf']:,} PDF, {kinds['other']:,} of other kinds."
    )
    if site.unfetched:
        first = site.unfetched[0]
        yield f"{len(site.unfetched):,} addresses were not fetched, such as {first.url} ({first.why})."
    counted = count_claims(crawled)
    yield (
        f"{counted.claims:,} {'sentence states' if counted.claims == 1 else 'sentences state'} "
        "a number, a date or a time; "
        f"{counted.sourced:,} of them {'has' if counted.sourced == 1 else 'have'} a link or a named source "
        "beside them. What a site says of itself needs none."
    )
    if site.llms is not None:
        yield f"llms.txt is there ({len(site.llms.content.split()):,} words). {LLMS_TXT}"
    types = types_on(crawled)
    if types:
        with_types = sum(bool(page.json_ld) for page in read)
        named = ", ".join(f"{name} {count:,}" for name, count in types.most_common(6))
        yield f"JSON-LD stands on {with_types:,} of {len(read):,} pages: {named}. {JSON_LD}"


# What was measured, with its date; /docs/how-to/surface-audit.md has the sources.
LLMS_TXT = (
    "No assistant's vendor says that its agents read it; Google's guide calls it neutral, and of the sites that "
    "have one 97% never saw it requested (Ahrefs, 2026, second-hand)."
)
JSON_LD = (
    "Whether it agrees with the page is checked above. That it brings citations by assistants was not shown: "
    "added on 1,885 pages, against 4,000 without (Ahrefs, 2026, second-hand)."
)
