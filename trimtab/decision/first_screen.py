"""The first screen of a verdict: what to do today in at most 60 words, and what to know before relying on it."""

from __future__ import annotations

from collections.abc import Iterable

from trimtab.base.grammar import TRIVIAL
from trimtab.base.metrics import find_metric
from trimtab.base.results import ArmResult, MoreQuestions, Today, TrivialArm, Verdict, WeakClass
from trimtab.base.task import Task
from trimtab.decision.caveats import TOLD_UNSURE
from trimtab.decision.evidence import Evidence, score_of
from trimtab.decision.staleness import staleness_sentence
from trimtab.decision.summary import (
    amount,
    beside_next_best,
    ends,
    in_metric,
    trained_arms,
    way,
    ways,
)

MOST_LINES = 5
TOLD = 0.01  # a loss or gain below a point of 100 is not named
MORE_IS_NO_HELP = "not more test questions: "  # what `needs` begins with then
WORTH_LABELLING = 0.1  # points that the largest number of further questions must save


def opening(study: Evidence, verdict: Verdict, trivial: Iterable[TrivialArm], weak: Iterable[WeakClass]) -> str:
    """Return what to do: the arm to use and how sure that is, how many of 100 come out right, what it costs, and the
    main risk. The verdict's own first line where no arm can be used."""
    today = verdict.today
    if today is None:
        if unbeaten := _unbeaten(study, trivial):
            return _grade_first(verdict, unbeaten) if study.uncalibrated else unbeaten
        return verdict.sentence.splitlines()[0]
    chosen = next(arm for arm in study.done if arm.arm == today.arm)
    if study.uncalibrated:
        return _grade_first(verdict, _by_grades(study, chosen))
    broken = _broken(chosen)
    risk = "" if broken or rule_ahead(study, today.arm) else _risk(study, today, weak)
    parts = (_use(study, today), broken, _quality(study, chosen), _cost(study, chosen), risk)
    return " ".join(filter(None, parts))


def _grade_first(verdict: Verdict, by_grades: str) -> str:
    """Say that people must grade answers before anything is shown, and then what the judge's grades say."""
    needs = (verdict.needs or "").removeprefix("that ")
    first = f"First let {needs}: the" if needs else "The"
    return f"{first} judge is uncalibrated, so nothing shows which arm is best, or good enough. {by_grades}"


def _by_grades(study: Evidence, chosen: ArmResult) -> str:
    """Return today's choice by the grades of an uncalibrated judge."""
    score = score_of(chosen)
    scored = f"{score.value:.2f} of 1 ({score.n:,} asked)"
    favoured = f"By its grades {way(chosen.arm)} would be today's choice, with {scored}."
    return f"{_ahead(study, chosen.arm)}{favoured} {_cost(study, chosen)}"


def _quality(study: Evidence, chosen: ArmResult) -> str:
    """Return how many of 100 questions come out right, or the score, with its range."""
    right = study.right.get(chosen.arm)
    value = right or score_of(chosen)
    low, high = ends(value)
    asked = f"{value.n:,} asked" + (f", in {study.groups:,} groups" if study.groups else "")
    if right is None:
        return f"It scores {value.value:.2f} of 1 (very likely {low / 100:.2f} to {high / 100:.2f}; {asked})."
    return f"About {100 * value.value:.0f} of 100 right (very likely {low} to {high}; {asked})."


def _cost(study: Evidence, chosen: ArmResult) -> str:
    """Return what the arm costs over the horizon."""
    if chosen.cost is None:
        return "What it costs is not known."
    table = study.task.cost
    over = f"over {table.horizon_months:g} months at {table.questions_per_month:,.0f} questions a month"
    return f"It costs {amount(chosen.cost)} {over}."


def _use(study: Evidence, today: Today) -> str:
    """Name the arm, and say how sure it is that this is the right one."""
    own, target = today.outlook, study.task.target.quality
    if target is None:
        good = f"within {in_metric(study.task, study.task.target.margin)} of the best"
        shown, lightest = f"It is shown to be the lightest arm {good}", f"the lightest arm {good}"
    else:
        good = f"the target of {in_metric(study.task, target)}"
        shown, lightest = f"It is shown to reach {good}", f"the lightest that reaches {good}"
    if today.certainty == "only one":
        alone = len(study.done) == 1
        sure = "It is the only way that was measured" if alone else "No other way that was measured can be used"
    elif today.certainty == "shown":
        sure = shown
    elif own.good_enough < 0.5 and target is not None:
        sure = f"Of all it loses least; it reaches {good} with a chance of {_percent(own.good_enough)}"
    elif today.certainty == "toss-up":
        lost = max(1, round(100 * own.worst))
        sure = f"Which is best is a toss-up; with this one at most {lost} of 100 can be lost"
    else:
        sure = f"{today.certainty.capitalize()} ({_percent(own.lightest)}) {lightest}"
    return f"Use {way(today.arm)}. {_ahead(study, today.arm)}{sure}."


def _ahead(study: Evidence, arm: str) -> str:
    """Name a fixed rule that scored as much as the arm, or more; empty if none did."""
    rule = rule_ahead(study, arm)
    if rule is None:
        return ""
    scored, own = study.trivial[rule].value, next(one for one in study.done if one.arm == arm)
    much = "more" if scored > score_of(own).value else "as much"
    return f"A fixed rule, {rule}, scored {much} ({in_metric(study.task, round(scored, 2))}). "


def rule_ahead(study: Evidence, arm: str) -> str | None:
    """Return the fixed rule that scored highest, if the arm did not score more and no target says what is enough."""
    if study.task.target.quality is not None or not study.trivial:
        return None
    best = max(study.trivial, key=lambda name: study.trivial[name].value)
    own = next(one for one in study.done if one.arm == arm)
    return best if study.trivial[best].value >= score_of(own).value else None


def _broken(chosen: ArmResult) -> str:
    """Name the probe under which the arm loses most, of those that are shown; empty if it stands all."""
    found = sorted((one for one in chosen.probes if one.found), key=lambda one: one.difference)
    if not found:
        return ""
    worst, *others = found
    more = f", and under {len(others)} more probe{'s' * (len(others) > 1)}" if others else ""
    return f"But it breaks {worst.change}: {worst.after:.2f} instead of {worst.before:.2f}{more}."


def _percent(chance: float) -> str:
    """Return a chance, never as certain."""
    return f"{100 * min(max(chance, 0.01), 0.99):.0f}%"


def _unbeaten(study: Evidence, trivial: Iterable[TrivialArm]) -> str:
    """Say that no arm scored more than a fixed rule without a model, and what to do then; empty if one did."""
    best = max(trivial, key=lambda one: one.score.value, default=None)
    if best is None or not study.done or any(score_of(arm).value > best.score.value for arm in study.done):
        return ""
    scored = in_metric(study.task, round(best.score.value, 2))
    rule = f"Nothing measured beats a fixed rule, {TRIVIAL[best.arm]} ({scored})."
    if study.uncalibrated:
        return f"By its grades n{rule[1:]}"
    left_out = [arm for arm in study.results if arm.status == "not_run"]
    if left_out:
        return f"{rule} Give more time: {ways(left_out)} did not fit the budget."
    return f"{rule} Look at the instruction and the metric, or try a stronger model or more training rows."


def _risk(study: Evidence, today: Today, weak: Iterable[WeakClass]) -> str:
    """Return the main risk of taking the arm, in a sentence."""
    own, target = today.outlook, study.task.target.quality
    worst = f"{100 * own.worst:.0f} of 100" if find_metric(study.task.metric).is_share else f"{own.worst:.2f}"
    allowed = TOLD if target else max(TOLD, study.task.target.margin)
    if own.worst > allowed and today.certainty != "toss-up":
        return f"Main risk: it may be {worst} {'below the target' if target else 'behind the best'}."
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
    is_told = "did not fit the budget" in verdict.sentence
    lines = [_drafted(study), _claim(study, verdict), "" if is_told else _cut(study)]
    named = verdict.use or (max(study.done, key=lambda arm: score_of(arm).value).arm if study.done else None)
    lines += [staleness_sentence(study, arm) for arm in study.done if arm.arm == named]
    if verdict.today is not None:
        chosen = next(arm for arm in study.done if arm.arm == verdict.today.arm)
        lines += [
            _undecided(study, chosen),
            _rule(study, chosen),
            "" if study.uncalibrated else _price(study, verdict.today),
            beside_next_best(study, chosen),
            "" if study.uncalibrated else _labels(study.task, verdict.today.more),
        ]
    return tuple(line for line in (*lines, *others) if line)[:MOST_LINES]


def _drafted(study: Evidence) -> str:
    """Say how many of the test questions nobody asked."""
    if not study.drafted:
        return ""
    asked = max((score_of(arm).n for arm in study.done), default=study.drafted)
    which = "All" if study.drafted >= asked else f"{study.drafted:,} of the {asked:,}"
    return (
        f"{which} test questions are drafted from the documents: such questions put settings and arms in another order "
        "than those that people ask, so collect real ones before you rely on it."
    )


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
    if study.uncalibrated:
        return ""  # the first line says it
    if needs.startswith("about "):
        again = "; a later study of the same questions needs more proof" if (study.look or 1) > 1 else ""
        return f"Not shown by a test yet: {needs} would show it in 4 of 5 such studies{again}."
    if needs.startswith(MORE_IS_NO_HELP):
        return f"Not shown by a test, and more test questions will not help: {needs.removeprefix(MORE_IS_NO_HELP)}."
    return f"Not shown by a test; needed is {needs}." if needs else "Not shown by a test."


def _cut(study: Evidence) -> str:
    """Name what the budget left out, with the remedy."""
    left_out = [arm for arm in study.results if arm.status == "not_run"]
    if left_out:
        is_one = "is" if len(left_out) == 1 else "are"
        return f"{ways(left_out)} did not fit the budget and {is_one} not measured: give more time."
    return f"Run again with a larger budget first; to fit this one, {study.cuts[0]}." if study.cuts else ""


def _undecided(study: Evidence, arm: ArmResult) -> str:
    """Say how many more may be right if the metric could not decide some answers, which the score counts as wrong."""
    share = arm.extras.get("unsure", 0.0)
    if study.audited or share < TOLD_UNSURE:
        return ""
    most = in_metric(study.task, min(1.0, score_of(arm).value + share))
    rest = f"up to {most} may be right; trimtab audit asks people"
    return f"The metric cannot decide some answers, which count as wrong: {rest}."


def _rule(study: Evidence, arm: ArmResult) -> str:
    """Name a fixed rule without a model that reaches the target, or nearly does; without a target, one that scored more
    than the arm."""
    target, margin = study.task.target.quality, study.task.target.margin
    if target is None:
        ahead = rule_ahead(study, arm.arm)
        if ahead is None:
            return ""
        return f"The rule {ahead} is {TRIVIAL[ahead]}; it costs next to nothing, so look at it first."
    near = [name for name, score in study.trivial.items() if score.value >= target - margin]
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
        little = f"{most.questions} more would save less than 0.1 of 100"
        again = "look again when questions or documents change"
        return f"Label no more test questions for this choice ({little}); {again}."
    costs = f" and cost {most.cost:,.0f} {task.cost.currency}" if most.cost else ""
    return f"{most.questions} more test questions would save {most.saves:.1f} of 100 on average{costs}."
