"""Experiment tracking (`--track NAME`): passes training figures to the requested tracker, which is imported only when
there are any.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from inspect import signature
from netrc import NetrcParseError, netrc
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol
from urllib.parse import urlsplit

from trimtab.base.errors import InputError, PackageError
from trimtab.base.files import sha256_text
from trimtab.base.progress import ProgressEvent

# Telemetry of these libraries is off, unless the user's environment turns it on.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
# Terminal output may contain rows; code, packages and the machine's state are private.
_FIGURES_ALONE: Mapping[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
_ONE_AT_A_TIME = ("trackio",)  # its `init` ends the previous run; a resumed run is found by its name
_PLACES = ("step", "of", "seed")  # numbers of an event that are not tracked


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """A training run as tracked: its task, the folder of its study or run (`home`), and its name there."""

    task: str
    home: Path
    arm: str
    seed: int
    run: str
    step: int

    @property
    def name(self) -> str:
        """Return its name within the study: `lora/run-0/sft`."""
        return f"{self.arm}/{self.run.removeprefix(f'arms/{self.arm}/')}"

    @property
    def label(self) -> str:
        """Return its name within the task, which stays the same when a stopped run is resumed."""
        return f"{self.home.name}/{self.name}"

    @property
    def settings(self) -> dict[str, str | int]:
        """Return the settings that identify it in the tracker."""
        return {"of": self.home.name, "arm": self.arm, "seed": self.seed, "run": self.run}


_Figures = tuple[TrackedRun, Mapping[str, float]]


class TrackerRun(Protocol):
    """An open run of a tracker. `where`: in words, where to find it."""

    where: str

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send the figures of a step."""
        ...

    def close(self) -> None:
        """Send what is left and end the run."""
        ...


class Tracking:
    """Listener that passes the figures of `train` and `dev` events to a tracker, each training run as its own run.

    A separate thread sends them, so that a slow tracker neither delays training nor counts as its time. Runs stay
    open while their arm and seed are trained, as trials alternate. An error of the tracker is reported once through
    `tell`, and nothing is sent afterwards: no tracker ends a training. Raises InputError for an unknown tracker,
    PackageError if it is not installed.
    """

    def __init__(self, tracker: str, task: str, tell: Callable[[str], None]) -> None:
        if tracker not in TRACKERS:
            raise InputError(f"{tracker!r} is no tracker", f"use one of: {', '.join(TRACKERS)}", field="--track")
        spec = importlib.util.find_spec(tracker)
        if spec is None or spec.origin is None:  # a folder of that name, which these libraries leave behind
            raise PackageError(tracker, None, f"--track {tracker}")
        self.home = Path()
        self._tracker, self._task, self._tell = tracker, task, tell
        self._figures: SimpleQueue[_Figures | None] = SimpleQueue()
        self._notes: SimpleQueue[str] = SimpleQueue()  # shown by the thread that owns the display
        self._thread: Thread | None = None
        self._open: dict[tuple[str, int, str], TrackerRun] = {}
        self._broken = self._told_steps = False

    def __call__(self, event: ProgressEvent) -> None:
        """Queue the figures of an event, if it has any."""
        figures = tracked_figures(event)
        if not figures:
            return
        if self._thread is None:
            self._thread = Thread(target=self._work, daemon=True)
            self._thread.start()
        run = TrackedRun(
            task=self._task,
            home=self.home,
            arm=str(event["arm"]),
            seed=int(event["seed"] or 0),
            run=str(event["run"]),
            step=event["step"],
        )
        self._figures.put((run, figures))
        self._tell_notes()

    def close(self) -> None:
        """Wait until everything is sent and every run is ended."""
        if self._thread is not None:
            self._figures.put(None)
            self._thread.join()
            self._thread = None
        self._tell_notes()

    def _tell_notes(self) -> None:
        while not self._notes.empty():
            self._tell(self._notes.get())

    def _work(self) -> None:
        """Send figures as they come, then end the runs (runs in the thread)."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        while (item := self._figures.get()) is not None:
            if not self._broken:
                self._guarded(partial(self._log, *item))
        for log in self._open.values():
            self._guarded(log.close)
        self._open.clear()

    def _log(self, run: TrackedRun, figures: Mapping[str, float]) -> None:
        key = (run.arm, run.seed, run.run)
        if key not in self._open:
            for other in list(self._open):
                if other[:2] != key[:2] or self._tracker in _ONE_AT_A_TIME:
                    self._open.pop(other).close()
            self._open[key] = TRACKERS[self._tracker](run)
            if not self._told_steps:
                self._told_steps = True
                self._notes.put(f"figures of training: {self._open[key].where}")
        self._open[key].log(run.step, figures)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - no error of a tracker may end a training
            said = " ".join(f"{type(error).__name__}: {error}".split())
            if not self._broken:
                self._notes.put(f"{self._tracker} failed, nothing more is handed to it: {said[:200]}")
            self._broken = True


def tracked_figures(event: ProgressEvent) -> dict[str, float]:
    """Return the numbers of a training event as `train/loss`, `dev/loss`, `dev/metric` and so on; empty for other
    events.
    """
    stage = event["stage"]
    if stage not in ("train", "dev") or "run" not in event:
        return {}
    numbers = {
        name: float(value)
        for name, value in event.items()
        if name not in _PLACES and isinstance(value, int | float) and not isinstance(value, bool)
    }
    return {f"{stage}/{name.removeprefix(f'{stage}_')}": value for name, value in numbers.items()}


class _TensorBoard:
    """Writes event files below the folder of the study or run."""

    def __init__(self, run: TrackedRun) -> None:
        event = import_module("tensorboard.compat.proto.event_pb2")
        self._event, self._summary = event.Event, import_module("tensorboard.compat.proto.summary_pb2").Summary
        writer = import_module("tensorboard.summary.writer.event_file_writer").EventFileWriter
        folder = run.home / "tensorboard"
        self.where = f"tensorboard --logdir {folder}"
        self._writer = writer(str(folder / run.name), flush_secs=5)
        # A resumed run repeats some steps: their earlier values no longer count.
        start = event.SessionLog(status=event.SessionLog.START)
        self._writer.add_event(self._event(wall_time=time.time(), step=run.step, session_log=start))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        event = self._event(wall_time=time.time(), step=step, summary=self._summary(value=values))
        self._writer.add_event(event)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """Logs to the project named after the task; offline unless the user has a key or sets a mode."""

    def __init__(self, run: TrackedRun) -> None:
        wandb: Any = import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", run.task),
            group=run.home.name,
            name=run.name,
            id=sha256_text(run.label)[:16],
            config=run.settings,
            resume="allow",
            reinit="create_new",
            mode=None if "WANDB_MODE" in os.environ or _is_logged_in() else "offline",
            settings=wandb.Settings(**_FIGURES_ALONE),
        )
        self.where = f"wandb, {self._run.url or f'offline in {Path(self._run.dir).parent}'}"

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()


def _is_logged_in() -> bool:
    """True if the user has a key for Weights & Biases, in the environment or where `wandb login` puts it. Nothing is
    prompted.
    """
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        known = netrc(os.environ.get("NETRC"))
    except (OSError, NetrcParseError):
        return "WANDB_API_KEY" in os.environ
    return "WANDB_API_KEY" in os.environ or host in known.hosts


class _MLflow:
    """Logs to the experiment named after the task, at the user's MLFLOW_TRACKING_URI, which may be a folder.

    Uses the client, not the module-wide active run, of which there is one at a time, while trials alternate.
    """

    def __init__(self, run: TrackedRun) -> None:
        place = os.environ.get("MLFLOW_TRACKING_URI", "")
        if place and urlsplit(place).scheme in ("", "file"):  # MLflow 3 refuses folders by default
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        entities = import_module("mlflow.entities")
        self._metric = entities.Metric
        self._client: Any = import_module("mlflow").MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", run.task)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        begun = self._client.search_runs([experiment], f"tags.trimtab = '{run.label}'", max_results=1)
        if begun:
            self._id = begun[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            made = self._client.create_run(experiment, run_name=run.label, tags={"trimtab": run.label})
            self._id = made.info.run_id
            params = [entities.Param(key, str(value)) for key, value in run.settings.items()]
            self._client.log_batch(self._id, params=params)
        self.where = f"mlflow, experiment {name} at {self._client.tracking_uri}"

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(name, value, now, step) for name, value in figures.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._id)


class _Trackio:
    """Logs to the project named after the task, in trackio's own folder."""

    def __init__(self, run: TrackedRun) -> None:
        init = import_module("trackio").init
        known = signature(init).parameters  # by version
        off = {name: False for name in ("embed", "auto_log_gpu", "auto_log_cpu") if name in known}
        self._run = init(
            project=run.task, name=run.label, group=run.home.name, config=run.settings, resume="allow", **off
        )
        self.where = f"trackio show --project {run.task}"

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: Mapping[str, Callable[[TrackedRun], TrackerRun]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _MLflow,
    "trackio": _Trackio,
}
