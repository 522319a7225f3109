"""Orders arms from light to heavy: by cost over the horizon, and by simplicity where costs do not differ."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.base.grammar import arm_from_name, is_trained
from trimtab.base.results import ArmResult, Cost
from trimtab.base.task import Task
from trimtab.decision.cost import MACHINE_SECONDS

ALIKE = 0.1  # costs that differ by no more are equal: seconds measured again differ as much


def by_weight(arms: Sequence[ArmResult], task: Task) -> list[ArmResult]:
    """Return the arms from light to heavy: known costs in the study's unit, then in another unit, then unknown ones.

    Costs are taken in runs, so that the order is one: the cheapest arm begins a run, and every arm belongs to it whose
    cost is equal to that arm's (`alike`); the cheapest of the others begins the next. Within a run the arm with fewer
    parts (trained stages and parts of its context) is lighter, then the one with fewer stored bytes, then the cheaper
    one.
    """
    unit = task.cost.currency if task.cost.machine_hour else MACHINE_SECONDS

    def price(arm: ArmResult) -> tuple[int, float]:
        return (2, 0.0) if arm.cost is None else (int(arm.cost.currency != unit), arm.cost.total)

    ordered: list[ArmResult] = []
    left = sorted(arms, key=lambda arm: (*price(arm), arm.arm))
    while left:
        first = left[0]
        run = [arm for arm in left if price(arm)[0] == price(first)[0] and alike(first.cost, arm.cost)]
        if len(run) > 1:
            parts = _parts(run, task)
            run.sort(key=lambda arm: (parts[arm.arm], arm.stored_bytes, *price(arm), arm.arm))
        ordered += run
        left = [arm for arm in left if arm not in run]
    return ordered


def _parts(arms: Sequence[ArmResult], task: Task) -> dict[str, int]:
    """Return the number of trained stages and context parts of each arm."""
    known = {arm.name: arm for arm in task.arms}

    def parts(name: str) -> int:
        arm = known.get(name) or arm_from_name(name)
        return 0 if arm is None else (len(arm.stages) or is_trained(arm)) + len(arm.parts)

    return {arm.arm: parts(arm.arm) for arm in arms}


def alike(one: Cost | None, other: Cost | None) -> bool:
    """True if two costs are equal for the decision: both unknown, within 10%, or with overlapping intervals.

    The interval of a cost that was measured on a busy machine begins at what was not timed there, so it overlaps every
    lower cost.
    """
    if one is None or other is None:
        return one is other
    if one.currency != other.currency:
        return False
    less, more = sorted((one, other), key=lambda cost: cost.total)
    low, high = (more.total if more.low is None else more.low), (less.total if less.high is None else less.high)
    return low <= high or more.total <= (1 + ALIKE) * less.total
