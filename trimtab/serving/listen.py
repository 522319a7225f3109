"""Listening: a socket, HTTP/1.1 on it with patience for slow clients, and an end in which what was begun is answered."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from trimtab.base.errors import InputError
from trimtab.serving.gate import Admission, App

HEAD_SECONDS = 10.0  # in which the first lines of a request must have come
DRAIN_SECONDS = 30  # that answers under way get once the server is told to end


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """The socket, bound before anything is loaded: a port that is taken is told at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:  # the latter for names that no host can have
        said = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen on {host}:{port} ({said})", "choose another --port or --host") from None
    with bound:
        yield bound


def require_usable(certificate: Path, key: Path) -> None:
    """Raise InputError, naming the file and its option, for a certificate and a key that cannot be used together.

    Before anything is loaded: uvicorn would find out last of all, and name no file.
    """
    for file, option in ((certificate, "--certificate"), (key, "--private-key")):
        try:
            file.read_bytes()
        except OSError as error:
            said = error.strerror or error
            raise InputError(f"{option} cannot be read ({said})", "give a PEM file", file=file) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(certificate)
    except ssl.SSLError:
        raise InputError("--certificate holds no certificate in PEM", "give one", file=certificate) from None
    try:
        context.load_cert_chain(certificate, key, password=b"")  # else OpenSSL asks for one at the terminal
    except ssl.SSLError as error:
        fits = error.reason != "KEY_VALUES_MISMATCH"
        problem = (
            "holds no private key in PEM that opens without a password" if fits else f"is not that of {certificate}"
        )
        raise InputError(f"--private-key {problem}", "give the certificate's own", file=key) from None


class _Patient(H11Protocol):
    """HTTP/1.1 that waits for the first lines of a request as long as HEAD_SECONDS, however they drip; uvicorn waits for ever."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._late:
            self._late.cancel()

    def _wait(self) -> None:
        """Begin to wait where a request may be about to come, and end it where one has."""
        is_read = self.cycle is not None and not self.cycle.response_complete
        if is_read and self._late:
            self._late.cancel()
            self._late = None
        elif not is_read and not self._late:
            self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._late = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn, which at a signal first answers what was begun: readiness is false and new questions are refused meanwhile."""

    def __init__(self, config: uvicorn.Config, admission: Admission) -> None:
        super().__init__(config)
        self._admission = admission
        self._drained: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ARG002
        """At the first signal drain; at the second end at once, as a kill would: nothing here is left half written by one."""
        if self._admission.is_draining:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self._admission.is_draining = True
        self._drained = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._admission.inside and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        self.should_exit = True


def run(
    app: App,
    bound: socket.socket,
    certificate: tuple[Path, Path] | None,
    admission: Admission,
    begun: Callable[[], Awaitable[None]],
) -> None:
    """Serve until a signal; what `begun` raises ends the server and is raised again."""
    config = uvicorn.Config(
        app,
        http=_Patient,
        ws="none",
        log_level="error",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=32 * 1024,
        ssl_certfile=certificate and str(certificate[0]),
        ssl_keyfile=certificate and str(certificate[1]),
    )
    server = _Server(config, admission)

    async def both() -> None:
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        beginning = asyncio.ensure_future(begun())
        try:
            await asyncio.wait((serving, beginning), return_when=asyncio.FIRST_COMPLETED)
            if beginning.done():
                await beginning
        except BaseException:
            server.should_exit = True
            raise
        finally:
            beginning.cancel()  # where a signal came first
            await serving

    asyncio.run(both())
