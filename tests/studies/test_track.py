"""Figures of training at a tracker: those of the events, a run for each run, and no training that hangs on one."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from study_tasks import QUICK, folder_of, write_task
from trackers import FILES, put_on_path, runs_of

from trimtab import study, train
from trimtab.base.errors import InputError, PackageError, StoppedError
from trimtab.studies.track import QUIET, TRACKERS, Tracking, tracked_figures

Told = dict[int, dict[str, float]]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (*QUIET, "WANDB_MODE"):
        monkeypatch.setenv(name, "")  # put back afterwards
        monkeypatch.delenv(name)
    put_on_path(tmp_path / "installed", monkeypatch)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in FILES]:
        del sys.modules[name]


def by_step(rows: list[tuple[int, dict[str, float]]]) -> Told:
    """Return the figures of each step, dev evaluations included."""
    found: Told = {}
    for step, figures in rows:
        found.setdefault(step, {}).update(figures)
    return found


def trained(task: Path, **more: Any) -> tuple[Path, list[dict[str, Any]]]:
    """A training, its run's folder and all that it told."""
    events: list[dict[str, Any]] = []
    return train(task, "quick", listeners=[events.append], **more).folder, events


@pytest.fixture
def task(tmp_path: Path, tiny_model_folder: Path) -> Path:
    return write_task(tmp_path, tiny_model_folder, ["quick"], more=QUICK)


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_is_told_the_figures_of_the_events(installed: None, task: Path, tracker: str) -> None:
    folder, events = trained(task, track=tracker)
    expected = by_step([(event["step"], tracked_figures(event)) for event in events if tracked_figures(event)])
    assert {"train/loss", "train/gradient_norm", "train/learning_rate"} <= expected[1].keys()
    assert {"dev/loss", "dev/metric", "dev/train_loss"} <= expected[max(expected)].keys()
    (run,) = runs_of(tracker)
    assert by_step(run.logged) == expected
    assert run.closed == 1
    assert folder.name in str(run.given)
    assert not {name.partition(".")[0] for name in sys.modules} & (set(FILES) - {tracker})
    assert next(event["note"] for event in events if event["stage"] == "track").startswith("figures of training: ")


def test_none_is_imported_where_none_is_asked_for(installed: None, task: Path) -> None:
    trained(task)
    assert not {name.partition(".")[0] for name in sys.modules} & set(FILES)


def test_every_run_of_a_study_is_a_run_of_its_own(installed: None, tmp_path: Path, tiny_model_folder: Path) -> None:
    more = '[arm.two]\nweights = "lora"\nstages = ["docs", "sft"]\nepochs = 1\n'
    (tmp_path / "notes.md").write_text("# Places\nBonn has a bridge.\n")
    settings = {"data": 'documents = ["notes.md"]', "study": "seeds = 2", "more": more}
    task = write_task(tmp_path, tiny_model_folder, ["two", "prompt"], **settings)
    events: list[dict[str, Any]] = []
    result = study(task, listeners=[events.append], track="trackio")
    runs = {run.given["name"]: run for run in runs_of("trackio")}
    names = [f"two/run-{seed}/{stage}" for seed in (0, 1) for stage in ("docs", "sft")]
    assert list(runs) == [f"{result.study}/{name}" for name in names]
    for name in names:
        own = [event for event in events if event.get("run") == f"arms/{name}" and tracked_figures(event)]
        run = runs[f"{result.study}/{name}"]
        assert by_step(run.logged) == by_step([(event["step"], tracked_figures(event)) for event in own])
        assert run.closed == 1
    assert folder_of(task, result).is_dir()


def told(arm: str, run: str, step: int) -> dict[str, Any]:
    return {"stage": "train", "arm": arm, "seed": 0, "step": step, "of": 9, "run": run, "loss": float(step)}


TURNS = [
    told(arm, run, step)
    for arm, run, step in (
        *(("a", "sft-1", 1), ("a", "sft-2", 1), ("a", "sft-1", 2), ("a", "sft-2", 2)),
        ("b", "sft", 1),
    )
]


def test_trials_that_take_turns_stay_open_until_another_arm_is_trained(installed: None) -> None:
    tracking = Tracking("wandb", "task", lambda _: None)
    for event in TURNS:
        tracking(event)
    tracking.close()
    assert [(run.given["name"], run.steps) for run in runs_of("wandb")] == [
        ("a/sft-1", [1, 2]),
        ("a/sft-2", [1, 2]),
        ("b/sft", [1]),
    ]
    assert runs_of("wandb")[0].order == [
        *("open a/sft-1", "open a/sft-2", "end a/sft-1", "end a/sft-2"),
        *("open b/sft", "end b/sft"),
    ]


def test_trackio_has_one_run_at_a_time_and_goes_on_with_it_by_its_name(installed: None) -> None:
    tracking = Tracking("trackio", "task", lambda _: None)
    for event in TURNS:
        tracking(event)
    tracking.close()
    names = [run.given["name"].removeprefix("/") for run in runs_of("trackio")]
    assert names == ["a/sft-1", "a/sft-2", "a/sft-1", "a/sft-2", "b/sft"]
    assert {run.given["resume"] for run in runs_of("trackio")} == {"allow"}
    assert [word.split()[0] for word in runs_of("trackio")[0].order] == ["open", "end"] * 5


def test_a_tracker_that_hangs_delays_no_training(installed: None) -> None:
    runs_of("wandb")
    gate = threading.Event()
    sys.modules["wandb"].Run.wait = gate.wait
    tracking = Tracking("wandb", "task", lambda _: None)
    for event in TURNS:
        tracking(event)  # would never return
    gate.set()
    tracking.close()
    assert [run.closed for run in runs_of("wandb")] == [1, 1, 1]


def test_without_a_key_of_the_users_own_nothing_is_sent(
    installed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(home))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)

    def mode() -> str | None:
        tracking = Tracking("wandb", "task", lambda _: None)
        tracking(told("a", "sft", 1))
        tracking.close()
        given: dict[str, Any] = runs_of("wandb")[-1].given
        assert given["settings"].console == "off"
        return given["mode"]

    assert mode() == "offline"
    home.write_text("machine elsewhere.example login user password k\n")
    assert mode() == "offline"
    home.write_text("machine api.wandb.ai login user password k\n")
    assert mode() is None
    home.unlink()
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert mode() is None
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("WANDB_MODE", "online")
    assert mode() is None


@pytest.mark.parametrize(
    ("place", "allowed"),
    [
        ("file:./mlruns", "true"),
        ("mlruns", "true"),
        ("", None),
        ("http://127.0.0.1:5000", None),
        ("sqlite:///runs.db", None),
    ],
)
def test_mlflow_takes_a_folder_where_the_user_names_one(
    installed: None, monkeypatch: pytest.MonkeyPatch, place: str, allowed: str | None
) -> None:
    """MLflow 3 refuses a folder unless MLFLOW_ALLOW_FILE_STORE is set."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")  # put back afterwards
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    tracking = Tracking("mlflow", "task", lambda _: None)
    tracking(told("a", "sft", 1))
    tracking.close()
    assert [run.steps for run in runs_of("mlflow")] == [[1]]
    assert os.environ.get("MLFLOW_ALLOW_FILE_STORE") == allowed


def test_mlflow_itself_keeps_the_figures_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")  # put back afterwards
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    notes: list[str] = []
    tracking = Tracking("mlflow", "task", notes.append)
    for event in TURNS:
        tracking(event)
    tracking.close()
    assert [note.partition(",")[0] for note in notes] == ["figures of training: mlflow"]
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("task").experiment_id])
    assert {run.info.run_name: run.data.metrics["train/loss"] for run in runs} == {
        "/a/sft-1": 2.0,
        "/a/sft-2": 2.0,
        "/b/sft": 1.0,
    }
    assert {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_that_fails_is_told_once_and_ends_no_training(installed: None, task: Path, tracker: str) -> None:
    runs_of(tracker)
    sys.modules[{"tensorboard": "tensorboard.summary.writer.event_file_writer"}.get(tracker, tracker)].Run.fails_at = 2
    folder, events = trained(task, track=tracker)
    (run,) = runs_of(tracker)
    assert {step for step, _ in run.logged} == {1}
    assert run.closed == 1
    notes = [event["note"] for event in events if event["stage"] == "track"]
    assert notes[1:] == [f"{tracker} failed, nothing more is handed to it: ConnectionError: gone"]
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()


def test_runs_are_ended_where_the_work_is_stopped(installed: None, task: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["stage"] == "train" and event["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(StoppedError):
        train(task, "quick", listeners=[stop], track="mlflow")
    (run,) = runs_of("mlflow")
    assert ({step for step, _ in run.logged}, run.closed) == ({1, 2}, 1)


def test_what_is_not_there_is_refused_before_any_work(
    task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for verb in (lambda track: train(task, "quick", track=track), lambda track: study(task, track=track)):
        with pytest.raises(PackageError, match=r"--track wandb needs the package wandb; .*: pip install wandb$"):
            verb("wandb")
        with pytest.raises(InputError, match="--track: 'comet' is no tracker; use one of: tensorboard, wandb, mlflow"):
            verb("comet")
    assert not (tmp_path / ".trimtab").exists()


def test_a_folder_that_a_tracker_left_is_not_the_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorboard").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tensorboard", raising=False)
    with pytest.raises(PackageError):
        Tracking("tensorboard", "task", lambda _: None)


def test_tensorboard_reads_what_was_told_and_of_steps_told_twice_the_later(task: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def stop(event: dict[str, Any]) -> None:
        if event["stage"] == "train" and event["step"] == 4:
            raise KeyboardInterrupt

    before: list[dict[str, Any]] = []
    with pytest.raises(StoppedError):
        train(task, "quick", listeners=[stop, before.append], track="tensorboard")
    folder, events = trained(task, resume="latest", track="tensorboard")
    assert next(event["step"] for event in events if event["stage"] == "train") == 3  # the third is told again
    (place,) = {file.parent for file in (folder / "tensorboard").rglob("events.*")}
    found = EventAccumulator(str(place)).Reload()
    expected = by_step(
        [(event["step"], tracked_figures(event)) for event in (*before, *events) if tracked_figures(event)]
    )
    assert len(expected) > 4
    names = {name for figures in expected.values() for name in figures}
    assert set(found.Tags()["scalars"]) == names
    for name in names:
        read = [(point.step, point.value) for point in found.Scalars(name)]
        assert read == [
            (step, pytest.approx(figures[name])) for step, figures in sorted(expected.items()) if name in figures
        ]
