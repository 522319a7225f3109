"""Where the weights of an arm lie that were made before, and which arm the newest study chose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.base.errors import MissingError
from trimtab.base.files import folder_named, read_object
from trimtab.base.records import Arm
from trimtab.base.task import Task
from trimtab.studies.workspace import FOLDER

IDENTITY = ("weights", "stages", "context", "settings")
RUN_KEYS = (*IDENTITY, "arm", "chosen", "result")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """An arm as it was measured or trained: `count` of its shots or passages, `folder` with its `adapter/`, what training took."""

    id: str
    folder: Path
    count: int | None
    train_seconds: float


def latest_winner(task: Task) -> str | None:
    """The arm that the newest finished study showed to be the choice; None where there is none."""
    for folder in newest(task.folder / FOLDER / "studies"):
        plain = read_if_there(folder / "study.json", "verdict")
        if plain is not None:
            winner: str | None = plain["verdict"]["arm"]
            return winner
    return None


def find_kept(task: Task, arm: Arm, run: str | None = None) -> Kept | None:
    """The arm as kept by the training run `run`, else by the newest one of this arm, else by the newest study.

    Raises MissingError for a `run` that is not there, is unfinished or is of another arm.
    """
    home = task.folder / FOLDER
    if run is not None:
        return _named(folder_named(home / "runs", run, "run"), arm)
    for folder in newest(home / "runs"):
        plain = read_if_there(folder / "manifest.json", *RUN_KEYS)
        if plain is not None and plain["result"] is not None and _is(plain, arm) and _same_base(plain, task):
            return _from_run(folder, plain)
    for folder in newest(home / "studies"):
        plain = read_if_there(folder / "arms" / arm.name / "arm.json", *IDENTITY, "result")
        if plain is not None and _is(plain, arm) and _same_base(read_if_there(folder / "manifest.json"), task):
            result = plain["result"]
            return Kept(
                id=folder.name,
                folder=folder / "arms" / arm.name / "run-0",
                count=_count(result["chosen"]),
                train_seconds=result["train_seconds"],
            )
    return None


def require_weights(kept: Kept | None, arm: Arm) -> Kept | None:
    """`kept` again; raises MissingError when the arm needs trained weights and there are none."""
    if arm.weights not in ("base", "api") and kept is None:
        raise MissingError(f"arm {arm.name} has no trained weights yet; make them with: trimtab train {arm.name}")
    return kept


def _named(folder: Path, arm: Arm) -> Kept:
    plain = read_if_there(folder / "manifest.json", *RUN_KEYS)
    if plain is None:
        raise MissingError(f"{folder}: no such run; trimtab runs lists them")
    if not _is(plain, arm):
        raise MissingError(f"{folder}: a run of arm {plain['arm']}, not of {arm.name}; trimtab runs lists them")
    if plain["result"] is None:
        raise MissingError(f"{folder}: not finished; go on with: trimtab train {arm.name} --resume {folder.name}")
    return _from_run(folder, plain)


def _from_run(folder: Path, plain: dict[str, Any]) -> Kept:
    return Kept(id=folder.name, folder=folder, count=_count(plain["chosen"]), train_seconds=plain["result"]["seconds"])


def _is(plain: dict[str, Any], arm: Arm) -> bool:
    """Whether a manifest or arm.json is of this arm: an `[arm.NAME]` table may have been changed since."""
    own = {"weights": arm.weights, "stages": list(arm.stages), "context": arm.context, "settings": dict(arm.settings)}
    return plain.get("arm", arm.name) == arm.name and all(plain[key] == value for key, value in own.items())


def _same_base(plain: dict[str, Any] | None, task: Task) -> bool:
    """Whether it stands on the task's base model; a study's own task file is not read for it."""
    return plain is None or plain.get("model", task.base.model) == task.base.model


def _count(chosen: dict[str, Any]) -> int | None:
    found = chosen.get("passages", chosen.get("shots"))
    return None if found is None else int(found)


def newest(folder: Path) -> list[Path]:
    """The folders of runs or studies below `folder`, the newest first: their names begin with the time."""
    return sorted((item for item in folder.glob("*") if item.is_dir()), reverse=True)


def read_if_there(path: Path, *keys: str) -> dict[str, Any] | None:
    """A JSON object with `keys`, None where there is no such file; raises InputError for a damaged one."""
    return read_object(path, *keys) if path.is_file() else None
