"""What a site answers to agents by their names."""

import math
from collections.abc import Callable

from site_server import Content, Handler, serving

from trimtab.publishing.agent_answers import answers_to_agents
from trimtab.publishing.agents import assistant_agents
from trimtab.publishing.records import Site

Crawled = Callable[..., Site]
PAGE = (200, {"Content-Type": "text/html"}, b"<p>" + b"some text. " * 200)


def by_agent(**answers: tuple[int, dict[str, str], bytes]) -> Content:
    """A page that answers otherwise where the header names one of these."""

    def write(handler: Handler) -> None:
        name = next((name for name in answers if name.replace("_", "-") in handler.headers["User-Agent"]), None)
        status, headers, body = answers[name] if name else PAGE
        handler.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(header, value)
        handler.end_headers()
        handler.wfile.write(body)

    return write


def test_answers_that_differ_by_agent(crawled: Crawled) -> None:
    html = {"Content-Type": "text/html"}
    home = by_agent(
        GPTBot=(403, html, b"no"),
        Claude_User=(302, {"Location": "/login"}, b""),
        OAI_SearchBot=(503, {**html, "cf-mitigated": "challenge"}, b"wait"),
        bingbot=(200, html, b"<p>hello"),
    )
    with serving({"/": home, "/login": "log in"}) as (origin, _):
        site = crawled(origin)
        found = answers_to_agents(site, pages=1, rate=math.inf)
    said = {(one.check, one.severity, one.evidence.split()[3].rstrip(",")) for one in found}
    assert said == {
        ("agent-answer", "note", "GPTBot"),
        ("agent-login", "hinders", "Claude-User"),
        ("agent-challenge", "hinders", "OAI-SearchBot"),
        ("agent-other-page", "hinders", "bingbot"),
    }


def test_only_agents_that_robots_txt_allows_are_asked_for_and_we_say_who_we_are(crawled: Crawled) -> None:
    robots = (200, {"Content-Type": "text/plain"}, b"User-agent: GPTBot\nUser-agent: Bytespider\nDisallow: /\n")
    with serving({"/": PAGE, "/robots.txt": robots}) as (origin, server):
        site = crawled(origin)
        server.asked.clear()
        assert answers_to_agents(site, rate=math.inf) == ()
        names = {headers["User-Agent"] for _, headers in server.asked}
    assert len(names) == len([one for one in assistant_agents() if one.crawler]) - 2
    assert not [name for name in names if "GPTBot" in name or "Bytespider" in name]
    assert all("asked by TrimtabSurface" in name for name in names)


def test_pages_for_addresses_that_are_not_there(crawled: Crawled) -> None:
    with serving(lambda path: PAGE if path != "/robots.txt" else None) as (origin, _):
        assert [one.check for one in answers_to_agents(crawled(origin), rate=math.inf)] == ["soft-404"]
