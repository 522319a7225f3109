"""A study as a process of its own, taken down by signals, and its endpoint arm against a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import Forked
from openai_server import KEY, serving
from study_tasks import rows_of, write_task

from trimtab.measurement.evaluate import load_answers
from trimtab.studies.study import study
from trimtab.training import checkpoint

ARMS = ["prompt", "slow", "few-shot"]
SLOW = """
[arm.slow]
weights = "full"
epochs = 60
"""


def start(task: Path, *more: str, verb: str = "study") -> Forked:
    command = [sys.executable, "-c", "from trimtab.cli.main import run; run()", verb, "--task", str(task), *more]
    return Forked(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(task: Path, stage: str) -> Path:
    """Until the study under way has done something of `stage` in the arm that trains for long."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for file in (task.parent / ".trimtab").glob("studies/*/events.jsonl"):
            if any(f'"stage": "{stage}", "arm": "slow"' in line for line in file.read_text().splitlines()):
                return file.parent
        time.sleep(0.05)
    raise TimeoutError(stage)


def test_signals_take_nothing_that_was_finished(tmp_path: Path, tiny_model_folder: Path) -> None:
    task = write_task(tmp_path, tiny_model_folder, ARMS, more=SLOW)
    first = start(task)
    folder = wait_for(task, "train")
    first.send_signal(signal.SIGINT)
    _, told = first.communicate(timeout=60)
    assert first.returncode == 3, told
    last = told.strip().splitlines()[-1]
    assert "--resume" in last
    assert folder.name in last
    before = (folder / "events.jsonl").read_text().count("\n")
    second = start(task, "--resume", folder.name)
    while (folder / "events.jsonl").read_text().count('"stage": "train"') < before:
        time.sleep(0.02)
        assert second.poll() is None, second.communicate()
    second.kill()
    second.communicate(timeout=60)
    result = study(task, resume="latest" if (folder.parent / "latest").exists() else folder.name, listeners=[])
    assert [arm.status for arm in result.arms] == ["done"] * 3
    found = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    steps = [event["step"] for event in found if event["stage"] == "train"]
    assert steps.count(1) == 1  # training went on, it did not begin again
    assert max(steps) == steps[-1]


@pytest.mark.usefixtures("default_hangup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_planning_is_told_and_gone_on_after(tmp_path: Path, tiny_model_folder: Path, number) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    process = start(task, "--json")
    while not list((tmp_path / ".trimtab").glob("studies/*/events.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    printed, told = process.communicate(timeout=60)
    assert process.returncode == 3, told
    assert json.loads(printed)["error"] in told.splitlines()[-1]
    assert "--resume" in told.splitlines()[-1]
    assert study(task, resume="latest", listeners=[]).arms[0].status == "done"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_check_prints_its_audit_at_once_and_stops_at_the_first_signal(
    tmp_path: Path, tiny_model_folder: Path, number
) -> None:
    process = start(write_task(tmp_path, tiny_model_folder, ARMS, more=SLOW), verb="check")
    assert process.stdout is not None
    printed = ""
    while "emarks" not in printed:
        line = process.stdout.readline()
        assert line, process.communicate()
        printed += line
    process.send_signal(number)
    rest, told = process.communicate(timeout=30)
    assert process.returncode == 3, told
    assert "stopped" in told
    assert "Rows: " in printed
    assert "predicted" not in rest


ON_ITS_OWN_TERMINAL = """
import os, sys
os.setsid()
os.close(os.open(os.ttyname(0), os.O_RDWR))  # the first terminal that the leader of a session opens is its own
from trimtab.cli.main import run
run()
"""


@pytest.mark.usefixtures("default_hangup")
def test_a_terminal_that_goes_away_takes_no_step_with_it(tmp_path: Path, tiny_model_folder: Path) -> None:
    """It sends SIGHUP, and whatever is written to it from then on fails."""
    task = write_task(tmp_path, tiny_model_folder, ["slow"], more=SLOW)
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", ON_ITS_OWN_TERMINAL, "study", "--task", str(task)]
    process = Forked(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    folder = wait_for(task, "train")
    os.close(ours)
    assert process.wait(timeout=60) == 3
    (checkpoints,) = folder.glob("arms/slow/run-0/*/checkpoints")
    kept = checkpoint.load(checkpoints)
    assert kept is not None
    told = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert kept.state["step"] == [event["step"] for event in told if event["stage"] == "train"][-1]


ENDPOINT = """
[api.big]
url = "{url}"
model = "tiny"
key_env = "TINY_KEY"
{price}
"""
PRICE = 'price_per_million = { input = 1.0, output = 2.0, as_of = 2026-11-01, source = "list" }'


@pytest.mark.parametrize(
    ("kind", "data", "price"),
    [
        ('kind = "answer"\noutput_tokens = 6', "", PRICE),
        ('kind = "classify"', 'columns = { input = "question", label = "answer" }', ""),
    ],
)
def test_an_endpoint_is_measured_on_the_same_questions(tmp_path, tiny_model_folder, monkeypatch, kind, data, price):
    monkeypatch.setenv("TINY_KEY", KEY)
    with serving() as server:
        task = write_task(
            tmp_path,
            tiny_model_folder,
            ["api-big", "prompt"],
            rows=[{"question": row["question"][:24], "answer": row["answer"]} for row in rows_of(80)],
            task=kind,
            data=data,
            more=ENDPOINT.format(url=server.url, price=price),
        )
        result = study(task, allow=[f"TINY_KEY@{server.url}"], listeners=[])
        assert [(arm.status, arm.why) for arm in result.arms] == [("done", None)] * 2
        folder = tmp_path / ".trimtab" / "studies" / result.study / "arms"
        remote, local = (load_answers(folder / name / "answers.parquet") for name in ("api-big", "prompt"))
        assert [answer.item_id for answer in remote] == [answer.item_id for answer in local]
        assert {body["temperature"] for body in server.bodies} == {0}
        assert all(body["messages"][0] == {"role": "system", "content": "Which city?"} for body in server.bodies)
    cost = result.arms[0].cost
    if not price:
        assert cost is None  # not known
        return
    assert cost is not None
    each = sum(answer.prompt_tokens + 2 * answer.new_tokens for answer in remote) / len(remote) / 1e6
    assert cost.total == pytest.approx(12 * 10_000 * each)
    assert (cost.up_front, cost.currency) == (0.0, "USD")
    assert KEY not in "".join(path.read_text() for path in folder.parent.glob("*.json*"))
