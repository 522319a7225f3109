"""The verdict in words: the arm that is shown and what it costs, or what would settle it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

from trimtab.base.grammar import TRIVIAL, method_of, named
from trimtab.base.results import ArmResult, Comparison, Cost, Estimate, Verdict
from trimtab.base.task import Task
from trimtab.decision.audited import unless_uneven
from trimtab.decision.choice import Choice, choose
from trimtab.decision.cost import MACHINE_SECONDS
from trimtab.decision.evidence import Evidence, best_arm, score_of, too_slow
from trimtab.decision.flips import find_flips
from trimtab.decision.pairs import comparisons_among
from trimtab.decision.weight import alike
from trimtab.measurement.power import POWER, groups_needed, items_for_target
from trimtab.measurement.statistics import LEVEL

NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "contains": "share of right answers",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "scorer": "score",
}
INTERVAL = 2 * NormalDist().inv_cdf(1 - LEVEL / 2)  # width of a 95% interval in standard errors
ORDINALS = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
PRACTICABLE = 100  # times as many test questions as there are: more are not asked for
LONGEST_CUTS = 3  # of those that the budget made, how many the sentence gives


def decide(study: Evidence) -> Verdict:
    """The arm that the rule shows (`choose`) with what would flip it, or what would settle it; pure."""
    verdict = replace(_decided(study), picked=study.picked)
    return verdict if study.audited is None else unless_uneven(verdict, study.audited, study.task)


def _decided(study: Evidence) -> Verdict:
    if not study.done:
        whys = "; ".join(f"{arm.arm}: {arm.why}" for arm in study.results if arm.why)
        return _not_shown(f"No arm finished{f' ({whys})' if whys else ''}.", "an arm that runs to its end")
    choice, target = choose(study), study.task.target.quality
    if study.without_model is not None and target is not None:
        sentence, needs = _no_model_needed(study, study.without_model, target)
        return _not_shown(sentence + _besides(study, choice), needs)
    turned = choose(study.if_quiet).arm if any(arm.busy_machine for arm in study.done) else None
    if turned is not None and (choice.arm is None or turned.arm != choice.arm.arm):
        sentence, needs = _turned(study, turned, choice.arm)
        return _not_shown(sentence + _besides(study, choice), needs)
    if choice.arm is None:
        sentence, needs = _nothing_reaches(study, target) if target is not None else _nothing_told(study, choice)
        return _not_shown(sentence + _besides(study, choice), needs)
    if target is not None:
        sentence = _reaching(study, choice, target)
    else:
        sentence = _best_of_these(study, choice.arm, choice.best or choice.arm, choice.fitting[0])
    return Verdict(
        status="shown",
        arm=choice.arm.arm,
        sentence=sentence + _besides(study, choice),
        flips=find_flips(study, choice.arm),
    )


# ---- with a target


def _reaching(study: Evidence, choice: Choice, target: float) -> str:
    winner, *rivals = choice.fitting
    sentence = f"{winner.arm} reaches the target of {target:g} with {_scored(winner, study.task)}"
    if rivals:
        lightest = f"and is the lightest of the {len(choice.fitting)} arms that do"
        sentence += f", {lightest}: {_against_next(winner, rivals[0], study)}."
    else:
        sentence += f"; it is the only one of {len(study.done)} arms to do so" if len(study.done) > 1 else ""
        sentence += f", and costs {_money(winner.cost, study.task)}." if winner.cost else "."
    unknown = [arm.arm for arm in choice.fitting if arm.cost is None]
    if unknown:
        sentence += f" What {_list(unknown)} would cost is not known: no price was given."
    return sentence


def _no_model_needed(study: Evidence, trivial: str, target: float) -> tuple[str, str]:
    """The verdict where an answer without a model is good enough: the target tells nothing about the arms."""
    score = _with_interval(study.trivial[trivial], study.task)
    what = TRIVIAL[trivial].removeprefix("no model: ")
    sentence = f"No arm is needed: answering without a model ({trivial}: {what}) reaches the target of {target:g} with {score}."
    reach = [arm.arm for arm in study.passing]
    if reach:
        sentence += f" {_list(reach)} {'reaches' if len(reach) == 1 else 'reach'} it too; a higher target would tell what {'it is' if len(reach) == 1 else 'they are'} worth."
    return sentence, "a target above what an answer without a model scores"


def _nothing_reaches(study: Evidence, target: float) -> tuple[str, str]:
    if study.passing:
        nearest = min(study.passing, key=lambda arm: (arm.latency_p95_high_ms is None, arm.latency_p95_high_ms or 0.0))
        problem = study.problem(nearest)
        sentence = (
            f"Not shown: {nearest.arm} reaches the target of {target:g} with {_scored(nearest, study.task)}, "
            f"but {problem}; more test questions will not help."
        )
        return sentence, f"not more test questions: {nearest.arm} {problem}"
    fitting = [arm for arm in study.done if study.problem(arm) is None]
    nearest = max(fitting or study.done, key=lambda arm: score_of(arm).value)
    score = score_of(nearest)
    sentence = (
        f"Not shown: no arm is shown to reach the target of {target:g}; "
        f"the nearest is {nearest.arm} with {_scored(nearest, study.task)}"
    )
    if study.rarest_class:
        needs = "at least 10 test questions of every class"
        return f"{sentence}. {_rare(study)}", needs
    # The seen score where it is above the target, else one between target and interval's end: a score below it is no proof
    true = score.value if score.value > target else (target + score.high) / 2
    variance = _variance(score.low, score.high, score.n)
    items = items_for_target(true, target, len(study.done), variance, study.next_level)
    if items is None:
        needs = f"not more test questions: the best score is at most {_number(score.high)} (95% interval)"
        return f"{sentence}. As its interval ends below the target, more test questions will not help.", needs
    needs = _more_questions(items - score.n, study)
    return f"{sentence}; {needs} would show it with 80% chance if its true score is {_number(true)}.", needs


# ---- without a target


def _best_of_these(study: Evidence, chosen: ArmResult, best: ArmResult, lightest: ArmResult) -> str:
    task = study.task
    margin, scored = f"{task.target.margin:g}", _scored(chosen, task)
    unfinished = [arm for arm in _still_improving(study) if arm is not chosen]
    if chosen is not best:
        sentence = (
            f"{chosen.arm} is the lightest arm shown to be within {margin} of the best: {scored}, against "
            f"{_number(score_of(best).value)} for {best.arm}; {_against_next(chosen, best, study)}."
        )
    elif lightest is best:
        sentence = (
            f"{best.arm} scored best with {scored} and is the lightest; "
            f"every other arm is shown not to be better by more than {margin}."
        )
    else:
        cost = f"; it costs {_money(best.cost, task)}" if best.cost else ""
        sentence = (
            f"{best.arm} {'scored best' if unfinished else 'is the best arm'} with {scored}, "
            f"and every lighter arm is shown to be worse by more than {margin}{cost}."
        )
    choice = "the choice among these arms as they stand" if unfinished else "the best choice of these arms"
    return f"{sentence} It is {choice}; whether it is good enough is not known, since no target is stated."


def _nothing_told(study: Evidence, choice: Choice) -> tuple[str, str]:
    """Not shown, without a target: with the margin that was achieved, what the difference costs, and what would settle it."""
    task, best, candidate = study.task, choice.best, choice.candidate
    if not choice.fitting:
        first = study.done[0]
        return f"Not shown: {first.arm} {study.problem(first)}, and so for every arm.", "a faster arm or machine"
    if best is None:
        first = choice.fitting[0]
        sentence = f"Not shown: {first.arm}, with {_scored(first, task)}, has no arm to be compared with."
        return sentence, "a target, or a second arm that runs to its end"
    if candidate is None:
        needs = "not more test questions: a stronger base model, or a look at the instruction and the metric"
        return f"Not shown: every arm scored 0 on {score_of(best).n:,} test questions; {needs}.", needs
    margin, top = f"{task.target.margin:g}", f"Not shown: {best.arm} scored best with {_scored(best, task)}, but"
    settled, needs = _what_settles(study, choice, best, candidate)
    if candidate is best:
        rivals = _list([_behind(study.against(best.arm, arm.arm), arm) for arm in choice.rivals])
        return f"{top} these data cannot tell it from {rivals} to within {margin}; {settled}.", needs
    gap = study.against(best.arm, candidate.arm)
    seen = (
        ""
        if gap is None
        else f" is behind by {_number(gap.difference)}, at most {_number(gap.high)} (95% interval), and so"
    )
    price = _share_of_cost(candidate, best)
    return (
        f"{top} {candidate.arm}{price}{seen} is shown neither to be within {margin} "
        f"{'of it' if best in choice.rivals else f'of {_list([arm.arm for arm in choice.rivals])}'} "
        f"nor to be worse by more; {settled}.",
        needs,
    )


def _what_settles(study: Evidence, choice: Choice, best: ArmResult, candidate: ArmResult) -> tuple[str, str]:
    """How many test questions would, if the seen gaps are the true ones: in the sentence, and as `needs`."""
    within = [_items_within(study, choice, best, candidate, rival) for rival in choice.rivals]
    beyond = _items_worse(study, choice, best, candidate)
    ways = [max(items for items in within if items is not None)] if within and None not in within else []
    ways += [] if beyond is None else [beyond]
    asked = max(score_of(arm).n for arm in study.done)
    if ways and min(ways) > PRACTICABLE * asked:
        no = "no practicable number of test questions"
        return f"{no} would settle it if the seen gap is the true one", no
    if not ways:
        few = _too_few_groups(study)
        no = f"no number of test questions{f' of so few groups ({few})' if few else ''}"
        return f"{no} would settle it if the seen gap is the true one", no
    needs = _more_questions(min(ways) - asked, study)
    return f"{needs} would settle it if the seen gap is the true one", needs


def _items_within(
    study: Evidence, choice: Choice, best: ArmResult, candidate: ArmResult, rival: ArmResult
) -> float | None:
    """Items that show the candidate to be within the margin of a rival."""
    gap = study.against(rival.arm, candidate.arm) or study.against(best.arm, candidate.arm)
    if gap is None:
        return None
    variance = _variance(gap.low, gap.high, score_of(best).n)
    behind = score_of(rival).value - score_of(candidate).value
    return _needed(study.task.target.margin - behind, variance, study.next_level, len(choice.rivals))


def _items_worse(study: Evidence, choice: Choice, best: ArmResult, candidate: ArmResult) -> float | None:
    """Items that show the candidate to be worse than the best by more than the margin."""
    gap = study.against(best.arm, candidate.arm)
    if gap is None or candidate is best or _too_few_groups(study):
        return None
    variance = _variance(gap.low, gap.high, score_of(best).n)
    return _needed(gap.difference - study.task.target.margin, variance, study.next_level / (len(choice.fitting) - 1))


def _needed(gap: float, variance: float, level: float, claims: int = 1) -> float | None:
    """Items that show a mean of `gap` above 0, one-sided, so that so many such claims come together in 80% of studies; None where it is not above."""
    if gap <= 0:
        return None
    normal = NormalDist()
    return variance * ((normal.inv_cdf(1 - level) + normal.inv_cdf(1 - (1 - POWER) / claims)) / gap) ** 2


def _too_few_groups(study: Evidence) -> str | None:
    """Why no difference can be shown whatever is answered, where the groups cannot reach the corrected level."""
    compared = comparisons_among(len(study.done))
    needed = groups_needed(compared, study.level)
    if study.groups is None or study.groups >= needed:
        return None
    return (
        f"{study.groups} groups of questions cannot show a difference in {compared} comparisons, {needed} are the least"
    )


# ---- what stands beside the choice


def _besides(study: Evidence, choice: Choice) -> str:
    """Sentences on what the choice leaves out: arms too slow, not run or cut, and whether it speaks of a model or of a method."""
    said = [
        _picked(study, choice),
        _look(study),
        _rare(study) if study.rarest_class and study.task.target.quality is None else "",
        _left_out(study, choice),
        _missing(study),
        _cut(study),
        _busy(study),
        _improving(study),
        _speaks_of(study),
        _free_labels(study),
    ]
    return "".join(f" {sentence}" for sentence in said if sentence)


def _left_out(study: Evidence, choice: Choice) -> str:
    """The arms that would be chosen or score higher, but cannot be used."""
    shown = score_of(choice.arm).value if choice.arm else (score_of(choice.best).value if choice.best else math.inf)
    barred = []
    for arm in study.done:
        problem = study.problem(arm)
        if problem and arm in study.passing and choice.arm:
            barred.append(f"{arm.arm} reaches it too, but {problem}.")
        elif problem and score_of(arm).value > shown:
            barred.append(f"{arm.arm} scored higher ({_number(score_of(arm).value)}), but {problem}.")
    return " ".join(barred)


def _turned(study: Evidence, turned: ArmResult, chosen: ArmResult | None) -> tuple[str, str]:
    """Not shown: an arm that is too slow on a busy machine may be fast enough on a quiet one."""
    slow = [arm for arm in study.done if arm.busy_machine and study.problem(arm) is not None]
    whys = "; ".join(f"{arm.arm} {study.problem(arm)}" for arm in slow)
    instead = f" in place of {chosen.arm}" if chosen else ""
    sentence = f"Not shown: {whys}. On a quiet machine {turned.arm} might be shown{instead}: measure again while nothing else runs."
    return sentence, f"the latency of {_list([arm.arm for arm in slow])} on a quiet machine"


def _busy(study: Evidence) -> str:
    """Which arms were measured on a busy machine, and how their costs count."""
    names = [f"{arm.arm} ({arm.processor_share:.0%} of the processor)" for arm in study.done if arm.busy_machine]
    if not names:
        return ""
    what = "its cost counts" if len(names) == 1 else "their costs count"
    return f"Measured on a busy machine: {_list(names)}; {what} as equal to lower ones."


def _picked(study: Evidence, choice: Choice) -> str:
    """What the highest score comes to once it is corrected for having been picked, where the verdict speaks of that arm."""
    highest, spoken = best_arm(study.results, study.task), choice.arm or choice.best
    if study.picked is None or highest is None or spoken is None or spoken.arm != highest:
        return ""
    if study.picked.value >= score_of(spoken).value:
        return ""  # so far ahead that having been picked adds nothing
    found, fast = study.picked, sum(too_slow(arm, study.task) is None for arm in study.done)
    return (
        f"The highest of {fast} scores is too high on average: corrected for having been picked, {highest} is at "
        f"{_number(found.value)} ({_number(found.low)} to {_number(found.high)})."
    )


def _look(study: Evidence) -> str:
    """That earlier studies have looked at the questions, and how strict the tests are for it."""
    if study.look is None or study.look < 2:
        return ""
    nth = ORDINALS[study.look - 2] if study.look - 2 < len(ORDINALS) else f"{study.look}th"
    fresh = study.task.command("test --fresh")
    return f"This is the {nth} look at these questions, tested at {study.level:.2g}; fresh ones: {fresh}."


def _rare(study: Evidence) -> str:
    """That a class has too few test questions for a claim on macro-F1."""
    name, count = study.rarest_class or ("", 0)
    return (
        f"The class {name} has {count} test question{'s' if count > 1 else ''}: with fewer than 10 of a class "
        "macro-F1 is too uncertain for a claim that a target is reached."
    )


def _missing(study: Evidence) -> str:
    """The arms that have no score."""
    said = {"failed": "failed", "not_run": "was not run"}
    missing = [f"{arm.arm} {said[arm.status]}" for arm in study.results if arm.status in said]
    return f"Not compared: {_list(missing)}." if missing else ""


def _cut(study: Evidence) -> str:
    if not study.cuts:
        return ""
    more = f", and {len(study.cuts) - LONGEST_CUTS} more" if len(study.cuts) > LONGEST_CUTS else ""
    return f"To fit the budget was cut: {'; '.join(study.cuts[:LONGEST_CUTS])}{more}."


def _free_labels(study: Evidence) -> str:
    """That costs in money leave out the labels, where arms used different numbers of them."""
    cost, used = study.task.cost, {usage.labels for usage in study.usages.values()}
    return "Labels are counted as free." if cost.machine_hour and cost.label is None and len(used) > 1 else ""


def _improving(study: Evidence) -> str:
    """The arms whose search ended before they stopped getting better: against them "best" is not the last word."""
    names = [arm.arm for arm in _still_improving(study)]
    if not names:
        return ""
    return f"{_list(names)} {'was' if len(names) == 1 else 'were'} still getting better on dev when the search ended; more effort may change this."


def _still_improving(study: Evidence) -> list[ArmResult]:
    return [arm for arm in study.done if arm.effort is not None and arm.effort.improving]


def _speaks_of(study: Evidence) -> str:
    """With one seed a verdict is about the models that were built, with several about the way they are made."""
    known = {arm.name: arm for arm in study.task.arms}
    arms = [(arm, known.get(arm.arm) or named(arm.arm)) for arm in study.done]
    trained = [result for result, arm in arms if arm is not None and method_of(arm).staged]
    several = [result for result in trained if result.seeds > 1]
    if not trained:
        return ""
    if not several:
        return "It speaks of the trained models as they were built and stored: one run each, and another may come out otherwise."
    runs = max(result.seeds for result in several)
    if len(several) == len(trained):
        return f"It speaks of the methods: every trained arm is the mean of {runs} runs, and how they vary is in the intervals."
    names, verb = _list([result.arm for result in several]), "is" if len(several) == 1 else "are"
    return f"{names} {verb} the mean of {runs} runs, and how they vary is in the interval; every other trained arm is one run, and another may come out otherwise."


# ---- shared


def _not_shown(sentence: str, needs: str) -> Verdict:
    return Verdict(status="not_shown", arm=None, sentence=sentence, needs=needs)


def _variance(low: float, high: float, n: int) -> float:
    """Variance of one item, clustering included, that an interval of this width stands for."""
    return n * ((high - low) / INTERVAL) ** 2


def _scored(arm: ArmResult, task: Task) -> str:
    return _with_interval(score_of(arm), task)


def _with_interval(score: Estimate, task: Task) -> str:
    interval = f"95% interval {_number(score.low)} to {_number(score.high)}"
    count = f"{score.n:,} test questions" if score.n_effective is None else score.effective
    return f"{NAMES[task.metric]} {_number(score.value)} on {count} ({interval})"


def _behind(gap: Comparison | None, arm: ArmResult) -> str:
    if gap is None:
        return f"{arm.arm} (not compared)"
    return f"{arm.arm} (behind by {_number(gap.difference)}, 95% interval {_number(gap.low)} to {_number(gap.high)})"


def _share_of_cost(arm: ArmResult, other: ArmResult) -> str:
    """How an arm's cost stands to a dearer one's, where both are known in one unit."""
    one, more = arm.cost, other.cost
    if one is None or more is None or one.currency != more.currency or one.total <= 0 or alike(one, more):
        return ""
    return f", at 1/{more.total / one.total:,.{1 if more.total < 10 * one.total else 0}f} of the cost,"


def _against_next(arm: ArmResult, other: ArmResult, study: Evidence) -> str:
    if arm.cost is None:
        return "its cost is not known"
    first = _money(arm.cost, study.task)
    if other.cost is None:
        return f"it costs {first}"
    if other.cost.currency != arm.cost.currency:
        return f"it costs {first}, which cannot be set against {other.arm} while a machine hour has no price"
    if _amount(other.cost) == _amount(arm.cost):
        return f"it costs {first}, as does {other.arm}"
    if alike(arm.cost, other.cost):
        return (
            f"it costs {first}, which counts as equal to {_amount(other.cost)} for {other.arm}, and is no less simple"
        )
    return f"it costs {first}, against {_amount(other.cost)} for {other.arm}"


def _amount(cost: Cost) -> str:
    if cost.currency == MACHINE_SECONDS:
        return f"{cost.total / 3600:,.1f} machine hours"
    digits = 0 if cost.total >= 100 else 2
    return f"{cost.total:,.{digits}f} {cost.currency}"


def _money(cost: Cost, task: Task) -> str:
    """What is paid over the horizon, and for how many questions: their number is assumed where the task file states none."""
    stated = "questions_per_month" in task.cost.model_fields_set
    volume = f"{'' if stated else 'an assumed '}{task.cost.questions_per_month:,.0f} questions a month"
    return f"{_amount(cost)} over {task.cost.horizon_months:g} months at {volume}"


def _number(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # + 0.0: no minus before a zero


def _more_questions(items: float, study: Evidence) -> str:
    """How many more are needed, to two digits, rounded up."""
    whole = max(1, math.ceil(items))
    unit = 10 ** max(0, len(str(whole)) - 2)
    groups = "" if study.groups is None else " in new groups"
    return f"about {math.ceil(whole / unit) * unit:,} more test question{'s' if whole > 1 else ''}{groups}"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
