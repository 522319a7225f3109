"""The first screen of a verdict: what to do today in at most 60 words, and what to know before relying on it."""

from __future__ import annotations

from collections.abc import Iterable

from trimtab.base.grammar import TRIVIAL
from trimtab.base.metrics import find_metric
from trimtab.base.results import MoreQuestions, Today, TrivialArm, Verdict, WeakClass
from trimtab.base.task import Task
from trimtab.decision.evidence import Evidence, score_of
from trimtab.decision.summary import (
    amount,
    cost_sentence,
    in_metric,
    of_hundred,
    plain_score,
    trained_arms,
    way,
    ways,
)

MOST_LINES = 5
TOLD = 0.01  # a loss or gain below a point of 100 is not named
WORTH_LABELLING = 0.1  # points that the largest number of further questions must save


def opening(study: Evidence, verdict: Verdict, trivial: Iterable[TrivialArm], weak: Iterable[WeakClass]) -> str:
    """Return what to do: the arm to use and how sure that is, how many of 100 come out right, what it costs, and the
    main risk. The verdict's own first line where no arm can be used."""
    today = verdict.today
    if today is None:
        return verdict.sentence.splitlines()[0]
    chosen = next(arm for arm in study.done if arm.arm == today.arm)
    unbeaten = _unbeaten(study, trivial)
    right = study.right.get(today.arm)
    quality = f"It gets {of_hundred(right)}." if right else f"It scores {plain_score(chosen)} on a scale from 0 to 1."
    return " ".join(
        filter(None, (unbeaten, _use(study, today), quality, cost_sentence(study, chosen), _risk(study, today, weak)))
    )


def _use(study: Evidence, today: Today) -> str:
    """Name the arm, and say how sure it is that this is the right one."""
    own, named = today.outlook, f"Use {way(today.arm)}"
    target, chance = study.task.target.quality, f"{100 * own.lightest:.0f}%"
    if len(today.arms) == 1 and target is None:
        return f"{named}: nothing else was measured that can be used."
    good = f"reaches the target of {in_metric(study.task, target)}" if target else "is good enough"
    if today.certainty == "shown":
        return f"{named}: it is shown that {'it' if target else 'it is the lightest that'} {good}."
    if own.good_enough < 0.5 and target is not None:
        odds = f"{100 * own.good_enough:.0f}%"
        return f"{named} for now: it comes nearest to the target, and {good} with a chance of {odds}."
    if today.certainty == "toss-up":
        lost = max(1, round(100 * own.worst))
        return f"{named}: a toss-up ({chance}) between this and others, in which at most {lost} of 100 can be lost."
    return f"{named}: {today.certainty} ({chance}) the lightest that {good}."


def _unbeaten(study: Evidence, trivial: Iterable[TrivialArm]) -> str:
    """Say that no arm scored more than a fixed rule without a model; empty if one did."""
    best = max(trivial, key=lambda one: one.score.value, default=None)
    if best is None or any(score_of(arm).value > best.score.value for arm in study.done):
        return ""
    return f"Nothing measured beats a fixed rule, {TRIVIAL[best.arm]} ({in_metric(study.task, best.score.value)})."


def _risk(study: Evidence, today: Today, weak: Iterable[WeakClass]) -> str:
    """Return the main risk of taking the arm, in a sentence."""
    own, target = today.outlook, study.task.target.quality
    worst = f"{100 * own.worst:.0f} of 100" if find_metric(study.task.metric).is_share else f"{own.worst:.2f}"
    if own.worst >= TOLD and today.certainty != "toss-up":
        behind = "below the target" if target else "behind the best way"
        return f"Main risk: it may be {worst} {behind}."
    missed = next(iter(weak), None)
    if missed is not None:
        wrong = f"{100 * (1 - missed.recall.value):.0f} of 100"
        return f"Main risk: it misses {wrong} questions of the class {missed.label}."
    trained, several = trained_arms(study)
    once = {arm.arm for arm in trained} - {arm.arm for arm in several}
    return "Main risk: it was trained only once." if today.arm in once else ""


def before_relying(study: Evidence, verdict: Verdict, others: Iterable[str]) -> tuple[str, ...]:
    """Return at most five short sentences on what to know before relying on the verdict, the most important first.

    `others`: what comes after what the evidence tells.
    """
    lines = [_claim(study, verdict), _cut(study)]
    if verdict.today is not None:
        lines += [_rule(study), _price(study, verdict.today), _labels(study.task, verdict.today.more)]
    return tuple(line for line in (*lines, *others) if line)[:MOST_LINES]


def _claim(study: Evidence, verdict: Verdict) -> str:
    """Say what is shown, if that is not the arm to use."""
    today = verdict.today
    if verdict.arm is not None:
        shown = next(arm for arm in study.done if arm.arm == verdict.arm)
        if today is None or today.arm == verdict.arm:
            return ""
        costs = f", at {amount(shown.cost)}" if shown.cost else ""
        return f"Shown by a test is {way(verdict.arm)} alone{costs}: take that where you must promise it."
    needs = verdict.needs or ""
    if needs.startswith("about "):
        return f"Not shown by a test yet: {needs} would show it in 4 of 5 such studies."
    return f"Not shown by a test: {needs}." if needs else "Not shown by a test."


def _cut(study: Evidence) -> str:
    """Name what the budget left out, with the remedy."""
    left_out = [arm for arm in study.results if arm.status == "not_run"]
    if left_out:
        is_one = "is" if len(left_out) == 1 else "are"
        return f"{ways(left_out)} did not fit the budget and {is_one} not measured: give more time."
    return f"The budget cut the study ({study.cuts[0]}): a larger one is the first remedy." if study.cuts else ""


def _rule(study: Evidence) -> str:
    """Name a fixed rule without a model that reaches the target, or nearly does."""
    target, margin = study.task.target.quality, study.task.target.margin
    near = [name for name, score in study.trivial.items() if target is not None and score.value >= target - margin]
    if not near:
        return ""
    best = max(near, key=lambda name: study.trivial[name].value)
    does = "reaches the target, too" if best == study.without_model else "nearly reaches the target"
    return f"A fixed rule, {TRIVIAL[best]}, {does} ({in_metric(study.task, study.trivial[best].value)}), at no cost."


def _price(study: Evidence, today: Today) -> str:
    """Say what another worth of a point would change."""
    if today.rival is None or today.rival_point is None:
        return ""
    rival, own = (next(one for one in today.arms if one.arm == name) for name in (today.rival, today.arm))
    dearer = rival.shortfall < own.shortfall
    worth = f"{'more' if dearer else 'less'} than {_worth(study.task, today.rival_point)} a month"
    return f"If a point of 100 is worth {worth} to you, use {way(rival.arm)}."


def _worth(task: Task, point: float) -> str:
    if task.cost.machine_hour:
        return f"{point:,.2g} {task.cost.currency}" if point < 100 else f"{point:,.0f} {task.cost.currency}"
    hours = point / 3600
    return f"{hours:,.2g} machine hours" if hours >= 0.01 else f"{point:,.0f} machine seconds"


def _labels(task: Task, more: tuple[MoreQuestions, ...]) -> str:
    """Say what more test questions are worth."""
    if not more:
        return ""
    most = more[-1]
    if most.saves < WORTH_LABELLING:
        return f"Label no more test questions for this choice: {most.questions} more would save less than 0.1 of 100."
    costs = f" and cost {most.cost:,.0f} {task.cost.currency}" if most.cost else ""
    return f"{most.questions} more test questions would save {most.saves:.1f} of 100 on average{costs}."
