"""Calls to every route of a server, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
from serving_tasks import Here

VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "prompt", "messages": [{"role": "user", "content": "Bonn?"}], "max_tokens": 1},
    "/v1/completions": {"model": "prompt", "prompt": "Bonn?", "max_tokens": 1},
    "/v1/raw/completions": {"model": "prompt", "prompt": [1, 2], "max_tokens": 0, "echo": True, "logprobs": 1},
    "/v1/responses": {"model": "prompt", "input": "Bonn?", "max_output_tokens": 1},
    "/v1/embeddings": {"model": "?", "input": "Bonn?"},
    "/v1/systemone": {"model": "prompt", "state": "Bonn?", "questions": {"a": {"type": "choice"}}},
    "/v1/decisions": {"model": "prompt", "input": "Bonn?", "questions": [{"type": "choice", "name": "a"}]},
    "/session": {"key": "tt-wrong"},
}
"""A body for each route that takes one, as its clients send it."""


def calling(here: Here, work: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]], app: Any = None) -> None:
    """Run `work` with a client that calls the application without a socket; what the application raises is raised."""

    async def main() -> None:
        transport = httpx.ASGITransport(app=app or here.app)
        async with httpx.AsyncClient(transport=transport, base_url=here.url, timeout=20) as client:
            await work(client)

    asyncio.run(main())


def routes(here: Here) -> list[tuple[str, str]]:
    """Method and path of every route: those of the description, and the page's."""
    with here.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    found = [
        (method.upper(), path.replace("{name}", "prompt")) for path, methods in paths.items() for method in methods
    ]
    assert len(found) >= 11
    return [*found, ("GET", "/"), ("POST", "/session"), ("GET", "/page/playground.js"), ("GET", "/openapi.json")]
