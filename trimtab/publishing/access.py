"""Decides who may read a site: what robots.txt, headers and meta elements say to the agents of assistants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date

from trimtab.base.errors import PackageError
from trimtab.base.sanitize import printable
from trimtab.publishing.addresses import path_of
from trimtab.publishing.agents import OLD_AFTER, AssistantAgent, assistant_agents, oldest_check
from trimtab.publishing.crawl import FORBIDDEN
from trimtab.publishing.page_links import PAGE_TYPES, is_html, media_type
from trimtab.publishing.records import AgentAccess, Fetched, Severity, Site, SitePage, SurfaceFinding
from trimtab.publishing.robots import MOST_BYTES, RobotsAnswer, RobotsDecision, RobotsRule, robots_of

MOST_DECISIONS = 200_000_000  # agents times rules times addresses; beyond that every n-th address is checked
_CHALLENGES = {"cf-mitigated": "challenge", "x-amzn-waf-action": ""}
"""Headers by which a CDN says that it answers with a challenge, and what their value contains."""
_UNSEEN = (
    (
        "google-generative-search",
        "Google lets the owner of a site decide in Search Console what generative search may show; no crawl sees it",
        "look in Search Console under Settings (https://support.google.com/webmasters/answer/16908024)",
    ),
    (
        "cdn-bot-rules",
        "a CDN or firewall may turn agents away by their addresses; a crawl from another address does not see it",
        "read the bot rules of your CDN, and give access logs: they show what each agent got",
    ),
    (
        "licences",
        "terms and licences may keep what a page says from being used, whatever robots.txt allows",
        "ask whoever answers for the site's terms",
    ),
)


def access_of(
    site: Site, pages: Sequence[SitePage], today: date | None = None
) -> tuple[tuple[AgentAccess, ...], tuple[SurfaceFinding, ...]]:
    """Return which pages each assistant's agent may read, with the lines of robots.txt that decide, and the findings
    about access.

    The pages are those that were fetched and those that robots.txt kept this crawl from. RFC 9309 decides. A
    vendor's departure from it is a finding; only where robots.txt cannot be read does it decide, for an agent that
    crawls then. `today`: for the age of the table.
    """
    robots = robots_of(site.robots)
    readable = [page.url for page in site.pages if page.status < 300 and _is_page(page)]
    forbidden = [skipped.url for skipped in site.unfetched if skipped.why.startswith(FORBIDDEN)]
    addresses = list(dict.fromkeys([*readable, *forbidden]))
    addresses = addresses[:: _step(robots, len(addresses))]
    listed = {entry.url for entry in site.entries} | {f"{site.origin}/"}
    access, findings = [], list(_about_robots(site, robots))
    refused: dict[tuple[RobotsRule | str, Severity], dict[str, list[str]]] = {}
    decisions = _decisions(robots, addresses)
    for agent in assistant_agents():
        refusals = {
            address: decision for address, decision in decisions(_token(agent, robots)).items() if not decision.allowed
        }
        if agent.unreadable == "crawls" and robots.everything is False:
            refusals = {}
        lines = Counter(_line_of(decision) for decision in refusals.values())
        access.append(
            AgentAccess(
                agent=agent.token,
                vendor=agent.vendor,
                role=agent.role,
                obeys=agent.obeys,
                pages=len(addresses),
                allowed=len(addresses) - len(refusals),
                decided_by=dict(lines.most_common()),
                source=agent.source,
                checked=agent.checked.isoformat(),
            )
        )
        by_rule: dict[RobotsRule | str, list[str]] = {}
        for address, decision in refusals.items():
            by_rule.setdefault(decision.rule or decision.why, []).append(address)
        for rule, forbidden_here in by_rule.items():
            whole = len(refusals) == len(addresses) or any(address in listed for address in forbidden_here)
            refused.setdefault((rule, _severity(agent, whole)), {})[agent.token] = forbidden_here
    findings += _refusals(site, refused, len(addresses))
    findings += _departures(site, robots, access)
    findings += _read_differently(site, robots, decisions)
    findings += _directives(pages, listed)
    findings += _statuses(site)
    findings += _notes(site, today or date.today())
    return tuple(access), tuple(findings)


def _decisions(robots: RobotsAnswer, addresses: Sequence[str]) -> Callable[[str], Mapping[str, RobotsDecision]]:
    """Return a function that gives the decisions on all addresses for a token; tokens of one group share them."""
    by_group: dict[str | None, Mapping[str, RobotsDecision]] = {}

    def of(token: str) -> Mapping[str, RobotsDecision]:
        group = robots.rules.group_of(token)
        if group not in by_group:
            by_group[group] = {address: robots.decide(token, address) for address in addresses}
        return by_group[group]

    return of


def _step(robots: RobotsAnswer, addresses: int) -> int:
    """Return n so that checking every n-th address takes a minute at most, also with a robots.txt made to be slow."""
    agents = assistant_agents()
    rules = max(sum(len(rule.parts) for rule in robots.rules.rules_for(agent.token)) for agent in agents)
    return 1 + len(agents) * rules * addresses // MOST_DECISIONS


def _is_page(answer: Fetched) -> bool:
    return is_html(answer) or media_type(answer) in PAGE_TYPES


def _token(agent: AssistantAgent, robots: RobotsAnswer) -> str:
    """Return the token whose group of robots.txt holds for an agent: its own, or that of the agent that it follows."""
    if agent.follows and robots.rules.group_of(agent.token) in (None, "*"):
        return agent.follows
    return agent.token


def _line_of(decision: RobotsDecision) -> str:
    rule = decision.rule
    return decision.why if rule is None else f"line {rule.line}: {printable(rule.written, 120)}"


def _severity(agent: AssistantAgent, whole: bool) -> Severity:
    """Return how much a refusal matters. `whole`: it is of all pages, of the home page, or of one that the sitemap
    names."""
    if not agent.obeys or agent.role == "training" or not whole:
        return "note"
    return "blocks" if agent.role == "search" else "hinders"


def _refusals(
    site: Site, refused: Mapping[tuple[RobotsRule | str, Severity], Mapping[str, Sequence[str]]], of: int
) -> Iterator[SurfaceFinding]:
    for (rule, severity), agents in refused.items():
        pages = max(agents.values(), key=len)
        names = ", ".join(agents)
        where = rule if isinstance(rule, str) else f"line {rule.line}, {printable(rule.written, 120)}"
        evidence = f"{where}: forbids {len(pages):,} of {of:,} pages to {names}; for example {printable(pages[0], 200)}"
        remedies: Mapping[Severity, str] = {
            "blocks": "allow these agents the pages that answers should come from, or take the pages out of the "
            "sitemap",
            "hinders": "allow these agents the pages that users should be able to ask about, or leave it as it is on "
            "purpose",
            "note": "nothing, where this is what you want",
        }
        line = None if isinstance(rule, str) else rule.line
        yield _finding(site.origin, "robots-forbids", severity, evidence, remedies[severity], line)


def _about_robots(site: Site, robots: RobotsAnswer) -> Iterator[SurfaceFinding]:
    """Find what is wrong with robots.txt itself."""
    answer = site.robots
    if robots.everything is False:
        remedy = "let robots.txt be answered with 200, or with 404 where there is none"
        yield _finding(site.origin, "robots-unreadable", "blocks", robots.why, remedy)
    if answer is None:
        return
    if answer.status == 429:
        remedy = "answer robots.txt to every agent; Google takes 429 for an error of the server"
        yield _finding(site.origin, "robots-unreadable", "hinders", "robots.txt answers 429", remedy)
    if answer.status == 200 and answer.content.lstrip()[:1] == b"<":
        evidence = f"robots.txt is HTML: {printable(answer.content[:80].decode('utf-8', 'replace'))}"
        yield _finding(
            site.origin, "robots-html", "hinders", evidence, "answer it as text, or with 404 where there is none", 1
        )
        return
    if robots.rules.cut or answer.cut:
        evidence = f"robots.txt has more than {MOST_BYTES // 1024} KiB, and what stands behind them is not read"
        yield _finding(
            site.origin, "robots-long", "hinders", evidence, "shorten it: rules of folders in place of rules of pages"
        )
    if robots.everything is None and robots.rules.unknown:
        line, written = robots.rules.unknown[0]
        more = f" ({len(robots.rules.unknown) - 1:,} more)" if len(robots.rules.unknown) > 1 else ""
        evidence = f"line {line} is no rule: {printable(written, 120)}{more}"
        yield _finding(
            site.origin, "robots-unknown-line", "note", evidence, "write it as RFC 9309 has it, or as a comment", line
        )


def _departures(site: Site, robots: RobotsAnswer, access: Sequence[AgentAccess]) -> Iterator[SurfaceFinding]:
    """Find where a vendor's departure from RFC 9309 changes something on this site."""
    by_token = {agent.token: agent for agent in assistant_agents()}
    for row in access:
        agent = by_token[row.agent]
        if not agent.obeys and row.allowed < row.pages:
            evidence = f"robots.txt forbids {row.pages - row.allowed:,} pages to {row.agent}. {agent.departs}"
            remedy = f"to keep it out, refuse it at the server ({agent.source or 'no page of the vendor is known'})"
            yield _finding(site.origin, "robots-not-binding", "note", evidence, remedy)
        if agent.unreadable == "crawls" and robots.everything is False:
            evidence = f"{row.agent} is counted as allowed, unlike RFC 9309. {agent.departs}"
            yield _finding(site.origin, "vendor-departs", "note", evidence, f"see {agent.source}")
    seconds = next(filter(None, map(robots.rules.crawl_delay, by_token)), None)
    if seconds is not None:
        evidence = (
            f"Crawl-delay of {seconds:g} s: RFC 9309 does not know it, Anthropic's agents obey it, Google's and "
            "Amazon's do not"
        )
        yield _finding(
            site.origin, "crawl-delay", "hinders" if seconds > 10 else "note", evidence, "take it out, or keep it short"
        )


def _read_differently(
    site: Site, robots: RobotsAnswer, decisions: Callable[[str], Mapping[str, RobotsDecision]]
) -> Iterator[SurfaceFinding]:
    """Find where protego, which Scrapy and crawlers built on it use, reads robots.txt otherwise than RFC 9309."""
    if robots.everything is not None or site.robots is None:
        return
    try:
        from protego import Protego
    except ImportError:
        raise PackageError("protego", "publish", "auditing robots.txt") from None
    other = Protego.parse(site.robots.content[:MOST_BYTES].decode("utf-8", "replace"))
    different: dict[str, tuple[str, RobotsDecision]] = {}  # by agent the first address
    for agent in assistant_agents():
        if agent.crawler:
            for address, ours in decisions(agent.token).items():
                if ours.allowed != other.can_fetch(address, agent.token):
                    different[agent.token] = address, ours
                    break
    if different:
        token, (address, ours) = next(iter(different.items()))
        evidence = (
            f"for {', '.join(different)} two readings differ; RFC 9309 {'allows' if ours.allowed else 'forbids'} "
            f"{token} {printable(path_of(address), 120)} ({_line_of(ours)}), a lenient reader does not agree"
        )
        remedy = "name each agent by its whole token, and write Disallow and Allow without misspellings"
        yield _finding(
            site.origin, "robots-read-differently", "hinders", evidence, remedy, ours.rule.line if ours.rule else None
        )


def _directives(pages: Sequence[SitePage], listed: set[str]) -> Iterator[SurfaceFinding]:
    """Find `noindex`, `nosnippet`, `max-snippet` and `data-nosnippet`, page by page."""
    for page in pages:
        for agent, written in page.directives.items():
            whom = "every agent" if agent == "*" else agent
            for directive in written:
                name, _, value = (part.strip().lower() for part in directive.partition(":"))
                evidence = f"{printable(directive, 80)}, for {whom}"
                if name in ("noindex", "none"):
                    severity: Severity = "blocks" if page.url in listed else "note"
                    why = f"keeps {'the page' if page.url in listed else 'it'} out of indexes"
                    why += ", though the sitemap names it" if page.url in listed else ""
                    remedy = "take it out where the page should be found"
                    yield _finding(page.url, "noindex", severity, f"{evidence}: {why}", remedy)
                elif name == "nosnippet" or (name == "max-snippet" and value == "0"):
                    evidence += ": keeps search from quoting the page, Google's AI Overviews too"
                    yield _finding(page.url, name, "hinders", evidence, "take it out where the page should be cited")
                elif name == "max-snippet" and value.isdigit():
                    evidence += f": lets at most {int(value):,} characters be quoted"
                    yield _finding(page.url, name, "note", evidence, "take it out, or set -1, to let all be quoted")
                elif name == "data-nosnippet":
                    evidence = f"{int(value):,} elements with data-nosnippet are not quoted by Google"
                    yield _finding(page.url, name, "note", evidence, "take it off what should be cited")


def _statuses(site: Site) -> Iterator[SurfaceFinding]:
    """Find pages that turn a crawl away, and challenges in place of pages."""
    listed = {entry.url for entry in site.entries}
    for page in site.pages:
        challenge = challenged(page)
        if challenge:
            remedy = "let the agents that you want through, by their verified addresses"
            yield _finding(
                page.url, "challenge", "blocks", f"answers {page.status} with a challenge ({challenge})", remedy
            )
        elif page.status in (401, 403):
            severity: Severity = "blocks" if page.url in listed else "hinders"
            evidence = f"answers {page.status} to a crawler"
            yield _finding(
                page.url, "refused", severity, evidence, "open the page to agents, or take it out of links and sitemap"
            )
        elif page.status == 429:
            yield _finding(
                page.url, "refused", "hinders", "answers 429: too many requests", "allow more requests a second"
            )


def challenged(answer: Fetched) -> str | None:
    """Return the header by which a CDN says that an answer is a challenge and not the page, None without one."""
    for name, value in _CHALLENGES.items():
        header = answer.headers.get(name)
        if header is not None and value in header.lower():
            return printable(f"{name}: {header}", 80)
    return None


def _notes(site: Site, today: date) -> Iterator[SurfaceFinding]:
    age = (today - oldest_check()).days
    if age > OLD_AFTER:
        evidence = f"the table of agents was last checked {age} days ago ({oldest_check()})"
        yield _finding(
            site.origin, "agents-table-old", "note", evidence, "update trimtab, and see the pages of the vendors"
        )
    for check, evidence, remedy in _UNSEEN:
        yield _finding(site.origin, check, "note", evidence, remedy)


def _finding(
    page: str, check: str, severity: Severity, evidence: str, remedy: str, line: int | None = None
) -> SurfaceFinding:
    return SurfaceFinding(page=page, check=check, severity=severity, evidence=evidence, remedy=remedy, line=line)
