"""Requests to sites that nobody has vetted: bounded in bytes, time and redirects, and never to an address of the own
network by accident."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
import ssl
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import urlsplit

import httpx

from trimtab.base.errors import TrimtabError
from trimtab.base.sanitize import one_line, printable
from trimtab.inference.bounded_http import ACCEPTED_ENCODINGS, content_decoder
from trimtab.publishing.addresses import canonical_address, host_of, origin_of, path_of, same_site
from trimtab.publishing.page_links import PAGE_TYPES
from trimtab.publishing.records import Fetched

SECONDS = 30.0  # that a request may take from the search for the host's address to the last byte
STALL = 10.0  # seconds without a byte
MOST_REDIRECTS = 10
CONNECTIONS = 8
_PRIVATE_NAMES = ("localhost", ".localhost", ".local", ".internal", ".test", ".lan", ".home.arpa", ".intranet", ".corp")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_REDIRECTS = (301, 302, 303, 307, 308)
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class NotFetchedError(TrimtabError, ConnectionError):
    """Raised for a request without a usable answer; the text says why. `by_redirect`: the redirects led nowhere."""

    def __init__(self, why: str, *, by_redirect: bool = False) -> None:
        self.by_redirect = by_redirect
        super().__init__(why)


def is_public(address: _Address) -> bool:
    """True for an address of the internet: not loopback, private, link-local, multicast, or an IPv6 form of such a
    one."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def names_private(host: str) -> bool:
    """True for a host that says itself that it is not of the internet: a private address, `localhost`, a name
    without a dot."""
    try:
        return not is_public(ipaddress.ip_address(host))
    except ValueError:
        return "." not in host or host.endswith(_PRIVATE_NAMES)


class Patience:
    """The seconds that a site may have us wait, by Crawl-delay and Retry-After, all requests together."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.left = seconds, seconds

    def take(self, seconds: float) -> bool:
        """Count a wait and return True; False if it would be longer than what is left."""
        if seconds > self.left:
            return False
        self.left -= seconds
        return True


async def follow_any(_: str) -> None:
    """Allow every redirect."""


class Fetcher:
    """An asynchronous context manager that fetches addresses of a site under the name `agent`, at `rate` requests a
    second.

    It sends no cookies, uses no proxies and reads nothing of the environment. It looks up the addresses of a host
    once, checks them, and connects by number, so that the name server cannot change its answer in between. Private
    addresses are refused, except those of `host`, where `private` is set or the name of the host says that it is
    private. `cap`: the most bytes that are read of an answer. `patience`: how long the site may have it wait; a request
    that would wait longer is not sent.
    """

    def __init__(
        self, agent: str, *, rate: float, host: str, private: bool, cap: int, patience: Patience | None = None
    ) -> None:
        self._interval = self._own_interval = 1 / rate  # seconds between two requests
        self._patience = patience or Patience(math.inf)
        self._agent, self._cap = agent, cap
        self._private_host = host if private or names_private(host) else None
        self._addresses: dict[str, asyncio.Future[tuple[str, ...]]] = {}
        self._transports: dict[str, httpx.AsyncHTTPTransport] = {}
        self._seconds: dict[str, float] = {}  # that the last answer at an address took
        self._turn, self._next = asyncio.Lock(), 0.0

    async def __aenter__(self) -> Fetcher:
        return self

    async def __aexit__(self, *_: object) -> None:
        for transport in self._transports.values():
            await transport.aclose()

    async def get(
        self,
        address: str,
        *,
        headers: Mapping[str, str] | None = None,
        may_follow: Callable[[str], Awaitable[str | None]] = follow_any,
        whole: bool = False,
        elsewhere: bool = False,
        redirects: int = MOST_REDIRECTS,
        cap: int | None = None,
    ) -> Fetched:
        """Return the answer at a canonical address, after redirects on the same host or its `www.` twin.

        `may_follow` returns why a redirect to an address must not be followed, or None. `whole`: read the content
        whatever its media type. `elsewhere`: follow redirects to other hosts. `cap` replaces that of the fetcher.
        Raises NotFetchedError with the reason.
        """
        path: list[str] = []
        statuses: list[int] = []
        at = address
        while True:
            status, answer_headers, content, cut = await self._once(at, headers or {}, whole, cap or self._cap)
            target = answer_headers.get("location") if status in _REDIRECTS else None
            if target is None:
                break
            path.append(at)
            statuses.append(status)
            at = self._next_address(at, target, path, redirects, elsewhere)
            refusal = await may_follow(at)
            if refusal:
                raise NotFetchedError(f"redirects to {printable(at, 200)}: {refusal}")
        return Fetched(
            url=at,
            asked=address,
            status=status,
            headers=answer_headers,
            content=content,
            when=datetime.now(UTC),
            redirects=tuple(path[1:]),
            statuses=tuple(statuses),
            cut=cut,
            seconds=self._seconds.pop(at, 0.0),
        )

    def _next_address(self, at: str, target: str, path: list[str], most: int, elsewhere: bool) -> str:
        goal = canonical_address(target, at)
        if goal is None:
            raise NotFetchedError(
                f"redirects to {printable(target, 120)}, which is no http or https address", by_redirect=True
            )
        if goal in path:
            raise NotFetchedError("redirects in a circle", by_redirect=True)
        if len(path) > most:
            raise NotFetchedError(f"redirects more than {most} times", by_redirect=True)
        here, there = urlsplit(at), urlsplit(goal)
        if not elsewhere and not (same_site(here.hostname or "", there.hostname or "") and here.port == there.port):
            raise NotFetchedError(
                f"redirects to another host or port, {printable(origin_of(goal), 120)}", by_redirect=True
            )
        return goal

    async def _once(
        self, address: str, headers: Mapping[str, str], whole: bool, cap: int
    ) -> tuple[int, dict[str, str], bytes, bool]:
        """Send one request; return status, headers, content, and whether there was more. A broken connection is
        tried once more."""
        for last in (False, True):
            await self._wait()
            began = time.monotonic()
            try:
                async with asyncio.timeout(SECONDS):
                    answer = await self._asked(address, headers, whole, cap)
                    self._seconds[address] = time.monotonic() - began
                    return answer
            except TimeoutError:
                raise NotFetchedError(f"no whole answer within {SECONDS:g} s") from None
            except httpx.TimeoutException:
                raise NotFetchedError(f"no byte for {STALL:g} s") from None
            except ssl.SSLError as error:
                raise NotFetchedError(f"has no valid certificate ({one_line(error)})") from None
            except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
                if isinstance(error.__cause__, ssl.SSLError) or "CERTIFICATE" in str(error):
                    raise NotFetchedError(f"has no valid certificate ({one_line(error)})") from None
                if last or not isinstance(error, httpx.TransportError):
                    raise NotFetchedError(f"no answer ({one_line(error)})") from None
        raise NotFetchedError("no answer")

    async def _wait(self) -> None:
        """Wait for the turn of a request."""
        if not self._patience.take(self._interval - self._own_interval):
            asked = f"the site asks for {self._interval:g} s between requests (Crawl-delay)"
            raise NotFetchedError(f"{asked}; it is waited for {self._patience.seconds:,.0f} s in all")
        if self._interval <= 0 and self._next <= time.monotonic():
            return
        async with self._turn:
            now = time.monotonic()
            wait = self._next - now
            self._next = max(now, self._next) + self._interval
        if wait > 0:
            await asyncio.sleep(wait)

    def slow_to(self, interval: float) -> None:
        """Leave at least this many seconds between two requests."""
        self._interval = max(self._interval, interval)

    def pause(self, seconds: float) -> bool:
        """Let no request begin for this many seconds and return True; False if that would be too long."""
        if not self._patience.take(seconds):
            return False
        self._next = max(self._next, time.monotonic() + seconds)
        return True

    @property
    def interval(self) -> float:
        """Return the seconds between two requests."""
        return self._interval

    async def _asked(
        self, address: str, headers: Mapping[str, str], whole: bool, cap: int
    ) -> tuple[int, dict[str, str], bytes, bool]:
        host = host_of(address)
        addresses = await self._lookup(host)
        for number, one in enumerate(addresses, 1):
            try:
                response = await self._transport(origin_of(address)).handle_async_request(
                    self._request(address, host, one, headers)
                )
                break
            except httpx.ConnectError as error:
                if number == len(addresses) or isinstance(error.__cause__, ssl.SSLError):
                    raise
        try:
            found = {name.lower(): value for name, value in response.headers.items() if name.lower() != "set-cookie"}
            kind = found.get("content-type", "").partition(";")[0].strip().lower()
            if response.status_code in _REDIRECTS and "location" in found:
                return response.status_code, found, b"", False
            if not whole and kind and kind not in PAGE_TYPES:
                return response.status_code, found, b"", True
            return response.status_code, found, *(await self._content(response, cap))
        finally:
            await response.aclose()

    def _request(self, address: str, host: str, number: str, headers: Mapping[str, str]) -> httpx.Request:
        """Build a request that connects to an IP address and names the host, in TLS too."""
        parts = urlsplit(address)
        place = f"[{number}]" if ":" in number else number
        port = f":{parts.port}" if parts.port else ""
        url = httpx.URL(f"{parts.scheme}://{place}{port}/").copy_with(raw_path=path_of(address).encode("ascii"))
        fields = {
            "Host": parts.netloc,
            "User-Agent": self._agent,
            "Accept": "text/html,application/xhtml+xml,application/pdf;q=0.9,*/*;q=0.5",
            "Accept-Encoding": ACCEPTED_ENCODINGS,
            **headers,
        }
        limits = {"connect": STALL, "read": STALL, "write": STALL, "pool": SECONDS}
        return httpx.Request("GET", url, headers=fields, extensions={"timeout": limits, "sni_hostname": host})

    async def _content(self, response: httpx.Response, cap: int) -> tuple[bytes, bool]:
        """Return at most `cap` bytes of the unpacked content, and whether there was more; gzip is unpacked piece by
        piece."""
        unpacked = content_decoder(response)
        if unpacked is None:
            encoding = printable(response.headers["Content-Encoding"].strip().lower(), 40)
            raise NotFetchedError(f"is packed as {encoding}, which was not asked for")
        content = bytearray()
        async for packed in response.aiter_raw():
            try:
                for piece in unpacked(packed):
                    content += piece
                    if len(content) > cap:
                        return bytes(content[:cap]), True
            except zlib.error:
                raise NotFetchedError("is not the gzip that it says it is") from None
        return bytes(content), False

    def _transport(self, origin: str) -> httpx.AsyncHTTPTransport:
        """Return the transport of an origin: a connection serves only the host that its certificate was checked for."""
        if origin not in self._transports:
            limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
            self._transports[origin] = httpx.AsyncHTTPTransport(
                verify=_trusted_authorities(), trust_env=False, limits=limits
            )
        return self._transports[origin]

    async def _lookup(self, host: str) -> tuple[str, ...]:
        """Return the addresses of a host that may be connected to; each host is looked up once."""
        if host not in self._addresses:
            self._addresses[host] = asyncio.ensure_future(self._checked(host))
        try:
            return await asyncio.shield(self._addresses[host])
        except OSError as error:
            if isinstance(error, NotFetchedError):
                raise
            raise NotFetchedError(f"the host {printable(host, 80)} has no address ({one_line(error)})") from None

    async def _checked(self, host: str) -> tuple[str, ...]:
        loop = asyncio.get_running_loop()
        infos = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        numbers = list(dict.fromkeys(str(each[4][0]) for each in infos))
        if host == self._private_host:
            return tuple(numbers)
        public = tuple(one for one in numbers if is_public(ipaddress.ip_address(one.partition("%")[0])))
        if not public:
            raise NotFetchedError(
                f"the host {printable(host, 80)} leads to {numbers[0]}, an address of a private network"
            )
        return public


@lru_cache(maxsize=1)  # reading them takes longer than many a request
def _trusted_authorities() -> ssl.SSLContext:
    """Return a TLS context with the authorities of the system and of certifi."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
