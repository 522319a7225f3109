"""`runs`: lists studies and training runs of a task, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from trimtab.arms.store import newest, read_result, read_run
from trimtab.arms.workspace import FOLDER
from trimtab.base.errors import VersionError
from trimtab.base.files import TIME
from trimtab.base.show import ShownRows
from trimtab.base.task import Task, as_task

State = Literal["done", "unfinished", "of another version"]


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """One study or training run. `arm`: a study's winner (None: not shown). `score`: its score, or the run's best on
    dev.

    `verdict`: of a finished study. If nothing was shown, `best` is the arm with the highest score, and `score` its
    score.
    """

    id: str
    kind: Literal["study", "run"]
    state: State
    verdict: Literal["shown", "not shown"] | None = None
    arm: str | None
    best: str | None = None
    score: float | None
    when: str


def runs(task: str | Path | Task = "trimtab.toml") -> ShownRows:
    """Return every study and training run of a task as `RunInfo`, newest first."""
    task = as_task(task)
    home = task.folder / FOLDER
    found = [_info(folder, "study") for folder in newest(home / "studies")]
    found += [_info(folder, "run") for folder in newest(home / "runs")]
    return ShownRows(sorted(found, key=lambda info: info.id, reverse=True))


def _info(folder: Path, kind: Literal["study", "run"]) -> RunInfo:
    state: State = "unfinished"
    arm: str | None = None
    score: float | None = None
    verdict: Literal["shown", "not shown"] | None = None
    best: str | None = None
    try:
        if kind == "study" and (result := read_result(folder)) is not None and result.ran:
            state, arm = "done", result.verdict.arm
            verdict = "shown" if result.verdict.status == "shown" else "not shown"
            scores = {one.arm: one.score.value for one in result.arms if one.score}
            best = max(scores, key=scores.__getitem__) if arm is None else None
            score = scores.get(arm or best or "")
        elif kind == "run" and (run := read_run(folder)) is not None:
            arm = run.arm.name
            if run.result is not None:
                state, score = "done", run.result.best.dev_metric if run.result.best else None
    except VersionError:
        state = "of another version"
    when = _when(folder)
    return RunInfo(id=folder.name, kind=kind, state=state, verdict=verdict, arm=arm, best=best, score=score, when=when)


def _when(folder: Path) -> str:
    try:
        return f"{datetime.strptime(folder.name.partition('-')[0], TIME).replace(tzinfo=UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return f"{datetime.fromtimestamp(folder.stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC"
