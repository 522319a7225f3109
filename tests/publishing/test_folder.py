"""A folder as it would be served."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trimtab.base.errors import InputError, MissingError
from trimtab.publishing.records import Site

Crawled = Callable[..., Site]


def made(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def paths(site: Site) -> dict[str, int]:
    return {page.url.removeprefix(site.origin): page.status for page in site.pages}


def test_pages_at_the_addresses_of_the_sitemap(tmp_path: Path, crawled: Crawled) -> None:
    folder = made(
        tmp_path / "site",
        index_html="<a href=guide/>",
        guide__index_html="<a href=/docs/>",
        sheet_css="",
        a_pdf="%PDF-1.4",
    )
    (folder / "sitemap.xml").write_text(
        "<urlset><url><loc>https://Example.com/docs/</loc></url><url><loc>https://example.com/docs/guide/</loc></url></urlset>"
    )
    site = crawled(str(folder))
    assert site.origin == "https://example.com"
    assert paths(site) == {"/docs/": 200, "/docs/guide/": 200, "/docs/a.pdf": 200}
    assert {page.url: page.headers["content-type"] for page in site.pages}[
        "https://example.com/docs/a.pdf"
    ] == "application/pdf"
    assert site.links["https://example.com/docs/"] == ("https://example.com/docs/guide/",)
    assert [entry.url for entry in site.entries] == ["https://example.com/docs/", "https://example.com/docs/guide/"]


def test_links_to_files_that_are_not_there_are_pages_not_found(tmp_path: Path, crawled: Crawled) -> None:
    links = "".join(
        f"<a href='{link}'>x</a>"
        for link in ("about", "about.html", "b/", "b", "pic.png", "gone", "gone?x=1", "/%2e%2e/x")
    )
    folder = made(
        tmp_path / "site", index_html=links, about_html="", b__index_html="", pic_png="", **{"404_html": "not there"}
    )
    site = crawled(str(folder), base="https://example.com/")
    assert paths(site) == {"/": 200, "/about.html": 200, "/b/": 200, "/gone": 404, "/gone?x=1": 404, "/x": 404}
    assert {page.content for page in site.pages if page.status == 404} == {b"not there"}


def test_headers_by_patterns_of_paths(tmp_path: Path, crawled: Crawled) -> None:
    folder = made(tmp_path / "site", index_html="", blog__a_html="", drafts__x__page_html="")
    (folder / "_headers").write_text(
        "# all\n/*\n  X-A: 1\n/blog/*\n  X-Robots-Tag: noindex\n  x-robots-tag: nosnippet\n"
        "/drafts/:name/page.html\n  X-B: 2\n"
    )
    (folder / "robots.txt").write_text("User-agent: *\nDisallow: /blog\n")
    site = crawled(str(folder), base="https://example.com/")
    headers = {page.url.removeprefix(site.origin): page.headers for page in site.pages}
    assert all(one["x-a"] == "1" for one in headers.values())
    assert {path: one.get("x-robots-tag") for path, one in headers.items()}["/blog/a.html"] == "noindex, nosnippet"
    assert headers["/drafts/x/page.html"]["x-b"] == "2"
    assert "x-b" not in headers["/"]
    assert site.robots is not None
    assert site.robots.content.startswith(b"User-agent")


def test_nothing_outside_the_folder_is_read(tmp_path: Path, crawled: Crawled) -> None:
    (tmp_path / "secret.html").write_text("secret")
    folder = made(tmp_path / "site", index_html="<a href='../secret.html'>x</a>", _hidden_html="hidden")
    (folder / "link.html").symlink_to(tmp_path / "secret.html")
    os.mkfifo(folder / "pipe.html")
    site = crawled(str(folder), base="https://example.com/")
    assert not [
        page
        for page in site.pages
        if b"secret" in page.content and page.status == 200 and page.url.endswith(("secret.html", "link.html"))
    ]
    assert "/link.html" not in paths(site)
    assert "/pipe.html" not in paths(site)


def test_no_robots_txt_is_one_that_is_not_found(tmp_path: Path, crawled: Crawled) -> None:
    site = crawled(str(made(tmp_path / "site", index_html="")))
    assert site.robots is not None
    assert site.robots.status == 404


def test_pages_beyond_the_limit_are_told(tmp_path: Path, crawled: Crawled) -> None:
    site = crawled(str(made(tmp_path / "site", a_html="", b_html="", c_html="")), pages=2)
    assert len(site.pages) == 2
    assert [one.why for one in site.unfetched] == ["beyond 2 pages"]


def test_what_is_no_site(tmp_path: Path, crawled: Crawled) -> None:
    with pytest.raises(MissingError, match="is no folder"):
        crawled(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="holds no page"):
        crawled(str(made(tmp_path / "site", pic_png="")))
    with pytest.raises(InputError, match="is no folder"):
        crawled(str(tmp_path / "site" / "pic.png"))
    made(tmp_path / "site", index_html="")
    with pytest.raises(InputError, match="no http or https address"):
        crawled(str(tmp_path / "site"), base="example.com")
