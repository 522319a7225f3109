"""`runs`: studies and training runs of a task, the newest first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from trimtab.arms.saved import newest, read_if_there
from trimtab.arms.workspace import FOLDER
from trimtab.base.files import TIME
from trimtab.base.task import Task, load_task


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """One study or training run. `arm` is the winner of a study (None: not shown), `score` its figure or the run's best on dev."""

    id: str
    kind: Literal["study", "run"]
    state: Literal["done", "unfinished"]
    arm: str | None
    score: float | None
    when: str


def runs(task: str | Path | Task = "trimtab.toml") -> tuple[RunInfo, ...]:
    """Every study and training run of a task, the newest first."""
    task = task if isinstance(task, Task) else load_task(task)
    home = task.folder / FOLDER
    found = [_study_info(folder) for folder in newest(home / "studies")]
    found += [_run_info(folder) for folder in newest(home / "runs")]
    return tuple(sorted(found, key=lambda info: info.id, reverse=True))


def _study_info(folder: Path) -> RunInfo:
    plain = read_if_there(folder / "study.json", "verdict", "arms")
    arm = plain["verdict"]["arm"] if plain else None
    scores = {row["arm"]: row.get("score") for row in plain["arms"]} if plain else {}
    state: Literal["done", "unfinished"] = "done" if plain else "unfinished"
    return RunInfo(id=folder.name, kind="study", state=state, arm=arm, score=scores.get(arm), when=_when(folder))


def _run_info(folder: Path) -> RunInfo:
    plain = read_if_there(folder / "manifest.json", "arm", "result")
    result = plain["result"] if plain else None
    return RunInfo(
        id=folder.name,
        kind="run",
        state="done" if result else "unfinished",
        arm=plain["arm"] if plain else None,
        score=result["dev_metric"] if result else None,
        when=_when(folder),
    )


def _when(folder: Path) -> str:
    try:
        return f"{datetime.strptime(folder.name.partition('-')[0], TIME).replace(tzinfo=UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return f"{datetime.fromtimestamp(folder.stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC"
