"""A study on a real Ray cluster of three nodes is the study of one machine, whatever is killed on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray_nodes import SMALL, node_without
from same_study import SCORED, SLOW, in_folders, require_same
from started_study import started_study
from study_tasks import CLASSIFY, LABELLED, QUICK, begin_with_time, events, folder_of, write_passages_task, write_task
from waiting import WAIT, until

from trimtab.arms.store import read_result
from trimtab.base.errors import InputError
from trimtab.base.files import FORM
from trimtab.scale.cluster import Cluster
from trimtab.scale.job_run import ATTEMPTS
from trimtab.scale.training import train_on_cluster
from trimtab.studies.study import study

pytest.importorskip("ray", reason="Ray is not installed: pip install 'trimtab[ray]'")

NODES = 3


def worker_of(task: Path, job: str) -> int:
    """The process that does a job."""
    (file,) = until(lambda: list((task.parent / ".trimtab").glob(f"studies/*/workers/{job}/.holder")))
    return int(file.read_text().split()[1])


def test_the_verdict_is_that_of_one_machine(tmp_path: Path, tiny_model_folder: Path, machines: Cluster) -> None:
    arms = ["quick", "prompt"]
    more = {"task": CLASSIFY, "data": LABELLED, "more": QUICK, "study": "seeds = 2"}
    plain, own = in_folders(tmp_path, tiny_model_folder, arms, **more)
    expected, told = study(plain, listeners=[]), list[dict[str, Any]]()
    require_same(own, study(own, machines=machines, listeners=[told.append]), plain, expected)
    folder = folder_of(own)
    by_workers = [event for event in events(folder) if "worker" in event]
    assert {event["worker"].rpartition("-")[0] for event in by_workers if event["stage"] == "begin"} == {
        *(f"make-{arm}-0" for arm in arms),
        "make-quick-1",
        *(f"answer-{arm}-{seed}" for arm in arms for seed in range(2)),
    }
    assert not [event for event in events(folder) if event["stage"] in ("train", "answer") and "worker" not in event]
    assert not [event for event in by_workers if event["stage"] == "latency"]  # timed here, one arm at a time
    assert [{**event, "form": FORM} for event in told if "worker" in event] == by_workers
    assert len((own.parent / ".trimtab" / "openings.jsonl").read_text().splitlines()) == 1
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [one["cores_each"] for one in manifest["machines"]] == [1] * NODES
    assert manifest["test_openings"] == 1


@pytest.mark.cluster
def test_what_is_searched_on_dev_is_found_alike(
    tmp_path: Path, tiny_model_folder: Path, machines: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, own = in_folders(
        *(tmp_path, tiny_model_folder, ["prompt", "few-shot", "quick"]),
        more=QUICK,
        task=CLASSIFY,
        data=LABELLED,
        effort="standard",
    )
    monkeypatch.setattr("trimtab.studies.jobs.LEAST_TRIAL_SECONDS", 0.0)
    for task in (plain, own):
        begin_with_time(task)
    results = [
        study(plain, resume="latest", listeners=[]),
        study(own, resume="latest", machines=machines, listeners=[]),
    ]
    require_same(own, results[1], plain, results[0])
    lines = [(folder_of(task) / "search.jsonl").read_text().splitlines() for task in (plain, own)]
    scores = [[(json.loads(line)["context"], json.loads(line)["scores"]) for line in each] for each in lines]
    assert scores[0] == scores[1]  # each context once, by one job for all arms
    assert scores[0]
    workers = {event["worker"].rpartition("-")[0] for event in events(folder_of(own)) if "worker" in event}
    assert {"try-quick-0", "try-quick-1", "try-quick-2", "make-quick-0"} < workers


@pytest.mark.cluster
def test_a_process_is_killed_in_training_and_a_node_in_answering(
    tmp_path: Path, tiny_model_folder: Path, nodes: Any, machines: Cluster
) -> None:
    arms = ["slow", "prompt"]
    plain, own = in_folders(tmp_path, tiny_model_folder, arms, more=SLOW, task=SCORED)
    expected = study(plain, allow_commands=True, listeners=[])
    killed: list[str] = []
    (hold := own.parent / "hold").unlink(missing_ok=True)

    def kill_a_node() -> None:
        """The node whose process answers, once it does."""
        process = psutil.Process(worker_of(own, "answer-prompt-0"))
        raylet = next(one for one in process.parents() if one.name() == "raylet")
        # the first node has the records of the cluster
        is_first = raylet.pid == nodes.head_node.all_processes["raylet"][0].process.pid
        for victim in [process] if is_first else [*raylet.children(recursive=True), raylet]:
            victim.kill()
        hold.unlink()

    looked: set[str] = set()

    def watch(event: dict[str, Any]) -> None:
        worker = str(event.get("worker"))
        if event["stage"] == "dev" and worker.startswith("make-slow"):
            looked.add(worker)  # then a checkpoint is there
        if event["stage"] == "train" and worker in looked and not killed:
            killed.append(worker)
            os.kill(worker_of(own, "make-slow-0"), signal.SIGKILL)
        if str(event.get("note")).startswith("answering") and len(killed) == 1:
            killed.append("answer")
            hold.touch()
            threading.Thread(target=kill_a_node, daemon=True).start()

    result = study(own, allow_commands=True, machines=machines, listeners=[watch])
    assert len(killed) == 2
    require_same(own, result, plain, expected)
    found = events(folder_of(own))
    notes = [event["note"] for event in found if "begun again" in event.get("note", "")]
    assert [note.split(":")[0] for note in notes][:1] == ["arm slow"]
    assert any(note.startswith("arm prompt") for note in notes[1:])
    workers = {event["worker"] for event in found if event.get("worker", "").startswith("make-slow-0")}
    assert len(workers) == 2
    trained = [event for event in found if event["stage"] == "train"]
    first = {name: min(event["step"] for event in trained if event["worker"] == name) for name in workers}
    assert first.pop(killed[0]) == 1
    assert min(first.values()) > 1  # it went on from a checkpoint


@pytest.mark.cluster
def test_a_choice_that_is_lost_too_often_is_made_by_the_first_run(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path, machines: Cluster, monkeypatch: Any
) -> None:
    """Then no rate is tried ahead, as trials might show other passages."""
    monkeypatch.setattr("trimtab.studies.jobs.LEAST_TRIAL_SECONDS", 0.0)
    own, killed = write_passages_task(tmp_path / "own", tiny_model_folder, tiny_embedding_folder), set[int]()
    begin_with_time(own)

    def kill_each() -> None:
        while len(killed) <= ATTEMPTS:
            pid = until(lambda: {worker_of(own, "choose-quick")} - killed).pop()
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_each)
    killer.start()
    result = study(own, resume="latest", machines=machines, listeners=[])
    killer.join()
    assert [arm.status for arm in result.arms] == ["done"]
    found = events(folder_of(own))
    assert {
        event["worker"].rpartition("-")[0] for event in found if event["stage"] == "begin" and "worker" in event
    } == {
        "make-quick-0",
        "answer-quick-0",
    }
    (told,) = (event["note"] for event in found if event["stage"] == "failed")
    assert told.startswith("arm quick goes on without an early choice of passages: its process was lost")


@pytest.mark.cluster
def test_a_study_that_was_stopped_and_killed_goes_on_here(
    tmp_path: Path, tiny_model_folder: Path, machines: Cluster
) -> None:
    arms = ["slow", "prompt"]
    plain, own = in_folders(tmp_path, tiny_model_folder, arms, more=SLOW)
    expected = study(plain, listeners=[])

    def steps() -> int:
        files = own.parent.glob(".trimtab/studies/*/workers/make-slow-0/*.jsonl")
        return sum(file.read_text().count('"stage": "train"') for file in files)

    with started_study(own, "--on", "auto") as head:
        until(steps, head)
        head.send_signal(signal.SIGINT)
        _, told = head.communicate(timeout=WAIT)
    assert head.returncode == 3, told
    assert f"study --resume {folder_of(own).name} --on auto" in told.splitlines()[-1]
    before = steps()
    with started_study(own, "--resume", "--on", "auto") as head:
        until(lambda: steps() > before, head)
        head.kill()
        head.communicate(timeout=WAIT)
    with started_study(own, "--resume", "--on", "local") as head:
        _, told = head.communicate(timeout=WAIT)
    result = read_result(folder_of(own))
    assert result is not None, told
    require_same(own, result, plain, expected)
    found = events(folder_of(own))
    begun = [event for event in found if event["stage"] == "begin" and event.get("worker", "").startswith("make-slow")]
    assert len(begun) == 3
    lines = [json.dumps(event) for event in found if "worker" in event]
    assert len(lines) == len(set(lines))  # no event is passed on twice


# ---- labels


@pytest.mark.cluster
def test_only_machines_with_the_labels_are_used(
    tmp_path: Path, tiny_model_folder: Path, nodes: Any, machines: Cluster
) -> None:
    """A study of two jobs at once, and a training: on the one node of four that has the label."""
    labelled = nodes.add_node(**SMALL, labels={"zone": "eu"})
    own = write_task(tmp_path, tiny_model_folder, ["quick", "few-shot"], more=QUICK)
    used = set[str]()

    def watch(_: dict[str, Any]) -> None:
        used.update(file.read_text() for file in own.parent.glob(".trimtab/studies/*/workers/*/*.node"))

    chosen = Cluster(machines.ray, "auto", node_labels={"zone": "eu"})
    study(own, machines=chosen, listeners=[watch])
    assert used == {labelled.node_id}
    assert len(json.loads((folder_of(own) / "manifest.json").read_text())["machines"]) == 1
    assert chosen.option == "--on auto --node-label zone=eu"
    assert len(chosen.training_bundles()) == 1
    train_on_cluster(chosen, own, "quick", listeners=())
    nodes.remove_node(labelled)


# ---- bad input: one line each, before anything is spent


def refused(task: Path, machines: Cluster) -> str:
    with pytest.raises(InputError) as caught:
        study(task, machines=machines, listeners=[])
    assert not list((task.parent / ".trimtab" / "studies").glob("2*"))
    assert not list((task.parent / ".trimtab" / "studies").glob(".seen*"))
    return str(caught.value)


def with_distribution(folder: Path, version: str) -> dict[str, str]:
    """The environment of a node on which another version of SciPy is installed. Not of Trimtab: beside a checkout that
    is installed in place lies its own description, which is found first.
    """
    told = folder / f"scipy-{version}.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: scipy\nVersion: {version}\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_a_node_that_differs_is_told_before_anything_is_spent(
    tmp_path: Path, tiny_model_folder: Path, nodes: Any, machines: Cluster
) -> None:
    """Another version of a library; without the model, which it looks for in a cache of its own."""
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    other = nodes.add_node(**SMALL, env_vars=with_distribution(tmp_path / "site", "9.9.9"))
    told = refused(task, machines)
    assert "has scipy 9.9.9, this one" in told
    assert told.endswith("install the same versions on all machines")
    nodes.remove_node(other)
    named = "smollm2-135m-q4"
    for name in ("here", "there"):
        (tmp_path / name / "models").mkdir(parents=True)
    shutil.copytree(tiny_model_folder, here := tmp_path / "here" / "models" / named)
    (here / "trimtab-model.json").write_text("{}")
    without = nodes.add_node(**SMALL, env_vars={"TRIMTAB_CACHE": str(tmp_path / "there")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_CACHE", str(tmp_path / "here"))
        told = refused(write_task(tmp_path, named, ["prompt"]), machines)
    nodes.remove_node(without)
    assert told.startswith("--on: machine ")
    assert f"model {named} is not in the cache; fetch it with: trimtab pull {named}" in told


def test_a_folder_that_not_all_see_is_told(
    tmp_path: Path, tiny_model_folder: Path, nodes: Any, machines: Cluster
) -> None:
    (here := tmp_path / "here").mkdir()
    task = write_task(here, tiny_model_folder, ["prompt"])
    with node_without(here, nodes.address):
        told = refused(task, machines)
    studies = here / ".trimtab" / "studies"
    assert f"does not see {studies}; put the task's folder where all machines have it under the same path" in told


def test_a_label_that_no_node_has_is_told(tmp_path: Path, tiny_model_folder: Path, machines: Cluster) -> None:
    chosen = Cluster(machines.ray, "auto", node_labels={"zone": "eu", "disk": "fast"})
    told = refused(write_task(tmp_path, tiny_model_folder, ["prompt"]), chosen)
    assert told == (
        "--on: no machine of the cluster with the label zone=eu and disk=fast offers a core; "
        "start one with them (`ray start --labels`), or correct --node-label"
    )


def test_a_gpu_that_no_node_has_is_told(tmp_path: Path, tiny_model_folder: Path, machines: Cluster) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trimtab.scale.cluster.gpu_count", lambda: 1)
        told = refused(write_task(tmp_path, tiny_model_folder, ["prompt"]), machines)
    assert told == (
        "--on: no machine of the cluster has a GPU, as this one has, on which the plan is timed; "
        "add one, or start the study elsewhere"
    )


def test_a_gpu_that_is_not_there_is_told(
    tmp_path: Path, tiny_model_folder: Path, nodes: Any, machines: Cluster
) -> None:
    """Ray believes what it is started with."""
    claims = nodes.add_node(**SMALL, num_gpus=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trimtab.scale.cluster.gpu_count", lambda: 1)
        told = refused(write_task(tmp_path, tiny_model_folder, ["prompt"]), machines)
    nodes.remove_node(claims)
    assert "offers a GPU to Ray, and PyTorch finds none there; install the GPU's driver" in told


def test_a_function_cannot_go_to_other_machines(tmp_path: Path, tiny_model_folder: Path, machines: Cluster) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    with pytest.raises(InputError, match="a function cannot go to other machines; name a program"):
        study(task, machines=machines, scorer=lambda asked, right, answer: 1.0, listeners=[])
