"""A study with an endpoint that does harm: that arm only, no key in any file, and nothing that was paid for is asked
again."""

from __future__ import annotations

import itertools
import json
import socket
from pathlib import Path

import pytest
from hostile_server import answering, chat, reply
from openai_server import KEY
from study_tasks import arm_of, folder_of, write_task

from trimtab.arms import workspace
from trimtab.studies.eval import eval as score_arm
from trimtab.studies.study import study

ENDPOINT = '[api.big]\nurl = "{url}"\nmodel = "m"\nkey_env = "TINY_KEY"\n'


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_KEY", KEY)
    monkeypatch.setattr("trimtab.inference.remote.FIRST_WAIT", 0.01)


def test_answers_that_were_paid_for_are_not_asked_again(tmp_path: Path, tiny_model_folder: Path) -> None:
    asked: list[str] = []
    numbers, most = itertools.count(1), float(7)

    def answer(connection: socket.socket, body: bytes) -> None:
        asked.append(json.loads(body)["messages"][-1]["content"])
        good = reply(chat("Bonn", prompt_tokens=3, completion_tokens=1))
        connection.sendall(good if next(numbers) <= most else reply(b"no more money", status="402 Pay"))

    with answering(answer) as url:
        task = write_task(tmp_path, tiny_model_folder, ["api-big", "prompt"], more=ENDPOINT.format(url=url))
        first = study(task, allow=[f"TINY_KEY@{url}"], listeners=[])
        assert [arm.status for arm in first.arms] == ["failed", "done"]
        file = folder_of(task) / "arms" / "api-big" / "run-0" / "replies.jsonl"
        kept = len(file.read_text().splitlines())
        assert kept == 7
        most, before = float("inf"), len(asked)
        again = study(task, resume="latest", allow=[f"TINY_KEY@{url}"], listeners=[])
        tests = arm_of(again, "api-big").score
        assert tests is not None
        assert len(asked) - before == tests.n - kept + 2 + workspace.MIN_LATENCIES
        assert not file.exists()
        before = len(asked)
        score_arm(task, "api-big", allow=[f"TINY_KEY@{url}"], listeners=[])  # a new measurement asks everything
        score_arm(task, "api-big", allow=[f"TINY_KEY@{url}"], listeners=[])
        assert len(asked) - before >= 2 * tests.n
        assert not list((tmp_path / ".trimtab").rglob("replies.jsonl"))


@pytest.mark.parametrize(
    "sent",
    [
        reply(chat(prompt_tokens=10**30)),
        reply(chat().replace(b'"usage": {', b'"usage": {"prompt_tokens": 1e400')),
        reply(chat().replace(b'"usage": {', b'"usage": {"prompt_tokens": 1' + b"0" * 5000)),
        reply(b"[" * 100_000),
        reply(f"key {KEY[:-2]}\x1b[2J".encode(), status="401 No"),
        reply(chat("x"), "Content-Encoding: br"),
    ],
    ids=["1e30 tokens", "1e400 tokens", "5,000 digits", "deep", "echo of the key", "packed"],
)
def test_only_that_arm_ends(tmp_path: Path, tiny_model_folder: Path, sent: bytes) -> None:
    with answering(lambda connection, _: connection.sendall(sent)) as url:
        task = write_task(tmp_path, tiny_model_folder, ["api-big", "prompt"], more=ENDPOINT.format(url=url))
        result = study(task, allow=[f"TINY_KEY@{url}"], listeners=[])
    assert [arm.status for arm in result.arms] == ["failed", "done"]
    why = arm_of(result, "api-big").why or ""
    assert why.startswith(f"{url}/chat/completions: ")
    assert "\n" not in why
    files = b"".join(path.read_bytes() for path in (tmp_path / ".trimtab").rglob("*") if path.is_file())
    assert not any(KEY[at : at + 6].encode() in files for at in range(len(KEY) - 5))


def test_halves_of_characters_in_an_answer_are_kept_as_replacements(tmp_path: Path, tiny_model_folder: Path) -> None:
    with answering(lambda connection, _: connection.sendall(reply(chat("Bo\ud800nn")))) as url:
        task = write_task(tmp_path, tiny_model_folder, ["api-big"], more=ENDPOINT.format(url=url))
        assert [arm.status for arm in study(task, allow=[f"TINY_KEY@{url}"], listeners=[]).arms] == ["done"]


def test_a_key_with_a_line_break_stands_in_no_file(tmp_path: Path, tiny_model_folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("TINY_KEY", f"{KEY}\n")
    url = "http://127.0.0.1:9/v1"
    task = write_task(tmp_path, tiny_model_folder, ["api-big", "prompt"], more=ENDPOINT.format(url=url))
    result = study(task, allow=[f"TINY_KEY@{url}"], listeners=[])
    assert [arm.status for arm in result.arms] == ["failed", "done"]
    assert "TINY_KEY holds a line break" in (arm_of(result, "api-big").why or "")
    files = b"".join(path.read_bytes() for path in (tmp_path / ".trimtab").rglob("*") if path.is_file())
    assert KEY[:6].encode() not in files
