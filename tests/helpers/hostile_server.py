"""A server on loopback that answers each request with the bytes that a test gives, however wrong they are."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Answer = Callable[[socket.socket, bytes], None]  # the connection, and the body of the request


def reply(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A whole reply of HTTP."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def chat(content: str = "fine", **usage: Any) -> bytes:
    """The body of a completion."""
    return json.dumps(
        {"choices": [{"message": {"content": content}, "finish_reason": "stop"}], "usage": usage}
    ).encode()


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """The url of a server that lets `answer` write to each connection."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as file:
            length = 0
            while line := file.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            body = file.read(length)
            if body and len(body) == length:  # a client that has gone away asked nothing
                answer(connection, body)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
