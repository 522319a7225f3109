"""`eval`: scores one trained arm on dev or test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Literal

from trimtab.arms.artifacts import Allowance
from trimtab.arms.fingerprint import digest_of, task_settings
from trimtab.arms.run import ArmMeasurement, ArmRunner, forget_replies
from trimtab.arms.store import (
    ANSWERS,
    EIGHT_BIT,
    EVALS,
    eight_bit_folder,
    find_saved,
    measured_precision,
    require_weights,
    saved_name,
    with_measured_rows,
)
from trimtab.base.codec import write_record
from trimtab.base.errors import InputError
from trimtab.base.grammar import method_of
from trimtab.base.progress import Listener, Progress
from trimtab.base.records import Example
from trimtab.base.results import ArmResult, EightBit
from trimtab.base.task import Task, parse_arm, require_answers
from trimtab.measurement.evaluate import save_answers
from trimtab.measurement.scorer import ScorerFunction
from trimtab.measurement.statistics import compare_paired
from trimtab.studies.record import count_opening
from trimtab.studies.run_context import resolve_task, run_context


def eval(
    task: str | Path | Task,
    arm: str,
    *,
    split: Literal["dev", "test"] = "dev",
    run: str | None = None,
    eight_bit: bool = False,
    allow: Sequence[str] = (),
    allow_commands: bool = False,
    scorer: ScorerFunction | None = None,
    listeners: Sequence[Listener] | None = None,
) -> ArmResult:
    """Score one arm on a split, with its 95% interval; the answers are saved in `.trimtab/evals/`.

    Weights are those of the run or study `run`, else those trained or measured last; the same holds for the number
    of shots or passages. Scoring on test is counted and reported. With `eight_bit` the arm answers with its own
    weights and then with int8 weights: the result is that of the latter, its `eight_bit` the comparison; `serve`
    requires it. `allow` is that of `study`. `scorer`: a function `(input, reference, answer) -> 0..1` instead of the
    task's program. `listeners` get every event; None shows progress on standard error. Raises MissingError without
    weights, InputError for int8 of an arm that answers without the base model.
    """
    own = resolve_task(task)
    chosen = parse_arm(arm, own)
    require_answers(chosen, own)
    if eight_bit and not method_of(chosen).uses_base:
        raise InputError(f"arm {arm} answers without the base model", "leave out 8 bits", field="--eight-bit")
    with run_context(
        own, [chosen], listeners=listeners, allow=allow, allow_commands=allow_commands, scorer=scorer
    ) as ctx:
        saved = require_weights(find_saved(own, chosen, run), chosen, own)
        ctx.task = with_measured_rows(own, saved)
        session = ctx.session(measured_precision(saved, own))
        workspace = session.workspace
        if not workspace.splits[split]:
            raise InputError(f"the {split} split is empty", "add examples", file=ctx.task.file, field="data.split")
        name = saved_name(saved, chosen)
        progress = ctx.progress(arm=chosen.name)
        if split == "test":
            digest = digest_of(task_settings(ctx.task))[:8]  # other settings are another opening of the test set
            _note_opening(count_opening(workspace, f"eval-{name}-{digest}"), progress)
        folder = workspace.folder / EVALS / f"{name}-{split}"
        runner = ArmRunner(session, ctx.scorer, progress)
        outcome = runner.run(chosen, split, folder, Allowance(), saved=saved)
        save_answers(folder / ANSWERS, outcome.answers)
        forget_replies(folder)
        if not eight_bit:
            return outcome.result
        session.eight_bit = True
        rounded = runner.run(chosen, split, folder, Allowance(), saved=saved)
        found = replace(rounded.result, eight_bit=_compared(outcome, rounded, workspace.splits[split]))
        beside = eight_bit_folder(workspace.folder, name, split)
        save_answers(beside / ANSWERS, rounded.answers)
        write_record(beside / EIGHT_BIT, found)
        return found


def _compared(before: ArmMeasurement, after: ArmMeasurement, examples: Sequence[Example]) -> EightBit:
    """Return the comparison of both weights on the same questions."""
    pairs = list(zip(before.answers, after.answers, strict=True))
    groups = {example.id: example.group for example in examples}
    lost = compare_paired(
        [one.score for one, _ in pairs], [two.score for _, two in pairs], [groups[one.item_id] for one, _ in pairs]
    )
    slow, fast = before.result.latency_p50_ms, after.result.latency_p50_ms
    return EightBit(
        questions=len(pairs),
        lost=lost.difference,
        low=lost.low,
        high=lost.high,
        same=mean(one.answer == two.answer for one, two in pairs),
        times_as_fast=slow / fast if slow and fast else None,
    )


def _note_opening(openings: int, progress: Progress) -> None:
    times = "once" if openings == 1 else f"{openings} times"
    note = f"The test questions have now been opened {times}; choices made on them make their scores too good."
    progress.emit("data", note=note, stays=True)
