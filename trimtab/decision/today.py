"""What to do today: the arm with the least expected loss under a posterior, how sure that is, and what more questions
are worth.

The loss of an arm is what it falls short of the target, or of the best arm where there is no target, at the price of a
point, and its cost (Berger 1985, section 4.4). Nothing here is a test: what is *shown* is said by `choice`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trimtab.base.results import ArmOutlook, ArmResult, Certainty, MoreQuestions, Today
from trimtab.base.task import Task
from trimtab.decision.cost import MACHINE_SECONDS
from trimtab.decision.evidence import Evidence, score_of
from trimtab.measurement.posterior import posterior_draws
from trimtab.measurement.resampling import Array

POINTS = 100.0  # in a score of 1
# Points that all the difference between the cheapest and the dearest arm is worth, where no price of a point is stated:
# assumed, and the two between which the choice is looked at.
ASSUMED, FEWEST, MOST = 3.0, 1.0, 10.0
EQUAL = 0.1  # points by which expected losses may differ and count as equal; the lighter arm is taken
VERY_LIKELY, LIKELY = 0.9, 0.7
SIZES = (50, 100, 300)  # numbers of further questions whose value is told
OUTER, INNER = 400, 200  # draws of what further questions may tell, and of what stays open then
SEED = 21


class _Prices(NamedTuple):
    """Cost of each arm in units, and what a point of 100 is worth over the horizon in the same unit."""

    costs_A: Array
    point: float

    @property
    def in_points(self) -> Array:
        """The costs in points of 100."""
        points: Array = self.costs_A / self.point if self.point > 0 else np.zeros_like(self.costs_A)
        return points


def take_today(study: Evidence, shown: ArmResult | None) -> Today | None:
    """Return the arm to take today; None if no arm can be used, or none scored more than 0 and beats the fixed rules
    (`Evidence.is_beaten`).

    `shown`: the arm that the tests show, if any; with a target it is good enough, whatever a rule scores.
    """
    usable = [arm for arm in study.done if study.problem(arm) is None]
    is_enough = shown is not None and study.task.target.quality is not None
    if all(score_of(arm).value <= 0 or (not is_enough and study.is_beaten(arm)) for arm in usable):
        return None
    draws_DA = posterior_draws(study.study_scores(), {arm.arm: score_of(arm).value for arm in usable}, study.level)
    short_DA, prices = shortfalls(draws_DA, study.task), _prices(usable, study.task)
    place = least_loss(short_DA.mean(0), prices.in_points)
    outlooks = _outlooks(usable, short_DA, prices, study.task)
    rival, rival_point = _rival(place, short_DA.mean(0), prices, study.task)
    months = study.task.cost.horizon_months
    stated = study.task.target.point != ""
    chosen = usable[place]
    return Today(
        arm=chosen.arm,
        certainty=_certainty(outlooks, place, study.task, is_shown=shown is not None and shown.arm == chosen.arm),
        arms=tuple(outlooks),
        point=prices.point / months if prices.point > 0 else None,
        point_stated=stated,
        rival=None if rival is None else usable[rival].arm,
        rival_point=None if rival_point is None else rival_point / months,
        more=tuple(_value_of_more(draws_DA, prices.in_points, study)) if len(usable) > 1 else (),
    )


def _certainty(outlooks: Sequence[ArmOutlook], place: int, task: Task, *, is_shown: bool) -> Certainty:
    """Return how sure it is that the arm at `place` is the one to take."""
    if is_shown:
        return "shown"
    if len(outlooks) == 1 and task.target.quality is None:
        return "only one"
    chance = outlooks[place].lightest
    return "very likely" if chance >= VERY_LIKELY else "likely" if chance >= LIKELY else "toss-up"


def shortfalls(draws_DA: Array, task: Task) -> Array:
    """Return `[draws, arms]`: how far each arm is below the target, or without one behind the best arm."""
    target = task.target.quality
    short_DA: Array = draws_DA.max(1, keepdims=True) - draws_DA if target is None else np.maximum(0, target - draws_DA)
    return short_DA


def least_loss(short_A: Array, cost_points_A: Array) -> int:
    """Return the place of the lightest arm of those whose expected losses are least; the arms stand from light to
    heavy."""
    loss_A = POINTS * short_A + cost_points_A
    return int(np.argmax(loss_A <= loss_A.min() + EQUAL))


def _outlooks(arms: Sequence[ArmResult], short_DA: Array, prices: _Prices, task: Task) -> list[ArmOutlook]:
    good_DA = short_DA <= (task.target.margin if task.target.quality is None else 0.0)
    first_DA = good_DA & (np.cumsum(good_DA, axis=1) == 1)
    worst_A = np.quantile(short_DA, 0.95, axis=0)
    return [
        ArmOutlook(
            arm=arm.arm,
            good_enough=float(good_DA[:, place].mean()),
            lightest=float(first_DA[:, place].mean()),
            shortfall=float(short_DA[:, place].mean()),
            worst=float(worst_A[place]),
            loss=float(POINTS * short_DA[:, place].mean() + prices.in_points[place]),
        )
        for place, arm in enumerate(arms)
    ]


def _prices(arms: Sequence[ArmResult], task: Task) -> _Prices:
    """Return the costs of the arms above that of the cheapest. A cost that is not known, or in another unit, counts as
    that of the dearest other arm."""
    unit = task.cost.currency if task.cost.machine_hour else MACHINE_SECONDS
    known = [arm.cost.total if arm.cost is not None and arm.cost.currency == unit else None for arm in arms]
    totals = [cost for cost in known if cost is not None] or [0.0]
    costs_A = np.array([max(totals) if cost is None else cost for cost in known]) - min(totals)
    price = task.point_price
    return _Prices(costs_A, float(costs_A.max()) / ASSUMED if price is None else price * task.cost.horizon_months)


def _rival(place: int, short_A: Array, prices: _Prices, task: Task) -> tuple[int | None, float | None]:
    """Return the arm that another worth of a point would choose, and from which worth on; None twice where all worths
    that are looked at choose the same."""
    if task.point_price is not None or prices.point <= 0:
        return None, None
    spread = float(prices.costs_A.max())
    for points in (FEWEST, MOST):
        other = least_loss(short_A, prices.costs_A * points / spread)
        gained = POINTS * (short_A[place] - short_A[other])
        dearer = prices.costs_A[other] - prices.costs_A[place]
        if other != place and gained * dearer > 0:
            return other, float(dearer / gained)
    return None, None


def _value_of_more(draws_DA: Array, cost_points_A: Array, study: Evidence) -> list[MoreQuestions]:
    """Return what further questions are expected to save: the expected loss of the arm that would be taken after them,
    below that of the arm that is taken now.

    The scores that they would leave expected are those of the draws, drawn towards the mean by sqrt(m / (n + m))
    (Jalal and Alarid-Escudero 2018), n the questions asked and m the further ones; what stays open is the rest of
    the variance.
    """
    random, asked = np.random.default_rng(SEED), study.study_scores().items
    label, mean_A = study.task.cost.label, draws_DA.mean(0)
    outer_OA = draws_DA[random.choice(len(draws_DA), OUTER, replace=False)] - mean_A
    inner_IA = draws_DA[random.choice(len(draws_DA), INNER, replace=False)] - mean_A
    found = []
    for more in SIZES:
        told = math.sqrt(more / (asked + more))
        scores_OIA = mean_A + told * outer_OA[:, None] + math.sqrt(1 - told**2) * inner_IA[None]
        short_OIA = shortfalls(scores_OIA.reshape(-1, len(mean_A)), study.task).reshape(scores_OIA.shape)
        loss_OA = POINTS * short_OIA.mean(1) + cost_points_A
        saves = float(loss_OA.mean(0).min() - loss_OA.min(1).mean())
        found.append(MoreQuestions(questions=more, saves=max(0.0, saves), cost=label.each * more if label else None))
    return found
