"""`eval`: one arm scored on dev or test, with weights that were trained before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from trimtab.arms.identity import digest_of, settings_of
from trimtab.arms.made import Allowance
from trimtab.arms.run import ArmRunner, forget_replies
from trimtab.arms.saved import find_saved, measured_precision, require_weights
from trimtab.base.errors import InputError
from trimtab.base.progress import Listener, Progress
from trimtab.base.results import ArmResult
from trimtab.base.task import Task, parse_arm, require_answers
from trimtab.measurement.evaluate import save_answers
from trimtab.measurement.scorer import ScorerFunction
from trimtab.studies.opening import loaded, opened
from trimtab.studies.record import count_opening

EVALS = "evals"


def eval(
    task: str | Path | Task,
    arm: str,
    *,
    split: Literal["dev", "test"] = "dev",
    run: str | None = None,
    allow: Sequence[str] = (),
    allow_commands: bool = False,
    scorer: ScorerFunction | None = None,
    listeners: Sequence[Listener] | None = None,
) -> ArmResult:
    """Score one arm on a split, with its 95% interval; the answers are kept in `.trimtab/evals/`.

    Weights are those of the training run `run`, else of the newest run of this arm, else of the newest study; the same holds for
    the number of shots or passages. Scoring on test is counted, and told. `allow` is that of `study`. `scorer` is a function
    `(input, reference, answer) -> 0..1` in place of the task's program. `listeners` get every event; None shows progress on
    standard error. Raises MissingError where there are no weights.
    """
    own = loaded(task)
    chosen = parse_arm(arm, own)
    require_answers(chosen, own)
    with opened(
        own, [chosen], listeners=listeners, allow=allow, allow_commands=allow_commands, scorer=scorer
    ) as opening:
        saved = require_weights(find_saved(own, chosen, run), chosen, own)
        session = opening.session(measured_precision(saved, own))
        workspace = session.workspace
        if not workspace.splits[split]:
            raise InputError(f"the {split} split is empty", "add examples", file=opening.task.file, field="data.split")
        name = f"{saved.id}-{chosen.name}" if saved else chosen.name
        progress = opening.progress(arm=chosen.name)
        if split == "test":
            digest = digest_of(settings_of(opening.task))[:8]  # another prompt is another look
            _tell_opening(count_opening(workspace, f"eval-{name}-{digest}"), progress)
        folder = workspace.folder / EVALS / f"{name}-{split}"
        runner = ArmRunner(session, opening.scorer, progress)
        outcome = runner.run(chosen, split, folder, Allowance(), saved=saved)
        save_answers(folder / "answers.parquet", outcome.answers)
        forget_replies(folder)
    return outcome.result


def _tell_opening(openings: int, progress: Progress) -> None:
    times = "once" if openings == 1 else f"{openings} times"
    note = f"The test questions have now been opened {times}; choices made on them make their scores too good."
    progress.emit("data", note=note, stays=True)
