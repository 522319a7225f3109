"""The first two sentences of a verdict: the choice for a reader who knows no metrics or statistics, then what was assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trimtab.base.grammar import describe, joined, named
from trimtab.base.results import ArmResult, Cost, Estimate
from trimtab.decision.cost import MACHINE_SECONDS
from trimtab.decision.evidence import Evidence, score_of
from trimtab.decision.weight import alike

STEP = 0.01  # between the targets that are tried


def use(study: Evidence, chosen: ArmResult) -> str:
    """The choice in words: what it is, how many of 100 questions it gets right, its cost, and the next best one."""
    target, right = study.task.target.quality, study.right.get(chosen.arm)
    about = called(study, chosen.arm)
    if target is not None:
        first = f"Use {about}: {_how_good(right, chosen)}, and so reaches the target of {target:g}"
    elif right:
        first = f"If it is enough to get about {_of_hundred(right)} right, use {about}"
    else:
        first = f"If a score of {_of_one(score_of(chosen))} is enough, use {about}"
    table = study.task.cost
    over = f"over {table.horizon_months:g} months at {table.questions_per_month:,.0f} questions a month"
    cost = f"it costs {amount(chosen.cost)} {over}" if chosen.cost else ""
    told = [cost, _next_best(study, chosen)]
    return f"{first}{'; ' if any(told) else ''}{', and '.join(filter(None, told))}."


def unsettled(study: Evidence, best: ArmResult, others: Sequence[ArmResult]) -> str:
    """Why no choice is shown without a target: another may be as good as the one that scored highest."""
    right = study.right.get(best.arm)
    names = joined([f"{called(study, other.arm)}{share_of_cost(other, best)}" for other in others])
    if right:
        first = f"{called(study, best.arm)} gets the most right, about {_of_hundred(right)}"
    else:
        first = f"{called(study, best.arm)} scores highest, {_of_one(score_of(best))}"
    return f"Not shown: {first}, but {names} may be as good."


def unreached(study: Evidence, nearest: ArmResult, target: float) -> str:
    """Why no choice is shown with a target: nothing is shown to reach it."""
    how_good = _how_good(study.right.get(nearest.arm), nearest)
    return f"Not shown: nothing measured is shown to reach the target of {target:g}. The nearest is {called(study, nearest.arm)}: {how_good}."


def assumptions(study: Evidence, of: ArmResult | None) -> str:
    """What the task file leaves open and what weakens the study, in one sentence; empty where nothing does. `of`: the arm that is spoken of."""
    table, said = study.task.target, []
    if table.quality is None:
        reached = None if of is None else reachable_target(study, of.arm)
        said.append(
            f"no target ({of.arm} would reach one of up to {reached:.2f})"
            if of is not None and reached
            else "no target"
        )
        if "margin" not in table.model_fields_set:
            said.append(f"no margin (differences of up to {table.margin:g} count as none)")
    if of is not None and of.cost is not None and "questions_per_month" not in study.task.cost.model_fields_set:
        said.append(f"no volume ({study.task.cost.questions_per_month:,.0f} questions a month are assumed)")
    weak = [f"The task file states {joined(said)}"] if said else []
    weak += ["the time budget cut searching or training, as told below"] if study.cuts else []
    if study.few_groups is not None:
        weak.append(f"the test questions count as only {study.few_groups} groups, so that every figure is rough")
    sentence = "; ".join(weak)
    return f" {sentence[0].upper()}{sentence[1:]}." if sentence else ""


def reachable_target(study: Evidence, arm: str) -> float | None:
    """The highest target, in steps of 0.01, that an arm is shown to reach with all arms tested at once (Bonferroni); None for none."""
    if study.rarest_class:
        return None
    level, low, high = study.level / len(study.done), 0, round(1 / STEP)
    while low < high:  # p grows with the target
        middle = (low + high + 1) // 2
        low, high = (middle, high) if study.p_target(arm, middle * STEP) <= level else (low, middle - 1)
    return low * STEP or None


def called(study: Evidence, name: str) -> str:
    """An arm's name with what it is in words."""
    arm = {own.name: own for own in study.task.arms}.get(name) or named(name)
    return name if arm is None else f"{name} ({describe(replace(arm, settings={}))})"


def amount(cost: Cost) -> str:
    """A cost in its currency, or in machine hours where they have no price."""
    if cost.currency == MACHINE_SECONDS:
        hours = cost.total / 3600
        return f"{hours:,.1f} machine hours" if hours >= 0.05 else "less than 0.1 machine hours"
    digits = 0 if cost.total >= 100 else 2
    return f"{cost.total:,.{digits}f} {cost.currency}"


def _next_best(study: Evidence, chosen: ArmResult) -> str:
    """How many more or fewer questions the best of the other arms that could be chosen gets right, and how its cost stands to the chosen one's."""
    others = [arm for arm in study.done if arm is not chosen and study.problem(arm) is None]
    if not others:
        return ""
    other = max(others, key=lambda arm: score_of(arm).value)
    mine, its = study.right.get(chosen.arm), study.right.get(other.arm)
    if mine and its:
        more = round(100 * its.value) - round(100 * mine.value)
        gap = f"gets {abs(more)} {'more' if more > 0 else 'fewer'} right" if more else "gets as many right"
    else:
        gap = f"scores {score_of(other).value:.2f}"
    return f"the next best, {called(study, other.arm)}, {gap}{_times_the_cost(chosen.cost, other.cost)}"


def _times_the_cost(one: Cost | None, other: Cost | None) -> str:
    if one is None or other is None or one.currency != other.currency or one.total <= 0 or alike(one, other):
        return ""
    times = other.total / one.total
    return f" at {times:,.{0 if times >= 10 else 1}f} times the cost"


def _how_good(right: Estimate | None, arm: ArmResult) -> str:
    return f"it gets about {_of_hundred(right)} right" if right else f"its answers score {_of_one(score_of(arm))}"


def _of_hundred(right: Estimate) -> str:
    value, low, high = (round(100 * share) for share in (right.value, right.low, right.high))
    return f"{value} of 100 questions ({low} to {high})"


def _of_one(score: Estimate) -> str:
    return f"{score.value:.2f} of 1 ({score.low:.2f} to {score.high:.2f})"


def share_of_cost(arm: ArmResult, other: ArmResult) -> str:
    """How an arm's cost stands to a dearer one's, where both are known in one unit."""
    one, more = arm.cost, other.cost
    if one is None or more is None or one.currency != more.currency or one.total <= 0 or alike(one, more):
        return ""
    return f", at 1/{more.total / one.total:,.{1 if more.total < 10 * one.total else 0}f} of the cost,"
