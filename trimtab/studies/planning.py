"""How a study spends its budget: what is planned before its first arm, further runs of the best, and what is made of the time that is left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trimtab.arms.artifacts import ArmArtifact
from trimtab.arms.planning.plan import (
    PLANNING,
    ArmPlan,
    Plan,
    TrainedStanding,
    cuts_of,
    fit,
    seeds_that_fit,
    spendable,
    taken_in,
    what_would_fit,
    with_fewer_tests,
)
from trimtab.arms.planning.predict import predict
from trimtab.arms.session import Session
from trimtab.arms.workspace import Workspace, sampled_splits
from trimtab.base.errors import InputError
from trimtab.base.grammar import joined, method_of
from trimtab.base.machine import is_busy
from trimtab.base.progress import Progress
from trimtab.base.records import Example
from trimtab.base.results import ArmEffort, ArmRecord, Sample
from trimtab.base.task import Task
from trimtab.decision.pairs import comparisons_among
from trimtab.decision.racing import contenders
from trimtab.measurement.mix import effective_items
from trimtab.measurement.power import assumed, smallest_difference
from trimtab.model.threads import ProcessorShare

ANEW = 0.25  # of the time that is left goes to timing once more: no other arm waits for it


def plan_of(session: Session, progress: Progress) -> Plan:
    """Foretell every arm, cut to the budget, and tell what was cut; raises InputError where no arm fits."""
    table = session.task.study
    began = time.perf_counter()
    budget = session.task.budget_seconds
    with ProcessorShare() as processor:
        predicted = predict(session, session.task.arms, seconds=None if budget is None else PLANNING * budget)
    if is_busy(processor.share):
        note = f"the machine is busy ({processor.share:.0%} was free), so the predicted times may be too long"
        progress.emit("plan", note=note, stays=True)
    taken = time.perf_counter() - began
    plan = replace(fit(predicted, spendable(budget, taken), table.seeds), precision=session.precision)
    if table.test_rows == "auto":
        plan = _asking_fewer(session, plan)
    if plan.runs_nothing:
        cheapest, enough = what_would_fit(plan, taken)
        remedy = f"give it {enough}, here: trimtab study --resume --budget {enough}, or as study.budget in a new study"
        raise InputError(f"no arm fits the budget of {table.budget}; {cheapest}", remedy, field="study.budget")
    foretold = [arm.arm for arm in plan.arms if not arm.timed]
    if foretold:
        was, whose = ("was", "its time is") if len(foretold) == 1 else ("were", "their times are")
        note = f"{joined(foretold)} {was} not timed; {whose} estimated from the others"
        progress.emit("plan", note=note, stays=True)
    for cut in plan.cuts:
        progress.emit("plan", note=f"to fit the budget: {cut}", stays=True)
    return plan


def _asking_fewer(session: Session, plan: Plan) -> Plan:
    """Cut test questions where an arm does not fit otherwise; the plan's cuts tell the power that this costs."""
    test = session.workspace.splits["test"]
    fewer = with_fewer_tests(plan, len(test))
    if fewer.test_rows is None:
        return plan
    comparisons = comparisons_among(len(session.task.arms))
    seen = [
        smallest_seen(rows, comparisons, session.task)
        for rows in (asking(session.workspace, fewer.test_rows).splits["test"], test)
    ]
    cut = f"{fewer.test_rows:,} of {len(test):,} test questions, which show differences from {seen[0]:.2f} in place of {seen[1]:.2f}"
    fewer = replace(fewer, fewer_tests=cut)
    return replace(fewer, cuts=cuts_of(fewer, {}))


def asking(workspace: Workspace, rows: int) -> Workspace:
    """A workspace with a sample of `rows` of its test questions."""
    splits, sample = sampled_splits(workspace.splits, workspace.task.model_copy(update={"rows": None}), rows)
    before = workspace.sample
    if sample is not None and before is not None:
        sample = Sample(rows=before.rows, used=sample.used, of=before.of)
    return replace(workspace, splits=splits, sample=sample or before)


def smallest_seen(test: Sequence[Example], comparisons: int, task: Task) -> float:
    """The smallest difference that the test questions can show with 80% power, before any are answered."""
    groups = [example.group for example in test]
    items = effective_items([example.slice for example in test], task.data.mix)
    return smallest_difference(items, assumed(groups), comparisons, groups)


def standing(
    plan: Plan,
    arm: ArmPlan,
    seconds: float,
    effort: ArmEffort | None,
    figures: Mapping[str, float],
    answer_seconds: float | None = None,
) -> TrainedStanding:
    """The standing of an arm whose search and training took `seconds`, by its `effort` and the `figures` of its training.

    An arm whose training dev ended before its epochs were over lacked no epochs.
    """
    allowance, whole = plan.allowance_of(arm.arm), plan.whole
    planned = figures.get("planned_steps", 0.0)
    trained = min(1.0, figures["steps"] / planned) if planned else 1.0
    epochs = allowance.epochs if trained == 1.0 else None
    lasts = epochs is not None and any(stage.epochs > epochs for stage in arm.stages)
    searched = effort is not None and effort.stopped != "budget"
    wants = arm.search_seconds > 0 and allowance.search_seconds < whole.search_seconds and not searched
    weighs = arm.beside_seconds > 0 and not allowance.looks_at_dev
    return TrainedStanding(
        allowance=allowance,
        seconds=seconds,
        cut=lasts or wants or weighs or allowance.seeds < whole.seeds,
        trained=trained,
        answer_seconds=answer_seconds,
    )


def more_seeds(
    task: Task, plan: Plan, made: Mapping[str, ArmArtifact], records: Mapping[str, ArmRecord], spent: float
) -> dict[str, int]:
    """The arms just made that dev leaves in the running, with as many runs for each, up to three, as the budget allows.

    `records`: the arms that were finished before; `spent`: seconds that all took. A number of seeds that the task file states is kept,
    and nothing is added without effort, or where the budget cut anything.
    """
    table = task.study
    if table.effort == "none" or "seeds" in table.model_fields_set or plan.cuts or plan.left_out:
        return {}
    on_dev = {name: one.dev_scores for name, one in made.items()}
    on_dev |= {name: record.dev_scores for name, record in records.items()}
    near = contenders(on_dev, task.target.margin)
    arms = [arm for arm in task.arms if arm.name in near and arm.name in made and method_of(arm).staged]
    if not arms:
        return {}
    seeds = seeds_that_fit(plan, {arm.name: made[arm.name].trained[0].seconds for arm in arms}, spent)
    return {arm.name: seeds for arm in arms} if seeds > 1 else {}


def with_time_left(session: Session, plan: Plan, spent: float, progress: Progress) -> Plan:
    """The plan with what was left out of it and fits into what `spent` seconds leave of its budget; the same one where nothing can.

    What was left out is timed anew: it went because it was foretold to be the longest, often without a step of its own being timed,
    on a machine that may have been busy then. A tenth of what is left, as planning takes of a budget, is too short to time training
    with passages. Where less than a tenth of the budget is left, timing would only use it up.
    """
    left_out = [arm for arm in session.task.arms if arm.name in plan.left_out]
    left = (plan.budget or 0.0) - spent
    if not left_out or left <= PLANNING * (plan.budget or 0.0):
        return plan
    progress.emit("plan", note=f"timing anew what was left out: {', '.join(arm.name for arm in left_out)}")
    began = time.perf_counter()
    predicted = predict(session, left_out, seconds=ANEW * left)
    taken = time.perf_counter() - began
    anew = taken_in(plan, predicted, spent + taken)
    if fitting := [arm.name for arm in left_out if arm.name not in anew.left_out]:
        run = "runs" if len(fitting) == 1 else "run"
        note = f"{left / 60:.1f} min of the budget are left, so {joined(fitting)} {run} after all"
        progress.emit("plan", note=note, stays=True)
    return anew
