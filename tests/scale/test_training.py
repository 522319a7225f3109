"""One training over the machines of a real Ray cluster of two nodes is the training of one process, also when a process
is killed; what cannot go on ends in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from study_tasks import write_task
from waiting import WAIT, until

from trimtab.arms.store import read_run
from trimtab.base.errors import InputError, TrimtabError
from trimtab.base.files import read_own_lines
from trimtab.base.task import load_task
from trimtab.scale.cluster import Cluster
from trimtab.scale.training import train_as_rank, train_on_cluster
from trimtab.studies.train import train

pytest.importorskip("ray", reason="Ray is not installed: pip install 'trimtab[ray]'")
pytestmark = pytest.mark.cluster

ARMS = """
[arm.short]
weights = "lora"
epochs = 3
[arm.long]
weights = "full"
epochs = 30
"""


def new_task(folder: Path, model: Path) -> Path:
    folder.mkdir(parents=True)
    return write_task(folder, model, ["prompt", "short"], more=ARMS)


def assert_same_weights(one: Path, other: Path) -> None:
    names = sorted(path.name for path in (one / "adapter").glob("*.safetensors"))
    assert names
    for name in names:
        ours, theirs = (load_file(folder / "adapter" / name) for folder in (one, other))
        assert ours.keys() == theirs.keys()
        assert all(torch.allclose(ours[key], theirs[key], rtol=0, atol=1e-5) for key in ours)


def run_folder(task: Path) -> Path:
    (found,) = (task.parent / ".trimtab" / "runs").glob("2*")
    return found


def test_trained_on_two_machines_is_trained_by_one_process(
    tmp_path: Path, tiny_model_folder: Path, machines: Cluster
) -> None:
    plain, own = (new_task(tmp_path / name, tiny_model_folder) for name in ("plain", "cluster"))
    told: list[dict[str, Any]] = []
    found = train_on_cluster(machines, own, "short", listeners=[told.append])
    alone = train(load_task(plain), "short", listeners=())
    assert found.folder == run_folder(own)
    assert found.steps == alone.steps
    assert_same_weights(found.folder, alone.folder)
    one, other = read_run(found.folder), read_run(alone.folder)
    assert one is not None
    assert other is not None
    assert one.depends == other.depends
    lines = list(read_own_lines(found.folder / "metrics.jsonl"))
    assert [event for event in told if event["stage"] != "data"] == lines  # each once
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, found.steps + 1))
    assert not list((own.parent / ".trimtab").glob(".begun-*"))


def test_a_killed_process_is_begun_again_with_all_others_from_the_last_checkpoint(
    tmp_path: Path, tiny_model_folder: Path, machines: Cluster
) -> None:
    plain, own = (new_task(tmp_path / name, tiny_model_folder) for name in ("plain", "cluster"))
    told: list[dict[str, Any]] = []
    killed: list[int] = []

    def watch(event: dict[str, Any]) -> None:
        told.append(event)
        if event["stage"] == "dev" and not killed:  # a checkpoint is there
            first = int((run_folder(own) / ".holder").read_text().split()[1])
            below = {one.pid for one in psutil.Process().children(recursive=True)}  # of the nodes of this test
            named = (one for one in psutil.process_iter(["name"]) if one.pid in below)
            members = [one.pid for one in named if str(one.info["name"]).startswith(f"ray::{train_as_rank.__name__}")]
            assert first in members
            killed.extend(pid for pid in members if pid != first)
            os.kill(killed[0], signal.SIGKILL)

    found = train_on_cluster(machines, own, "long", listeners=[watch])
    assert len(killed) == 1
    alone = train(load_task(plain), "long", listeners=())
    assert_same_weights(found.folder, alone.folder)
    (at,) = [number for number, event in enumerate(told) if "begin again" in event.get("note", "")]
    assert told[at]["note"].startswith("rank 1: its process was lost")
    before, after = ([event["step"] for event in part if "loss" in event] for part in (told[:at], told[at:]))
    assert 1 < after[0] <= before[-1] + 1  # from a checkpoint
    assert after[-1] == found.steps


def test_what_cannot_go_on_ends_in_one_line(tmp_path: Path, tiny_model_folder: Path, machines: Cluster) -> None:
    task = new_task(tmp_path / "task", tiny_model_folder)
    with pytest.raises(InputError, match="qlora is trained by one process"):
        train_on_cluster(machines, task, "qlora", listeners=())
    with pytest.raises(InputError, match="arm prompt has nothing to train"):
        train_on_cluster(machines, task, "prompt", listeners=())
    with pytest.raises(TrimtabError, match=r"no run of short to go on with; start one with: trimtab train short"):
        train_on_cluster(machines, task, "short", resume="latest", listeners=())
    assert not list((task.parent / ".trimtab").glob("runs/2*"))


def test_a_stopped_training_is_saved_and_names_the_command_that_goes_on(
    tmp_path: Path, tiny_model_folder: Path, machines: Cluster
) -> None:
    task = new_task(tmp_path / "task", tiny_model_folder)
    command = [sys.executable, "-m", "trimtab", "train", "long", "--task", str(task), "--on", "auto"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet) as head:
        try:
            until(lambda: list((task.parent / ".trimtab").glob("runs/*/sft/checkpoints/latest")), head)
            head.send_signal(signal.SIGINT)
            _, told = head.communicate(timeout=WAIT)
        finally:
            head.kill()
    assert head.returncode == 3, told
    assert f"train long --resume {run_folder(task).name} --on auto" in told.splitlines()[-1]
    found = train_on_cluster(machines, task, "long", resume="latest", listeners=())
    assert found.folder == run_folder(task)
