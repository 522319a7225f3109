"""Sensitivity of a verdict: volume, horizon, prices, rate of change, target, margin and mix of slices at which another
arm wins."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from scipy import stats

from trimtab.base.config import LabelPrice
from trimtab.base.results import ArmResult, Flip
from trimtab.base.task import Task
from trimtab.decision.caveats import LEAST_OF_SLICE
from trimtab.decision.choice import choose
from trimtab.decision.cost import crossings, floor_of, planned_retrainings
from trimtab.decision.evidence import Evidence
from trimtab.measurement.statistics import LEVEL

STEP, REACH = 1.05, 1_000.0  # prices and rates are tried in steps of 5%, up to a thousandfold either way
HORIZONS = (1.0, 2.0, 3.0, 6.0, 9.0, 12.0, 18.0, 24.0, 36.0, 48.0, 60.0, 120.0)  # months
MARGINS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2)
SHARES = (0.02, 0.05, *(step / 10 for step in range(1, 10)), 0.95, 0.98)  # of one slice in the traffic
MOST_SLICES = 6  # the largest, whose shares are varied
NEAR = 1e-6  # on either side of a crossing
NOTHING = 1e-12  # of a rate, a price or a volume
VOLUME_FACTOR = 2.0  # to which a stated volume is taken to be known
NOT_SHOWN = "not shown"
MIX = "mix."  # before the name of a slice


def find_flips(study: Evidence, winner: ArmResult) -> tuple[Flip, ...]:
    """Find the thresholds nearest to what the task file states, each with the arm that the rule shows beyond it; none
    is extrapolated.

    The rule itself (`choose`) is asked at other volumes, horizons, prices of machines and labels, rates of change,
    targets, margins and shares of a slice; where it shows no arm there, `then` is "not shown", and `trivial` the answer
    without a model that is good enough, if one is.
    """
    task = study.task
    cost, target = task.cost, task.target.quality

    def at(**changed: object) -> Task:
        return with_setting(task, "cost", **changed)

    def scan(what: str, stated: float, varied: Callable[[float], Task], values: Sequence[float]) -> list[Flip]:
        return _scan(what, stated, winner, study, varied, values)

    volume, hour, label, change = cost.questions_per_month, cost.machine_hour, cost.label, cost.change
    volumes = _steps(volume) + _crossed(study, winner)
    flips = scan("questions_per_month", volume, lambda value: at(questions_per_month=value), volumes)
    if hour:  # a trial price may be beyond the limits of a task file

        def at_price(price: float) -> Task:
            return at(machine_hour=hour and hour.model_copy(update={"price": price}))

        flips += scan("machine_hour", hour.price, at_price, _steps(hour.price))
    flips += scan("horizon_months", cost.horizon_months, lambda value: at(horizon_months=value), HORIZONS)
    if label:
        flips += scan(
            "label", label.each, lambda value: at(label=LabelPrice.model_construct(price=value)), _steps(label.each)
        )
    if change:
        # one rate is varied itself, several all by one factor
        what, stated = ("change.kinds", 1.0) if change.kinds else ("change.per_month", change.rates[0][1])
        flips += scan(what, stated, lambda value: at(change=change.at_pace(value / stated)), _steps(stated))
    if target is not None:
        targets = [step / 100 for step in range(1, 100)]
        flips += scan("quality", target, lambda value: with_setting(task, "target", quality=value), targets)
    else:
        margin = task.target.margin
        flips += scan("margin", margin, lambda value: with_setting(task, "target", margin=value), MARGINS)
    return (*flips, *_mixes(study, winner))


def chance_of_flip(flip: Flip, stated: float) -> float:
    """Return the chance that a volume, known to a factor of VOLUME_FACTOR (so much less or more in 5 of 100 cases, on a
    logarithmic scale), lies where another arm wins."""
    spread = math.log(VOLUME_FACTOR) / float(stats.norm.isf(LEVEL / 2))
    sides = ((flip.below, 1), (flip.above, -1))
    return sum(float(stats.norm.cdf(side * math.log(at / stated) / spread)) for at, side in sides if at)


def with_setting(task: Task, table: str, **changed: object) -> Task:
    """Return the task with settings of one table changed."""
    return task.model_copy(update={table: getattr(task, table).model_copy(update=changed)})


def _mixes(study: Evidence, winner: ArmResult) -> list[Flip]:
    """Find the shares of one slice in the traffic beyond which another arm is shown; the other slices keep their
    proportions.

    Of slices with enough questions, of two the smaller one. Macro-F1 is counted anew under each mix, as every other
    figure.
    """
    task, questions = study.task, sum(study.slices.values())
    if study.reweighted is None or len(study.slices) < 2:
        return []
    shares = task.data.mix or {name: count / questions for name, count in study.slices.items()}
    found: list[Flip] = []
    names = sorted(study.slices, key=lambda name: (-study.slices[name], name))
    for name in names[-1:] if len(names) == 2 else names[:MOST_SLICES]:
        if study.slices[name] < LEAST_OF_SLICE or questions - study.slices[name] < LEAST_OF_SLICE:
            continue

        def at_share(share: float, name: str = name) -> Task:
            rest = (1 - share) / (1 - shares[name])
            mix = {other: share if other == name else own * rest for other, own in shares.items()}
            return with_setting(task, "data", mix=mix)

        found += _scan(f"{MIX}{name}", shares[name], winner, study, at_share, SHARES, halvings=8)
    return found


def _steps(stated: float) -> list[float]:
    powers = range(1, math.ceil(math.log(REACH) / math.log(STEP)) + 1)
    return [stated * STEP ** (sign * power) for power in powers for sign in (-1, 1)]


def _crossed(study: Evidence, winner: ArmResult) -> list[float]:
    """Return volumes on either side of those at which the winner's total crosses another arm's."""
    found: list[float] = []
    own = study.usages.get(winner.arm)
    for rival in study.done:
        other = study.usages.get(rival.arm)
        if rival.arm == winner.arm or own is None or other is None:
            continue
        first, second = (
            planned_retrainings(usage, study.task.cost, floor_of(arm), study.task.target.quality)
            for usage, arm in ((own, winner), (other, rival))
        )
        if first is not None and second is not None:
            found += crossings(own, other, study.task.cost, retrainings_a=first, retrainings_b=second)
    return [volume * side for volume in found for side in (1 - NEAR, 1 + NEAR)]


def _scan(
    what: str,
    stated: float,
    winner: ArmResult,
    study: Evidence,
    varied: Callable[[float], Task],
    values: Sequence[float],
    halvings: int = 40,
) -> list[Flip]:
    """Find the nearest of `values` below and above `stated` at which the rule does not show the winner, refined by
    bisection."""

    def shown(value: float) -> str:
        arm = choose(study.under(varied(value))).arm
        return NOT_SHOWN if arm is None else arm.arm

    # the smallest floats do not grow by a step, and would be searched for ever
    if stated < NOTHING or shown(stated) != winner.arm:
        return []
    below = sorted({value for value in values if value < stated}, reverse=True)
    above = sorted({value for value in values if value > stated})
    found = []
    for side, tried in (("below", below), ("above", above)):
        outside = next((value for value in tried if shown(value) != winner.arm), None)
        if outside is None:
            continue
        inside, then = ([stated, *tried])[tried.index(outside)], shown(outside)
        for _ in range(halvings):
            middle = (inside + outside) / 2
            then_middle = shown(middle)
            inside, outside, then = (
                (middle, outside, then) if then_middle == winner.arm else (inside, middle, then_middle)
            )
        found.append(Flip(what=what, then=then, **{side: outside}))
    return found
