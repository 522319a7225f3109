"""The polite crawl: what it asks for, what it keeps, and what it leaves out."""

import asyncio
import math
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from site_server import Content, Handler, serving

from trimtab.base.errors import InputError, RemoteError
from trimtab.base.progress import Progress
from trimtab.publishing import fetch
from trimtab.publishing.crawl import AGENT, FORBIDDEN, crawl
from trimtab.publishing.records import Site

Crawled = Callable[..., Site]
TEXT = {"Content-Type": "text/plain"}
XML = {"Content-Type": "application/xml"}


def page(*links: str, title: str = "page") -> str:
    return f"<title>{title}</title>" + "".join(f"<a href='{link}'>to {link}</a>" for link in links)


def robots(*lines: str) -> Content:
    return 200, TEXT, "\n".join(lines).encode()


def paths(site: Site) -> list[str]:
    return [one.url.removeprefix(site.origin) for one in site.pages]


def reasons(site: Site) -> dict[str, str]:
    return {one.url.removeprefix(site.origin): one.why for one in site.unfetched}


def test_every_page_of_the_host_once_in_order_of_depth(crawled: Crawled) -> None:
    table: dict[str, Content] = {
        "/": page("/b", "a#x", "/a", "http://elsewhere.example/", "mailto:a@b", "/pic.png", "/gone"),
        "/a": page("/c", "/"),
        "/b": page("/a"),
        "/c": page(),
        "/pic.png": (200, {"Content-Type": "image/png"}, b"\x89PNG" * 1000),
    }
    with serving(table) as (origin, server):
        site = crawled(origin)
        assert paths(site) == ["/", "/b", "/a", "/pic.png", "/gone", "/c"]
        assert sorted(server.paths) == sorted(["/robots.txt", "/sitemap.xml", "/llms.txt", *paths(site)])
    by_path = {one.url.removeprefix(origin): one for one in site.pages}
    assert by_path["/gone"].status == 404
    assert by_path["/pic.png"].content == b""
    assert by_path["/pic.png"].cut
    assert site.links[f"{origin}/a"] == (f"{origin}/c", f"{origin}/")
    assert AGENT in server.asked[0][1]["User-Agent"]


def test_robots_txt_is_obeyed_and_its_line_told(crawled: Crawled) -> None:
    table: dict[str, Content] = {
        "/": page("/open", "/closed/a", "/to-closed"),
        "/open": page(),
        "/to-closed": (302, {"Location": "/closed/b"}, b""),
        "/robots.txt": robots("User-agent: *", "Disallow: /", f"User-agent: {AGENT}", "Disallow: /closed/"),
    }
    with serving(table) as (origin, server):
        site = crawled(origin)
        assert not [path for path in server.paths if path.startswith("/closed")]
    assert paths(site) == ["/", "/open"]
    assert reasons(site)["/closed/a"] == f"{FORBIDDEN}: line 4, Disallow: /closed/"
    assert FORBIDDEN in reasons(site)["/to-closed"]


@pytest.mark.parametrize("status", [500, 503])
def test_a_robots_txt_with_an_error_of_the_server_forbids_everything(crawled: Crawled, status: int) -> None:
    with serving({"/": page("/a"), "/robots.txt": (status, TEXT, b"")}) as (origin, server):
        site = crawled(origin)
        assert set(server.paths) == {"/robots.txt"}
    assert site.pages == ()
    assert str(status) in reasons(site)["/"]


def test_a_robots_txt_whose_redirects_lead_nowhere_is_one_that_is_not_there(crawled: Crawled) -> None:
    with serving({"/": page("/a"), "/a": page(), "/robots.txt": (302, {"Location": "/robots.txt"}, b"")}) as (
        origin,
        _,
    ):
        site = crawled(origin)
    assert site.robots is not None
    assert site.robots.status == 404
    assert paths(site) == ["/", "/a"]


@pytest.mark.parametrize("limits", [{"pages": 0}, {"depth": -1}, {"rate": 0.0}, {"rate": math.nan}])
def test_limits_that_are_none(crawled: Crawled, limits: dict[str, float]) -> None:
    with pytest.raises(InputError, match="no limits of a crawl"):
        crawled("https://example.com/", **limits)


def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the crawl stands still, and its waits end at once; the list that they are added to. Servers in other
    threads wait as ever."""
    waited: list[float] = []
    really, own = asyncio.sleep, threading.get_ident()

    async def sleep(seconds: float) -> None:
        if threading.get_ident() != own:
            await really(seconds)
        else:
            waited.append(seconds)

    monkeypatch.setattr(fetch, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return waited


@pytest.mark.parametrize(
    ("delay", "rate", "waits"),
    [(20, math.inf, [20, 40, 60, 80]), (20, 0.1, [10, 30, 50, 70, 90]), (0, 0.1, [10, 20, 30, 40, 50])],
)
def test_crawl_delay_and_rate_space_the_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay: int, rate: float, waits: list[float]
) -> None:
    """On a clock that stands still each request waits for an interval more than the one before it."""
    waited = stopped_clock(monkeypatch)
    table: dict[str, Content] = {
        "/": page("/a", "/b"),
        "/robots.txt": robots("User-agent: *", f"Crawl-delay: {delay}"),
    }
    with serving(table) as (origin, server):
        crawl(origin, cache=tmp_path, rate=rate)
        assert len(server.asked) == 6
    assert sorted(waited) == waits


def test_a_crawl_waits_no_longer_than_it_may_and_says_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a site with a Crawl-delay of 120 s, on a clock that stands still, as many pages are read as 600 s suffice
    for."""
    waited = stopped_clock(monkeypatch)
    table: dict[str, Content] = {
        "/": page(*(f"/{name}" for name in "abcdefgh")),
        **{f"/{name}": page() for name in "abcdefgh"},
        "/robots.txt": robots("User-agent: *", "Crawl-delay: 120"),
    }
    with serving(table) as (origin, server):
        site = crawl(origin, cache=tmp_path, rate=math.inf, waiting=600)
        assert len(server.asked) == 6  # robots.txt, and one for each 120 of 600 s
    assert max(waited) <= 600
    left_out = {path for path, why in reasons(site).items() if "120 s between requests" in why and "600 s" in why}
    assert left_out == {f"/{name}" for name in "cdefgh"}


def test_a_server_that_asks_every_page_to_wait_is_waited_for_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page answers 429 with Retry-After 60: the waits for all together end at the limit, and the answers are
    told."""
    stopped_clock(monkeypatch)
    busy: Content = (429, {"Retry-After": "60"}, b"")
    table: dict[str, Content] = {"/": page(*(f"/{name}" for name in "abcdefgh")), **{f"/{n}": busy for n in "abcdefgh"}}
    told: list[str] = []
    progress = Progress()
    monkeypatch.setattr(progress, "emit", lambda *_, note="", **__: told.append(note))
    with serving(table) as (origin, _):
        site = crawl(origin, cache=tmp_path, rate=math.inf, waiting=200, progress=progress)
    assert told.count("the site asks to wait for 60 s") == 3
    assert [one.status for one in site.pages] == [200] + 8 * [429]


def test_limits_of_pages_and_depth_are_told(crawled: Crawled) -> None:
    table: dict[str, Content] = {f"/{'x' * n}": page(f"/{'x' * (n + 1)}") for n in range(30)}
    with serving(table) as (origin, _):
        shallow = crawled(origin, depth=3)
        assert paths(shallow) == ["/", "/x", "/xx", "/xxx"]
        assert "3 links" in reasons(shallow)["/xxxx"]
        few = crawled(origin, pages=2)
        assert paths(few) == ["/", "/x"]
        assert "2 pages" in reasons(few)["/xx"]


def test_a_second_crawl_asks_only_for_what_has_changed(crawled: Crawled) -> None:
    def conditional(handler: Handler) -> None:
        same = handler.headers.get("If-None-Match") == '"1"' or handler.headers.get("If-Modified-Since") is not None
        body = b"" if same else page(title="kept").encode()
        handler.send_response(304 if same else 200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header(
            "ETag" if handler.path == "/a" else "Last-Modified",
            '"1"' if handler.path == "/a" else "Mon, 30 Nov 2026 10:00:00 GMT",
        )
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    table: dict[str, Content] = {
        "/": page("/a", "/b", "/c"),
        "/a": conditional,
        "/b": conditional,
        "/c": page(title="first"),
    }
    with serving(table) as (origin, server):
        first = crawled(origin)
        table["/c"] = page(title="second")
        second = crawled(origin)
        asked = dict(server.asked[len(server.asked) // 2 :])
    assert asked["/a"]["If-None-Match"] == '"1"'
    assert asked["/b"]["If-Modified-Since"] == "Mon, 30 Nov 2026 10:00:00 GMT"
    assert [one.content for one in first.pages[1:3]] == [one.content for one in second.pages[1:3]]
    assert [one.status for one in second.pages] == [200] * 4
    assert b"second" in second.pages[3].content


def test_a_crawl_that_was_killed_goes_on_without_asking_again(tmp_path: Path) -> None:
    """SIGKILL in the midst of a crawl; what was told as fetched and committed is not asked for again, and the site
    is the same."""
    table: dict[str, Content] = {
        "/": page(*(f"/p{n}" for n in range(60))),
        **{f"/p{n}": page(title=f"page {n}") for n in range(60)},
    }
    script = (
        "import sys; from pathlib import Path; from trimtab.publishing.crawl import crawl; crawl(sys.argv[1], "
        "cache=Path(sys.argv[2]), rate=25)"
    )
    with serving(table) as (origin, server):
        child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), origin, str(tmp_path / "a")])
        while len(server.asked) < 45:
            time.sleep(0.01)
            assert child.poll() is None
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        before = set(server.paths)
        server.asked.clear()
        resumed = crawl(origin, cache=tmp_path / "a", rate=math.inf)
        again = before & set(server.paths)
        whole = crawl(origin, cache=tmp_path / "b", rate=math.inf)
    assert len(again) < len(before) / 2 + 5  # at most those of the last second, and those under way
    assert "/" not in again
    assert [(one.url, one.content) for one in resumed.pages] == [(one.url, one.content) for one in whole.pages]


def test_a_damaged_cache_is_told(tmp_path: Path) -> None:
    with serving({"/": page()}) as (origin, _):
        crawl(origin, cache=tmp_path, rate=math.inf)
        (file,) = tmp_path.rglob("answers.sqlite")
        for other in file.parent.glob("answers.sqlite-*"):
            other.unlink()
        file.write_bytes(b"no database" * 100)
        with pytest.raises(InputError, match=r"answers\.sqlite.*damaged"):
            crawl(origin, cache=tmp_path, rate=math.inf)


def test_sitemaps_of_every_form(crawled: Crawled) -> None:
    import gzip

    table: dict[str, Content] = {"/": page(), "/a": page(), "/b": page(), "/c": page()}
    with serving(table) as (origin, _):
        index = (
            f"<sitemapindex><sitemap><loc>{origin}/pages.xml.gz</loc></sitemap>"
            f"<sitemap><loc>{origin}/list.txt</loc></sitemap></sitemapindex>"
        )
        pages = (
            f"<urlset xmlns='x'><url><loc> {origin}/a "
            f"</loc><lastmod>2026-11-01</lastmod></url><url><loc>{origin}/b</loc></url></urlset>"
        )
        table["/robots.txt"] = robots(
            "User-agent: *", "Disallow: /b", f"Sitemap: {origin}/index.xml", "Sitemap: http://other.example/s.xml"
        )
        table["/index.xml"] = (200, XML, index.encode())
        table["/pages.xml.gz"] = (200, {"Content-Type": "application/gzip"}, gzip.compress(pages.encode()))
        table["/list.txt"] = (200, TEXT, f"{origin}/c\nhttp://other.example/d\n".encode())
        site = crawled(origin)
    assert sorted(paths(site)) == ["/", "/a", "/c"]
    assert {entry.url.removeprefix(origin): entry.lastmod for entry in site.entries} == {
        "/a": "2026-11-01",
        "/b": None,
        "/c": None,
        "http://other.example/d": None,
    }
    assert reasons(site)["http://other.example/s.xml"].startswith("a sitemap that lies on another host")
    assert reasons(site)["/b"].startswith(FORBIDDEN)


def test_what_is_wrong_with_a_sitemap_is_told(crawled: Crawled) -> None:
    table: dict[str, Content] = {"/": page(), "/a": page()}
    with serving(table) as (origin, _):
        table["/sitemap.xml"] = (200, XML, f"<urlset><url><loc>{origin}/a</loc></url><url><loc>".encode())
        site = crawled(origin)
    assert sorted(paths(site)) == ["/", "/a"]
    assert reasons(site) == {"/sitemap.xml": "a sitemap that is no well-formed XML from line 1 on"}


def test_redirects_are_one_page_with_its_way(crawled: Crawled) -> None:
    table: dict[str, Content] = {
        "/": page("/old", "/new"),
        "/old": (301, {"Location": "/older"}, b""),
        "/older": (308, {"Location": "new"}, b""),
        "/new": page(),
    }
    with serving(table) as (origin, _):
        site = crawled(origin)
    assert paths(site) == ["/", "/new"]
    assert site.pages[1].redirects == (f"{origin}/older",)
    assert site.redirects[f"{origin}/old"].path == (f"{origin}/older", f"{origin}/new")
    assert set(site.redirects[f"{origin}/old"].statuses) == {301, 308}


def test_a_server_that_asks_to_wait_is_asked_again(crawled: Crawled) -> None:
    answers = iter([(429, {"Retry-After": "0"}, b""), (503, {"Retry-After": "0"}, b""), page(title="in the end")])
    table: dict[str, Content] = {"/": page("/busy")}
    with serving(lambda path: next(answers) if path == "/busy" else table.get(path)) as (origin, _):
        site = crawled(origin)
    assert site.pages[1].status == 200
    assert b"in the end" in site.pages[1].content


def test_progress_says_how_far_it_is(tmp_path: Path) -> None:
    events: list[dict[str, object]] = []
    with serving({"/": page(*(f"/p{n}" for n in range(20))), **{f"/p{n}": page() for n in range(20)}}) as (origin, _):
        crawl(origin, cache=tmp_path, rate=math.inf, progress=Progress(listeners=[events.append]))
    steps = [event["step"] for event in events]
    assert steps == sorted(steps)  # type: ignore[type-var]
    assert (events[-1]["step"], events[-1]["of"]) == (21, 21)
    assert "left" in str(events[-1]["note"])


def test_two_crawls_of_a_site_are_the_same(tmp_path: Path) -> None:
    """The order is that of the links, also where later pages answer first."""
    table: dict[str, Content] = {f"/{n}": page(f"/{2 * n + 1}", f"/{2 * n + 2}") for n in range(40)} | {"/": page("/0")}

    def uneven(path: str) -> Content | None:
        time.sleep(0.02 if path.endswith(("1", "5")) else 0)
        return table.get(path)

    with serving(uneven) as (origin, _):
        one, other = (crawl(origin, cache=tmp_path / name, rate=math.inf, pages=30) for name in "ab")
    assert [page.url for page in one.pages] == [page.url for page in other.pages]
    assert one.unfetched == other.unfetched


def test_a_crawl_inside_an_event_loop(crawled: Crawled) -> None:
    """As in a notebook."""

    async def inside(origin: str) -> Site:
        return crawled(origin)

    with serving({"/": page()}) as (origin, _):
        assert len(asyncio.run(inside(origin)).pages) == 1


@pytest.mark.parametrize("source", ["ftp://example.com/", "http://", "https://user:key@example.com/"])
def test_what_is_no_address(crawled: Crawled, source: str) -> None:
    with pytest.raises(InputError, match="is no http or https address"):
        crawled(source)


def test_nobody_there(crawled: Crawled) -> None:
    with serving({}) as (origin, _):
        pass
    with pytest.raises(RemoteError, match=r"127\.0\.0\.1") as caught:
        crawled(origin)
    assert "\n" not in str(caught.value)


def test_the_cache_holds_no_cookies(crawled: Crawled, tmp_path: Path) -> None:
    table: dict[str, Content] = {"/": (200, {"Set-Cookie": "session=secret"}, page("/a").encode()), "/a": page()}
    with serving(table) as (origin, server):
        crawled(origin)
        assert not [headers for _, headers in server.asked if "Cookie" in headers]
    (file,) = tmp_path.rglob("answers.sqlite")
    with sqlite3.connect(file) as database:
        assert not [row for row in database.execute("select headers from answer") if "secret" in row[0]]
