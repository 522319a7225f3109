"""`eval`: one arm scored on dev or test, with weights that were trained before."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from trimtab.arms.run import ArmRunner, Effort
from trimtab.arms.saved import find_saved, require_weights
from trimtab.arms.session import open_session
from trimtab.arms.workspace import Workspace, open_workspace, require_sound
from trimtab.base.errors import InputError
from trimtab.base.progress import Display, Progress
from trimtab.base.records import ArmResult
from trimtab.base.task import Task, load_task, parse_arm
from trimtab.measurement.evaluate import Scorer, save_answers
from trimtab.measurement.scorer import ScorerProgram, require_consent
from trimtab.studies.record import count_opening

EVALS = "evals"


def eval(
    task: str | Path | Task,
    arm: str,
    *,
    split: Literal["dev", "test"] = "dev",
    run: str | None = None,
    allow_commands: bool = False,
) -> ArmResult:
    """Score one arm on a split, with its 95% interval; the answers are kept in `.trimtab/evals/`.

    Weights are those of the training run `run`, else of the newest run of this arm, else of the newest study; the same holds for
    the number of shots or passages. Scoring on test is counted. Raises MissingError where there are no weights.
    """
    task = task if isinstance(task, Task) else load_task(task)
    chosen = parse_arm(arm, task)
    kept = require_weights(find_saved(task, chosen, run), chosen)
    if task.task.scorer:
        require_consent(task.task.scorer, allow_commands)
    workspace = open_workspace(task)
    require_sound(workspace)
    session = open_session(workspace)
    if not session.workspace.splits[split]:
        raise InputError(f"the {split} split is empty", "add examples", file=task.file, field="data.split")
    name = f"{kept.id}-{arm}" if kept else arm
    if split == "test":
        digest = session.workspace.task_digest[:8]  # another prompt is another look
        _tell_opening(session.workspace, f"eval-{name}-{digest}")
    display = Display()
    with ExitStack() as stack:
        stack.callback(display.close)
        scorer: Scorer | None = None
        if task.task.scorer:
            scorer = stack.enter_context(ScorerProgram(task.task.scorer, task.folder))
        runner = ArmRunner(session, scorer, Progress(listeners=[display], arm=arm))
        folder = workspace.folder / EVALS / f"{name}-{split}"
        outcome = runner.run(chosen, split, folder, Effort(search=False), kept=kept)
    save_answers(folder / "answers.parquet", outcome.answers)
    return outcome.result


def _tell_opening(workspace: Workspace, name: str) -> None:
    """Count this look at the test questions, and say so."""
    openings = count_opening(workspace, name)
    times = "once" if openings == 1 else f"{openings} times"
    sys.stderr.write(
        f"The test questions have now been opened {times}; choices made on them make their scores too good.\n"
    )
