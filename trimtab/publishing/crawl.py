"""Crawls a site politely, or reads a local folder as it would be served."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from trimtab.base.errors import InputError, MissingError, RemoteError
from trimtab.base.files import locked, refuse_links
from trimtab.base.progress import Progress
from trimtab.base.sanitize import printable
from trimtab.inference.bounded_http import retry_after_seconds
from trimtab.publishing.addresses import canonical_address, host_of, origin_of, path_of
from trimtab.publishing.crawl_store import CrawlStore
from trimtab.publishing.fetch import Fetcher, NotFetchedError, Patience, follow_any
from trimtab.publishing.folder import not_found, read_folder
from trimtab.publishing.page_links import OddPageError, links_of, llms_links
from trimtab.publishing.records import Fetched, Redirected, Site, SitemapEntry, Unfetched
from trimtab.publishing.robots import MOST_BYTES, RobotsAnswer, robots_of
from trimtab.publishing.sitemaps import MOST_BYTES as SITEMAP_BYTES
from trimtab.publishing.sitemaps import read_sitemap

AGENT = "TrimtabSurface"
"""Our product token: what a site names in robots.txt to keep this crawl out or to slow it down."""
PAGE_CAP = 16 * 1024 * 1024  # bytes of one page that are read
MOST_CONTENT = 1024 * 1024 * 1024  # bytes of all pages, which are held in memory
MOST_LINKS = 2_000_000  # of all pages
MOST_SITEMAPS = 200
MOST_UNFETCHED = 5_000  # addresses that are told one by one
AT_ONCE = 16  # requests under way
QUERY_SHARE, NUMBER_SHARE = 20, 2  # addresses of one pattern may be one in so many of the pages allowed
MOST_REPEATS = 3  # times that a segment may stand in one path: /a/b/a/b/a/b/a is what a wrong relative link makes
MOST_WAITING = 600.0  # seconds that a site may have one crawl wait, by Crawl-delay and Retry-After
FORBIDDEN = "robots.txt forbids it"
"""The beginning of `Unfetched.why` for an address that robots.txt forbids to AGENT."""
_DIGITS = re.compile(r"\d+")
_Result = TypeVar("_Result")


def crawler_user_agent() -> str:
    """Return the header `User-Agent` of the crawl."""
    return f"{AGENT}/{version('trimtab')} (audit of a site by the package trimtab; how-to: surface-access)"


def crawl(
    source: str,
    *,
    cache: Path,
    pages: int = 10_000,
    depth: int = 20,
    rate: float = 5.0,
    base: str | None = None,
    private: bool = False,
    waiting: float = MOST_WAITING,
    progress: Progress | None = None,
) -> Site:
    """Fetch the pages of one host, or read those of a folder as it would be served.

    `source` is an http or https address, or a folder; `base` the address below which the folder's pages go. At most
    `pages` pages, `depth` links from the first page on, at `rate` requests a second (infinite: as fast as they
    come). Answers are kept in `cache`: a crawl that was stopped goes on there, a later one asks only for what has
    changed. `private`: the host may have an address of a private network; one whose name says so (`localhost`,
    `10.0.0.1`, a name without a dot) may in any case. `waiting`: the seconds that the site may have the crawl wait, by
    Crawl-delay and Retry-After, all requests together; what would take longer is left out.

    Raises InputError for a source that is neither, MissingError for a folder that is not there, and RemoteError
    where the first page cannot be fetched.
    """
    if pages < 1 or depth < 0 or not rate > 0:
        problem = f"pages {pages}, depth {depth} and rate {rate:g} are no limits of a crawl"
        raise InputError(problem, "give pages of 1 or more, a depth of 0 or more, and a rate above 0", field="crawl")
    if "://" not in source:
        return _folder(source, pages, base)
    start = canonical_address(source)
    if start is None:
        raise InputError(
            f"{printable(source, 200)} is no http or https address", "give one, such as https://example.com/"
        )
    host = host_of(start)
    folder = cache / f"{re.sub(r'[^a-z0-9.-]', '-', host)}-{hashlib.sha256(start.encode()).hexdigest()[:8]}"
    with locked(folder):
        refuse_links(folder)
        with CrawlStore(folder / "answers.sqlite") as store:
            crawler = _Crawler(
                store,
                pages=pages,
                depth=depth,
                rate=rate,
                private=private,
                patience=Patience(waiting),
                progress=progress or Progress(),
            )
            try:
                return run_to_end(crawler.site(start, source))
            except sqlite3.DatabaseError as error:
                remedy = "take it away; the crawl then begins anew"
                raise InputError(f"is damaged ({error})", remedy, file=store.path) from None


def _folder(source: str, pages: int, base: str | None) -> Site:
    folder = Path(source)
    if not folder.exists():
        raise MissingError(f"{printable(source)} is no folder; give one, or an address that begins with https://")
    if not folder.is_dir():
        raise InputError("is no folder", "give the folder that holds it", file=folder)
    return read_folder(folder, pages=pages, page_cap=PAGE_CAP, base=base)


def run_to_end(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine to its end: in another thread if this one has an event loop already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


class _Crawler:
    """One crawl, breadth first. It takes answers in the order of the requests, so that two crawls of a site give the
    same result."""

    def __init__(
        self,
        store: CrawlStore,
        *,
        pages: int,
        depth: int,
        rate: float,
        private: bool,
        patience: Patience,
        progress: Progress,
    ) -> None:
        self._store, self._most, self._depth, self._progress = store, pages, depth, progress
        self._rate, self._private, self._patience = rate, private, patience
        self._fetcher: Fetcher  # made where the event loop runs
        self._robots: dict[str, tuple[Fetched | None, RobotsAnswer]] = {}
        self._queue: deque[tuple[str, int]] = deque()
        self._seen: set[str] = set()
        self._patterns: Counter[str] = Counter()
        self._pages: dict[str, Fetched] = {}
        self._links: dict[str, tuple[str, ...]] = {}
        self._redirects: dict[str, Redirected] = {}
        self._unfetched: dict[str, str] = {}
        self._left_out: Counter[str] = Counter()
        self._bytes = self._linked = 0
        self._origin = ""

    async def site(self, start: str, source: str) -> Site:
        began, host = datetime.now(UTC), host_of(start)
        self._fetcher = Fetcher(
            crawler_user_agent(),
            rate=self._rate,
            host=host,
            private=self._private,
            cap=PAGE_CAP,
            patience=self._patience,
        )
        async with self._fetcher:
            self._origin = origin_of(start)
            await self._robots_at(self._origin)
            first = await self._first(start)
            sitemaps, entries = await self._sitemaps()
            for entry in entries.values():
                self._add(entry.url, 1, listed=True)
            if first is not None:
                await self._take(first, 0)
            llms = await self._llms()
            await self._follow()
        self._store.finish()
        return Site(
            origin=self._origin,
            source=source,
            when=began,
            robots=self._robots[self._origin][0],
            sitemaps=sitemaps,
            entries=tuple(entries.values()),
            pages=tuple(self._pages.values()),
            unfetched=self._all_unfetched(),
            links=self._links,
            redirects=self._redirects,
            llms=llms,
        )

    async def _llms(self) -> Fetched | None:
        """Return llms.txt, None where there is none, and queue the pages that it names."""
        address = f"{self._origin}/llms.txt"
        if self._forbidden(address):
            return None
        try:
            answer = await self._kept(address)
        except NotFetchedError:
            return None
        if answer.status != 200:
            return None
        for named in llms_links(answer):
            self._add(named, 1)
        return answer

    async def _first(self, start: str) -> Fetched | None:
        """Fetch the first page; if it lies on the `www.` twin, the crawl goes on there. None if robots.txt forbids
        it."""
        if self._robots[self._origin][0] is None:
            raise _unreachable(f"{self._origin}/robots.txt", self._unfetched[f"{self._origin}/robots.txt"])
        refusal = self._forbidden(start)
        self._seen.add(start)
        if refusal:
            self._unfetched[start] = refusal
            return None
        try:
            first = await self._answer(start)
        except NotFetchedError as error:
            raise _unreachable(start, str(error)) from None
        self._origin = origin_of(first.url)
        await self._robots_at(self._origin)  # not read yet if the answer was kept by a crawl that was stopped
        self._seen.add(first.url)
        return first

    async def _follow(self) -> None:
        """Fetch what is in the queue until nothing is left, or as much as is allowed was fetched."""
        under_way: deque[tuple[str, int, asyncio.Task[Fetched]]] = deque()
        began, first = time.monotonic(), len(self._pages)
        try:
            while self._queue or under_way:
                while self._queue and len(under_way) < AT_ONCE and len(self._pages) + len(under_way) < self._most:
                    address, depth = self._queue.popleft()
                    refusal = self._forbidden(address)
                    if refusal:
                        self._skip(address, refusal)
                    elif address not in self._pages:
                        under_way.append((address, depth, asyncio.create_task(self._answer(address))))
                if not under_way:
                    break
                address, depth, task = under_way[0]
                try:
                    await self._take(await task, depth)
                except NotFetchedError as error:
                    self._skip(address, str(error))
                under_way.popleft()
                if self._bytes > MOST_CONTENT:
                    self._skip_rest(
                        f"the pages fetched so far have {MOST_CONTENT // 1024**3} GB, and more are not kept"
                    )
                    break
                self._tell(began, len(self._pages) - first, len(under_way))
        finally:
            for _, _, task in under_way:
                task.cancel()
            for _, _, task in under_way:
                with suppress(asyncio.CancelledError, NotFetchedError):
                    await task
        self._skip_rest(f"beyond the limit of {self._most:,} pages")

    def _tell(self, began: float, done: int, under_way: int) -> None:
        step, rest = len(self._pages), len(self._queue) + under_way
        of = max(step, min(self._most, step + rest))
        left = max((time.monotonic() - began) / max(done, 1), self._fetcher.interval) * (of - step)
        note = f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"
        is_known = done >= 5 or self._fetcher.interval > 1 / self._rate
        self._progress.emit("crawl", step=step, of=of, note=note if is_known else "")

    async def _take(self, answer: Fetched, depth: int) -> None:
        """Count an answer as a page, and queue the links that it has."""
        if answer.url != answer.asked:
            self._redirects[answer.asked] = Redirected(path=(*answer.redirects, answer.url), statuses=answer.statuses)
            self._seen.add(answer.url)
        if answer.url in self._pages:
            return
        self._pages[answer.url] = answer
        self._bytes += len(answer.content)
        if answer.status >= 400 or origin_of(answer.url) != self._origin:
            return
        try:  # in a thread: the answers that are under way have a limit of time
            links, named = await asyncio.to_thread(links_of, answer)
        except OddPageError as error:
            self._skip(answer.url, f"its links are not read: it {error}")
            return
        links = links[: max(0, MOST_LINKS - self._linked)]
        self._linked += len(links)
        self._links[answer.url] = links
        for address in (*links, *named):
            if address not in self._seen:
                self._add(address, depth + 1)

    def _add(self, address: str, depth: int, listed: bool = False) -> None:
        """Queue an address of the host that was not seen before, unless it looks like one of an endless number."""
        if address in self._seen or origin_of(address) != self._origin:
            return
        self._seen.add(address)
        if depth > self._depth:
            self._skip(address, f"more than {self._depth} links away from the first page")
            return
        trap = None if listed else self._trap(address)
        if trap:
            self._skip(address, trap)
        elif len(self._queue) >= 10 * self._most:
            self._left_out["beyond ten times as many addresses as pages that are allowed"] += 1
        else:
            self._queue.append((address, depth))

    def _trap(self, address: str) -> str | None:
        """Return why an address looks like one of an endless number (a calendar, a filter, a path that grows), else
        None."""
        path, _, query = path_of(address).partition("?")
        segments = [segment for segment in path.split("/") if segment]
        if segments and max(Counter(segments).values()) > MOST_REPEATS:
            return f"one segment stands more than {MOST_REPEATS} times in its path"
        shape = _DIGITS.sub("#", path)
        if query:
            keys = sorted({part.partition("=")[0] for part in query.split("&")})
            shape, share = f"{shape}?{'&'.join(keys)}", QUERY_SHARE
        elif "#" in shape:
            share = NUMBER_SHARE
        else:
            return None
        most = max(20, self._most // share)
        self._patterns[shape] += 1
        if self._patterns[shape] <= most:
            return None
        return (
            f"more than {most:,} addresses look like {printable(shape, 120)}; a sitemap that names them has them read"
        )

    def _skip(self, address: str, why: str) -> None:
        if len(self._unfetched) < MOST_UNFETCHED:
            self._unfetched.setdefault(address, why)
        else:
            self._left_out[why] += 1

    def _skip_rest(self, why: str) -> None:
        while self._queue:
            address, _ = self._queue.popleft()
            self._skip(address, self._forbidden(address) or why)

    def _all_unfetched(self) -> tuple[Unfetched, ...]:
        """Return every address that was not fetched, up to MOST_UNFETCHED of them; the others as one number for each
        reason."""
        more = (f"{count:,} more: {why}" for why, count in self._left_out.most_common(50))
        return (
            *(Unfetched(url=address, why=why) for address, why in self._unfetched.items()),
            *(Unfetched(url=self._origin, why=why) for why in more),
        )

    def _forbidden(self, address: str) -> str | None:
        """Return why robots.txt forbids this crawl an address, else None; so does one that was not read yet."""
        robots = self._robots.get(origin_of(address))
        if robots is None:
            return "its robots.txt was not read"
        decision = robots[1].decide(AGENT, address)
        if decision.allowed:
            return None
        if decision.rule is None:
            return f"{FORBIDDEN}: {decision.why}"
        return f"{FORBIDDEN}: line {decision.rule.line}, {printable(decision.rule.written, 120)}"

    async def _robots_at(self, origin: str) -> None:
        """Read the robots.txt of an origin, once, and obey its Crawl-delay."""
        if origin in self._robots:
            return
        address = f"{origin}/robots.txt"
        answer: Fetched | None
        try:
            answer = await self._kept(address, whole=True, elsewhere=True, redirects=5, cap=MOST_BYTES + 1)
        except NotFetchedError as error:
            if error.by_redirect:  # then it is unavailable, as with 404 (RFC 9309, section 2.3.1.2)
                answer = not_found(address)
            else:
                answer = None
                self._unfetched[address] = str(error)
        robots = robots_of(answer)
        self._robots[origin] = answer, robots
        self._fetcher.slow_to(robots.rules.crawl_delay(AGENT) or 0.0)

    def _unread_sitemap(self, address: str, read: int) -> str | None:
        """Return why a sitemap is not read after so many others, else None."""
        if origin_of(address) != self._origin:
            return "a sitemap that lies on another host"
        if why := self._forbidden(address):
            return why
        if read >= MOST_SITEMAPS or self._bytes > MOST_CONTENT // 4:
            return f"beyond the limit of {MOST_SITEMAPS} sitemaps, or of {MOST_CONTENT // 4 // 1024**2} MB of them"
        return None

    async def _sitemaps(self) -> tuple[tuple[Fetched, ...], dict[str, SitemapEntry]]:
        """Read the sitemaps that robots.txt names, else /sitemap.xml, and those that they name; return them and
        their pages."""
        named = [
            canonical_address(written, self._origin + "/") for written in self._robots[self._origin][1].rules.sitemaps
        ]
        queue = deque(dict.fromkeys(one for one in named if one)) or deque([f"{self._origin}/sitemap.xml"])
        seen, found = set(queue), list[Fetched]()
        entries: dict[str, SitemapEntry] = {}
        while queue:
            address = queue.popleft()
            why = self._unread_sitemap(address, len(found))
            if why:
                self._skip(address, why)
                continue
            try:
                answer = await self._kept(address, whole=True, cap=SITEMAP_BYTES)
            except NotFetchedError as error:
                self._skip(address, str(error))
                continue
            found.append(answer)
            self._bytes += len(answer.content)
            if answer.status != 200:
                continue
            sitemap = read_sitemap(answer)
            if sitemap.problem:
                self._skip(address, f"a sitemap that {sitemap.problem}")
            for entry in sitemap.entries:
                if len(entries) < 10 * self._most:
                    entries.setdefault(entry.url, entry)
            for other in sitemap.sitemaps:
                if other not in seen and len(seen) < 10 * MOST_SITEMAPS:
                    seen.add(other)
                    queue.append(other)
        return tuple(found), entries

    async def _answer(self, address: str) -> Fetched:
        """Return a page's answer; a server that asks to wait is asked again, twice at most."""
        for attempt in range(3):
            answer = await self._kept(address, again=attempt > 0)
            wait = retry_after_seconds(answer.headers.get("retry-after"))
            if answer.status not in (429, 503) or wait is None:
                break
            if attempt < 2:
                if not self._fetcher.pause(wait):
                    break
                self._progress.emit("crawl", note=f"the site asks to wait for {wait:.0f} s")
                await asyncio.sleep(wait)
        return answer

    async def _kept(
        self,
        address: str,
        *,
        whole: bool = False,
        elsewhere: bool = False,
        redirects: int = 10,
        again: bool = False,
        cap: int | None = None,
    ) -> Fetched:
        """Return the answer that this crawl got before it was stopped, else a new one, by a conditional request if
        one is kept."""
        fresh = None if again else self._store.fresh(address)
        if fresh is not None:
            return fresh
        earlier = self._store.earlier(address)
        conditions = {}
        if earlier is not None and earlier.status == 200 and earlier.url == address:
            tag, changed = earlier.headers.get("etag"), earlier.headers.get("last-modified")
            conditions = {
                name: value for name, value in (("If-None-Match", tag), ("If-Modified-Since", changed)) if value
            }
            conditions = {name: value for name, value in conditions.items() if value.isascii() and value.isprintable()}
        answer = await self._fetcher.get(
            address,
            headers=conditions,
            may_follow=follow_any if elsewhere else self._may_follow,
            whole=whole,
            elsewhere=elsewhere,
            redirects=redirects,
            cap=cap,
        )
        return self._store.keep(answer)

    async def _may_follow(self, address: str) -> str | None:
        """Return why a redirect must not be followed, else None; the `www.` twin has a robots.txt of its own."""
        await self._robots_at(origin_of(address))
        return self._forbidden(address)


def _unreachable(address: str, why: str) -> RemoteError:
    return RemoteError(f"{printable(address, 200)} {why}; check the address, and that it can be reached from here")
