"""Compares what a site answers to the agents of assistants: a few pages are asked for again under each agent's name."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence

from trimtab.base.progress import Progress
from trimtab.base.sanitize import printable
from trimtab.publishing.access import challenged
from trimtab.publishing.addresses import host_of, path_of
from trimtab.publishing.agents import AssistantAgent, assistant_agents
from trimtab.publishing.crawl import AGENT, MOST_WAITING, PAGE_CAP, run_to_end
from trimtab.publishing.fetch import Fetcher, NotFetchedError, Patience
from trimtab.publishing.page_links import is_html
from trimtab.publishing.records import Fetched, Severity, Site, SurfaceFinding
from trimtab.publishing.robots import robots_of

MOST_LIKE = 0.5  # of the bytes of the page that the crawl got; an answer of fewer is another page
_LOGINS = ("login", "log-in", "signin", "sign-in", "auth", "sso", "account")


def answers_to_agents(
    site: Site,
    *,
    pages: int = 3,
    rate: float = 5.0,
    private: bool = False,
    progress: Progress | None = None,
) -> tuple[SurfaceFinding, ...]:
    """Ask for `pages` pages of a crawled site again under the name of each agent that robots.txt allows them; return
    what differs.

    An address that cannot be there is asked for too, once.

    The header `User-Agent` names the agent, and this crawl behind it. A server that knows agents by their addresses
    turns such a request away and the agent not, so a refusal is no proof; access logs are. Nothing is asked of a
    folder.
    """
    if "://" not in site.source:
        return ()
    read = [page for page in site.pages if page.status == 200 and is_html(page) and page.content]
    spread = read[:: max(1, math.ceil(len(read) / pages))][:pages]
    return run_to_end(_ask(site, spread, rate, private, progress or Progress()))


def _user_agent(agent: AssistantAgent) -> str:
    """Return the header `User-Agent` that names an agent and says who asks."""
    return f"Mozilla/5.0 (compatible; {agent.token}/1.0; asked by {AGENT})"


async def _ask(
    site: Site, pages: Sequence[Fetched], rate: float, private: bool, progress: Progress
) -> tuple[SurfaceFinding, ...]:
    robots, host = robots_of(site.robots), host_of(site.origin)
    agents = [agent for agent in assistant_agents() if agent.crawler]
    missing = f"{site.origin}/{secrets.token_hex(12)}"
    findings: list[SurfaceFinding] = []
    patience = Patience(MOST_WAITING)
    for number, agent in enumerate(agents, 1):
        async with Fetcher(
            _user_agent(agent), rate=rate, host=host, private=private, cap=PAGE_CAP, patience=patience
        ) as fetcher:
            fetcher.slow_to(robots.rules.crawl_delay(agent.token) or 0.0)
            for page in pages:
                if robots.decide(agent.token, page.url).allowed:
                    findings += await _compared(fetcher, agent, page)
            if number == 1 and robots.decide(agent.token, missing).allowed:
                findings += await _soft_404(fetcher, site, missing)
        progress.emit("agents", step=number, of=len(agents), note=agent.token)
    return tuple(findings)


async def _compared(fetcher: Fetcher, agent: AssistantAgent, page: Fetched) -> list[SurfaceFinding]:
    """Ask for a page under the name of an agent; return how its answer differs from what the crawl got."""
    remedy = "see in the access logs what the real agent gets, and change the rules of the server or the CDN"
    severity: Severity = "note" if agent.role == "training" else "hinders"

    def finding(check: str, evidence: str) -> list[SurfaceFinding]:
        evidence = f"under the name {agent.token}, {evidence}"
        return [SurfaceFinding(page=page.url, check=check, severity=severity, evidence=evidence, remedy=remedy)]

    try:
        answer = await fetcher.get(page.url)
    except NotFetchedError as error:
        return finding("agent-answer", f"it {error}")
    challenge = challenged(answer)
    if challenge:
        return finding("agent-challenge", f"it answers {answer.status} with a challenge ({challenge})")
    if answer.status != 200:
        return finding("agent-answer", f"it answers {answer.status}; the crawl got 200")
    if answer.url != page.url:
        login = any(word in path_of(answer.url).lower() for word in _LOGINS)
        return finding("agent-login" if login else "agent-redirect", f"it redirects to {printable(answer.url, 200)}")
    if len(answer.content) < MOST_LIKE * len(page.content):
        return finding(
            "agent-other-page", f"it answers {len(answer.content):,} bytes; the crawl got {len(page.content):,}"
        )
    return []


async def _soft_404(fetcher: Fetcher, site: Site, missing: str) -> list[SurfaceFinding]:
    """Ask for an address that cannot be there; return a finding if it is answered as a page."""
    try:
        answer = await fetcher.get(missing)
    except NotFetchedError:
        return []
    if answer.status != 200:
        return []
    evidence = f"an address that is not there ({path_of(missing)}) is answered with 200"
    return [
        SurfaceFinding(
            page=site.origin,
            check="soft-404",
            severity="hinders",
            evidence=evidence,
            remedy="answer 404 or 410 where there is no page",
        )
    ]
