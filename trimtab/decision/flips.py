"""What would flip a verdict: the volume, machine price, rate of change and target at which another arm takes its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from trimtab.base.records import ArmResult, Flip, Usage
from trimtab.base.tables import CostTable
from trimtab.base.task import Task
from trimtab.decision.cost import cost_of, crossings, floor_of, planned_retrainings
from trimtab.decision.weight import by_weight

STEP, REACH = 1.05, 1_000.0  # prices and rates are tried in steps of 5%, up to a thousandfold either way
NEAR = 1e-6  # on either side of a crossing
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
    """The nearest volumes below and above the stated one; besides the steps, those where totals cross are tried."""
    times = {arm.arm: _retrainings(arm, task, task.cost, usages) for arm in (winner, *rivals)}
    crossed: list[float] = []
    for rival in rivals:
        first, second = times[winner.arm], times[rival.arm]
        if first is not None and second is not None:
            own, other = usages[winner.arm], usages[rival.arm]
            crossed += crossings(own, other, task.cost, retrainings_a=first, retrainings_b=second)
    beside = [volume * side for volume in crossed for side in (1 - NEAR, 1 + NEAR)]

    def varied(volume: float) -> CostTable:
        return task.cost.model_copy(update={"questions_per_month": volume})

    stated = task.cost.questions_per_month
    return _scan("questions_per_month", stated, winner, rivals, task, usages, varied, beside)


def _scan(
    what: str,
    stated: float,
    winner: ArmResult,
    rivals: Sequence[ArmResult],
    task: Task,
    usages: Mapping[str, Usage],
    varied: Callable[[float], CostTable],
    more: Sequence[float] = (),
) -> list[Flip]:
    """The nearest values below and above `stated` at which another arm is the lightest, by asking for it at each; `more`: tried too."""

    def lightest(value: float) -> str:
        return _lightest(winner, rivals, task, varied(value), usages)

    # the smallest floats do not grow by a step, and would be searched for ever
    if stated < NOTHING or lightest(stated) != winner.arm:
        return []
    steps = [STEP**count for count in range(1, math.ceil(math.log(REACH) / math.log(STEP)) + 1)]
    below = sorted({*(stated / step for step in steps), *(value for value in more if value < stated)}, reverse=True)
    above = sorted({*(stated * step for step in steps), *(value for value in more if value > stated)})
    found = []
    for side, values in (("below", below), ("above", above)):
        outside = next((value for value in values if lightest(value) != winner.arm), None)
        if outside is None:
            continue
        inside, then = ([stated, *values])[values.index(outside)], lightest(outside)
        for _ in range(40):
            middle = (inside + outside) / 2
            then_middle = lightest(middle)
            inside, outside, then = (
                (middle, outside, then) if then_middle == winner.arm else (inside, middle, then_middle)
            )
        found.append(Flip(what=what, then=then, **{side: outside}))
    return found


def _lightest(
    winner: ArmResult, rivals: Sequence[ArmResult], task: Task, cost: CostTable, usages: Mapping[str, Usage]
) -> str:
    """The lightest arm under `cost` among those that hold the target; the winner where none does."""
    times = {arm.arm: _retrainings(arm, task, cost, usages) for arm in (winner, *rivals)}
    arms = [
        replace(arm, cost=cost_of(usages[arm.arm], cost, retrainings=due))
        for arm in (winner, *rivals)
        if (due := times[arm.arm]) is not None
    ]
    return by_weight(arms, task)[0].arm if arms else winner.arm


def _retrainings(arm: ArmResult, task: Task, cost: CostTable, usages: Mapping[str, Usage]) -> int | None:
    if arm.score is None or arm.arm not in usages:
        return None
    return planned_retrainings(usages[arm.arm], cost, floor_of(arm), task.target.quality)


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
