"""A server that clients of every kind keep busy: each gets what is due to it, and nothing grows from round to round.

`benchmarks/serving_load.py --soak` does the same for half an hour with the small base.
"""

from __future__ import annotations

import itertools
import json
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from serving_tasks import Apart, serving_apart, wait_until
from study_tasks import CITIES

CLIENTS = 8  # at once
ROUNDS = 3
GROWTH_MB = 12  # from round to round once the first two have filled what is kept


@dataclass(kw_only=True)
class Told:
    """What the server holds between two rounds."""

    memory_mb: float
    threads: int
    files: int


def told(server: Apart) -> Told:
    process = psutil.Process(server.process.pid)
    return Told(memory_mb=process.memory_info().rss / 2**20, threads=process.num_threads(), files=process.num_fds())


def chat(text: str, arm: str = "prompt", **more: object) -> dict[str, object]:
    return {"model": arm, "messages": [{"role": "user", "content": text}], "max_tokens": 6, **more}


def asked(client: httpx.Client, body: object, path: str = "/v1/chat/completions") -> int:
    return client.post(path, json=body).status_code


def sent(client: httpx.Client, body: str) -> int:
    return client.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}).status_code


def left(client: httpx.Client, text: str) -> int:
    """A client that has seen enough with the first piece."""
    with client.stream("POST", "/v1/chat/completions", json=chat(text, max_tokens=60, stream=True)) as reply:
        next(reply.iter_raw())
        return reply.status_code


def conversation(client: httpx.Client, text: str) -> int:
    turns = [{"role": "user", "content": text}]
    for _ in range(3):
        reply = client.post("/v1/chat/completions", json={**chat(text), "messages": turns})
        if reply.status_code != 200:
            return reply.status_code
        said = reply.json()["choices"][0]["message"]["content"] or "-"
        turns += [{"role": "assistant", "content": said}, {"role": "user", "content": text}]
    return 200


KINDS: dict[str, tuple[int, Callable[[httpx.Client, str], int]]] = {
    "asked": (200, lambda client, text: asked(client, chat(text))),
    "looked up": (200, lambda client, text: asked(client, chat(text, "rag"))),
    "drawn": (200, lambda client, text: asked(client, chat(text, temperature=1.0, n=3))),
    "left": (200, left),
    "conversation": (200, conversation),
    "unknown": (404, lambda client, text: asked(client, chat(text, "nobody"))),
    "broken": (400, lambda client, text: sent(client, f'{{"{text}')),
    "too long": (413, lambda client, text: sent(client, text * 10**5)),
    "no key": (401, lambda client, _: client.get("/v1/models", headers={"Authorization": "Bearer x"}).status_code),
    "watched": (200, lambda client, _: client.get("/metrics").status_code),
}


def busy(server: Apart, numbers: Iterator[int], each: int) -> Counter[tuple[str, int]]:
    """One round, in which each client does `each` times all that it does: what was answered to each kind of client,
    and how often."""
    found: Counter[tuple[str, int]] = Counter()

    def work(texts: list[str]) -> list[tuple[str, int]]:
        said = []
        with httpx.Client(base_url=server.url, headers=server.headers, timeout=60) as client:
            for text in texts:
                said += [(kind, act(client, text)) for kind, (_, act) in KINDS.items()]
        return said

    texts = [
        f"bridge {number} of {CITIES[number % len(CITIES)]}?" for number in itertools.islice(numbers, each * CLIENTS)
    ]
    with ThreadPoolExecutor(CLIENTS) as pool:
        for said in pool.map(work, [texts[place::CLIENTS] for place in range(CLIENTS)]):
            found.update(said)
    return found


@pytest.mark.parametrize("each", [3, pytest.param(8, marks=pytest.mark.stress)])
def test_a_server_that_is_kept_busy_answers_all_alike_and_does_not_grow(written: Path, each: int) -> None:
    numbers, seen = itertools.count(), []
    with serving_apart(written, "prompt", "rag") as server:
        for _ in range(ROUNDS):
            found = busy(server, numbers, each)
            assert found == Counter({(kind, status): each * CLIENTS for kind, (status, _) in KINDS.items()})
            inside = httpx.get(f"{server.url}/metrics", headers=server.headers).text
            assert re.search(r"^trimtab_inside 0(\.0)?$", inside, re.MULTILINE)
            seen.append(told(server))
        *_, before, last = seen
        assert last.memory_mb - before.memory_mb < GROWTH_MB, seen
        assert last.threads <= before.threads + 4, seen  # pools begin a thread when they first need one
        assert last.files <= before.files + 4, seen  # a connection that is about to close
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.process.poll() is not None, 60)
        assert server.process.returncode == 0
    lines = [json.loads(line) for line in server.lines if line.startswith("{")]
    assert any(line["what"] == "request" for line in lines)
    assert not [line for line in lines if line["what"] == "fault"]
