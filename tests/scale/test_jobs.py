"""The jobs of a study, done by this process as workers would: they leave the study of one machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from study_tasks import (
    CLASSIFY,
    LABELLED,
    QUICK,
    arm_of,
    begin_with_time,
    events,
    folder_of,
    rows_of,
    write_passages_task,
    write_task,
)

from trimtab.arms.run import ArmRunner
from trimtab.arms.store import read_arm
from trimtab.base.config import CostTable
from trimtab.base.errors import DivergedError
from trimtab.base.progress import Progress
from trimtab.base.task import Task
from trimtab.measurement.evaluate import load_answers
from trimtab.model.adapters.lora import LoraLinear
from trimtab.scale.job_run import WorkerEvents
from trimtab.scale.tasks import run_job
from trimtab.studies.jobs import Job, JobContext
from trimtab.studies.study import study
from trimtab.training.loop import TrainingJob, TrainResult, train_model


class ThisProcess:
    """Machines whose only one is this process."""

    option = "--on here"

    def __init__(self) -> None:
        self.done: list[str] = []

    def require_ready(self, task: Task, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def divide_cores(self, jobs: int) -> int:
        return 1

    def forecast(self, jobs: Sequence[Job], cost: CostTable) -> Sequence[str]:
        return [f"{len(jobs)} jobs"]

    def run(self, context: JobContext, jobs: Sequence[Job], progress: Progress) -> Mapping[str, str]:
        failures: dict[str, str] = {}
        for job in sorted(jobs, key=lambda job: job.seed):
            if job.arms[0] in failures:
                continue
            outcome = run_job(context, job, f"{job.name}-{len(self.done)}", cores=1, gpu=False)
            assert outcome.study_error is None
            failures |= outcome.failures
            self.done.append(job.name)
        WorkerEvents(context.folder, progress).relay_new()
        return failures

    def describe(self) -> list[dict[str, Any]]:
        return [{"name": "here"}]


@pytest.fixture(autouse=True)
def _threads_as_before(threads: Callable[[int], None]) -> None:
    """A worker sets its threads; whatever this process had comes back."""


def answers_of(task: Path, arm: str) -> list[tuple[str, int, str, float]]:
    found = load_answers(folder_of(task) / "arms" / arm / "answers.parquet")
    return [(one.item_id, one.seed, one.answer, one.score) for one in found]


def test_seeds_that_dev_asks_for_are_jobs_too(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.studies.planning.contenders", lambda *_: ["quick"])
    tasks = []
    for name in ("plain", "jobs"):
        (tmp_path / name).mkdir()
        more = {"rows": rows_of(120), "task": CLASSIFY, "data": LABELLED, "effort": "standard"}
        tasks.append(write_task(tmp_path / name, tiny_model_folder, ["prompt", "quick"], more=QUICK, **more))
        begin_with_time(tasks[-1])
    plain, own = tasks
    expected, machines = study(plain, resume="latest", listeners=[]), ThisProcess()
    result = study(own, resume="latest", machines=machines, listeners=[])
    assert [(arm.arm, arm.status, arm.seeds, arm.score) for arm in result.arms] == [
        (arm.arm, arm.status, arm.seeds, arm.score) for arm in expected.arms
    ]
    assert arm_of(result, "quick").seeds == 3
    assert [name for name in machines.done if name.startswith("make-quick")] == [f"make-quick-{n}" for n in range(3)]
    for arm in ("prompt", "quick"):
        assert answers_of(own, arm) == answers_of(plain, arm)


def found_by(task: Path, arm: str) -> tuple[Any, ...]:
    """What the search of an arm tried, without seconds, and what it left."""
    record = read_arm(folder_of(task) / "arms" / arm)
    assert record is not None
    effort = record.result.effort
    assert effort is not None
    tried = [(one.what, one.dev_loss, one.dev_metric, one.rows, one.kept, one.at_end) for one in effort.trials]
    weights = load_file(folder_of(task) / "arms" / arm / "run-0" / "adapter" / "adapter_model.safetensors")
    return tried, effort.stopped, record.dev_scores, {name: value.tolist() for name, value in weights.items()}


@pytest.mark.parametrize("steady", [1.0, 3e-3])
def test_rates_that_are_tried_at_once_are_found_alike(
    steady: float, tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the usual rate, and all beyond `steady`, diverge."""

    def diverging(job: TrainingJob, until: int | None = None) -> TrainResult:
        if job.settings.learning_rate > steady:
            raise DivergedError("the loss is not a number")
        return train_model(job, until)

    monkeypatch.setattr("trimtab.arms.trainer.train_model", diverging)
    monkeypatch.setattr("trimtab.studies.jobs.LEAST_TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(LoraLinear, "defaults", replace(LoraLinear.defaults, learning_rate=5e-3, by_width=False))
    tasks = []
    for name in ("plain", "jobs"):
        (tmp_path / name).mkdir()
        tasks.append(write_task(tmp_path / name, tiny_model_folder, ["quick"], more=QUICK, effort="standard"))
        begin_with_time(tasks[-1])
    plain, own = tasks
    study(plain, resume="latest", listeners=[])
    study(own, resume="latest", machines=(machines := ThisProcess()), listeners=[])
    assert found_by(own, "quick") == found_by(plain, "quick")
    assert answers_of(own, "quick") == answers_of(plain, "quick")
    trials = [name for name in machines.done if name.startswith("try-")]
    assert trials == ["try-quick-0", "try-quick-1", "try-quick-2"]
    assert machines.done.index("make-quick-0") > machines.done.index(trials[-1])
    require_each_step_once(own)


def require_each_step_once(task: Path) -> None:
    found = [event for event in events(folder_of(task)) if event.get("trial") and "loss" in event]
    assert len({(event["trial"], event["step"]) for event in found}) == len(found) > 0


def test_passages_are_chosen_before_rates_are_tried(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each context is looked up once, by the job that chooses, and the trials show what it chose."""
    monkeypatch.setattr("trimtab.studies.jobs.LEAST_TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(LoraLinear, "defaults", replace(LoraLinear.defaults, learning_rate=5e-3, by_width=False))
    plain, own = (
        write_passages_task(tmp_path / name, tiny_model_folder, tiny_embedding_folder) for name in ("plain", "jobs")
    )
    for task in (plain, own):
        begin_with_time(task)
    expected = study(plain, resume="latest", listeners=[])
    result = study(own, resume="latest", machines=(machines := ThisProcess()), listeners=[])
    assert found_by(own, "quick") == found_by(plain, "quick")
    assert answers_of(own, "quick") == answers_of(plain, "quick")
    assert arm_of(result, "quick").chosen == arm_of(expected, "quick").chosen
    assert arm_of(result, "quick").chosen["passages"] != 3  # the usual number
    assert machines.done[:5] == ["choose-quick", "try-quick-0", "try-quick-1", "try-quick-2", "make-quick-0"]
    looked_up = [event for event in events(folder_of(own)) if "looked up" in event.get("note", "")]
    assert {event["worker"].rpartition("-")[0] for event in looked_up} == {"choose-quick"}
    assert len({event["note"] for event in looked_up}) == len(looked_up) > 3
    require_each_step_once(own)


def test_an_arm_that_fails_in_a_job_fails_alone(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = ArmRunner.make_first

    def failing(self: ArmRunner, arm: Any, folder: Path, allowance: Any) -> Any:
        if arm.name == "quick":
            raise RuntimeError("no")
        return make(self, arm, folder, allowance)

    monkeypatch.setattr(ArmRunner, "make_first", failing)
    task, machines = write_task(tmp_path, tiny_model_folder, ["quick", "prompt"], more=QUICK), ThisProcess()
    result = study(task, machines=machines, listeners=[])
    assert [(arm.status, arm.why) for arm in result.arms] == [("failed", "RuntimeError: no"), ("done", None)]
    assert machines.done.count("make-quick-0") == 1
    assert "answer-quick-0" not in machines.done
    told = [event["note"] for event in events(folder_of(task)) if event["stage"] == "failed"]
    assert told == ["arm quick failed: RuntimeError: no"]
    monkeypatch.setattr(ArmRunner, "make_first", make)
    again = study(task, resume="latest", machines=(more := ThisProcess()), listeners=[])
    assert [arm.status for arm in again.arms] == ["done", "done"]
    assert set(more.done) == {"make-quick-0", "answer-quick-0"}  # what was finished is not made again


def test_a_job_goes_by_the_fingerprint_of_its_study(tmp_path: Path, tiny_model_folder: Path) -> None:
    """A machine that would read other rows stops, and says what differs."""
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    begin_with_time(task)
    folder = folder_of(task)
    kept = json.loads((folder / "depends.json").read_text())
    (folder / "depends.json").write_text(json.dumps({**kept, "version of torch": "0.1"}))
    from trimtab.base.task import load_task

    job = Job(name="make-prompt-0", stage="make", arms=("prompt",))
    outcome = run_job(JobContext(task=load_task(task), folder=folder), job, "one", cores=1, gpu=False)
    assert "changed since this was begun: version of torch (was 0.1, is " in str(outcome.study_error)


def test_events_are_passed_on_once_and_whole(tmp_path: Path) -> None:
    own = tmp_path / "workers" / "make-a-0"
    own.mkdir(parents=True)
    worker = Progress(path=own / "w1.jsonl", arm="a", worker="w1")
    worker.emit("begin")
    study_file = tmp_path / "events.jsonl"
    first = WorkerEvents(tmp_path, Progress(path=study_file))
    first.relay_new()
    worker.emit("train", step=1, of=2)
    with (own / "w1.jsonl").open("a") as file:
        file.write('{"time": "cut')  # by a process that was killed
    first.relay_new()
    first.relay_new()
    WorkerEvents(tmp_path, Progress(path=study_file)).relay_new()  # of a study that goes on
    told = [json.loads(line) for line in study_file.read_text().splitlines()]
    assert [(event["stage"], event["worker"]) for event in told] == [("begin", "w1"), ("train", "w1")]
