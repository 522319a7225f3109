"""The end of a server, as a process: what was begun is answered, nothing new is taken on; and what its log holds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from forked import Forked
from hostile_server import answering, chat, reply
from serving_tasks import serving_apart, wait_until
from study_tasks import write_task


def test_a_signal_drains_and_a_second_one_ends_at_once(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed, asked = threading.Event(), threading.Event()

    def later(connection: Any, _: bytes) -> None:
        asked.set()
        freed.wait(30)
        connection.sendall(reply(chat("\x1b[2Jlate")))

    with answering(later) as url:
        table = f'[api.slow]\nurl = "{url}"\nmodel = "x"\n'
        task = write_task(tmp_path, tiny_model_folder, ["prompt", "api-slow"], more=table)
        body = {"model": "api-slow", "messages": [{"role": "user", "content": "a private question"}]}
        try:
            with (
                serving_apart(task, "api-slow", "--allow", url, "--log-texts") as server,
                ThreadPoolExecutor(1) as pool,
            ):
                chats, ready = f"{server.url}/v1/chat/completions", f"{server.url}/health/ready"
                assert httpx.get(ready).status_code == 200
                pending = pool.submit(httpx.post, chats, json=body, headers=server.headers, timeout=30)
                assert asked.wait(10)
                server.process.send_signal(signal.SIGTERM)
                wait_until(lambda: httpx.get(ready).status_code == 503, 2)
                refused = httpx.post(chats, json=body, headers=server.headers)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
                freed.set()
                assert pending.result().json()["choices"][0]["message"]["content"] == "\x1b[2Jlate"
                assert server.process.wait(10) == 0
            entries = [json.loads(line) for line in server.lines if line.startswith("{")]
            (answer,) = [one for one in entries if one["what"] == "answer"]
            assert (answer["messages"], answer["answer"]) == ([["user", "a private question"]], "\x1b[2Jlate")
            assert "\x1b" not in "".join(server.lines)  # written as JSON: escapes that no terminal obeys

            freed.clear()
            asked.clear()
            with serving_apart(task, "api-slow", "--allow", url) as server, ThreadPoolExecutor(1) as pool:
                pending = pool.submit(
                    httpx.post, f"{server.url}/v1/chat/completions", json=body, headers=server.headers, timeout=30
                )
                assert asked.wait(10)
                server.process.send_signal(signal.SIGTERM)
                time.sleep(0.3)
                assert server.process.poll() is None
                server.process.send_signal(signal.SIGTERM)
                assert server.process.wait(5) != 0
                assert pending.exception() is not None
            assert "private" not in "".join(server.lines)
        finally:
            freed.set()


def test_an_endpoint_that_hangs_does_not_hold_the_end_up(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed, asked = threading.Event(), threading.Event()

    def hang(connection: Any, _: bytes) -> None:
        asked.set()
        freed.wait(30)

    with answering(hang) as url:
        table = f'[api.slow]\nurl = "{url}"\nmodel = "x"\n'
        task = write_task(tmp_path, tiny_model_folder, ["prompt", "api-slow"], more=table)
        body = {"model": "api-slow", "messages": [{"role": "user", "content": "a?"}]}
        try:
            with serving_apart(task, "api-slow", "--allow", url) as server:
                with pytest.raises(httpx.ReadTimeout):
                    httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=server.headers, timeout=0.5)
                server.process.send_signal(signal.SIGINT)  # nobody waits any more, but the connection is still open
                assert server.process.wait(20) == 0
        finally:
            freed.set()


def test_with_json_standard_output_says_where_it_is_and_what_opens_it(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    command = [sys.executable, "-m", "trimtab", "serve", "prompt", "--task", str(task), "--port", "0", "--json"]
    process = Forked(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        said = ""
        while not said.endswith("}\n") or said.count("{") != said.count("}"):
            said += process.stdout.readline()
        told = json.loads(said)
        headers = {"Authorization": f"Bearer {told['token']}"}
        names = [one["id"] for one in httpx.get(f"{told['url']}/v1/models", headers=headers).json()["data"]]
        assert told["models"] == names[:-1] == ["tiny:prompt"]
        assert told["checks"] == {"prompt": None}  # no study has measured it
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert process.stdout.read() == ""
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
