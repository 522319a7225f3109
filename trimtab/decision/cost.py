"""Costs of arms over the horizon, and their order from light to heavy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import NamedTuple

from scipy import stats

from trimtab.base.config import ChangeTable, CostTable
from trimtab.base.grammar import arm_from_name, is_trained
from trimtab.base.machine import is_busy
from trimtab.base.results import ArmResult, Cost, Usage, Volume
from trimtab.base.task import Task
from trimtab.measurement.statistics import LEVEL

DAYS_A_MONTH = 365.25 / 12
SECONDS_A_MONTH = DAYS_A_MONTH * 86_400
MACHINE_SECONDS = "machine seconds"
Z = NormalDist().inv_cdf(0.975)  # ends of a 95% interval, in standard errors
LEAST_CYCLE = 1 / DAYS_A_MONTH  # months between two trainings, at the least: a day
MOST_STEPS = 1_000  # whole machines beyond which break-even is no longer looked for


class Terms(NamedTuple):
    """Cost as a function of the volume V: (fixed + machine * ceil(V / capacity) + slope * V), over the whole
    horizon."""

    fixed: float
    slope: float
    machine: float
    capacity: float

    def at(self, volume: float) -> float:
        """Return the total at `volume` questions a month."""
        machines = math.ceil(volume / self.capacity) if self.machine else 0
        return self.fixed + self.machine * machines + self.slope * volume


def cost_of(usage: Usage, cost: CostTable, *, retrainings: int = 0) -> Cost | None:
    """Return the cost over the horizon: total = U + H (M + V q) + retrainings R, all from the user's own prices.

    U holds the price of the labels that the arm used, R that of new labels for facts that changed since the last
    training. In the task's currency where a machine has a price, and for endpoints (token fees). Without a machine
    price own arms are in machine seconds, machines not counted whole. Retrainings are spread over the months, so that
    total = up_front + H monthly. None: an endpoint without a price; its cost is not known.
    """
    longest = usage.seconds_per_question + Z * usage.seconds_error
    ends = (usage, _least(usage), replace(usage, seconds_per_question=longest))
    terms, least, most = (cost_terms(end, cost, retrainings=retrainings) for end in ends)
    if terms is None or least is None or most is None:
        return None
    total = terms.at(cost.questions_per_month)
    later = retrainings * retraining_cost(usage, cost, retrainings) + cost.horizon_months * refresh_cost(usage, cost)
    up_front = terms.fixed - later
    monthly = (total - up_front) / cost.horizon_months
    is_known = usage.seconds_error or ends[1] != usage
    low, high = (end.at(cost.questions_per_month) if is_known else None for end in (least, most))
    return Cost(total=total, up_front=up_front, monthly=monthly, currency=currency_of(usage, cost), low=low, high=high)


def _least(usage: Usage) -> Usage:
    """Return the least usage of an arm: the low end of its seconds per question, and zero for seconds timed on a busy
    machine.

    There, barriers between threads can make a moment a second.
    """
    shortest = max(0.0, usage.seconds_per_question - Z * usage.seconds_error)
    found = replace(usage, seconds_per_question=0.0 if is_busy(usage.answering_share) else shortest)
    if is_busy(usage.making_share):
        found = replace(found, train_seconds=0.0, choose_seconds=0.0, index_seconds=0.0)
    return replace(found, evaluation_seconds=0.0) if is_busy(usage.answering_share) else found


def volume_of(cost: CostTable) -> Volume:
    """Return the number of questions that costs are computed for, and whether the task file states it."""
    stated = "questions_per_month" in cost.model_fields_set
    return Volume(questions_per_month=cost.questions_per_month, horizon_months=cost.horizon_months, assumed=not stated)


def currency_of(usage: Usage, cost: CostTable) -> str:
    """Return the unit of an arm's cost."""
    return cost.currency if cost.machine_hour or not usage.runs_on_own_machine else MACHINE_SECONDS


def cost_terms(usage: Usage, cost: CostTable, *, retrainings: int = 0) -> Terms | None:
    """Return an arm's total as a function of the volume; None if an endpoint has no price."""
    horizon, second = cost.horizon_months, _second(cost)
    if not usage.runs_on_own_machine:
        if usage.token_fee is None:
            return None
        price = usage.token_fee
        fee = (usage.prompt_tokens * price.input + usage.new_tokens * price.output) / 1e6
        # passages are looked up, and their number is chosen, on a machine of one's own
        own = (usage.index_seconds + usage.choose_seconds) * second if cost.machine_hour else 0.0
        return Terms(fixed=own + _labelling(usage, cost), slope=horizon * fee, machine=0.0, capacity=math.inf)
    once = (usage.choose_seconds + usage.train_seconds + usage.evaluation_seconds + usage.index_seconds) * second
    once += usage.choose_fee if cost.machine_hour else 0.0  # a fee is no number of seconds
    once += _labelling(usage, cost)
    fixed = once + retrainings * retraining_cost(usage, cost, retrainings) + horizon * refresh_cost(usage, cost)
    if cost.machine_hour and cost.hosting == "always-on" and usage.seconds_per_question > 0:
        capacity = SECONDS_A_MONTH * cost.utilisation / usage.seconds_per_question
        return Terms(fixed=fixed, slope=0.0, machine=horizon * SECONDS_A_MONTH * second, capacity=capacity)
    return Terms(fixed=fixed, slope=horizon * usage.seconds_per_question * second, machine=0.0, capacity=math.inf)


def crossings(
    a: Usage, b: Usage, cost: CostTable, *, retrainings_a: int = 0, retrainings_b: int = 0
) -> tuple[float, ...]:
    """Return every volume at which the cheaper of two arms changes, rising; () also if their units or prices differ.

    Between whole machines both totals are straight lines, so each stretch is solved exactly:
    V* = (fixed_a - fixed_b) / (slope_b - slope_a). Stretches up to 1,000 machines are looked at.
    """
    left, right = cost_terms(a, cost, retrainings=retrainings_a), cost_terms(b, cost, retrainings=retrainings_b)
    if left is None or right is None or currency_of(a, cost) != currency_of(b, cost):
        return ()
    edges, found, sign = _stretches(left, right), [], 0
    for start, end in itertools.pairwise(edges):
        inside = start + (1.0 if end == math.inf else (end - start) / 2)
        slope = left.slope - right.slope
        gap = left.at(inside) - right.at(inside) - slope * inside
        root = -gap / slope if slope else math.inf
        turns = start < root < end
        first, last = (_sign(-slope), _sign(slope)) if turns else (_sign(gap + slope * inside),) * 2
        if sign and first and first != sign:
            found.append(start)
        if turns:
            found.append(root)
        sign = last or sign
    return tuple(volume for volume in found if volume > 0)


def safe_period(low: float, target: float, change: ChangeTable) -> float | None:
    """Return the most months between retrainings that keep the accuracy at `target`, from its lower one-sided 95% bound
    `low`.

    At the end of a cycle of P months the accuracy is A (1 - c(P + L)), where c(t) is the share of the questions whose
    fact has changed after t months and L the lead time: P solves c(P + L) = 1 - target/A. With one rate that is
    P = -ln(1 - (1 - target/A)/w)/lambda - L. inf: no retraining is ever needed, as the facts that change are at most
    1 - target/A of all. None: below the feasible cycle, which is the lead time: a model is ready L after its data, and
    the next is begun no sooner. Tuning alone then cannot hold the target.

    That is the mean over cycles. With `watched_months` and `bursts`, which may come more often in a cycle than in the
    mean, the accuracy is below the target at the end of 5% of the cycles at most (`_sure_age`).
    """
    if low < target:
        return None
    age = _months_until(1 - target / low, change)
    if change.watched_months is not None and change.bursts is not None:
        age = _sure_age(age, change.watched_months, change.bursts)
    if math.isinf(age):
        return math.inf
    lead = change.lead_days / DAYS_A_MONTH
    period = age - lead
    return period if period > 0 and period >= lead else None


def _sure_age(age: float, watched: float, bursts: int) -> float:
    """Return the months in which, with a probability of 95%, no more changes than in the mean of `age` months.

    Facts change in bursts that come at random, `bursts` of them in the months `watched`. Then age * bursts / watched,
    rounded down, may come. Given how many come in both times together, those of t further months are binomial with the
    share t / (t + watched): the upper limit of that share (Clopper & Pearson 1934, as a prediction) counts in how
    uncertain the rate is.
    """
    if math.isinf(age):
        return age
    allowed = math.floor(age * bursts / watched + 1e-9)
    share = float(stats.beta.ppf(LEVEL, allowed + 1, bursts + 1))  # + 1: the watch ended before the next
    return watched * share / (1 - share)


def retrainings_within(horizon: float, period: float) -> int:
    """Return the retrainings over `horizon` months if one is due every `period`: ceil(H/P) - 1."""
    return 0 if math.isinf(period) else max(0, math.ceil(horizon / period - 1e-9) - 1)


def planned_retrainings(usage: Usage, cost: CostTable, low: float, target: float | None) -> int | None:
    """Return the retrainings that keep an arm at the target over the horizon; None if tuning alone cannot.

    0 without a stated rate of change or a target, and for arms whose knowledge does not stand in their weights alone.
    """
    if cost.change is None or target is None or not usage.goes_stale:
        return 0
    period = safe_period(low, target, cost.change)
    return None if period is None else retrainings_within(cost.horizon_months, max(period, LEAST_CYCLE))


def costed_retrainings(usage: Usage, cost: CostTable, low: float, target: float | None) -> int:
    """Return the retrainings that an arm's cost counts: the planned ones. Where tuning alone cannot hold the target, as
    many as its shortest cycle allows, so that a stricter target never looks cheaper."""
    planned = planned_retrainings(usage, cost, low, target)
    if planned is not None or cost.change is None:
        return planned or 0
    return retrainings_within(cost.horizon_months, max(cost.change.lead_days / DAYS_A_MONTH, LEAST_CYCLE))


def floor_of(arm: ArmResult) -> float:
    """Return the lower one-sided 95% bound of an arm's score; for a result without it the interval's low end, which is
    lower."""
    if arm.score_floor is not None:
        return arm.score_floor
    return arm.score.low if arm.score else 0.0


def _months_until(spare: float, change: ChangeTable) -> float:
    """Compute the months after which the facts of a share `spare` of the questions have changed; inf if that never
    comes.

    Newton's steps from 0: what has changed is concave in time, so that each step falls short and none goes beyond.
    """
    if math.fsum(share for share, rate in change.rates if rate > 0) <= spare:
        return math.inf
    months = 0.0
    while (lacking := spare - change.changed(months)) > 0:
        slope = math.fsum(share * rate * math.exp(-rate * months) for share, rate in change.rates)
        further = months + lacking / slope if slope > 0 else math.inf
        if further <= months or math.isinf(further):  # no further number
            return further
        months = further
    return months


def _second(cost: CostTable) -> float:
    """Return the price of a machine second, or 1 if cost is counted in them."""
    return cost.machine_hour.price / 3600 if cost.machine_hour else 1.0


def _labelling(usage: Usage, cost: CostTable) -> float:
    """Return the price of the labelled rows that the arm used; 0 without a price. Dev and test rows are excluded: every
    arm needs them."""
    return usage.labels * cost.label.each if cost.label else 0.0


def retraining_cost(usage: Usage, cost: CostTable, retrainings: int) -> float:
    """Return the cost of one of so many retrainings, with new labels for the facts that changed since the one
    before."""
    if not usage.trained:
        return 0.0
    changed = _changed(cost, cost.horizon_months / (retrainings + 1))
    return (usage.train_seconds + usage.evaluation_seconds) * _second(cost) + changed * _labelling(usage, cost)


def _changed(cost: CostTable, months: float) -> float:
    """Return the share of the facts that change within some months."""
    return cost.change.changed(months) if cost.change else 0.0


def refresh_cost(usage: Usage, cost: CostTable) -> float:
    """Return the monthly cost of re-indexing changed documents, whose share is taken to be that of the questions."""
    return usage.index_seconds * _changed(cost, 1) * _second(cost) if usage.runs_on_own_machine else 0.0


def _stretches(left: Terms, right: Terms) -> list[float]:
    """Return the volumes at which either arm needs one machine more, from 0 up; then infinity if no machines are
    counted."""
    edges = {0.0}
    capacities = [terms.capacity for terms in (left, right) if terms.machine]
    if not capacities:
        return [0.0, math.inf]
    most = min(capacities) * MOST_STEPS
    for capacity in capacities:
        edges.update(capacity * step for step in range(1, math.floor(most / capacity * (1 + 1e-12)) + 1))
    return sorted(edges)


def _sign(value: float) -> int:
    return (value > 1e-9) - (value < -1e-9)


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
