"""Pages as a browser shows them: Chromium runs their scripts, so that what is missing without them is known."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from trimtab.base.errors import MissingError, PackageError
from trimtab.base.progress import Progress
from trimtab.base.sanitize import one_line
from trimtab.publishing.addresses import canonical_address, host_of, path_of
from trimtab.publishing.crawl import PAGE_CAP, crawler_user_agent
from trimtab.publishing.fetch import Fetcher, NotFetchedError
from trimtab.publishing.pages import read_page
from trimtab.publishing.records import Fetched, Site, SitePage

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright, Route

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MILLISECONDS = 10_000  # that a page may take
SETTLED = 500  # milliseconds after its scripts were loaded
MOST_ASKED = 200  # requests of one page
READ_BY_SCRIPTS = frozenset(("document", "script", "fetch", "xhr"))  # kinds of requests that can bring text
NO_PROXY = "http://127.0.0.1:1"  # nobody listens there, so that what is not answered here reaches nobody


def with_rendered(
    site: Site, pages: Sequence[SitePage], *, most: int, private: bool = False, progress: Progress | None = None
) -> tuple[SitePage, ...]:
    """Return the pages, at most `most` of those with scripts with the main text that Chromium shows.

    The emptiest pages come first, since scripts most likely bring their text. Chromium itself reaches no host: it
    gets the pages as they were fetched, files of a folder, and answers to GET of the site's own host, which are
    fetched as the crawl fetches (`private` as there). Raises PackageError without playwright, MissingError without a
    browser that starts.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise PackageError("playwright", "render", "rendering pages") from None
    chosen = [
        page
        for page in pages
        if page.kind == "html" and page.status == 200 and page.unread is None and (page.scripts or page.script_bytes)
    ]
    chosen = sorted(chosen, key=lambda page: page.words)[:most]
    answers = {one.url: one for one in site.pages}
    shown: dict[str, str] = {}
    with sync_playwright() as playwright, _fetching(site, private) as fetching:
        browser = _started(playwright)
        try:
            for place, page in enumerate(chosen, start=1):
                context = browser.new_context(service_workers="block", accept_downloads=False)
                context.set_default_timeout(MILLISECONDS)
                context.route("**/*", _Gate(site, answers, fetching))
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


def _started(playwright: Playwright) -> Browser:
    """Start the system's Chromium without a way to any host; raises MissingError where there is none or it does not
    start."""
    from playwright.sync_api import Error

    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise MissingError(
            "no Chromium is installed; install one (such as the package chromium), or leave out --render"
        )
    try:
        return playwright.chromium.launch(
            executable_path=browser,
            args=["--disable-gpu", "--webrtc-ip-handling-policy=disable_non_proxied_udp"],
            proxy={"server": NO_PROXY},  # for loopback, WebSockets and redirects too
            chromium_sandbox=os.geteuid() != 0,  # root has no user namespaces to sandbox in
        )
    except Error as error:
        problem = f"{browser} does not start ({one_line(error)})"
        raise MissingError(f"{problem}; run it where user namespaces are allowed, or leave out --render") from None


class _Fetching:
    """Fetches addresses of the site in one event loop beside the browser's, so that connections are kept."""

    def __init__(self, fetcher: Fetcher, runner: asyncio.Runner, pool: ThreadPoolExecutor) -> None:
        self._fetcher, self._runner, self._pool = fetcher, runner, pool

    def get(self, address: str) -> Fetched:
        """Return the answer at an address; raises NotFetchedError as `Fetcher.get` does."""
        return self._pool.submit(self._runner.run, self._fetcher.get(address, whole=True)).result()


@contextmanager
def _fetching(site: Site, private: bool) -> Iterator[_Fetching]:
    host = host_of(site.origin)
    fetcher = Fetcher(crawler_user_agent(), rate=math.inf, host=host, private=private, cap=PAGE_CAP)
    runner = asyncio.Runner()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield _Fetching(fetcher, runner, pool)
        finally:
            pool.submit(runner.run, fetcher.__aexit__()).result()
            pool.submit(runner.close).result()


class _Gate:
    """Answers each request of a page: pages as they were fetched, files of a folder, others of the own host; no
    other host."""

    def __init__(self, site: Site, answers: Mapping[str, Fetched], fetching: _Fetching) -> None:
        self._site, self._answers, self._fetching = site, answers, fetching
        self._asked = 0

    def __call__(self, route: Route) -> None:
        url = route.request.url.partition("#")[0]
        self._asked += 1
        is_own = url.startswith(f"{self._site.origin}/")
        if self._asked > MOST_ASKED or not is_own or route.request.resource_type not in READ_BY_SCRIPTS:
            route.abort()
        elif url in self._answers:
            self._fulfil(route, self._answers[url])
        elif "://" not in self._site.source:
            self._file(route, url)
        elif route.request.method == "GET" and (address := canonical_address(url)) is not None:
            try:
                answer = self._fetching.get(address)
            except NotFetchedError:
                route.abort()
            else:
                self._fulfil(route, answer)
        else:
            route.abort()

    def _fulfil(self, route: Route, answer: Fetched) -> None:
        headers = {"content-type": answer.headers.get("content-type", "text/html")}
        route.fulfill(status=answer.status, headers=headers, body=answer.content)

    def _file(self, route: Route, url: str) -> None:
        root = Path(self._site.source).resolve()
        path = (root / unquote(urlsplit(path_of(url)).path).lstrip("/")).resolve()
        if path.is_file() and path.is_relative_to(root):
            route.fulfill(path=path)
        else:
            route.fulfill(status=404, body="")
