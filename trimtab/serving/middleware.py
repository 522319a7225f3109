"""ASGI middleware: checks host, origin, key, rate and body size of each request before a route sees it, and adds
headers to replies."""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any, Protocol

from starlette.requests import cookie_parser

from trimtab.base.errors import InputError
from trimtab.data.strict_json import has_lone_surrogate, parse_json
from trimtab.serving.access import AllowedHosts, ApiKey, ApiKeys, cookie_name

AsgiMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 1024 * 1024  # of a body
# Lists and objects of a body, and values. They are parsed and checked within the event loop, where a body of nothing
# else would take seconds.
MOST_CONTAINERS, MOST_VALUES = 12_288, 262_144
MOST_NAME = 128  # bytes of a client's request id
ANONYMOUS_BYTES = 4096  # of the body of a request without a key, which can only hand in a key
# Seconds within which an admitted request should be answered: less than clients wait, as the machine may slow down
# meanwhile, and a late answer is wasted work. And the capacity that remains however slow answers are.
PATIENCE_SECONDS, MIN_CAPACITY = 20.0, 8
BODY_SECONDS = 10.0  # time limit for receiving a body
READ_SECONDS = 30.0  # time limit for a client to read a piece of its answer
LINGER_SECONDS, LINGER_BYTES = 2.0, 32 * MOST_BYTES  # of a refused body that are still read and dropped
CONNECTION = "trimtab.connection"  # key of a request's state: its Connection, if there is one
OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready"})  # allowed without a key: they reveal no names
LOGIN_PATHS = frozenset({"/", "/session"})  # where a client hands in its key
HEADERS = (
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
     b"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)  # fmt: skip


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)


class Refused(Exception):  # noqa: N818  (an answer, not a fault)
    """A request that is answered with an HTTP error; `kind` and `code` are the type and code in OpenAI's error
    format."""

    def __init__(
        self, status: int, message: str, *, kind: str = "invalid_request_error", code: str = "", wait: float = 0.0
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.code, self.wait = status, message, kind, code, wait

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON in OpenAI's format."""
        return {"error": {"message": self.message, "type": self.kind, "param": None, "code": self.code or None}}

    @property
    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds, if there is a time to wait."""
        return {"Retry-After": str(max(1, math.ceil(self.wait)))} if self.wait else {}


class Connection(Protocol):
    """Operations on the connection of a request that ASGI does not offer."""

    async def drop(self) -> None:
        """Read and drop the rest of a body; return once the client has gone or LINGER_BYTES have come."""

    def abort(self) -> None:
        """Close the connection at once, whatever is still unsent."""


class _UnreadError(Exception):
    """The client does not read its answer."""


class RequestLimiter:
    """Limits the requests in progress to `most`, and to as many as are answered within PATIENCE_SECONDS. Thread-safe.

    The rate is that of the last PATIENCE_SECONDS in which a request was in progress. `is_ready` is set once the
    self-check has passed.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.inside, self.refused = most, 0, 0
        self.is_ready = self.is_draining = False
        self._clock, self._busy_seconds, self._busy_since = clock, 0.0, 0.0
        self._answered_at: deque[float] = deque()  # of recent answers: the busy seconds at which each was given
        self._lock = threading.RLock()

    @property
    def status(self) -> str:
        """The state as a word: ready, draining, or starting (until the self-check has passed)."""
        return "draining" if self.is_draining else "ready" if self.is_ready else "starting"

    @property
    def busy_seconds(self) -> float:
        """Seconds in which a request was in progress."""
        return self._busy_seconds + (self._clock() - self._busy_since if self.inside else 0.0)

    @property
    def rate(self) -> float:
        """Recent answers a second; 0 before the first."""
        busy_seconds = self.busy_seconds
        while len(self._answered_at) > 1 and self._answered_at[0] <= busy_seconds - PATIENCE_SECONDS:
            self._answered_at.popleft()
        return len(self._answered_at) / max(min(busy_seconds, PATIENCE_SECONDS), 1e-3)

    @property
    def capacity(self) -> int:
        """The number of requests that may be in progress now."""
        rate = self.rate
        return self.most if not rate else min(self.most, max(MIN_CAPACITY, round(rate * PATIENCE_SECONDS)))

    def require_capacity(self) -> None:
        """Raise Refused if there is no capacity, the server is draining, or its self-check has not passed yet."""
        if self.is_draining:
            raise Refused(503, "the server is about to end", kind="server_error", code="draining", wait=1.0)
        if not self.is_ready:
            checking = "the server still checks that it answers as it was measured; /health/ready says when it has"
            raise Refused(503, checking, kind="server_error", code="starting", wait=2.0)
        with self._lock:
            if self.inside >= self.capacity:
                self.refused += 1
                rate = self.rate
                wait = min(60.0, self.inside / 2 / rate) if rate else 1.0
                busy = f"{self.inside} requests wait or run already"
                raise Refused(429, busy, kind="rate_limit_error", code="busy", wait=wait)

    def enter(self) -> None:
        """Count a request that begins; raises as `require_capacity`."""
        with self._lock:
            self.require_capacity()
            if not self.inside:
                self._busy_since = self._clock()
            self.inside += 1

    def leave(self, *, answered: bool) -> None:
        """Count a request that ends; refused and failed requests do not count as answers."""
        with self._lock:
            busy_seconds = self.busy_seconds
            if answered:
                self._answered_at.append(busy_seconds)
            self.inside -= 1
            if not self.inside:
                self._busy_seconds = busy_seconds


class RequestSlot:
    """The slot of an admitted request, free once the request and all work begun for it have ended. Thread-safe."""

    def __init__(self, limiter: RequestLimiter) -> None:
        limiter.enter()
        self._limiter, self._holders, self._answered = limiter, 1, False
        self._lock = threading.Lock()

    def hold(self) -> None:
        """Keep the slot until one more `release`."""
        with self._lock:
            self._holders += 1

    def end(self, *, answered: bool) -> None:
        """Mark the request as ended; refused and failed requests do not count as answers."""
        self._answered = answered
        self.release()

    def release(self) -> None:
        """Undo one `hold`."""
        with self._lock:
            self._holders -= 1
            is_free = not self._holders
        if is_free:
            self._limiter.leave(answered=self._answered)


class StatusRecorder:
    """An ASGI `send` that records the status of the reply, None before the reply has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: AsgiMessage) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


class AccessMiddleware:
    """Checks every request on its way to `app`, and adds security headers to every reply. Raw ASGI, so nothing is
    buffered."""

    def __init__(
        self, app: App, *, hosts: AllowedHosts, keys: ApiKeys, limiter: RequestLimiter, limited: Iterable[str]
    ) -> None:
        self.app, self.hosts, self.keys, self.limiter = app, hosts, keys, limiter
        self._limited = frozenset(limited)  # routes that use a model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to `app`, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # web sockets are not supported
        request_id = _request_id(scope)
        scope["trimtab.id"] = request_id.decode("ascii")
        send = _with_headers(send, request_id)
        try:
            await self._handle(scope, receive, send)
        except _UnreadError:
            if connection := _connection(scope):
                connection.abort()  # closing would wait until the client has read everything

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        body_tracker = _BodyTracker(scope, receive)
        try:
            _require_one_length(scope)
            scope["trimtab.key"] = self._authenticate(scope)
            limited = scope["method"] == "POST" and scope["path"] in self._limited
            if limited:
                self.limiter.require_capacity()  # before the body is read, so that a refusal is cheap
            receive = await self._read_body(scope, body_tracker)
            slot = RequestSlot(self.limiter) if limited else None  # only now, so that slow bodies hold no slot
        except Refused as refused:
            await _refuse(refused, send, closes=body_tracker.is_unread)
            if body_tracker.is_unread:
                await _discard_rest(scope, send)
            return
        if slot is None:
            await self.app(scope, receive, send)
            return
        recorder, scope["trimtab.slot"] = StatusRecorder(send), slot
        try:
            await self.app(scope, receive, recorder)
        finally:
            slot.end(answered=recorder.status == 200)

    def _authenticate(self, scope: Scope) -> ApiKey | None:
        """Return the key of a request; raises Refused without a valid key, and for requests that another site's page
        triggered."""
        headers = dict(scope["headers"])  # of repeated headers the last
        if not self.hosts.allows(_header(headers, b"host")):
            raise Refused(421, "this server does not go by that name; see --name", code="host")
        origin = _header(headers, b"origin")
        if origin and not self.hosts.is_same_origin(origin):
            raise Refused(403, "requests from pages of other sites are refused", kind="permission_error", code="origin")
        path = scope["path"]
        if path in OPEN_PATHS:
            return None
        sent = _sent_key(headers, scope)
        key = self.keys.find(sent)
        if key is None:
            if path in LOGIN_PATHS or path.startswith("/page/"):
                return None
            problem = "this key is not known here" if sent else "a key is needed: Authorization: Bearer KEY"
            raise Refused(401, problem, kind="authentication_error", code="invalid_api_key")
        wait = self.keys.seconds_to_wait(key)
        if wait:
            raise Refused(
                429,
                f"the key {key.name!r} may ask {key.per_minute} times a minute",
                kind="rate_limit_error",
                code="key",
                wait=wait,
            )
        return key

    async def _read_body(self, scope: Scope, receive: Receive) -> Receive:
        """Read the whole body within size and time limits, check that it is strict JSON, and return a `receive` that
        replays it."""
        headers, most = dict(scope["headers"]), MOST_BYTES if scope["trimtab.key"] else ANONYMOUS_BYTES
        if _header(headers, b"content-encoding").strip().lower() not in ("", "identity"):
            raise Refused(415, "a compressed body is not read: send it without Content-Encoding", code="encoding")
        declared = _header(headers, b"content-length")
        if declared.isdigit() and int(declared) > most:
            raise Refused(413, f"the body is longer than {most} bytes", code="too_large")
        try:
            body = await asyncio.wait_for(_body(receive, most), BODY_SECONDS)
        except TimeoutError:
            raise Refused(408, f"the body did not come within {BODY_SECONDS:g} seconds", code="slow") from None
        if body or scope["method"] == "POST":
            if _header(headers, b"content-type").partition(";")[0].strip().lower() != "application/json":
                raise Refused(415, "the body must be JSON: Content-Type: application/json", code="content_type")
            _require_json_object(body)
        return _replay(body, receive)


def _connection(scope: Scope) -> Connection | None:
    found: Connection | None = scope.get("state", {}).get(CONNECTION)
    return found


def _header(headers: dict[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1")


def _sent_key(headers: dict[bytes, bytes], scope: Scope) -> str:
    """Return the key of a request: the bearer token, else the page's cookie."""
    scheme, _, value = _header(headers, b"authorization").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    # Split as browsers do: the standard library drops all cookies after a malformed one, which any program on this host
    # may set.
    return cookie_parser(_header(headers, b"cookie")).get(cookie_name(scope), "")


async def _body(receive: Receive, most: int) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the client left")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise Refused(413, f"the body is longer than {most} bytes", code="too_large")
        if not message.get("more_body", False):
            return b"".join(parts)


def _require_json_object(body: bytes) -> None:
    """Raise Refused for a body that is not one strict JSON value, or holds too many values."""
    _require_few_values(body)
    try:
        text = body.decode()
        value, end = parse_json(text.lstrip("\ufeff \t\r\n"), "body", 1)
        if text.lstrip("\ufeff \t\r\n")[end:].strip():
            raise Refused(400, "more than one JSON value in the body", code="json")
    except UnicodeDecodeError:
        raise Refused(400, "the body is not UTF-8", code="json") from None
    except InputError as error:
        raise Refused(400, f"{error.problem}; {error.remedy}", code="json") from None
    if has_lone_surrogate(value):
        raise Refused(400, "the body holds half a surrogate pair", code="json")


def _require_few_values(body: bytes) -> None:
    """Raise Refused for a body of more than MOST_CONTAINERS lists and objects or MOST_VALUES values, without parsing
    it."""
    for most, marks, what in ((MOST_CONTAINERS, b"[{", "lists and objects"), (MOST_VALUES, b",", "values")):
        if sum(body.count(mark) for mark in marks) > most:  # perhaps within strings
            bare = _STRING.sub(b"", body)
            if sum(bare.count(mark) for mark in marks) > most:
                raise Refused(413, f"the body holds more than {most:,} {what}", code="too_large")


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once, and then passes on what follows."""
    is_replayed = False

    async def replay() -> AsgiMessage:
        nonlocal is_replayed
        if not is_replayed:
            is_replayed = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay


def _request_id(scope: Scope) -> bytes:
    """Return the client's request id if it is short printable ASCII, else a new one."""
    sent: bytes = dict(scope["headers"]).get(b"x-request-id", b"")
    if 0 < len(sent) <= MOST_NAME and all(0x20 < byte < 0x7F for byte in sent):
        return sent
    return f"req-{uuid.uuid4().hex}".encode()


def _with_headers(send: Send, request_id: bytes) -> Send:
    async def sent(message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            known = {name for name, _ in message["headers"]}
            more = [*HEADERS, (b"x-request-id", request_id)]
            message["headers"] = [*message["headers"], *(pair for pair in more if pair[0] not in known)]
        try:
            async with asyncio.timeout(READ_SECONDS):
                await send(message)
        except TimeoutError:
            raise _UnreadError from None

    return sent


class _BodyTracker:
    """An ASGI `receive` that tracks whether the body has been read to its end."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = dict(scope["headers"])
        self._receive = receive
        self.is_unread = b"transfer-encoding" in headers or _header(headers, b"content-length") not in ("", "0")

    async def __call__(self) -> AsgiMessage:
        """Receive a message."""
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.is_unread = False
        return message


def _require_one_length(scope: Scope) -> None:
    """Raise Refused for a body with two lengths, which a proxy may delimit differently (request smuggling)."""
    if {b"content-length", b"transfer-encoding"} <= dict(scope["headers"]).keys():
        raise Refused(400, "Content-Length and Transfer-Encoding together; send one of them", code="length")


async def _refuse(refused: Refused, send: Send, *, closes: bool) -> None:
    """Answer with an error; with `closes` the body was not read, and the connection is still to be closed."""
    body = json.dumps(refused.body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in refused.headers.items()]
    if closes:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": closes})


async def _discard_rest(scope: Scope, send: Send) -> None:
    """Drop the rest of a body up to a limit, then end the reply; closing earlier would take the reply from a client
    that still sends.

    A client that expects "100 Continue" has sent none.
    """
    connection = _connection(scope)
    if connection and not _header(dict(scope["headers"]), b"expect"):
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await connection.drop()
    await send({"type": "http.response.body", "body": b""})
