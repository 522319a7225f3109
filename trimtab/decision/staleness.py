"""What changing facts ask of an arm, in a sentence: how often it is trained again or its index updated, and what that
costs; pure."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta

from trimtab.base.results import ArmResult, Cost, Usage
from trimtab.base.task import Task
from trimtab.decision.cost import (
    DAYS_A_MONTH,
    costed_retrainings,
    floor_of,
    refresh_cost,
    retraining_cost,
    safe_period,
)
from trimtab.decision.evidence import Evidence
from trimtab.decision.summary import amount, way

FACTS_CHANGE = "Facts change"  # how each sentence begins
MOST_DAYS = 365_000  # beyond which no day is named


def staleness_sentence(study: Evidence, arm: ArmResult) -> str:
    """Return what the changing facts that the task file states ask of an arm; empty where it states none.

    An arm whose knowledge is in its weights is trained again; one that reads documents has its index updated; and of
    the first it is told what the lightest of the second costs that is good enough, too.
    """
    task, usage = study.task, study.usages.get(arm.arm)
    if task.cost.change is None or usage is None or arm.cost is None:
        return ""
    if usage.index_seconds > 0:
        return _of_index(arm.cost, usage, arm, task)
    if not usage.trained:
        return (
            f"{FACTS_CHANGE}, and {way(arm.arm)} answers from what its model knew before: nothing of it is trained "
            "again or updated."
        )
    return f"{training_sentence(arm, usage, task)} {_reading_instead(study, arm)}".strip()


def training_sentence(arm: ArmResult, usage: Usage, task: Task) -> str:
    """Return how often an arm has to be trained again to hold the target, at which cost."""
    change, target, horizon = task.cost.change, task.target.quality, task.cost.horizon_months
    if change is None or arm.cost is None:
        return ""
    if target is None:
        return f"{FACTS_CHANGE}: state target.quality, and it is told how often {way(arm.arm)} must be trained again."
    period = safe_period(floor_of(arm), target, change)
    if period is not None and math.isinf(period):
        return f"{FACTS_CHANGE}, but so few of them that {way(arm.arm)} holds the target without training again."
    times = costed_retrainings(usage, task.cost, floor_of(arm), target)
    if not times and period is not None:
        return f"{FACTS_CHANGE}: train {way(arm.arm)} again after {_months(period)}, beyond the {horizon:g} counted."
    each = retraining_cost(usage, task.cost, times)
    costs = f"at {amount(_like(arm.cost, each))} each, {_share(times * each, arm.cost)} of its cost"
    if period is None:
        unsure = "its weights alone are not sure to hold the target"
        often = f"even trained again {times:,} times in {horizon:g} months"
        return f"{FACTS_CHANGE} too fast for {way(arm.arm)}: {unsure}, {often}, {costs}."
    often = f"every {_months(period)}, {times:,} times in {horizon:g} months"
    return f"{FACTS_CHANGE}: train {way(arm.arm)} again {often}, {costs}."


def longest_period_sentence(task: Task) -> str:
    """Return, before anything is measured, what the changing facts of a task file ask; empty where it states none."""
    change, target = task.cost.change, task.target.quality
    if change is None:
        return ""
    if target is None:
        return f"{FACTS_CHANGE}: state target.quality, and a study tells how often weights must be trained again."
    period = safe_period(1.0, target, change)
    reads = "an arm that reads documents needs its index updated alone"
    if period is None:
        return f"{FACTS_CHANGE} too fast for weights that hold them to keep the target of {target:g}; {reads}."
    if math.isinf(period):
        return f"{FACTS_CHANGE}, but so few that weights which are all right at first keep the target of {target:g}."
    return (
        f"{FACTS_CHANGE}: weights that hold them keep the target of {target:g} for {_months(period)} at most, if all "
        f"they answer is right at first; {reads}."
    )


def training_due(low: float, made: date, task: Task) -> date | None:
    """Return the day on which weights that hold facts are due to be trained again, by their score's lower end; None if
    that is never, or not known."""
    change, target = task.cost.change, task.target.quality
    if change is None or target is None:
        return None
    period = safe_period(low, target, change)
    if period is None:
        return made
    days = period * DAYS_A_MONTH
    return None if math.isinf(period) or days > MOST_DAYS else made + timedelta(days=days)


def _of_index(cost: Cost, usage: Usage, arm: ArmResult, task: Task) -> str:
    monthly = refresh_cost(usage, task.cost)
    share = _share(task.cost.horizon_months * monthly, cost)
    return (
        f"{FACTS_CHANGE}: {way(arm.arm)} reads them from the documents, so its index is updated and nothing is trained "
        f"again, at {amount(_like(cost, monthly))} a month, {share} of its cost."
    )


def _reading_instead(study: Evidence, arm: ArmResult) -> str:
    """Say what the lightest arm costs that reads documents and is good enough."""
    good = study.done if study.task.target.quality is None else study.passing
    names = {one.arm for one in good}
    reading = [
        one
        for one in study.done
        if one.arm in names and one.cost is not None and study.usages[one.arm].index_seconds > 0
    ]
    lightest = min(reading, key=lambda one: one.cost.total if one.cost else 0.0, default=None)
    if lightest is None or lightest.cost is None or arm.cost is None or lightest.cost.currency != arm.cost.currency:
        return ""
    less = "less" if lightest.cost.total < arm.cost.total else "more"
    return f"Reading the documents instead, {way(lightest.arm)} costs {amount(lightest.cost)}, which is {less}."


def _like(cost: Cost, total: float) -> Cost:
    return replace(cost, total=total, low=None, high=None)


def _share(part: float, cost: Cost) -> str:
    return f"{part / cost.total:.0%}" if cost.total > 0 else "0%"


def _months(period: float) -> str:
    return f"{period:.1f} months" if period >= 1 else f"{max(1, round(period * 30.4)):d} days"
