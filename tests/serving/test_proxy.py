"""Two real servers behind a real Caddy with the file of `deploy/compose`, one of which ends; skipped where there is no
Caddy."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_tasks import Apart, serving_apart, wait_until
from study_tasks import write_task

from trimtab.serving.access import add_key

pytestmark = pytest.mark.slow

CADDYFILE = Path(__file__).parents[2] / "deploy" / "compose" / "Caddyfile"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def proxied(folder: Path, port: int, servers: list[Apart]) -> Iterator[str]:
    """Caddy on a port, before these servers, with the committed file but for addresses."""
    program = shutil.which("caddy")
    assert program
    addresses = " ".join(server.url.removeprefix("http://") for server in servers)
    text = CADDYFILE.read_text(encoding="utf-8")
    for written, here in {
        "{$NAME:localhost} {": f"{{\n\tadmin off\n}}\nhttp://127.0.0.1:{port} {{",
        "serve1:8000 serve2:8000": addresses,
        "Host localhost:8000": "Host proxied",  # these servers share a machine, so that they have other ports
    }.items():
        assert written in text
        text = text.replace(written, here)
    file = folder / "Caddyfile"
    file.write_text(text)
    process = subprocess.Popen(
        [program, "run", "--adapter", "caddyfile", "--config", str(file)], stderr=subprocess.DEVNULL, cwd=folder
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _listens(port), 60)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def requests_of(server: Apart, headers: dict[str, str]) -> int:
    """How many chats a server has answered."""
    page = httpx.get(f"{server.url}/metrics", headers=headers, timeout=30).text
    lines = [line for line in page.splitlines() if line.startswith("trimtab_requests_total") and "/chat/" in line]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


@pytest.mark.skipif(shutil.which("caddy") is None, reason="no Caddy is installed here")
def test_questions_go_to_servers_that_answer(tmp_path: Path, tiny_model_folder: Path) -> None:
    keys, port = tmp_path / "keys.json", free_port()
    headers = {"Authorization": f"Bearer {add_key(keys, 'team-a')}"}
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    names = ["--name", "proxied", "--name", f"127.0.0.1:{port}"]
    options = ["prompt", "--keys", str(keys), *names]
    body: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Bonn?"}], "max_tokens": 1}

    with (
        serving_apart(task, *options) as one,
        serving_apart(task, *options) as two,
        proxied(tmp_path, port, [one, two]) as url,
        httpx.Client(base_url=url, headers=headers, timeout=60) as client,
    ):

        def ask() -> int:
            return client.post("/v1/chat/completions", json=body).status_code

        wait_until(lambda: ask() == 200, 60)  # the proxy has looked at the servers
        assert Counter(ask() for _ in range(20)) == {200: 20}
        wait_until(lambda: ask() == 200 and min(requests_of(server, headers) for server in (one, two)) > 0, 60)
        one.process.send_signal(signal.SIGTERM)
        while one.process.poll() is None:
            assert ask() in (200, 503)  # 503: it met the server in its last moments
        assert Counter(ask() for _ in range(20)) == {200: 20}
