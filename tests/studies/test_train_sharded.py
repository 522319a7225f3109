"""`torchrun -m trimtab train`: processes train one arm together, with the records of one process; what cannot be
divided is refused in one line; a killed process ends the others, and the run is gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sharded_worker import free_port
from study_tasks import CLASSIFY, LABELLED, write_task

from trimtab.arms.store import read_run
from trimtab.arms.trainer import require_shardable
from trimtab.base.errors import InputError
from trimtab.base.grammar import arm_from_name
from trimtab.base.task import load_task
from trimtab.studies.train import train

ROOT = Path(__file__).resolve().parents[2]
ARMS = """
[arm.short]
weights = "lora"
epochs = 3
[arm.whole]
weights = "full"
epochs = 1
"""


def environment(**more):
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1", **more}


def command(task, arm, *more):
    return ["-m", "trimtab", "train", arm, "--task", str(task), "--json", *more]


def run_together(task, arm, *more):
    """What two processes that torchrun starts print on standard output: the first one's result."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    words = [sys.executable, *launcher, *command(task, arm, *more)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def new_task(folder, model, **more):
    folder.mkdir(parents=True)
    return write_task(folder, model, ["prompt", "short"], more=ARMS, **more)


@pytest.fixture(scope="module")
def trained(tiny_model_folder, tmp_path_factory):
    """A run of two processes over a task that nobody else uses."""
    task = new_task(tmp_path_factory.mktemp("sharded") / "task", tiny_model_folder)
    return task, run_together(task, "short")


def assert_same_weights(one, other, within):
    for path in (Path(one) / "adapter").glob("*.safetensors"):
        ours, theirs = load_file(path), load_file(Path(other) / "adapter" / path.name)
        assert ours.keys() == theirs.keys()
        assert all(torch.allclose(ours[name], theirs[name], rtol=0, atol=within) for name in ours)


def test_two_processes_leave_the_run_of_one(trained):
    task, found = trained
    alone = train(load_task(task), "short", listeners=())
    assert_same_weights(found["folder"], alone.folder, 1e-5)
    one, other = read_run(Path(found["folder"])), read_run(alone.folder)
    assert one.result.steps == other.result.steps == found["steps"]
    assert one.result.best.dev_loss == pytest.approx(other.result.best.dev_loss, abs=1e-5)
    assert one.depends == other.depends
    lines = [json.loads(line) for line in (Path(found["folder"]) / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, found["steps"] + 1))


def test_fully_trained_weights_are_saved_whole(trained):
    task, _ = trained
    together, alone = run_together(task, "whole"), train(load_task(task), "whole", listeners=())
    assert_same_weights(together["folder"], alone.folder, 1e-5)
    parts = {path.name for path in (Path(together["folder"]) / "sft" / "checkpoints").rglob("weights*")}
    assert parts == {"weights-00001-of-00002.safetensors", "weights-00002-of-00002.safetensors"}


def test_labels_are_calibrated_by_the_first_process_alone(tiny_model_folder, tmp_path):
    task = new_task(tmp_path / "task", tiny_model_folder, task=CLASSIFY, data=LABELLED)
    found = run_together(task, "short")
    assert (Path(found["folder"]) / "calibration.json").is_file()
    assert found["dev_loss"] > 0


def test_a_killed_process_ends_the_other_and_the_run_is_gone_on_with(trained, tmp_path, tiny_model_folder):
    _, expected = trained
    task = new_task(tmp_path / "task", tiny_model_folder)
    port = str(free_port())
    both = [
        subprocess.Popen(
            [sys.executable, *command(task, "short")],
            env=environment(WORLD_SIZE="2", RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    while not list((task.parent / ".trimtab").glob("runs/*/sft/checkpoints/latest")):
        assert both[0].poll() is None, both[0].communicate()
        time.sleep(0.01)
    both[1].send_signal(signal.SIGKILL)
    _, said = both[0].communicate(timeout=300)
    both[1].communicate()
    (run,) = (task.parent / ".trimtab" / "runs").glob("2*")
    assert both[0].returncode == 3, said
    line = said.strip().splitlines()[-1]
    assert line.startswith("trimtab: rank 1 of 2 is gone")
    assert f"trimtab train short --resume {run.name}" in line
    assert run_together(task, "short", "--resume", run.name)["id"] == run.name
    assert_same_weights(run, expected["folder"], 0.0)


@pytest.mark.parametrize(
    ("arm", "why"),
    [
        ("lora-grpo", "its answers are sampled by the inference engine"),
        ("lora-distill", "its teacher answers in one process"),
        ("qlora", "4-bit weights are not divided"),
        ("linear", "its features are fitted at once"),
    ],
)
def test_what_one_process_must_train_is_refused_by_name(arm, why):
    with pytest.raises(InputError, match=f"{arm} is trained by one process: {why}.*start it without torchrun"):
        require_shardable(arm_from_name(arm))


def test_nothing_is_begun_for_what_is_refused(trained, monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    before = sorted((trained[0].parent / ".trimtab" / "runs").iterdir())
    with pytest.raises(InputError, match="qlora is trained by one process"):
        train(load_task(trained[0]), "qlora", listeners=())
    assert sorted((trained[0].parent / ".trimtab" / "runs").iterdir()) == before
