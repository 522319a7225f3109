"""Writes the verdict: the arm that is shown and its cost, or what would settle the question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from trimtab.base.grammar import joined
from trimtab.base.metrics import find_metric
from trimtab.base.results import ArmResult, Comparison, Estimate, Verdict
from trimtab.base.task import Task
from trimtab.decision.caveats import with_uneven_metric
from trimtab.decision.choice import VerdictChoice, choose, quiet_rival
from trimtab.decision.cost import alike
from trimtab.decision.evidence import Evidence, best_arm, score_of, too_slow
from trimtab.decision.pairs import comparisons_among
from trimtab.decision.sample_size import questions_needed
from trimtab.decision.sensitivity import find_flips
from trimtab.decision.summary import (
    GROUPS,
    MOST_NAMED,
    amount,
    assumptions,
    cost_sentence,
    explained,
    in_lines,
    in_metric,
    next_best,
    plain_score,
    the_margin,
    trained_arms,
    unreached,
    unsettled,
    use,
    way,
    ways,
)
from trimtab.measurement.audit import ENOUGH
from trimtab.measurement.power import POWER, groups_needed
from trimtab.measurement.replicates import Assumed

IN_FIVE = round(5 * POWER)  # of five studies with the number of questions that is asked for, in how many it is enough
OF_EACH_CLASS = "at least 10 test questions of every class"
MORE_OF_EACH_CLASS = f"To settle it, {OF_EACH_CLASS} are needed."
NOTHING = 1e-9  # a difference below this is rounding


def decide(study: Evidence) -> Verdict:
    """Return the arm that the rule shows (`choose`) with what would flip it, or what would settle the question;
    pure."""
    verdict = drafted(study)
    return replace(verdict, sentence=explained(verdict.sentence, study))


def drafted(study: Evidence) -> Verdict:
    """Return the verdict with the names of arms still marked in its text, for `explained` when the text is whole."""
    verdict = replace(_decided(study), picked=study.picked)
    return verdict if study.audited is None else with_uneven_metric(verdict, study.audited, study.task)


def _decided(study: Evidence) -> Verdict:
    if not study.done:
        whys = "; ".join(f"{arm.arm}: {arm.why}" for arm in study.results if arm.why)
        return _not_shown(f"Nothing ran to its end{f' ({whys})' if whys else ''}.", "an arm that runs to its end")
    choice, target = choose(study), study.task.target.quality

    def text(opening: str, figures: str, *rests_on: ArmResult | None) -> str:
        """Return what to do, what is not known, and the figures, one line each. `rests_on`: the arm that the verdict is
        about, and those that it was held against."""
        known = [arm for arm in rests_on if arm is not None]
        of, shown = (known[0] if known else None), bool(known) and known[0] is choice.arm
        weak = assumptions(study, of, known, opening, shown=shown)
        certainty = (_picked(study, choice), _runs(study), _busy(study))
        return in_lines(f"{opening}{_left_out(study, choice)}", weak, (figures, *certainty))

    turned = quiet_rival(study, choice)
    if turned is not None:
        opening, needs = _turned(study, turned, choice.arm)
        return _not_shown(text(opening, _others(study, ())), needs)
    if choice.arm is None and target is not None:
        opening, figures, needs, nearest = _nothing_reaches(study, target)
        return _not_shown(text(opening, f"{figures} {_others(study, [nearest])}".strip(), nearest), needs)
    if choice.arm is None:
        opening, figures, needs = _nothing_told(study, choice)
        of = choice.best or max(study.done, key=lambda arm: score_of(arm).value)
        rivals = _rivals(choice) if choice.candidate else []
        return _not_shown(text(opening, figures, of, *rivals), needs)
    if target is not None:
        compared, between = "", _reaching(study, choice)
    else:
        compared, between = _beside_others(study, choice.arm, choice.best or choice.arm, choice.fitting), ""
    figures = f"{way(choice.arm.arm)} has {_scored(choice.arm, study.task)}."
    second = next_best(study, choice.arm)
    figures = " ".join(filter(None, (figures, between, _others(study, [choice.arm], priced=second))))
    sentence = text(use(study, choice.arm, compared), figures, choice.arm, second)
    return Verdict(status="shown", arm=choice.arm.arm, sentence=sentence, flips=find_flips(study, choice.arm))


# ---- with a target


def _reaching(study: Evidence, choice: VerdictChoice) -> str:
    """Return how many arms reach the target, and why the chosen one was taken of them."""
    winner, count = choice.fitting[0], len(study.done)
    if len(choice.fitting) > 1:
        cheapest = _cheapest(winner, choice.fitting)
        reach = f"{len(choice.fitting)} of the {count} ways measured are shown to reach the target"
        return f"{reach}; of these {way(winner.arm)} is {cheapest}."
    is_only = len(study.passing) == 1 < count
    return "No other way is shown to reach the target." if is_only and count > 2 else ""


def _nothing_reaches(study: Evidence, target: float) -> tuple[str, str, str, ArmResult]:
    """Return the opening, the figures, what would settle the question, and the nearest arm, if none is shown to reach
    the target."""
    task = study.task
    if study.passing:
        nearest = min(study.passing, key=lambda arm: (arm.latency_p95_high_ms is None, arm.latency_p95_high_ms or 0.0))
        problem, figures = study.problem(nearest), f"{way(nearest.arm)} has {_scored(nearest, task, of=True)}."
        opening = (
            f"No choice: {way(nearest.arm)} is shown to reach the target of {in_metric(task, target)}, but {problem}."
        )
        if task.target.latency_p95_ms is not None and nearest.latency_p95_high_ms is None:
            return opening, figures, f"a known latency: {nearest.arm} {problem}", nearest
        needs = f"not more test questions: {nearest.arm} {problem}"
        return f"{opening} More test questions will not help.", figures, needs, nearest
    fitting = [arm for arm in study.done if study.problem(arm) is None]
    nearest = max(fitting or study.done, key=lambda arm: score_of(arm).value)
    score, figures = score_of(nearest), f"{way(nearest.arm)} has {_scored(nearest, task)}."
    opening = f"{unreached(study, nearest, target)} {cost_sentence(study, nearest)}"
    if study.shows_nothing:
        needs, sentence = _what_first(study)
        return f"{opening} {sentence}", figures, needs, nearest
    if score.value <= target and score.high <= target:
        needs = f"not more test questions: the best score is at most {_number(score.high)} (95% interval)"
        why = "even the upper end of that range is below the target"
        other = "Try a stronger model or more training examples, or lower the target."
        return f"{opening} More test questions will not help: {why}. {other}", figures, needs, nearest
    judging = _judging(study)
    if judging is not None:
        chance = _chance("the scores measured here are the true ones")
        return f"{opening} Needed is {judging}: that is enough {chance}.", figures, judging, nearest
    # The measured score where it is above the target, else one between target and interval's end: a score below it is
    # no proof
    assumed = None if score.value > target else Assumed(nearest.arm, (target + score.high) / 2)
    needs = _more_questions(questions_needed(study, assumed), study)
    true = assumed.score if assumed else score.value
    if find_metric(task.metric).is_share:
        condition = f"it truly gets {100 * true:.3g} of 100 right"
    else:
        condition = f"its true score is {_number(true)}"
    return f"{opening} {_settling(needs, condition, study)}", figures, needs, nearest


# ---- without a target


def _beside_others(study: Evidence, chosen: ArmResult, best: ArmResult, fitting: Sequence[ArmResult]) -> str:
    """Say what is shown of the chosen arm beside the others; `best` has the highest score."""
    margin, place = the_margin(study.task), fitting.index(chosen)
    usable = "" if len(fitting) == len(study.done) else " that can be used"
    lighter, heavier = fitting[:place], [arm for arm in fitting[place + 1 :] if arm is not best]
    than = "it" if next_best(study, chosen) is best else way(best.arm)
    if chosen is best:
        within = f"no other way{usable} is better by more than {margin}"
    else:
        all_others = f" and every other way{usable}" if heavier else ""
        within = f"{way(chosen.arm)} is at most {margin} behind {than}{all_others}"
    if not lighter:
        return f"{way(chosen.arm)} is {_cheapest(chosen, fitting)}, and it is shown that {within}."
    is_many = len(lighter) > 1
    equal = any(alike(chosen.cost, arm.cost) for arm in lighter)
    simple = f"cheaper{' or simpler' if equal else ''}" if _are_comparable(chosen, lighter) else ""
    if len(lighter) > MOST_NAMED and simple:
        them = f"the {len(lighter)} {simple} ways"
    else:
        them = f"the {simple} {ways(lighter)}" if simple else ways(lighter)
    if chosen is best:
        return f"It is shown that {within}, and that {them} {'are' if is_many else 'is'} worse by more than that."
    behind = f"further behind{'' if than == 'it' else f' {than}'}"
    return f"It is shown that {within}, and that {them} {'are' if is_many else 'is'} {behind}."


def _others(study: Evidence, told: Sequence[ArmResult], priced: ArmResult | None = None) -> str:
    """Return a sentence with the scores and costs of the measured arms, the lightest first; empty without any.

    `told`: arms to leave out. `priced`: an arm whose cost is left out.
    """
    others = [arm for arm in study.done if arm not in told]
    if not others:
        return ""
    share = find_metric(study.task.metric).is_share

    def score(arm: ArmResult) -> str:
        return f"{100 * score_of(arm).value:.1f}" if share else plain_score(arm, 3)

    listed = joined([f"{way(arm.arm)} {score(arm)}{'' if arm is priced else _priced(arm)}" for arm in others])
    sentences = [f"The other{'s' if len(others) > 1 or not told else ''}{' (of 100)' if share else ''}: {listed}."]
    unknown = [arm for arm in others if arm.cost is None]
    if unknown:
        sentences.append(f"What {joined([arm.arm for arm in unknown])} would cost is not known: no price was given.")
    return " ".join(sentences)


def _cheapest(chosen: ArmResult, fitting: Sequence[ArmResult]) -> str:
    """Return why the lightest arm is the lightest: alone the cheapest, or the simplest of equal costs (`alike`)."""
    if chosen.cost is None:
        return "the simplest (no cost is known)"
    equal = joined([way(arm.arm) for arm in fitting if arm is not chosen and alike(chosen.cost, arm.cost)])
    if not equal and not _are_comparable(chosen, fitting):
        return "the cheapest of those whose costs can be compared"
    return f"the simplest of the cheapest (its cost counts as equal to that of {equal})" if equal else "the cheapest"


def _are_comparable(chosen: ArmResult, others: Sequence[ArmResult]) -> bool:
    """True if all costs are known, and in one unit."""
    units = {arm.cost and arm.cost.currency for arm in (chosen, *others)}
    return len(units) == 1 and None not in units


def _priced(arm: ArmResult) -> str:
    return "" if arm.cost is None else f" for {amount(arm.cost)}"


def _nothing_told(study: Evidence, choice: VerdictChoice) -> tuple[str, str, str]:
    """Return the opening, the figures with the achieved margin, and what would settle the question, if nothing is shown
    without a target."""
    task, best, candidate = study.task, choice.best, choice.candidate
    if not choice.fitting:
        first = study.done[0]
        opening = f"No choice: {way(first.arm)} {study.problem(first)}; so it is with every way measured."
        return opening, _others(study, ()), "a faster arm or machine"
    if best is None:
        first = choice.fitting[0]
        needed = "State a target, or measure a second way."
        opening = f"No choice: {way(first.arm)} has nothing to be compared with. {needed}"
        figures = f"{way(first.arm)} has {_scored(first, task, of=True)}. {_others(study, [first])}".strip()
        return opening, figures, "a target, or a second arm that runs to its end"
    if candidate is None:
        needs = "not more test questions: a stronger base model, or a look at the instruction and the metric"
        opening = f"No choice: all ways measured scored 0 on {score_of(best).n:,} test questions. "
        opening += "More of them will not help. Try a stronger base model, and look at the instruction and the metric."
        return opening, "", needs
    rivals = _rivals(choice)
    needs, settling = _what_settles(study, choice, best, candidate)
    gaps = [study.against(best.arm, arm.arm) for arm in rivals]
    opening = unsettled(study, best, rivals, gaps, better=candidate is best)
    beyond = [arm for arm in choice.rivals if arm is not best]
    if candidate is not best and beyond:
        margin = the_margin(task)
        opening += f" Whether {way(candidate.arm)} is at most {margin} behind {ways(beyond)} is open, too."
    behind = joined([_behind(gap, arm) for gap, arm in zip(gaps, rivals, strict=True)])
    figures = f"{way(best.arm)} has {_scored(best, task)}; {behind}."
    return f"{opening} {settling}", f"{figures} {_others(study, [best, *rivals])}".strip(), needs


def _rivals(choice: VerdictChoice) -> Sequence[ArmResult]:
    """Return the arms that hold the choice back, beside the best one."""
    return choice.rivals if choice.candidate is choice.best or choice.candidate is None else [choice.candidate]


def _what_first(study: Evidence) -> tuple[str, str]:
    """Return what is needed before anything can be shown: as `needs`, and in a sentence."""
    if study.rarest_class:
        return OF_EACH_CLASS, MORE_OF_EACH_CLASS
    found = _judging(study)
    needs = found or f"that people grade the answers to {ENOUGH} questions ({study.task.command('audit')})"
    enough = f": that is enough {_chance('the judge is right on average')}" if found else ""
    return needs, f"The judge is uncalibrated; needed is {needs}{enough}."


def _judging(study: Evidence) -> str | None:
    """Return how many more questions people must judge to settle the choice; None where that would not settle it, or
    nobody has to."""
    count, judged = study.to_judge(), 0 if study.audited is None else study.audited.count
    if count is None or count <= judged:
        return None
    more = f"about {_rounded_up(count - judged)}{' more' if judged else ''}"
    return f"that people judge the answers to {more} questions ({study.task.command('audit')})"


def _what_settles(study: Evidence, choice: VerdictChoice, best: ArmResult, candidate: ArmResult) -> tuple[str, str]:
    """Return how many test questions would show an arm if the measured differences are the true ones: as `needs`, and
    in a sentence."""
    if study.shows_nothing:
        return _what_first(study)
    judging, if_so = _judging(study), "the differences measured here are the true ones"
    if judging is not None:
        return judging, f"Needed is {judging}: that is enough {_chance(if_so)}."
    needs = _never_shown(study, choice, best, candidate) or _more_questions(questions_needed(study), study)
    return needs, _settling(needs, if_so, study)


def _settling(needs: str, condition: str, study: Evidence) -> str:
    """Say what would settle the question with a chance of 80%, and under which condition."""
    chance = _chance(condition)
    if not needs.startswith("about "):
        other = "a lower target" if study.task.target.quality is not None else "a target, or a wider margin,"
        other = f"questions in new groups, or {other}" if "so few groups" in needs else other
        return f"{needs[0].upper()}{needs[1:]} would be enough {chance}; {other} may settle it."
    what = f" ({GROUPS})" if study.groups is not None else ""
    return f"To settle it, ask {needs}{what}: that is enough {chance}."


def _chance(condition: str) -> str:
    return f"in {IN_FIVE} of 5 such studies, if {condition}"


def _never_shown(study: Evidence, choice: VerdictChoice, best: ArmResult, candidate: ArmResult) -> str | None:
    """Return why no number of questions would show an arm, if that is known without simulation; else None."""
    gap, few, margin = study.against(best.arm, candidate.arm), _too_few_groups(study), study.task.target.margin
    if few and gap is not None and gap.difference > margin:
        return f"no number of test questions of so few groups ({few})"
    lag = max(score_of(rival).value for rival in choice.rivals) - score_of(candidate).value
    at_the_margin = math.isclose(lag, margin, abs_tol=NOTHING)
    return "no number of test questions" if at_the_margin else None


def _too_few_groups(study: Evidence) -> str | None:
    """Return why no difference can be shown whatever is answered, if the groups cannot reach the corrected level; else
    None."""
    compared = comparisons_among(len(study.done))
    needed = groups_needed(compared, study.level)
    if study.groups is None or study.groups >= needed:
        return None
    return (
        f"{study.groups} groups of questions cannot show a difference in {compared} comparisons, {needed} are the least"
    )


# ---- what stands beside the choice


def _left_out(study: Evidence, choice: VerdictChoice) -> str:
    """Name the arms that would be chosen or score higher, but cannot be used."""
    shown = score_of(choice.arm).value if choice.arm else (score_of(choice.best).value if choice.best else math.inf)
    barred = []
    for arm in study.done:
        problem = study.problem(arm)
        if problem and arm in study.passing and choice.arm:
            barred.append(f"{way(arm.arm)} reaches the target too, but {problem}.")
        elif problem and score_of(arm).value > shown:
            barred.append(
                f"{way(arm.arm)} scored higher ({in_metric(study.task, score_of(arm).value)}), but {problem}."
            )
    return "".join(f" {sentence}" for sentence in barred)


def _turned(study: Evidence, turned: ArmResult, chosen: ArmResult | None) -> tuple[str, str]:
    """Say that an arm which is too slow on a busy machine may be fast enough on a quiet one, so that nothing is
    shown."""
    slow = [arm for arm in study.done if arm.busy_machine and study.problem(arm) is not None]
    whys = "; ".join(f"{way(arm.arm)} {study.problem(arm)}" for arm in slow)
    instead = f" in place of {way(chosen.arm)}" if chosen else ""
    opening = (
        f"No choice yet: measure again while nothing else runs on the machine. "
        f"On a quiet machine {way(turned.arm)} might be chosen{instead}; here, {whys}."
    )
    return opening, f"the latency of {joined([arm.arm for arm in slow])} on a quiet machine"


def _busy(study: Evidence) -> str:
    """Name the arms that were measured on a busy machine, and say how their costs count."""
    names = [f"{way(arm.arm)} ({arm.processor_share:.0%} of the processor)" for arm in study.done if arm.busy_machine]
    if not names:
        return ""
    return f"Measured on a busy machine: {joined(names)}, so a cost difference did not decide."


def _picked(study: Evidence, choice: VerdictChoice) -> str:
    """Return the highest score corrected for selection bias, if the verdict is about that arm."""
    highest, spoken = best_arm(study.results, study.task), choice.arm or choice.best
    if study.picked is None or highest is None or spoken is None or spoken.arm != highest:
        return ""
    if round(study.picked.value, 3) >= round(score_of(spoken).value, 3):
        return ""  # so far ahead that having been picked adds nothing
    value, fast = study.picked.value, sum(too_slow(arm, study.task) is None for arm in study.done)
    allowed = f"{100 * value:.1f} of 100" if find_metric(study.task.metric).is_share else _number(value)
    several = f"{fast + study.former}, those of former studies included," if study.former else f"{fast}"
    return f"The highest of {several} usually looks a little better than it is; allowing for that: {allowed}."


def _runs(study: Evidence) -> str:
    """Say which arms were trained several times, so that the verdict is about the way they are trained."""
    trained, several = trained_arms(study)
    if not several:
        return ""
    runs = max(result.seeds for result in several)
    each = len(several) == len(trained)
    which = "Each trained one was" if each else f"{ways(several)} {'was' if len(several) == 1 else 'were'}"
    its = (
        "its score is the mean, and its interval includes"
        if each or len(several) == 1
        else "their scores are means, and their intervals include"
    )
    return f"{which} trained {runs} times: {its} how much the runs differ."


# ---- shared


def _not_shown(sentence: str, needs: str) -> Verdict:
    return Verdict(status="not_shown", arm=None, sentence=sentence, needs=needs)


def _scored(arm: ArmResult, task: Task, *, of: bool = False) -> str:
    return _with_interval(score_of(arm), task, of=of)


def _with_interval(score: Estimate, task: Task, *, of: bool = False) -> str:
    """Return a score with its interval; `of` how many questions, where no sentence before has said it, and always where
    some count more than others."""
    interval = f"95% interval {_number(score.low)} to {_number(score.high)}"
    count = f" on {score.n:,} test questions" if of else ""
    count = count if score.n_effective is None else f" on {score.effective}"
    return f"{find_metric(task.metric).average_words} {_number(score.value)}{count} ({interval})"


def _behind(gap: Comparison | None, arm: ArmResult) -> str:
    if gap is None:
        return f"{way(arm.arm)} was not compared"
    interval = f"95% interval {_number(gap.low)} to {_number(gap.high)}"
    return f"{way(arm.arm)} is behind by {_number(gap.difference)} ({interval})"


def _number(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # + 0.0: no minus before a zero


def _more_questions(more: int | None, study: Evidence) -> str:
    """Return how many more are needed, rounded up to two digits; None means more than anyone can label."""
    if more is None:
        return "no practicable number of test questions"
    asked = score_of(study.done[0]).n
    groups = "" if study.groups is None else f" in about {_rounded_up(more * study.groups / asked)} new groups"
    return f"about {_rounded_up(more)} more test question{'s' if more > 1 else ''}{groups}"


def _rounded_up(value: float) -> str:
    """Return a count, rounded up to two digits."""
    count = math.ceil(value)
    unit = 10 ** max(0, len(str(count)) - 2)
    return f"{math.ceil(count / unit) * unit:,}"
