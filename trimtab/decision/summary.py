"""The first two lines of a verdict: the choice, for a reader who knows no metrics or statistics, then the
assumptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trimtab.base.grammar import arm_from_name, describe_arm, joined
from trimtab.base.results import ArmResult, Cost, Estimate
from trimtab.decision.cost import MACHINE_SECONDS
from trimtab.decision.cost_order import alike
from trimtab.decision.evidence import SHARES, Evidence, score_of

STEP = 0.01  # between the targets that are tried


def use(study: Evidence, chosen: ArmResult) -> str:
    """Name the choice, how many of 100 questions it gets right, its cost, and the next best arm."""
    target, right, about = study.task.target.quality, study.right.get(chosen.arm), name_in_words(study, chosen.arm)
    if target is None:
        enough = f"get {_of_hundred(right)}" if right else f"score {_of_one(score_of(chosen))}"
        first = f"If it is enough to {enough}, use {about}"
    elif right and study.task.metric in SHARES:
        first = f"Use {about}: it gets {_of_hundred(right)}, and so reaches the target of {target:g}"
    else:
        how_good = f"it gets {_of_hundred(right)}, and " if right else ""
        first = f"Use {about}: {how_good}its score of {score_of(chosen).value:.2f} reaches the target of {target:g}"
    table = study.task.cost
    over = f"over {table.horizon_months:g} months at {table.questions_per_month:,.0f} questions a month"
    usage = study.usages.get(chosen.arm)
    training = ", training included" if usage is not None and usage.trained else ""
    cost = f"it costs {amount(chosen.cost)} {over}{training}" if chosen.cost else ""
    told = [cost, _next_best(study, chosen)]
    return f"{first}{'; ' if any(told) else ''}{', and '.join(filter(None, told))}.{only_measured(study)}"


def only_measured(study: Evidence) -> str:
    """Say that a single arm was measured, and what became of the others; empty where several were."""
    if len(study.done) != 1:
        return ""
    counts = {status: sum(arm.status == status for arm in study.results) for status in ("not_run", "failed")}
    whys = {"not_run": "did not fit the budget", "failed": "failed"}
    others = joined([f"{count} {whys[status]}" for status, count in counts.items() if count])
    return f" It is the only arm that was measured{f': {others}' if others else ''}."


def unsettled(study: Evidence, best: ArmResult, others: Sequence[ArmResult]) -> str:
    """Say why no arm is shown without a target: another may be as good as the one that scored highest."""
    right = study.right.get(best.arm)
    names = joined([f"{name_in_words(study, other.arm)}{relative_cost(other.cost, best.cost)}" for other in others])
    first = f"gets the most right, {_of_hundred(right, '')}" if right else f"scores highest, {_of_one(score_of(best))}"
    return f"Not shown: {name_in_words(study, best.arm)} {first}, but {names} may be as good."


def unreached(study: Evidence, nearest: ArmResult, target: float) -> str:
    """Say why no arm is shown with a target: none is shown to reach it."""
    right = study.right.get(nearest.arm)
    how_good = f"it gets {_of_hundred(right)}" if right else f"its answers score {_of_one(score_of(nearest))}"
    about = f"{name_in_words(study, nearest.arm)}: {how_good}."
    if len(study.done) == 1:
        return f"Not shown to reach the target of {target:g}: {about}"
    return (
        f"Not shown: none of the {len(study.done)} that were measured is shown to reach the target of {target:g}. "
        f"The nearest is {about}"
    )


def assumptions(study: Evidence, of: ArmResult | None) -> str:
    """Say what the task file leaves open and what weakens the study; empty where nothing does. `of`: the arm that the
    verdict is about."""
    table, said = study.task.target, []
    if table.quality is None:
        reached = None if of is None else reachable_target(study, of.arm)
        shown = f" ({of.arm} is shown to reach one of up to {reached:.2f})" if of is not None and reached else ""
        said.append(f"no target{shown}")
        if "margin" not in table.model_fields_set:
            said.append(f"no margin (differences of up to {table.margin:g} count as none)")
    if of is not None and of.cost is not None and "questions_per_month" not in study.task.cost.model_fields_set:
        said.append(f"no volume ({study.task.cost.questions_per_month:,.0f} questions a month are assumed)")
    weak = [f"the task file states {joined(said)}"] if said else []
    for status, lost in (("failed", "failed"), ("not_run", "not run")):
        if names := [arm.arm for arm in study.results if arm.status == status]:
            weak.append(f"{lost}, so not compared: {joined(names)}")
    weak += ["the time budget cut searching or training, as told below"] if study.cuts else []
    if study.few_groups is not None:
        weak.append(
            f"the test questions form only about {study.few_groups} independent groups, so that every figure is rough"
        )
    return f"Not known or weak: {'; '.join(weak)}." if weak else ""


def reachable_target(study: Evidence, arm: str) -> float | None:
    """Return the highest target, in steps of 0.01, that an arm is shown to reach with all arms tested at once
    (Bonferroni); None for none."""
    if study.rarest_class:
        return None
    level, low, high = study.level / len(study.done), 0, round(1 / STEP)
    while low < high:  # p grows with the target
        middle = (low + high + 1) // 2
        low, high = (middle, high) if study.p_target(arm, middle * STEP) <= level else (low, middle - 1)
    return low * STEP or None


def name_in_words(study: Evidence, name: str) -> str:
    """Return an arm's name with its description."""
    arm = {own.name: own for own in study.task.arms}.get(name) or arm_from_name(name)
    return name if arm is None else f"{name} ({describe_arm(replace(arm, settings={}))})"


def amount(cost: Cost) -> str:
    """Return a cost in its currency, or in machine hours if they have no price."""
    if cost.currency == MACHINE_SECONDS:
        hours = cost.total / 3600
        return f"{hours:,.1f} machine hours" if hours >= 0.05 else "less than 0.1 machine hours"
    digits = 0 if cost.total >= 100 else 2
    return f"{cost.total:,.{digits}f} {cost.currency}"


def relative_cost(one: Cost | None, other: Cost | None) -> str:
    """Compare two costs, as " at 3.0 times the cost" or " at 1/13 of the cost"; empty where they are alike or not
    comparable."""
    if one is None or other is None or one.currency != other.currency or min(one.total, other.total) <= 0:
        return ""
    if alike(*sorted((one, other), key=lambda cost: cost.total)):
        return ""
    times = max(one.total, other.total) / min(one.total, other.total)
    digits = f"{times:,.{0 if times >= 10 else 1}f}"
    return f" at {digits} times the cost" if one.total > other.total else f" at 1/{digits} of the cost"


def _next_best(study: Evidence, chosen: ArmResult) -> str:
    """Compare the best of the other arms that could be chosen with the chosen one: right answers and cost."""
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
    return f"the next best, {name_in_words(study, other.arm)}, {gap}{relative_cost(other.cost, chosen.cost)}"


def _of_hundred(right: Estimate, word: str = " right") -> str:
    value, low, high = (round(100 * share) for share in (right.value, right.low, right.high))
    return f"about {value} of 100 questions{word} ({low} to {high}; {right.n:,} were asked)"


def _of_one(score: Estimate) -> str:
    return f"{score.value:.2f} of 1 ({score.low:.2f} to {score.high:.2f}; {score.n:,} questions were asked)"
