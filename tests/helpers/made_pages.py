"""Pages and sites made for tests, as a server would answer them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from trimtab.publishing.crawl import crawl
from trimtab.publishing.pages import read_page, read_pages
from trimtab.publishing.records import Fetched, SitePage
from trimtab.publishing.site_pages import CrawledPages

WHEN = datetime(2026, 11, 30, tzinfo=UTC)
ORIGIN = "https://made.example"


def answer(content: str | bytes, path: str = "/", **headers: str) -> Fetched:
    """An answer of a server: HTML unless its headers say otherwise."""
    data = content.encode() if isinstance(content, str) else content
    named = {
        "content-type": "text/html; charset=utf-8",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return Fetched(url=f"{ORIGIN}{path}", asked=f"{ORIGIN}{path}", status=200, headers=named, content=data, when=WHEN)


def page(content: str | bytes, path: str = "/", **headers: str) -> SitePage:
    """A page as it reads."""
    return read_page(answer(content, path, **headers))


def article(text: str, title: str = "A page", head: str = "") -> str:
    """The HTML of a page with a main text of HTML."""
    return (
        "<!doctype html><html "
        f'lang="en"><head><title>{title}</title>{head}</head><body><main><article>{text}</article></main></body></html>'
    )


def site(folder: Path, pages: Mapping[str, str]) -> CrawledPages:
    """A site of such pages by their paths, read from a folder."""
    for path, content in pages.items():
        name = path.strip("/")
        file = folder / name if "." in name else folder / name / "index.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    found = crawl(str(folder), cache=folder, base=f"{ORIGIN}/")
    return CrawledPages(site=found, pages=read_pages(found.pages))
