"""Sites that mean harm: each is bounded and told in one line, nothing of it is obeyed, and nothing is sent
elsewhere."""

import gzip
import shutil
import socket
import ssl
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from site_server import Content, Handler, serving

from trimtab.base.errors import RemoteError
from trimtab.publishing import crawl as crawl_module
from trimtab.publishing import fetch, page_links
from trimtab.publishing.crawl import FORBIDDEN, MOST_REPEATS, PAGE_CAP
from trimtab.publishing.page_links import MOST_LINKS
from trimtab.publishing.records import Site
from trimtab.publishing.robots import MOST_BYTES

Crawled = Callable[..., Site]
HTML = {"Content-Type": "text/html"}


def links(*addresses: str) -> str:
    return "".join(f"<a href='{address}'>x</a>" for address in addresses)


def reasons(site: Site) -> dict[str, str]:
    found = {one.url.removeprefix(site.origin): one.why for one in site.unfetched}
    assert all("\n" not in why and why.isprintable() for why in found.values())
    return found


def raw(*pieces: bytes, every: float = 0.0, forever: bytes = b"") -> Callable[[Handler], None]:
    """Writes bytes as they are; then `forever` until the client has had enough."""

    def write(handler: Handler) -> None:
        handler.close_connection = True
        try:
            for piece in pieces:
                handler.wfile.write(piece)
                time.sleep(every)
            while forever:
                handler.wfile.write(forever)
                time.sleep(every)
        except OSError:
            pass

    return write


def headed(*headers: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *headers, b"", b""])


def test_a_robots_txt_without_end(crawled: Crawled) -> None:
    rules = b"User-agent: *\nDisallow: /closed\n"
    bomb = raw(headed(b"Content-Type: text/plain"), rules, forever=b"# " + b"x" * 65_000 + b"\n")
    with serving({"/": links("/closed/a", "/open"), "/open": "", "/robots.txt": bomb}) as (origin, _):
        site = crawled(origin)
    assert site.robots is not None
    assert len(site.robots.content) == MOST_BYTES + 1
    assert site.robots.cut
    assert reasons(site)["/closed/a"].startswith(FORBIDDEN)


def test_robots_rules_made_to_be_slow(crawled: Crawled) -> None:
    """As many wildcards as 500 KiB hold, against addresses that fit almost."""
    slow = b"User-agent: *\n" + b"".join(b"Disallow: /" + b"*a" * 400 + b"b\n" for _ in range(600))
    almost = [f"/{'a' * 900}{n}" for n in range(8)]
    table: dict[str, Content] = {"/": links(*almost), "/robots.txt": (200, {"Content-Type": "text/plain"}, slow)}
    with serving(table) as (origin, _):
        site = crawled(origin)
    assert len(site.pages) == 9


def test_redirects_in_a_circle_and_without_end(crawled: Crawled) -> None:
    def answer(path: str) -> Content | None:
        if path.startswith("/on/"):
            return 302, {"Location": f"/on/{int(path[4:]) + 1}"}, b""
        return {
            "/": links("/a", "/on/1", "/odd", "/file", "/self"),
            "/a": (302, {"Location": "/b"}, b""),
            "/b": (302, {"Location": "/a"}, b""),
            "/self": (302, {"Location": "/self"}, b""),
            "/odd": (302, {"Location": "http://[::bad"}, b""),
            "/file": (302, {"Location": "file:///etc/passwd"}, b""),
        }.get(path)

    with serving(answer) as (origin, server):
        why = reasons(crawled(origin))
        assert len([path for path in server.paths if path.startswith("/on/")]) <= fetch.MOST_REDIRECTS + 1
    assert "circle" in why["/a"]
    assert "circle" in why["/self"]
    assert f"more than {fetch.MOST_REDIRECTS} times" in why["/on/1"]
    assert "no http or https address" in why["/odd"]
    assert "no http or https address" in why["/file"]


def test_a_calendar_without_end(crawled: Crawled) -> None:
    """Next month, each day, each with filters; and the pages beside it are all read."""

    def answer(path: str) -> Content | None:
        if path.startswith("/calendar/"):
            year, month = map(int, path.partition("?")[0].split("/")[2:4])
            then = f"/calendar/{year + month // 12}/{month % 12 + 1}"
            return links(then, *(f"{then}?day={day}&view={view}" for day in range(1, 8) for view in "abc"))
        if path == "/":
            return links("/calendar/2026/11", *(f"/page-{name}" for name in "abcdefghijklmnop"))
        return "" if path.startswith("/page-") else None

    with serving(answer) as (origin, server):
        site = crawled(origin, pages=100)
        assert len(server.asked) < 110
    read = [page.url.removeprefix(origin) for page in site.pages]
    assert len([path for path in read if path.startswith("/page-")]) == 16
    assert any("more than 20 addresses look like /calendar/#/#?day&view" in why for why in reasons(site).values())


def test_a_path_that_grows(crawled: Crawled) -> None:
    with serving(lambda path: None if path in ("/robots.txt", "/sitemap.xml") else links("more/", "other/")) as (
        origin,
        server,
    ):
        site = crawled(origin, pages=500)
    assert not [path for path in server.paths if path.count("/more") > MOST_REPEATS]
    assert any("stands more than" in why for why in reasons(site).values())


def test_a_page_without_end(crawled: Crawled) -> None:
    endless = raw(headed(b"Content-Type: text/html"), b"<a href='/a'>x</a>", forever=b"x" * 65_536)
    with serving({"/": links("/endless"), "/endless": endless, "/a": ""}) as (origin, _):
        site = crawled(origin)
    page = site.pages[1]
    assert (len(page.content), page.cut) == (PAGE_CAP, True)
    assert site.pages[2].url.endswith("/a")


def test_a_large_file_is_not_downloaded(crawled: Crawled) -> None:
    sent: list[int] = []

    def film(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(headed(b"Content-Type: video/mp4", b"Content-Length: 1000000000"))
        try:
            for _ in range(1000):
                sent.append(handler.wfile.write(b"x" * 1_000_000))
        except OSError:
            pass

    with serving({"/": links("/film.mp4"), "/film.mp4": film}) as (origin, _):
        site = crawled(origin)
    assert (site.pages[1].status, site.pages[1].content, site.pages[1].cut) == (200, b"", True)
    assert sum(sent) < 100_000_000


def test_compression_bombs(crawled: Crawled) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b" " * 1_000_000) for _ in range(50)) + packer.flush()
    packed = {**HTML, "Content-Encoding": "gzip"}
    table: dict[str, Content] = {
        "/": links("/bomb", "/twice", "/not-gzip", "/brotli"),
        "/bomb": (200, packed, bomb),
        "/twice": (200, {**HTML, "Content-Encoding": "gzip, gzip"}, gzip.compress(bomb)),
        "/not-gzip": (200, packed, b"<html>"),
        "/brotli": (200, {**HTML, "Content-Encoding": "br"}, b"\x0b\x02\x80"),
        "/sitemap.xml": (200, {"Content-Type": "application/gzip"}, gzip.compress(b"<urlset>" + b" " * 55_000_000)),
    }
    with serving(table) as (origin, _):
        site = crawled(origin)
    (page,) = (page for page in site.pages if page.url.endswith("/bomb"))
    assert (len(page.content), page.cut) == (PAGE_CAP, True)
    why = reasons(site)
    assert "not asked for" in why["/twice"]
    assert "not asked for" in why["/brotli"]
    assert "not the gzip" in why["/not-gzip"]
    assert site.entries == ()


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        "http://localhost:1/",
        "http://[::1]:1/",
        "http://other.example/",
        "http://127.0.0.1:1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "//other.example/",
    ],
)
def test_no_redirect_leads_to_another_host_or_port(
    crawled: Crawled, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: looked_up.append(host) or real(host, *rest, **more)
    )
    table: dict[str, Content] = {"/": links("/away"), "/away": (302, {"Location": target}, b"")}
    with serving(table) as (origin, _):
        assert "another host or port" in reasons(crawled(origin))["/away"]
    assert set(looked_up) == {"127.0.0.1"}


def lookups(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Names lead to these addresses, one after the other and the last from then on."""
    asked: list[str] = []

    def lookup(host: str, port: Any, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        address = answers[min(len(asked), len(answers)) - 1]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port or 0))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return asked


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "fe80::1",
        "0.0.0.0",
        "224.0.0.1",
    ],
)
def test_a_name_that_leads_to_a_private_address(
    crawled: Crawled, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    with serving({"/": ""}) as (origin, server):
        lookups(monkeypatch, address)
        port = origin.rpartition(":")[2]
        with pytest.raises(RemoteError, match="private network") as caught:
            crawled(f"http://public.example:{port}/")
        assert server.asked == []
    assert "\n" not in str(caught.value)


def test_a_robots_txt_that_redirects_into_a_private_network(crawled: Crawled, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        serving({"/": ""}) as (inner, hidden),
        serving(
            {"/robots.txt": (302, {"Location": f"{inner.replace('127.0.0.1', 'inner.example')}/robots.txt"}, b"")}
        ) as (origin, _),
    ):
        lookups(monkeypatch, "127.0.0.1")
        with pytest.raises(RemoteError, match="private network"):
            crawled(origin)
        assert hidden.asked == []


def test_a_name_is_looked_up_once_so_that_it_cannot_change(crawled: Crawled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user allows a private address, too; the host is named in the request."""
    with serving({"/": links("/a"), "/a": ""}) as (origin, server):
        asked = lookups(monkeypatch, "127.0.0.1", "10.0.0.1")
        port = origin.rpartition(":")[2]
        site = crawled(f"http://intra.example.org:{port}/", private=True)
        assert {headers["Host"] for _, headers in server.asked} == {f"intra.example.org:{port}"}
    assert len(site.pages) == 2
    assert asked == ["intra.example.org"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_of_nobody(crawled: Crawled, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving({"/": ""}, tls=context) as (origin, server):
        with pytest.raises(RemoteError, match="no valid certificate") as caught:
            crawled(origin)
        assert server.asked == []
    assert "\n" not in str(caught.value)


def test_slow_bytes_in_headers_and_content(crawled: Crawled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SECONDS", 1.0)
    monkeypatch.setattr(fetch, "STALL", 0.5)
    table: dict[str, Content] = {
        "/": links("/headers", "/content", "/silent", "/fine"),
        "/headers": raw(b"HTTP/1.1 200 OK\r\n", every=0.1, forever=b"X-A: b\r\n"),
        "/content": raw(headed(b"Content-Type: text/html"), every=0.1, forever=b"x"),
        "/silent": lambda handler: time.sleep(3),
        "/fine": "",
    }
    with serving(table) as (origin, _):
        site = crawled(origin)
    why = reasons(site)
    assert "no whole answer within 1 s" in why["/headers"]
    assert "no whole answer within 1 s" in why["/content"]
    assert "no byte for 0.5 s" in why["/silent"]
    assert [page.url.removeprefix(origin) for page in site.pages] == ["/", "/fine"]


def test_odd_bytes_in_headers(crawled: Crawled) -> None:
    table: dict[str, Content] = {
        "/": links("/latin", "/nul", "/many", "/none", "/twice", "/no-http"),
        "/latin": raw(headed(b"Content-Type: text/html", b"X-Odd: \xff\xfe\x1b[2J", b"Content-Length: 1"), b"x"),
        "/nul": raw(headed(b"Content-Type: text/html", b"X-Odd: \x00", b"Content-Length: 0")),
        "/many": raw(headed(*(b"X-%d: %s" % (n, b"y" * 1000) for n in range(5000)))),
        "/none": raw(),
        "/twice": raw(headed(b"Content-Length: 1", b"Content-Length: 2"), b"xx"),
        "/no-http": raw(b"SSH-2.0-OpenSSH_9\r\n"),
    }
    with serving(table) as (origin, _):
        site = crawled(origin)
    why = reasons(site)
    assert {"/nul", "/many", "/none", "/twice", "/no-http"} <= set(why) | {
        page.url.removeprefix(origin) for page in site.pages
    }
    assert {"/many", "/none", "/no-http"} <= set(why)


def test_what_a_site_writes_is_shown_and_not_obeyed(crawled: Crawled) -> None:
    """Escape sequences in robots.txt and addresses, scripts in titles."""
    table: dict[str, Content] = {
        "/": "<title><script>alert(1)</script>\x1b[2J</title>"
        + links("/closed", "/\x1b[31mred", "javascript:alert(1)", "data:text/html,x"),
        "/robots.txt": (200, {"Content-Type": "text/plain"}, b"User-agent: *\nDisallow: /closed # \x1b]0;owned\x07\n"),
    }
    with serving(table) as (origin, server):
        site = crawled(origin)
    assert "\x1b" not in "".join(reasons(site).values())
    assert all(path.isprintable() for path in server.paths)


def test_pages_made_to_take_long(crawled: Crawled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_links, "SECONDS", 0)
    table: dict[str, Content] = {
        "/": links("/deep", "/wide", "/many"),
        "/many": links(*(f"?{n}" for n in range(2 * MOST_LINKS))),
        "/deep": "<div>" * 300_000,
        "/wide": f"<a {' '.join(f'a{n}' for n in range(100_000))} href='/fine'>",
    }
    with serving(table) as (origin, _):
        site = crawled(origin, pages=5)
    assert "/wide" in reasons(site)
    assert "/deep" in reasons(site)
    assert len(site.links[f"{origin}/many"]) == MOST_LINKS
    assert len(site.pages) == 5


def test_sitemaps_made_to_be_endless(crawled: Crawled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crawl_module, "MOST_SITEMAPS", 20)
    laughs = (
        "<!DOCTYPE x ["
        + "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10 if n else 'lol'}'>" for n in range(10))
        + "]><urlset><url><loc>&a9;</loc></url></urlset>"
    )

    def answer(path: str) -> Content | None:
        if path.startswith("/s/"):
            number = int(path[3:])
            return (
                f"<sitemapindex><sitemap><loc>{origin}/s/{number + 1}</loc></sitemap>"
                f"<sitemap><loc>{origin}/laughs</loc></sitemap></sitemapindex>"
            )
        return {"/": "", "/laughs": laughs, "/robots.txt": f"Sitemap: {origin}/s/1\nSitemap: {origin}/outside"}.get(
            path
        )

    with serving(answer) as (origin, server):
        site = crawled(origin)
        assert len([path for path in server.paths if path.startswith("/s/")]) <= 20
    assert site.entries == ()
    assert any("20 sitemaps" in why for why in reasons(site).values())
