"""Budget of a study: the plan before its first arm, more seeds for the best arms, and use of the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trimtab.arms.artifacts import ArmArtifact
from trimtab.arms.planning.judging import judging_cost, rules_judging_seconds
from trimtab.arms.planning.plan import (
    PLANNING,
    PROBING,
    RESERVED,
    ArmPlan,
    Plan,
    TrainedStanding,
    cheapest_fit,
    describe_cuts,
    fit,
    seeds_that_fit,
    spendable,
    with_fewer_tests,
    with_readmitted,
)
from trimtab.arms.planning.predict import predict
from trimtab.arms.session import Session
from trimtab.arms.trivial import meaning_seconds
from trimtab.arms.workspace import Workspace, sampled_splits
from trimtab.base.errors import InputError
from trimtab.base.grammar import joined, method_of
from trimtab.base.machine import is_busy
from trimtab.base.progress import Progress
from trimtab.base.records import Example
from trimtab.base.results import ArmEffort, ArmRecord, Sample
from trimtab.base.task import Task
from trimtab.decision.pairs import comparisons_among, contenders
from trimtab.measurement.mix import effective_items
from trimtab.measurement.power import assumed_variation, smallest_difference
from trimtab.model.threads import ProcessorShare

ANEW = 0.25  # share of the time left for timing again: no other arm waits for it


def forecast(session: Session, progress: Progress) -> Plan:
    """Predict every arm and fit the study to the budget, for `study` and `check` alike.

    Fewer test questions are asked where the task allows it, or says nothing and fewer than two arms, which compare
    nothing, would fit otherwise.
    """
    table, budget, began = session.task.study, session.task.budget_seconds, time.perf_counter()
    seconds = None if budget is None else PLANNING * budget
    judging = judging_cost(session, is_timed=budget is None)
    with ProcessorShare() as processor:
        predicted = predict(session, session.task.arms, progress, seconds=seconds, judging=judging)
    if is_busy(processor.share):
        note = f"the machine is busy ({processor.share:.0%} was free), so the predicted times may be too long"
        progress.emit("plan", note=note, stays=True)
    taken = time.perf_counter() - began
    if budget is not None:  # the verdict compares with it
        taken += meaning_seconds(session) or 0.0
        taken += rules_judging_seconds(session, judging) if judging else 0.0
    reserved = RESERVED + PROBING * bool(session.task.probes)
    plan = fit(predicted, spendable(budget, taken, reserved), table.seeds)
    plan = replace(plan, precision=session.precision, planning_seconds=taken, judging=judging, reserved=reserved)
    if tests_to_cut(session.workspace, plan):
        plan = _with_fewer_questions(session, plan)
    return plan


def plan_study(session: Session, progress: Progress) -> Plan:
    """Return the `forecast` of a study, and report the cuts. Raises InputError if no arm fits."""
    plan = forecast(session, progress)
    if plan.is_empty:
        cheapest, enough = cheapest_fit(plan, tests_to_cut(session.workspace, plan))
        remedy = f"give it {enough}, here: trimtab study --resume --budget {enough}, or as study.budget in a new study"
        problem = f"no arm fits the budget of {session.task.study.budget}: {cheapest}"
        raise InputError(problem, remedy, field="study.budget")
    predicted_only = [arm.arm for arm in plan.arms if not arm.timed]
    if predicted_only:
        was, whose = ("was", "its time is") if len(predicted_only) == 1 else ("were", "their times are")
        note = f"{joined(predicted_only)} {was} not timed; {whose} estimated from the others"
        progress.emit("plan", note=note, stays=True)
    for cut in plan.cuts:
        progress.emit("plan", note=f"to fit the budget: {cut}", stays=True)
    return plan


def tests_to_cut(workspace: Workspace, plan: Plan) -> int | None:
    """Return the number of test questions if fewer of them may be asked, else None."""
    table = workspace.task.study
    compares = len(plan.included) >= min(2, len(plan.arms))
    may = table.test_rows == "auto" or not (compares or "test_rows" in table.model_fields_set)
    return len(workspace.splits["test"]) if may else None


def _with_fewer_questions(session: Session, plan: Plan) -> Plan:
    """Return the plan with fewer test questions if an arm does not fit otherwise; its cuts state the loss of power."""
    test = session.workspace.splits["test"]
    fewer = with_fewer_tests(plan, len(test), asked_for=session.task.study.test_rows == "auto")
    if fewer.test_rows is None:
        return plan
    comparisons = comparisons_among(len(session.task.arms))
    seen = [
        detectable_difference(rows, comparisons, session.task)
        for rows in (with_test_questions(session.workspace, fewer.test_rows).splits["test"], test)
    ]
    power = f"differences from {seen[0]:.2f} instead of {seen[1]:.2f}"
    cut = f"{fewer.test_rows:,} of {len(test):,} test questions, which show {power}"
    fewer = replace(fewer, fewer_tests=cut)
    return replace(fewer, cuts=describe_cuts(fewer, {}))


def with_test_questions(workspace: Workspace, rows: int) -> Workspace:
    """Return a workspace with a sample of `rows` of its test questions."""
    splits, sample = sampled_splits(workspace.splits, workspace.task.model_copy(update={"rows": None}), rows)
    before = workspace.sample
    if sample is not None and before is not None:
        sample = Sample(rows=before.rows, used=sample.used, of=before.of)
    return replace(workspace, splits=splits, sample=sample or before, unsampled=workspace.all_splits)


def detectable_difference(test: Sequence[Example], comparisons: int, task: Task) -> float:
    """Return the smallest difference that the test questions can show with 80% power, before any are answered."""
    groups = [example.group for example in test]
    items = effective_items([example.slice for example in test], task.data.mix)
    return smallest_difference(items, assumed_variation(groups), comparisons, groups)


def standing(
    plan: Plan,
    arm: ArmPlan,
    seconds: float,
    effort: ArmEffort | None,
    figures: Mapping[str, float],
    answer_seconds: float | None = None,
) -> TrainedStanding:
    """Return the standing of an arm whose search and training took `seconds`, from its `effort` and training `figures`.

    An arm that dev stopped early did not lack epochs.
    """
    allowance, whole = plan.allowance_of(arm.arm), plan.full_allowance
    planned = figures.get("planned_steps", 0.0)
    trained = min(1.0, figures["steps"] / planned) if planned else 1.0
    epochs = allowance.epochs if trained == 1.0 else None
    lasts = epochs is not None and any(stage.epochs > epochs for stage in arm.stages)
    searched = effort is not None and effort.stopped != "budget"
    wants = arm.search_seconds > 0 and allowance.search_seconds < whole.search_seconds and not searched
    weighs = arm.beyond_search_seconds > 0 and not allowance.may_search
    return TrainedStanding(
        allowance=allowance,
        seconds=seconds,
        cut=lasts or wants or weighs or allowance.seeds < whole.seeds,
        trained=trained,
        answer_seconds=answer_seconds,
    )


def more_seeds(
    task: Task, plan: Plan, artifacts: Mapping[str, ArmArtifact], records: Mapping[str, ArmRecord], spent: float
) -> dict[str, int]:
    """Return, for the new arms that dev leaves among the best, the number of runs, up to three, that the budget allows.

    `records`: the arms that were finished before. `spent`: seconds of all arms. A number of seeds in the task file
    is kept, and nothing is added without effort, or if the budget cut anything.
    """
    table = task.study
    if table.effort == "none" or "seeds" in table.model_fields_set or plan.cuts or plan.left_out:
        return {}
    on_dev = {name: one.dev_scores for name, one in artifacts.items()}
    on_dev |= {name: record.dev_scores for name, record in records.items()}
    near = contenders(on_dev, task.target.margin)
    arms = [arm for arm in task.arms if arm.name in near and arm.name in artifacts and method_of(arm).staged]
    if not arms:
        return {}
    seeds = seeds_that_fit(plan, {arm.name: artifacts[arm.name].trained[0].seconds for arm in arms}, spent)
    return {arm.name: seeds for arm in arms} if seeds > 1 else {}


def readmit_arms(session: Session, plan: Plan, spent: float, progress: Progress) -> Plan:
    """Return the plan with those left-out arms that fit into the rest of the budget after `spent` seconds; the same
    plan if none does.

    They are timed again: they were left out because their prediction was the longest, often without a timed step,
    perhaps on a busy machine. A tenth of the rest, as planning gets of a budget, is too short to time training with
    passages. If less than a tenth of the budget is left, timing would only use it up.
    """
    left_out = [arm for arm in session.task.arms if arm.name in plan.left_out]
    left = (plan.budget or 0.0) - spent
    if not left_out or left <= PLANNING * (plan.budget or 0.0):
        return plan
    progress.emit("plan", note=f"timing the arms that were left out again: {', '.join(arm.name for arm in left_out)}")
    began = time.perf_counter()
    predicted = predict(session, left_out, seconds=ANEW * left, judging=plan.judging)
    taken = time.perf_counter() - began
    anew = with_readmitted(plan, predicted, spent + taken)
    if fitting := [arm.name for arm in left_out if arm.name not in anew.left_out]:
        run = "runs" if len(fitting) == 1 else "run"
        note = f"{left / 60:.1f} min of the budget are left, so {joined(fitting)} {run} after all"
        progress.emit("plan", note=note, stays=True)
    return anew
