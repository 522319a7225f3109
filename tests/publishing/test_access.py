"""Who may read a site: by agent, with the line that decides, and where vendors depart from RFC 9309."""

from datetime import UTC, date, datetime, timedelta

import pytest

from trimtab.publishing.access import access_of
from trimtab.publishing.agents import OLD_AFTER, agent_of, assistant_agents, oldest_check
from trimtab.publishing.crawl import FORBIDDEN
from trimtab.publishing.pages import read_page
from trimtab.publishing.records import Fetched, Site, SitemapEntry, SitePage, SurfaceFinding, Unfetched

ORIGIN = "https://example.com"


def fetched(path: str, status: int = 200, content: bytes = b"<p>text", **headers: str) -> Fetched:
    url = ORIGIN + path
    kept = {"content-type": "text/html", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Fetched(url=url, asked=url, status=status, headers=kept, content=content, when=datetime.now(UTC))


def site(
    robots: str | int | None,
    *paths: str,
    listed: tuple[str, ...] = (),
    forbidden: tuple[str, ...] = (),
    pages: tuple[Fetched, ...] = (),
) -> Site:
    answer = None
    if robots is not None:
        answer = (
            fetched("/robots.txt", robots) if isinstance(robots, int) else fetched("/robots.txt", 200, robots.encode())
        )
    return Site(
        origin=ORIGIN,
        source=ORIGIN,
        when=datetime.now(UTC),
        robots=answer,
        sitemaps=(),
        entries=tuple(SitemapEntry(url=ORIGIN + path, lastmod=None, sitemap=ORIGIN) for path in listed),
        pages=(*map(fetched, paths), *pages),
        unfetched=tuple(Unfetched(url=ORIGIN + path, why=f"{FORBIDDEN}: line 1") for path in forbidden),
    )


def page(path: str, **directives: tuple[str, ...]) -> SitePage:
    return SitePage(
        url=ORIGIN + path, status=200, kind="html", title="", canonical=None, language=None, author=None, headings=(),
        text="",
        words=0, directives={name.replace("all", "*"): value for name, value in directives.items()}, json_ld=(),
        broken_json_ld=(), dates=(), links=(),
    )  # fmt: skip


def allowed(of: Site) -> dict[str, int]:
    return {one.agent: one.allowed for one in access_of(of, ())[0]}


def checks(of: Site, *pages: SitePage) -> list[tuple[str, str]]:
    return [(one.check, one.severity) for one in access_of(of, pages)[1]]


def finding(of: Site, check: str, *pages: SitePage) -> SurfaceFinding:
    (found,) = (one for one in access_of(of, pages)[1] if one.check == check)
    return found


def test_each_agent_by_its_own_group_with_the_line_that_decides() -> None:
    robots = (
        "User-agent: GPTBot\nUser-agent: CCBot\nDisallow: /\n\nUser-agent: OAI-SearchBot\nDisallow: /a\n\n"
        "User-agent: *\nAllow: /\n"
    )
    found = {one.agent: one for one in access_of(site(robots, "/", "/a", "/b"), ())[0]}
    assert (found["GPTBot"].allowed, found["GPTBot"].decided_by) == (0, {"line 3: Disallow: /": 3})
    assert (found["OAI-SearchBot"].allowed, found["OAI-SearchBot"].decided_by) == (2, {"line 6: Disallow: /a": 1})
    assert found["Claude-SearchBot"].allowed == found["Claude-SearchBot"].pages == 3
    assert len(found) == len(assistant_agents())


def test_pages_that_robots_txt_kept_the_crawl_from_count() -> None:
    robots = "User-agent: *\nDisallow: /closed\nUser-agent: Claude-User\nAllow: /\n"
    counts = allowed(site(robots, "/", forbidden=("/closed",)))
    assert (counts["Claude-User"], counts["Claude-SearchBot"]) == (2, 1)


@pytest.mark.parametrize(
    ("agent", "severity"),
    [("OAI-SearchBot", "blocks"), ("Claude-User", "hinders"), ("GPTBot", "note"), ("ChatGPT-User", "note")],
)
def test_a_refusal_matters_by_the_role_of_the_agent(agent: str, severity: str) -> None:
    shut = site(f"User-agent: {agent}\nDisallow: /\n", "/", "/a")
    found = finding(shut, "robots-forbids")
    assert (found.severity, found.line) == (severity, 2)
    assert agent in found.evidence


def test_a_refusal_of_a_page_that_the_sitemap_names_blocks_and_of_another_is_a_note() -> None:
    robots = "User-agent: *\nDisallow: /admin\n"
    assert finding(site(robots, "/", "/admin"), "robots-forbids").severity == "note"
    listed = [
        one
        for one in access_of(site(robots, "/", "/admin", listed=("/admin",)), ())[1]
        if one.check == "robots-forbids"
    ]
    assert {one.severity for one in listed} == {"blocks", "hinders", "note"}


def test_a_robots_txt_that_cannot_be_read() -> None:
    for answer in (None, 503):
        counts = allowed(site(answer, "/", "/a"))
        assert counts["OAI-SearchBot"] == counts["Googlebot"] == 0
        assert counts["Amazonbot"] == 2
        assert ("robots-unreadable", "blocks") in checks(site(answer, "/"))
        assert "Amazonbot" in finding(site(answer, "/"), "vendor-departs").evidence
    assert set(allowed(site(404, "/", "/a")).values()) == {2}


def test_vendors_who_say_that_they_need_not_obey() -> None:
    found = [
        one for one in access_of(site("User-agent: *\nDisallow: /\n", "/"), ())[1] if one.check == "robots-not-binding"
    ]
    told = " ".join(one.evidence for one in found)
    assert "ChatGPT-User" in told
    assert "Perplexity-User" in told
    assert "Claude-User" not in told


def test_applebot_follows_the_group_of_googlebot_where_none_names_it() -> None:
    robots = "User-agent: Googlebot\nDisallow: /\nUser-agent: *\nAllow: /\n"
    assert allowed(site(robots, "/"))["Applebot"] == 0
    assert allowed(site(f"{robots}User-agent: Applebot\nAllow: /\n", "/"))["Applebot"] == 1


def test_two_readings_of_a_misspelt_line_are_told() -> None:
    found = finding(site("User-agent: *\nDissallow: /\n", "/"), "robots-read-differently")
    assert "RFC 9309 allows" in found.evidence
    assert not [one for one in checks(site("User-agent: *\nDisallow: /\n", "/")) if one[0] == "robots-read-differently"]


def test_a_robots_txt_made_to_be_slow() -> None:
    """Wildcards against addresses that fit almost: a reading by regular expressions would not end (CVE-2026-55520 of
    protego)."""
    almost = [f"/{'a' * 900}{n}" for n in range(3)]
    counts = allowed(site(f"User-agent: *\nDisallow: /{'*a' * 200}b*a\n", *almost))
    assert set(counts.values()) == {3}


@pytest.mark.parametrize(
    ("robots", "check"),
    [
        ("<!doctype html><title>Not found</title>", "robots-html"),
        ("User-agent: *\nDisallow: /x\n" + "# filling\n" * 60_000, "robots-long"),
        ("User-agent: *\nDisalow: /\n", "robots-unknown-line"),
        ("User-agent: *\nCrawl-delay: 30\n", "crawl-delay"),
    ],
)
def test_what_is_wrong_with_robots_txt_itself(robots: str, check: str) -> None:
    assert check in dict(checks(site(robots, "/")))
    assert check not in dict(checks(site("User-agent: *\nDisallow: /x\n", "/")))


@pytest.mark.parametrize(
    ("directive", "listed", "expected"),
    [
        ("noindex", True, ("noindex", "blocks")),
        ("noindex", False, ("noindex", "note")),
        ("none", True, ("noindex", "blocks")),
        ("nosnippet", True, ("nosnippet", "hinders")),
        ("max-snippet:0", True, ("max-snippet", "hinders")),
        ("max-snippet: 50", True, ("max-snippet", "note")),
    ],
)
def test_directives_of_pages(directive: str, listed: bool, expected: tuple[str, str]) -> None:
    there = site("", "/", "/a", listed=("/a",) if listed else ())
    assert expected in checks(there, page("/a", all=(directive,)))


@pytest.mark.parametrize("directive", ["index", "max-snippet:-1", "nofollow", "max-image-preview:large"])
def test_directives_that_keep_nothing_back(directive: str) -> None:
    assert checks(site("", "/a", listed=("/a",)), page("/a", all=(directive,))) == checks(
        site("", "/a", listed=("/a",))
    )


def test_elements_that_are_not_quoted() -> None:
    marked = fetched("/a", content=b"<p data-nosnippet>a</p><p>b</p><p data-nosnippet>c</p>")
    assert finding(site("", pages=(marked,)), "data-nosnippet", read_page(marked)).evidence.startswith("2 elements")


def test_pages_that_turn_a_crawler_away() -> None:
    pages = (
        fetched("/a", 403),
        fetched("/b", 403, cf_mitigated="challenge"),
        fetched("/c", 405, x_amzn_waf_action="captcha"),
        fetched("/d"),
    )
    found = {
        one.page.removeprefix(ORIGIN): (one.check, one.severity)
        for one in access_of(site("", pages=pages), ())[1]
        if one.page != ORIGIN
    }
    assert found == {"/a": ("refused", "hinders"), "/b": ("challenge", "blocks"), "/c": ("challenge", "blocks")}


def test_what_a_crawl_cannot_see_is_said_with_where_to_look() -> None:
    found = dict(checks(site("", "/")))
    assert {"google-generative-search", "cdn-bot-rules", "licences"} <= set(found)
    assert found["cdn-bot-rules"] == "note"


def test_an_old_table_is_told() -> None:
    fresh = oldest_check() + timedelta(days=OLD_AFTER)
    named = [
        [one.check for one in access_of(site("", "/"), (), today)[1]] for today in (fresh, fresh + timedelta(days=1))
    ]
    assert ["agents-table-old" in one for one in named] == [False, True]


def test_every_row_of_the_table_has_its_source_and_date() -> None:
    for one in assistant_agents():
        assert one.source.startswith("https://") or "No page" in one.departs
        assert one.role in ("search", "user", "training")
        assert date(2026, 1, 1) < one.checked
        assert one.obeys or one.departs
    assert len({one.token.lower() for one in assistant_agents()}) == len(assistant_agents())


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.3; +https://openai.com/gptbot)",
            "GPTBot",
        ),
        ("Mozilla/5.0 (compatible; Perplexity-User/1.0)", "Perplexity-User"),
        ("Mozilla/5.0 (Macintosh) Version/8 (Applebot/0.1; +http://www.apple.com/go/applebot)", "Applebot"),
        ("meta-externalagent/1.1 (+https://developers.facebook.com/)", "meta-externalagent"),
        ("Mozilla/5.0 (compatible; notGPTBot/1.0)", None),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/140", None),
        ("Google-Extended", None),
    ],
)
def test_agents_by_their_header(header: str, token: str | None) -> None:
    found = agent_of(header)
    assert (found and found.token) == token
