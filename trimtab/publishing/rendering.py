"""Pages as a browser shows them: Chromium runs their scripts, so that what is missing without them is known."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from trimtab.base.errors import MissingError, PackageError
from trimtab.base.progress import Progress
from trimtab.base.surface import Fetched, Site, SitePage
from trimtab.publishing.addresses import host_of, origin_of, path_of
from trimtab.publishing.fetch import names_private
from trimtab.publishing.pages import read_page

if TYPE_CHECKING:
    from playwright.sync_api import Route

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MILLISECONDS = 10_000  # that a page may take
SETTLED = 500  # milliseconds after its scripts were loaded
MOST_ASKED = 200  # requests of one page


def with_rendered(
    site: Site, pages: Sequence[SitePage], *, most: int, progress: Progress | None = None
) -> tuple[SitePage, ...]:
    """The pages, at most `most` of those with scripts with the main text that Chromium shows.

    The pages themselves come as they were fetched; scripts may ask the site's own host only (of a folder its files), and nothing else is
    let out. Raises PackageError without playwright, MissingError without a browser.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise PackageError("playwright", "render", "rendering pages") from None
    browser_path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser_path is None:
        raise MissingError(
            "no Chromium is installed; install one (such as the package chromium), or leave out --render"
        )
    chosen = [
        page
        for page in pages
        if page.kind == "html" and page.status == 200 and page.unread is None and (page.scripts or page.script_bytes)
    ]
    # The emptiest first: there scripts are most likely to bring the text.
    chosen = sorted(chosen, key=lambda page: page.words)[:most]
    answers = {one.url: one for one in site.pages}
    shown: dict[str, str] = {}
    with sync_playwright() as playwright:
        # Root has no user namespaces to sandbox in; every request is decided here in any case.
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--disable-gpu", "--no-sandbox"])
        try:
            for place, page in enumerate(chosen, start=1):
                context = browser.new_context(service_workers="block", accept_downloads=False)
                context.set_default_timeout(MILLISECONDS)
                context.route("**/*", _Gate(site, answers, page.url))
                tab = context.new_page()
                try:
                    tab.goto(page.url, wait_until="load", timeout=MILLISECONDS)
                    tab.wait_for_timeout(SETTLED)
                    html = tab.content()
                    drawn = replace(
                        answers[page.url], content=html.encode(), headers={"content-type": "text/html; charset=utf-8"}
                    )
                    shown[page.url] = read_page(drawn).text
                except Error:
                    pass  # a page that does not load in time stays as it was read
                finally:
                    context.close()
                if progress is not None:
                    progress.emit("render", step=place, of=len(chosen))
        finally:
            browser.close()
    return tuple(replace(page, rendered=shown[page.url]) if page.url in shown else page for page in pages)


class _Gate:
    """Answers each request of a page: what was fetched as it was, files of a folder, the own host's others; no other host."""

    def __init__(self, site: Site, answers: dict[str, Fetched], url: str) -> None:
        self._site, self._answers, self._url = site, answers, url
        self._asked = 0

    def __call__(self, route: Route) -> None:
        url = route.request.url.partition("#")[0]
        self._asked += 1
        known = self._answers.get(url)
        if self._asked > MOST_ASKED or not url.startswith(f"{self._site.origin}/"):
            route.abort()
        elif known is not None:
            headers = {"content-type": known.headers.get("content-type", "text/html")}
            route.fulfill(status=known.status, headers=headers, body=known.content)
        elif "://" not in self._site.source:
            self._file(route, url)
        elif (
            names_private(host_of(self._site.origin)) == names_private(host_of(url))
            and origin_of(url) == self._site.origin
        ):
            route.continue_()
        else:
            route.abort()

    def _file(self, route: Route, url: str) -> None:
        root = Path(self._site.source).resolve()
        path = (root / unquote(urlsplit(path_of(url)).path).lstrip("/")).resolve()
        if path.is_file() and path.is_relative_to(root):
            route.fulfill(path=path)
        else:
            route.fulfill(status=404, body="")
