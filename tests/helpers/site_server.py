"""A web site on loopback: what is answered at each path, and what was asked."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Mapping[str, str], bytes]
Content = str | bytes | Reply | Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers from the server's table; a path that is not there is 404."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        content = self.server.content(self.path)
        if callable(content):
            content(self)
            return
        if content is None:
            content = (404, {}, b"not there")
        if isinstance(content, str | bytes):
            content = (200, {}, content.encode() if isinstance(content, str) else content)
        status, headers, body = content
        self.send_response(status)
        for name, value in {"Content-Type": "text/html", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    """`asked`: the path and headers of each request."""

    daemon_threads = True
    block_on_close = False  # a client that hangs up on an endless answer leaves its thread behind
    request_queue_size = 64

    def __init__(self, content: Callable[[str], Content | None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.asked: list[tuple[str, dict[str, str]]] = []

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error here."""


@contextmanager
def serving(
    content: Mapping[str, Content] | Callable[[str], Content | None], tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, Server]]:
    """The origin of a server that answers from a table by path, or from a function."""
    server = Server(content.get if isinstance(content, Mapping) else content)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}", server
    finally:
        server.shutdown()
        with suppress(OSError):
            server.socket.shutdown(socket.SHUT_RDWR)
        server.server_close()
