"""Where the weights of an arm lie that were made before, and which arm the newest study chose."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.arms.workspace import FOLDER
from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import folder_named, read_object
from trimtab.base.records import Arm
from trimtab.base.tables import BaseTable
from trimtab.base.task import Task

IDENTITY = ("weights", "stages", "context", "settings")
RUN_KEYS = (*IDENTITY, "arm", "chosen", "result")


@dataclass(frozen=True, kw_only=True)
class SavedArm:
    """An arm as it was measured or trained: `count` of its shots or passages, `folder` with its `adapter/`, what training took."""

    id: str
    folder: Path
    count: int | None
    train_seconds: float


def latest_winner(task: Task) -> str | None:
    """The arm that the newest finished study showed to be the choice; None where there is none.

    Raises InputError where that study was of another base model than the task file names.
    """
    for folder in newest(task.folder / FOLDER / "studies"):
        plain = read_if_there(folder / "study.json", "verdict")
        if plain is None:
            continue
        winner: str | None = plain["verdict"]["arm"]
        on_base = winner is not None and winner != "linear" and not winner.startswith("api-")
        other = _other_base(_base_of_study(folder), task) if on_base else None
        if other is not None:
            raise InputError(
                f"the study {folder.name} chose {winner} on {other}, and the task file now names {task.base.model}",
                "run trimtab study again, name an arm with --arm, or put base.model back",
                file=task.file,
            )
        return winner
    return None


def find_saved(task: Task, arm: Arm, run: str | None = None) -> SavedArm | None:
    """The arm as kept by the training run `run`, else by the newest one of this arm, else by the newest study.

    Raises MissingError for a `run` that is not there, is unfinished or is of another arm, and where trained weights stand on
    another base model alone.
    """
    home = task.folder / FOLDER
    if run is not None:
        return _named(folder_named(home / "runs", run, "run"), arm, task)
    elsewhere: str | None = None
    for folder in newest(home / "runs"):
        plain = read_if_there(folder / "manifest.json", *RUN_KEYS)
        if plain is not None and plain["result"] is not None and _is(plain, arm):
            other = _other_base(plain, task, arm)
            if other is None:
                return _from_run(folder, plain)
            elsewhere = elsewhere or other
    for folder in newest(home / "studies"):
        plain = read_if_there(folder / "arms" / arm.name / "arm.json", *IDENTITY, "result")
        if plain is not None and _is(plain, arm):
            other = _other_base(_base_of_study(folder), task, arm)
            if other is None:
                return _from_study(folder, arm, plain["result"])
            elsewhere = elsewhere or other
    if elsewhere is not None and arm.weights != "base":
        raise MissingError(_other_weights(arm, elsewhere, task))
    return None


def require_weights(kept: SavedArm | None, arm: Arm) -> SavedArm | None:
    """`kept` again; raises MissingError when the arm needs trained weights and there are none."""
    if arm.weights not in ("base", "api") and kept is None:
        raise MissingError(f"arm {arm.name} has no trained weights yet; make them with: trimtab train {arm.name}")
    return kept


def _named(folder: Path, arm: Arm, task: Task) -> SavedArm:
    plain = read_if_there(folder / "manifest.json", *RUN_KEYS)
    if plain is None:
        raise MissingError(f"{folder}: no such run; trimtab runs lists them")
    if not _is(plain, arm):
        raise MissingError(f"{folder}: a run of arm {plain['arm']}, not of {arm.name}; trimtab runs lists them")
    if plain["result"] is None:
        raise MissingError(f"{folder}: not finished; go on with: trimtab train {arm.name} --resume {folder.name}")
    other = _other_base(plain, task, arm)
    if other is not None:
        raise MissingError(f"{folder}: {_other_weights(arm, other, task)}")
    return _from_run(folder, plain)


def _other_weights(arm: Arm, other: str, task: Task) -> str:
    now = task.base.embedding if arm.weights == "linear" else task.base.model
    return (
        f"the weights of arm {arm.name} were trained on {other}, and the task file now names {now}; "
        f"train it again with: trimtab train {arm.name}, or put the former model back"
    )


def _from_run(folder: Path, plain: dict[str, Any]) -> SavedArm:
    return SavedArm(
        id=folder.name, folder=folder, count=_count(plain["chosen"]), train_seconds=plain["result"]["seconds"]
    )


def _from_study(folder: Path, arm: Arm, result: dict[str, Any]) -> SavedArm:
    run = folder / "arms" / arm.name / "run-0"
    return SavedArm(id=folder.name, folder=run, count=_count(result["chosen"]), train_seconds=result["train_seconds"])


def _is(plain: dict[str, Any], arm: Arm) -> bool:
    """Whether a manifest or arm.json is of this arm: an `[arm.NAME]` table may have been changed since."""
    own = {"weights": arm.weights, "stages": list(arm.stages), "context": arm.context, "settings": dict(arm.settings)}
    return plain.get("arm", arm.name) == arm.name and all(plain[key] == value for key, value in own.items())


def _other_base(made_on: Mapping[str, Any], task: Task, arm: Arm | None = None) -> str | None:
    """The model that an arm was made on where that is not the task's: its base, or for `linear` its embedding."""
    if arm is not None and arm.weights == "api":
        return None
    if arm is not None and arm.weights == "linear":
        embedding = made_on.get("embedding", task.base.embedding)
        return None if embedding == task.base.embedding else str(embedding)
    model, revision = (made_on.get(key, getattr(task.base, key)) for key in ("model", "revision"))
    if (model, revision) == (task.base.model, task.base.revision):
        return None
    return f"{model} at {revision}" if revision else str(model)


def _base_of_study(folder: Path) -> Mapping[str, Any]:
    """The `[base]` table of the task file that a study keeps, defaults filled in; empty where there is none."""
    file = folder / "task.toml"
    if not file.is_file():
        return {}
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8-sig"))["base"]
        return BaseTable(**table).model_dump()
    except (ValueError, KeyError, TypeError) as error:  # what tomllib and pydantic raise are ValueErrors
        raise InputError(
            f"is damaged ({type(error).__name__})", "restore it, or move its folder away", file=file
        ) from None


def _count(chosen: dict[str, Any]) -> int | None:
    found = chosen.get("passages", chosen.get("shots"))
    return None if found is None else int(found)


def newest(folder: Path) -> list[Path]:
    """The folders of runs or studies below `folder`, the newest first: their names begin with the time."""
    return sorted((item for item in folder.glob("*") if item.is_dir()), reverse=True)


def read_if_there(path: Path, *keys: str) -> dict[str, Any] | None:
    """A JSON object with `keys`, None where there is no such file; raises InputError for a damaged one."""
    return read_object(path, *keys) if path.is_file() else None
