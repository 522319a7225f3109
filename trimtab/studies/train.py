"""`train`: one arm's weights, kept as a run that `ask` and `eval` find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimtab.arms.run import ArmRunner, Effort
from trimtab.arms.session import Session, open_session
from trimtab.arms.weights import recipe
from trimtab.arms.workspace import Workspace, open_workspace, require_sound
from trimtab.base.errors import InputError, MissingError, StoppedError
from trimtab.base.files import folder_named, locked, new_folder, read_lines, read_object, write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.base.progress import Display, Listener, Progress
from trimtab.base.records import Arm
from trimtab.base.task import Task, load_task, parse_arm
from trimtab.studies.record import arm_digest
from trimtab.training.monitor import Health, Reading, best_of, health

UNLIMITED = Effort(search=False)  # shots and passages as the arm says, else the usual ones


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run; losses in nats per answer token, `dev_metric` the task's metric on dev, both of the weights that were kept."""

    id: str
    arm: str
    seed: int
    folder: Path
    steps: int
    seconds: float
    tokens: int
    health: Health
    dev_loss: float | None
    dev_metric: float | None


def train(
    task: str | Path | Task,
    arm: str,
    *,
    seed: int = 0,
    resume: str | None = None,
    listeners: Sequence[Listener] | None = None,
) -> TrainedRun:
    """Train an arm's weights and keep them in `.trimtab/runs/ID/`.

    `resume`: the ID of an unfinished run, or "latest" for the newest of this arm. `listeners` get every event; None shows
    progress on standard error. Raises InputError for an arm without weights of its own, StoppedError after a signal.
    """
    task = task if isinstance(task, Task) else load_task(task)
    chosen = parse_arm(arm, task)
    if chosen.weights in ("base", "api"):
        raise InputError(f"arm {arm} has nothing to train", f"score it with: trimtab eval {arm}")
    workspace = open_workspace(task)
    require_sound(workspace)
    folder = _run_folder(workspace, chosen, seed, resume)
    display = Display() if listeners is None else None
    progress = Progress(
        path=folder / "metrics.jsonl", listeners=[display] if display else list(listeners or ()), arm=arm
    )
    try:
        with locked(folder):
            file = folder / "manifest.json"
            kept = read_object(file, "arm", "seed", "precision", "hashes", "result") if file.is_file() else None
            session = open_session(workspace, kept["precision"] if kept else None)
            return _train(session, chosen, seed, folder, progress, kept)
    except StoppedError as error:
        raise StoppedError(f"{error} (run {folder.name})") from None
    except KeyboardInterrupt:  # between steps, where the loop does not save
        raise StoppedError(f"stopped; go on with --resume {folder.name}") from None
    finally:
        if display:
            display.close()


def _train(
    session: Session, arm: Arm, seed: int, folder: Path, progress: Progress, kept: dict[str, Any] | None
) -> TrainedRun:
    progress.seed = kept["seed"] if kept else seed
    if kept is not None and any(kept["hashes"].get(key) != value for key, value in _hashes(session.workspace).items()):
        remedy = f"put back what was changed, or start a new run with: trimtab train {arm.name}"
        raise InputError("the rows or the documents have changed since this run was begun", remedy, file=folder)
    runner = ArmRunner(session, None, progress)
    context = runner.context(arm, UNLIMITED)
    manifest = kept or _manifest(session, arm, seed, context.chosen())
    write_json(folder / "manifest.json", manifest)
    extras: dict[str, float] = {}
    seconds = runner.make_weights(arm, context, folder, manifest["seed"], None, extras)
    readings = _readings(folder / "metrics.jsonl")
    best = best_of(readings) if readings else None
    run = TrainedRun(
        id=folder.name,
        arm=arm.name,
        seed=manifest["seed"],
        folder=folder,
        steps=int(extras.get("steps", 0)),
        seconds=seconds,
        tokens=int(extras.get("train_tokens", 0)),
        health=health(readings),
        dev_loss=best.dev_loss if best else None,
        dev_metric=best.dev_metric if best else None,
    )
    result = {key: value for key, value in asdict(run).items() if key not in ("id", "arm", "seed", "folder")}
    write_json(folder / "manifest.json", {**manifest, "result": {**result, **extras}})
    return run


def _manifest(session: Session, arm: Arm, seed: int, chosen: dict[str, Any]) -> dict[str, Any]:
    """What the weights rest on; `result` is filled in when the run is done."""
    workspace = session.workspace
    tuned = arm.weights != "linear"
    return {
        "arm": arm.name,
        "weights": arm.weights,
        "stages": list(arm.stages),
        "context": arm.context,
        "settings": dict(arm.settings),
        "chosen": chosen,
        "seed": seed,
        "model": session.task.base.model,
        "revision": session.task.base.revision,
        "embedding": session.task.base.embedding,
        "recipe": asdict(recipe(arm, len(workspace.splits["train"]), seed)) if tuned else {},
        "precision": session.base.precision if tuned else None,
        "hashes": {**_hashes(workspace), "task": workspace.task_digest},
        "versions": versions(),
        "machine": describe_machine(),
        "counts": {name: len(part) for name, part in workspace.splits.items()},
        "result": None,
    }


def _hashes(workspace: Workspace) -> dict[str, str]:
    """What a run must not be gone on with when it has changed; changed settings are told by its checkpoints."""
    return {"data": workspace.data_digest, "documents": workspace.documents_digest}


def _readings(path: Path) -> list[Reading]:
    """The evaluations on dev, one a step; a step that was gone over again after a crash counts as it came out last."""
    by_step = {event["step"]: event for event in read_lines(path) if event["stage"] == "dev"}
    names = ("step", "train_loss", "dev_loss", "dev_metric")
    return [Reading(**{name: event[name] for name in names}) for _, event in sorted(by_step.items())]


def _run_folder(workspace: Workspace, arm: Arm, seed: int, resume: str | None) -> Path:
    """A new run's folder, or that of the one to go on with."""
    home = workspace.folder / "runs"
    if resume is None:
        return new_folder(home, arm_digest(workspace, arm, seed)[:6])
    if resume not in ("", "latest"):
        folder = folder_named(home, resume, "run")
        file = folder / "manifest.json"
        own = read_object(file, "arm")["arm"] if file.is_file() else arm.name
        if own != arm.name:
            raise InputError(
                f"is a run of arm {own}", f"go on with: trimtab train {own} --resume {resume}", file=folder
            )
        return folder
    for folder in sorted(home.glob("*"), reverse=True):
        manifest = folder / "manifest.json"
        if manifest.is_file() and read_object(manifest, "arm")["arm"] == arm.name:
            return folder
    raise MissingError(f"{home}: no run of {arm.name} to go on with; start one with: trimtab train {arm.name}")
