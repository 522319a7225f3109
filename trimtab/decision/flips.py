"""What would flip a verdict: the volume, machine price, rate of change and target at which another arm takes its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trimtab.base.records import ArmResult, Flip, Usage
from trimtab.base.tables import CostTable
from trimtab.base.task import Task
from trimtab.decision.cost import cost_of, crossings, planned_retrainings

STEP, REACH = 1.05, 1_000.0  # prices and rates are tried in steps of 5%, up to a thousandfold either way
NOTHING = 1e-12  # of a rate, a price or a volume


def find_flips(
    winner: ArmResult, rivals: Sequence[ArmResult], lesser: Sequence[ArmResult], task: Task, usages: Mapping[str, Usage]
) -> tuple[Flip, ...]:
    """Thresholds nearest to what the task file states, each with the arm that wins beyond it; none is made up.

    `rivals` are the other arms that qualify; `lesser` those that miss the target alone, lightest first.
    """
    found = [*_volume(winner, rivals, task, usages)]
    cost = task.cost
    if cost.machine_hour:
        price = cost.machine_hour.price
        found += _scan("machine_hour", price, winner, rivals, task, usages, lambda value: _priced(cost, value))
    if cost.change:
        rate = cost.change.per_month
        found += _scan("change.per_month", rate, winner, rivals, task, usages, lambda value: _changing(cost, value))
    return (*found, *_target(winner, rivals, lesser, task))


def _volume(winner: ArmResult, rivals: Sequence[ArmResult], task: Task, usages: Mapping[str, Usage]) -> list[Flip]:
    """The nearest break-even below and above the stated volume."""
    below: tuple[float, str] | None = None
    above: tuple[float, str] | None = None
    stated = task.cost.questions_per_month
    times = {arm.arm: _retrainings(arm, task, task.cost, usages) for arm in (winner, *rivals)}
    for rival in rivals:
        first, second = times[winner.arm], times[rival.arm]
        if first is None or second is None:
            continue
        found = crossings(usages[winner.arm], usages[rival.arm], task.cost, retrainings_a=first, retrainings_b=second)
        for volume in found:
            if volume < stated and (below is None or volume > below[0]):
                below = (volume, rival.arm)
            if volume > stated and (above is None or volume < above[0]):
                above = (volume, rival.arm)
    what = "questions_per_month"
    return [
        *([Flip(what=what, below=below[0], then=below[1])] if below else []),
        *([Flip(what=what, above=above[0], then=above[1])] if above else []),
    ]


def _scan(
    what: str,
    stated: float,
    winner: ArmResult,
    rivals: Sequence[ArmResult],
    task: Task,
    usages: Mapping[str, Usage],
    varied: Callable[[float], CostTable],
) -> list[Flip]:
    """The nearest values below and above `stated` at which another arm's total is the least, by evaluating the totals."""

    def lightest(value: float) -> str:
        return _lightest(winner, rivals, task, varied(value), usages)

    # the smallest floats do not grow by a step, and would be searched for ever
    if stated < NOTHING or lightest(stated) != winner.arm:
        return []
    found = []
    for step in (1 / STEP, STEP):
        inside, outside = stated, stated * step
        while lightest(outside) == winner.arm and 1 / REACH < outside / stated < REACH:
            inside, outside = outside, outside * step
        then = lightest(outside)
        if then == winner.arm:
            continue
        for _ in range(40):
            middle = (inside + outside) / 2
            then_middle = lightest(middle)
            inside, outside, then = (
                (middle, outside, then) if then_middle == winner.arm else (inside, middle, then_middle)
            )
        found.append(Flip(what=what, then=then, **{"below" if step < 1 else "above": outside}))
    return found


def _lightest(
    winner: ArmResult, rivals: Sequence[ArmResult], task: Task, cost: CostTable, usages: Mapping[str, Usage]
) -> str:
    """The arm whose total is the least under `cost`, among those that hold the target; the winner where they are equal."""
    best, least, unit = winner.arm, float("inf"), None
    for arm in (winner, *rivals):
        times = _retrainings(arm, task, cost, usages)
        found = None if times is None else cost_of(usages[arm.arm], cost, retrainings=times)
        if found is not None and (unit is None or unit == found.currency) and found.total < least:
            best, least, unit = arm.arm, found.total, found.currency
    return best


def _retrainings(arm: ArmResult, task: Task, cost: CostTable, usages: Mapping[str, Usage]) -> int | None:
    if arm.score is None or arm.arm not in usages:
        return None
    return planned_retrainings(usages[arm.arm], cost, arm.score.low, task.target.quality)


def _target(winner: ArmResult, rivals: Sequence[ArmResult], lesser: Sequence[ArmResult], task: Task) -> list[Flip]:
    """Targets, by the lower bounds: one that a lighter arm would reach, and one that the winner would not."""
    target, found = task.target.quality, []
    if target is None or winner.score is None:
        return []
    lighter = [(arm.score.low, arm.arm) for arm in lesser if arm.score and arm.score.low < target]
    if lighter:
        low, name = max(lighter)
        found.append(Flip(what="quality", below=low, then=name))
    stronger = [arm for arm in rivals if arm.score and arm.score.low > winner.score.low]
    if stronger and winner.score.low > target:
        found.append(Flip(what="quality", above=winner.score.low, then=stronger[0].arm))
    return found


def _priced(cost: CostTable, price: float) -> CostTable:
    """The table at another price; one that is looked for may lie beyond the limits of what a file may state."""
    hour = cost.machine_hour and cost.machine_hour.model_copy(update={"price": price})
    return cost.model_copy(update={"machine_hour": hour})


def _changing(cost: CostTable, rate: float) -> CostTable:
    change = cost.change and cost.change.model_copy(update={"per_month": rate})
    return cost.model_copy(update={"change": change})
