"""The HTTP server: uvicorn on a bound socket, with time limits for slow clients, and a shutdown that finishes running
answers."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from trimtab.base.errors import InputError
from trimtab.serving import middleware as middleware
from trimtab.serving.middleware import CONNECTION, App, Receive, Refused, RequestLimiter, Scope, Send

HEAD_SECONDS = 10.0  # time limit for receiving the headers of a request
CLOSE_SECONDS = 5.0  # time limit for a client to read what was sent before a close
WATCH_SECONDS = 0.5  # between two checks of a connection
MOST_HEAD, MOST_HEADERS = 32 * 1024, 128  # bytes of the first lines of a request, and headers in them
# Of a body: chunks (or packets) that may have any size, the mean bytes that further ones must have, and how many are
# parsed before the event loop serves others.
FREE_PIECES, LEAST_PIECE, SLICE = 1024, 64, 64
DRAIN_SECONDS = 30  # for running answers once the server has got a signal to end
LOADING = Refused(
    503,
    "the server loads its models; /health/ready says when it answers",
    kind="server_error",
    code="starting",
    wait=2.0,
)
LARGE_HEAD = Refused(
    431, f"the request has more than {MOST_HEADERS} headers, or {MOST_HEAD} bytes of them", code="headers"
)
# What is said of health before there is a model: the process lives, and takes no question yet.
_LOADING_HEALTH: dict[str, tuple[int, dict[str, Any]]] = {
    "/health/live": (200, {"status": "alive"}),
    "/health": (503, {"status": "starting", "equal_answers": None}),
    "/health/ready": (503, {"status": "starting", "equal_answers": None}),
}


@contextmanager
def bind_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Context manager: the listening socket, bound before models are loaded, so that a port in use is reported at
    once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:  # UnicodeError: an impossible host name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen on {host}:{port} ({reason})", "choose another --port or --host") from None
    with bound:
        yield bound


def require_key_pair(certificate: Path, key: Path) -> None:
    """Raise InputError, naming file and option, for a certificate and a key that do not belong together.

    This is checked before models are loaded: uvicorn would notice it last, and name no file.
    """
    for file, option in ((certificate, "--certificate"), (key, "--private-key")):
        try:
            file.read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{option} cannot be read ({reason})", "give a PEM file", file=file) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(certificate)
    except ssl.SSLError:
        raise InputError("--certificate holds no certificate in PEM", "give one", file=certificate) from None
    try:
        context.load_cert_chain(certificate, key, password=b"")  # otherwise OpenSSL asks for one at the terminal
    except ssl.SSLError as error:
        is_unreadable = error.reason != "KEY_VALUES_MISMATCH"
        problem = (
            "holds no private key in PEM that opens without a password"
            if is_unreadable
            else f"is not that of {certificate}"
        )
        raise InputError(f"--private-key {problem}", "give the certificate's own", file=key) from None


class _BoundedConnection(h11.Connection):
    """An h11 connection that limits headers and tiny body chunks; h11 takes as long for a chunk of one byte as for one
    of 64 kB.

    Raises RemoteProtocolError for too many small chunks, and with a hint of status 431 for too many headers: h11 itself
    bounds headers only where they come in several pieces, so it gets at most `most_head` bytes and one at once. After
    SLICE chunks it reports that data is needed, and `has_more`, until `next_slice`: the event loop then serves others
    first.
    """

    def __init__(self, most_head: int) -> None:
        super().__init__(h11.SERVER, most_head)
        self.has_large_head = False  # True: a request was refused for its headers
        self._most_head, self._unparsed = most_head, bytearray()
        self._pieces = self._bytes = self._slice = 0

    def receive_data(self, data: bytes) -> None:
        """Take bytes of the client."""
        self._unparsed += data

    @property
    def has_more(self) -> bool:
        """True if a slice ended before the received data did."""
        return self._slice >= SLICE

    def next_slice(self) -> None:
        """Begin another slice."""
        self._slice = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return h11's next event, within these limits."""
        if self.has_more:
            return h11.NEED_DATA
        is_head = self.their_state is h11.IDLE
        try:
            event = self._parse_event()
        except h11.RemoteProtocolError as error:
            self.has_large_head = is_head and error.error_status_hint == LARGE_HEAD.status
            raise
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._slice, self._pieces, self._bytes = self._slice + 1, self._pieces + 1, self._bytes + len(event.data)
            if self._pieces > FREE_PIECES + self._bytes // LEAST_PIECE:
                raise h11.RemoteProtocolError("the body comes in too small pieces")
        return event

    def _parse_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return h11's next event from as much of the received data as it takes."""
        event = super().next_event()
        while event is h11.NEED_DATA and self._unparsed:
            size = self._most_head + 1 if self.their_state is h11.IDLE else len(self._unparsed)
            super().receive_data(bytes(self._unparsed[:size]))
            del self._unparsed[:size]
            event = super().next_event()
        if isinstance(event, h11.Request) and len(event.headers) > MOST_HEADERS:
            raise h11.RemoteProtocolError(LARGE_HEAD.message, LARGE_HEAD.status)
        return event


class _HttpProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with a watchdog; uvicorn itself has no limit for slow headers and unread replies.

    The headers of a request have HEAD_SECONDS; after a close the client has CLOSE_SECONDS to read what was sent.
    """

    conn: _BoundedConnection

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _BoundedConnection(self.config.h11_max_incomplete_event_size or MOST_HEAD)
        self.app_state = {**self.app_state, CONNECTION: self}
        self._head_since: float | None = None
        self._closing_since: float | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._is_resuming = False
        self._dropped_bytes: int | None = None  # bytes dropped of a body that is no longer read
        self._drop_done = asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Without it a reply in two parts waits for the client's delayed acknowledgement, 40 ms. asyncio sets it only on
        # sockets that name their protocol, which those of `socket.create_server` do not.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head_since = self.loop.time()
        self._check_connection()

    def data_received(self, data: bytes) -> None:
        if self._dropped_bytes is not None:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > middleware.LINGER_BYTES:
                self._drop_done.set()
            return
        super().data_received(data)
        if self._is_answering:
            self._head_since = None
        elif self._head_since is None:
            self._head_since = self.loop.time()

    def handle_events(self) -> None:
        self.conn.next_slice()
        super().handle_events()
        if self.conn.has_more and not self._is_resuming:
            self._is_resuming = True
            self.loop.call_soon(self._resume)

    def send_400_response(self, msg: str) -> None:
        """Answer malformed HTTP, unless a reply has begun; a running application sees the client as disconnected."""
        if self._is_answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
        elif self.conn.has_large_head:
            self._send_refusal(LARGE_HEAD)
        else:
            super().send_400_response(msg)

    def _send_refusal(self, refused: Refused) -> None:
        """Answer with an error, and close the connection."""
        body = json.dumps(refused.body).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        events = h11.Response(status_code=refused.status, headers=headers), h11.Data(data=body), h11.EndOfMessage()
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._drop_done.set()
        if self._watchdog:
            self._watchdog.cancel()

    async def drop(self) -> None:
        """Implement `middleware.Connection.drop`."""
        self._dropped_bytes = 0
        self.flow.resume_reading()
        await self._drop_done.wait()

    def abort(self) -> None:
        """Implement `middleware.Connection.abort`."""
        if self._is_answering:
            self.cycle.disconnected = True
        self.transport.abort()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _resume(self) -> None:
        self._is_resuming = False
        if self._dropped_bytes is None and not self.transport.is_closing():
            self.handle_events()

    def _check_connection(self) -> None:
        """Check the time limits now, and again after WATCH_SECONDS."""
        now = self.loop.time()
        if self.transport.is_closing():
            self._closing_since = self._closing_since or now
            if now - self._closing_since >= CLOSE_SECONDS:
                self.transport.abort()
        elif self._head_since is not None and now - self._head_since >= HEAD_SECONDS and not self._is_answering:
            self.transport.close()
        self._watchdog = self.loop.call_later(WATCH_SECONDS, self._check_connection)


class _Server(uvicorn.Server):
    """uvicorn with a graceful end: at a signal it refuses new questions and finishes the running ones."""

    def __init__(self, config: uvicorn.Config, limiter: RequestLimiter) -> None:
        super().__init__(config)
        self._limiter = limiter
        self._drained: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ARG002
        """Drain at the first signal; end at once at the second, which is safe as no file is left half-written."""
        if self._limiter.is_draining:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self._limiter.is_draining = True
        self._drained = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._limiter.inside and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        self.should_exit = True


async def _loading_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as a server whose models are not there yet: health by its own routes, 503 to everything else."""
    if scope["type"] != "http":
        return
    status, body = _LOADING_HEALTH.get(scope["path"], (LOADING.status, LOADING.body))
    retry = {} if status == 200 else LOADING.headers
    await JSONResponse(body, status, {**retry, "Connection": "close"})(scope, receive, send)


@contextmanager
def refuse_while_loading(
    listening_socket: socket.socket, certificate: tuple[Path, Path] | None
) -> Iterator[Callable[[], None]]:
    """Context manager: a thread answers 503 on a socket that listens already, until the yielded function is called.

    Without it the kernel would accept connections that nobody answers, and a proxy would wait for them.
    """
    config = _config(_loading_app, certificate, 1)
    config.load()
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve(sockets=[listening_socket.dup()])), name="loading", daemon=True
    )
    thread.start()

    def end() -> None:
        server.should_exit = True
        thread.join(CLOSE_SECONDS)

    try:
        yield end
    finally:
        end()


def _config(app: App, certificate: tuple[Path, Path] | None, last_seconds: int) -> uvicorn.Config:
    """Return uvicorn's settings; `last_seconds`: for open connections once the server ends."""
    return uvicorn.Config(
        app,
        http=_HttpProtocol,
        ws="none",
        log_level="error",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=last_seconds,
        h11_max_incomplete_event_size=MOST_HEAD,
        ssl_certfile=certificate and str(certificate[0]),
        ssl_keyfile=certificate and str(certificate[1]),
    )


def run_server(
    app: App,
    listening_socket: socket.socket,
    certificate: tuple[Path, Path] | None,
    limiter: RequestLimiter,
    on_started: Callable[[], Awaitable[None]],
) -> None:
    """Serve until a signal; an exception from `on_started` ends the server and is raised again."""
    server = _Server(_config(app, certificate, 5), limiter)

    async def serve_and_start() -> None:
        serving = asyncio.create_task(server.serve(sockets=[listening_socket]))
        starting = asyncio.ensure_future(on_started())
        try:
            await asyncio.wait((serving, starting), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
        except BaseException:
            server.should_exit = True
            raise
        finally:
            starting.cancel()  # if a signal came first
            await serving

    asyncio.run(serve_and_start())
