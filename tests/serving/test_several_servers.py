"""Several servers over one registry and one store of judgements, and what each tells the proxy before them."""

from __future__ import annotations

import shutil
import signal
import socket
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import httpx
import pytest
from followed import registered
from serving_tasks import Apart, serving_apart, serving_here, wait_until
from study_tasks import write_task

from trimtab import registry
from trimtab.serving.access import add_key
from trimtab.serving.feedback import FeedbackStore
from trimtab.serving.releases import Release
from trimtab.upkeep.registry import Registry

__all__ = ["registered"]

pytestmark = pytest.mark.slow

READY = "/health/ready"


class Client:
    """Calls of one server with the key that all of them know."""

    def __init__(self, server: Apart, key: str) -> None:
        self.server, self.headers = server, {"Authorization": f"Bearer {key}"}

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(f"{self.server.url}{path}", json=body, headers=self.headers, timeout=60)

    def version(self) -> int:
        """The version that answers."""
        reply = httpx.get(f"{self.server.url}/v1/models", headers=self.headers, timeout=60).json()
        return int(reply["data"][0]["trimtab"]["release"]["version"])

    def judged(self, text: str, judge: Client) -> dict[str, Any]:
        """Ask, and like the answer at any server; what was stored as."""
        message = [{"role": "user", "content": text}]
        reply = self.post("/v1/chat/completions", {"model": "production", "messages": message, "max_tokens": 2}).json()
        given, version = reply["trimtab"], reply["trimtab"]["release"]["version"]
        answer = {"receipt": given["receipts"][0], "text": reply["choices"][0]["message"]["content"]}
        done = judge.post("/feedback", {"kind": "like", "messages": message, "answers": [answer], "user": text})
        assert done.status_code == 200, done.text
        return {"id": done.json()["id"], "version": str(version)}


def test_two_servers_follow_one_alias_and_fill_one_store(registered: Path, tmp_path: Path) -> None:
    home = shutil.copytree(registered.parent, tmp_path / "first")
    other = tmp_path / "second"  # another machine: the task file alone, without rows, documents, study and registry
    other.mkdir()
    shutil.copy(home / registered.name, other)
    keys, store = tmp_path / "keys.json", str(tmp_path / "judgements.db")
    key = add_key(keys, "team-a")
    with registry(home / registered.name) as own:
        own.promote(1, why="the first")
        places = ["--registry", own.name, "--artifacts", str(home / ".trimtab" / "artifacts"), "--store", store]
        options = ["--alias", "production", "--keys", str(keys), *places]
        with (
            serving_apart(home / registered.name, *options) as one,
            serving_apart(other / registered.name, *options) as two,
        ):
            _follow_and_judge(own, store, [Client(one, key), Client(two, key)])
            one.process.send_signal(signal.SIGTERM)
            assert one.process.wait(60) == 0
            assert httpx.get(f"{two.url}{READY}").status_code == 200  # the end of one is not the other's


def _follow_and_judge(own: Registry, store: str, clients: list[Client]) -> None:
    assert [client.version() for client in clients] == [1, 1]
    stored = [client.judged(f"Bonn {number}?", clients[1 - number]) for number, client in enumerate(clients)]
    own.promote(2, why="documents")
    for client in clients:
        wait_until(lambda client=client: time.sleep(0.2) or client.version() == 2, 120)  # a key has 600 a minute
        assert httpx.get(f"{client.server.url}{READY}").status_code == 200
    stored += [client.judged(f"Celle {number}?", client) for number, client in enumerate(clients)]
    with FeedbackStore(store, make=False) as judgements:
        kept = [(one.id, one.answers[0].version) for one in judgements.all()]
    assert sorted(kept) == sorted((one["id"], one["version"]) for one in stored)
    assert sorted(version for _, version in kept) == ["1", "1", "2", "2"]


def test_a_server_that_loads_says_so_to_a_proxy_at_once(registered: Path, tmp_path: Path) -> None:
    task = shutil.copytree(registered.parent, tmp_path / "task") / registered.name
    asked, loaded = threading.Event(), threading.Event()
    told: dict[str, httpx.Response] = {}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"

    def ask() -> None:
        asked.wait(60)
        try:
            for path in (READY, "/health/live", "/v1/models"):
                told[path] = httpx.get(f"{url}{path}", timeout=60)
        finally:
            loaded.set()

    asking = threading.Thread(target=ask)
    asking.start()
    with registry(task) as own:
        own.promote(1, why="the first")
        follow = own.follow()

        def slowly(known: Collection[int]) -> Release | None:
            asked.set()
            assert loaded.wait(120)
            return follow(known)

        with serving_here(task, follow=slowly, port=port):
            ready = httpx.get(f"{url}{READY}")
    asking.join()
    assert {path: reply.status_code for path, reply in told.items()} == {
        READY: 503,
        "/health/live": 200,
        "/v1/models": 503,
    }
    assert told[READY].json()["status"] == "starting"
    assert told["/v1/models"].json()["error"]["code"] == "starting"
    assert told["/v1/models"].headers["retry-after"] == "2"
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")


def test_a_server_whose_model_thread_has_ended_is_not_ready(tmp_path: Path, tiny_model_folder: Path) -> None:
    with serving_here(write_task(tmp_path, tiny_model_folder, ["prompt"]), "prompt") as here:
        assert httpx.get(f"{here.url}{READY}").status_code == 200
        (served,) = here.parts.dispatcher.models.values()
        served.worker.close()
        wait_until(lambda: not served.worker.is_alive, 60)
        reply = httpx.get(f"{here.url}{READY}")
        assert (reply.status_code, reply.json()["status"]) == (503, "crashed")
