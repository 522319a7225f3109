"""Writes the verdict: the arm that is shown and its cost, or what would settle the question."""

from __future__ import annotations

import math
from dataclasses import replace

from trimtab.base.grammar import TRIVIAL, arm_from_name, joined, method_of
from trimtab.base.results import ArmResult, Comparison, Cost, Estimate, Verdict
from trimtab.base.task import Task
from trimtab.decision.audited import unless_uneven
from trimtab.decision.choice import VerdictChoice, choose, quiet_rival
from trimtab.decision.cost_order import alike
from trimtab.decision.evidence import Evidence, best_arm, score_of, too_slow
from trimtab.decision.pairs import comparisons_among
from trimtab.decision.sample_size import POWER, questions_needed
from trimtab.decision.sensitivity import find_flips
from trimtab.decision.summary import amount, assumptions, name_in_words, unreached, unsettled, use
from trimtab.measurement.power import groups_needed
from trimtab.measurement.replicates import Assumed

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
ORDINALS = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
NOTHING = 1e-9  # a difference below this is rounding
LONGEST_CUTS = 3  # of those that the budget made, how many the sentence gives


def decide(study: Evidence) -> Verdict:
    """Return the arm that the rule shows (`choose`) with what would flip it, or what would settle the question;
    pure."""
    verdict = replace(_decided(study), picked=study.picked)
    return verdict if study.audited is None else unless_uneven(verdict, study.audited, study.task)


def _decided(study: Evidence) -> Verdict:
    if not study.done:
        whys = "; ".join(f"{arm.arm}: {arm.why}" for arm in study.results if arm.why)
        return _not_shown(f"Nothing ran to its end{f' ({whys})' if whys else ''}.", "an arm that runs to its end")
    choice, target = choose(study), study.task.target.quality

    def in_lines(opening: str, figures: str, of: ArmResult | None) -> str:
        """Join what to do, what is not known, and the figures, one line each."""
        figures = f"In figures: {figures}" if figures else ""
        lines = (f"{opening}{_left_out(study, choice)}", assumptions(study, of), f"{figures}{_besides(study, choice)}")
        return "\n".join(line.strip() for line in lines if line)

    if study.without_model is not None and target is not None:
        sentence, figures, needs = _no_model_needed(study, study.without_model, target)
        return _not_shown(in_lines(sentence, figures, None), needs)
    turned = quiet_rival(study, choice)
    if turned is not None:
        sentence, needs = _turned(study, turned, choice.arm)
        return _not_shown(in_lines(sentence, "", None), needs)
    if choice.arm is None:
        opening, figures, needs = (
            _nothing_reaches(study, target) if target is not None else _nothing_told(study, choice)
        )
        return _not_shown(
            in_lines(opening, figures, choice.best or max(study.done, key=lambda arm: score_of(arm).value)), needs
        )
    if target is not None:
        figures = _reaching(study, choice, target)
    else:
        figures = _best_of_these(study, choice.arm, choice.best or choice.arm, choice.fitting[0])
    sentence = in_lines(use(study, choice.arm), figures, choice.arm)
    return Verdict(status="shown", arm=choice.arm.arm, sentence=sentence, flips=find_flips(study, choice.arm))


# ---- with a target


def _reaching(study: Evidence, choice: VerdictChoice, target: float) -> str:
    winner, *rivals = choice.fitting
    sentence = f"{winner.arm} reaches the target of {target:g} with {_scored(winner, study.task)}"
    if rivals:
        lightest = f"and is the lightest of the {len(choice.fitting)} arms that do"
        sentence += f", {lightest}: {_against_next(winner, rivals[0], study)}."
    elif len(study.passing) == 1 < len(study.done):
        sentence += f"; it is the only one of {len(study.done)} arms to do so."
    else:
        sentence += "."
    unknown = [arm.arm for arm in choice.fitting if arm.cost is None]
    if unknown:
        sentence += f" What {joined(unknown)} would cost is not known: no price was given."
    return sentence


def _no_model_needed(study: Evidence, trivial: str, target: float) -> tuple[str, str, str]:
    """Return opening, figures and needs if an answer without a model reaches the target, which then says nothing of the
    arms."""
    score = _with_interval(study.trivial[trivial], study.task)
    what = TRIVIAL[trivial].removeprefix("no model: ")
    sentence = f"No model is needed: answering without one ({trivial}: {what}) reaches the target of {target:g}."
    reach = [arm.arm for arm in study.passing]
    if reach:
        sentence += (
            f" {joined(reach)} {'reaches' if len(reach) == 1 else 'reach'} it too; a higher target would tell what "
            f"{'it is' if len(reach) == 1 else 'they are'} worth."
        )
    return sentence, f"{trivial} has {score}.", "a target above what an answer without a model scores"


def _nothing_reaches(study: Evidence, target: float) -> tuple[str, str, str]:
    """Return the opening, the figures, and what would settle the question, if no arm is shown to reach the target."""
    if study.passing:
        nearest = min(study.passing, key=lambda arm: (arm.latency_p95_high_ms is None, arm.latency_p95_high_ms or 0.0))
        problem = study.problem(nearest)
        sentence = (
            f"Not shown: {name_in_words(study, nearest.arm)} reaches the target of {target:g}, but {problem}; "
            "more test questions will not help."
        )
        figures = f"{nearest.arm} has {_scored(nearest, study.task)}."
        return sentence, figures, f"not more test questions: {nearest.arm} {problem}"
    fitting = [arm for arm in study.done if study.problem(arm) is None]
    nearest = max(fitting or study.done, key=lambda arm: score_of(arm).value)
    score, opening = score_of(nearest), unreached(study, nearest, target)
    figures = f"{nearest.arm} has {_scored(nearest, study.task)}"
    if study.rarest_class:
        return opening, f"{figures}. {_rare(study)}", "at least 10 test questions of every class"
    if score.value <= target and score.high <= target:
        needs = f"not more test questions: the best score is at most {_number(score.high)} (95% interval)"
        return opening, f"{figures}. As its interval ends below the target, more test questions will not help.", needs
    # The measured score where it is above the target, else one between target and interval's end: a score below it is
    # no proof
    assumed = None if score.value > target else Assumed(nearest.arm, (target + score.high) / 2)
    needs = _more_questions(questions_needed(study, assumed), study)
    true = _number(assumed.score if assumed else score.value)
    return opening, f"{figures}; {needs} would show it with {POWER:.0%} chance if its true score is {true}.", needs


# ---- without a target


def _best_of_these(study: Evidence, chosen: ArmResult, best: ArmResult, lightest: ArmResult) -> str:
    task = study.task
    margin, scored = f"{task.target.margin:g}", _scored(chosen, task)
    if chosen is not best:
        sentence = (
            f"{chosen.arm} is the lightest arm shown to be within {margin} of the best: {scored}, against "
            f"{_number(score_of(best).value)} for {best.arm}; {_against_next(chosen, best, study)}."
        )
    elif lightest is best:
        sentence = (
            f"{best.arm} scored highest with {scored} and is the lightest; "
            f"every other arm is shown not to be better by more than {margin}."
        )
    else:
        sentence = (
            f"{best.arm} scored highest with {scored}; every lighter arm is shown to be worse by more than {margin}, "
            f"and no other arm to be better by more than {margin}."
        )
    return sentence


def _nothing_told(study: Evidence, choice: VerdictChoice) -> tuple[str, str, str]:
    """Return the opening, the figures with the achieved margin, and what would settle the question, if nothing is shown
    without a target."""
    task, best, candidate = study.task, choice.best, choice.candidate
    if not choice.fitting:
        first = study.done[0]
        return (
            f"Not shown: {first.arm} {study.problem(first)}, and so for all that were measured.",
            "",
            "a faster arm or machine",
        )
    if best is None:
        first = choice.fitting[0]
        sentence = f"Not shown: {name_in_words(study, first.arm)} has nothing to be compared with."
        return sentence, f"{first.arm} has {_scored(first, task)}.", "a target, or a second arm that runs to its end"
    if candidate is None:
        needs = "not more test questions: a stronger base model, or a look at the instruction and the metric"
        return f"Not shown: all that were measured scored 0 on {score_of(best).n:,} test questions; {needs}.", "", needs
    margin, top = f"{task.target.margin:g}", f"{best.arm} scored highest with {_scored(best, task)}, but"
    opening = unsettled(study, best, choice.rivals if candidate is best else [candidate])
    settled, needs = _what_settles(study, choice, best, candidate)
    if candidate is best:
        rivals = joined([_behind(study.against(best.arm, arm.arm), arm) for arm in choice.rivals])
        return opening, f"{top} these data cannot tell it from {rivals} to within {margin}; {settled}.", needs
    gap = study.against(best.arm, candidate.arm)
    seen = (
        ""
        if gap is None
        else f" is behind by {_number(gap.difference)}, at most {_number(gap.high)} (95% interval), and so"
    )
    of = "of it" if best in choice.rivals else f"of {joined([arm.arm for arm in choice.rivals])}"
    figures = (
        f"{top} {candidate.arm}{seen} is shown neither to be within {margin} {of} nor to be worse by more; {settled}."
    )
    return opening, figures, needs


def _what_settles(study: Evidence, choice: VerdictChoice, best: ArmResult, candidate: ArmResult) -> tuple[str, str]:
    """Return how many test questions would show an arm if the measured differences are the true ones: in a sentence,
    and as `needs`."""
    if study.rarest_class:
        needs = "at least 10 test questions of every class"
        return f"{needs} are needed to tell", needs
    needs = _never_shown(study, choice, best, candidate) or _more_questions(questions_needed(study), study)
    return f"{needs} would show it with {POWER:.0%} chance, if the measured differences are the true ones", needs


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


def _besides(study: Evidence, choice: VerdictChoice) -> str:
    """Say what else a reader must know: the correction for picking, the look, a rare class, cuts, a busy machine, runs,
    free labels."""
    said = [
        _picked(study, choice),
        _look(study),
        _rare(study) if study.rarest_class and study.task.target.quality is None else "",
        _cut(study),
        _busy(study),
        _improving(study),
        _speaks_of(study),
        _free_labels(study),
    ]
    return "".join(f" {sentence}" for sentence in said if sentence)


def _left_out(study: Evidence, choice: VerdictChoice) -> str:
    """Name the arms that would be chosen or score higher, but cannot be used."""
    shown = score_of(choice.arm).value if choice.arm else (score_of(choice.best).value if choice.best else math.inf)
    barred = []
    for arm in study.done:
        problem = study.problem(arm)
        if problem and arm in study.passing and choice.arm:
            barred.append(f"{arm.arm} reaches it too, but {problem}.")
        elif problem and score_of(arm).value > shown:
            barred.append(f"{arm.arm} scored higher ({_number(score_of(arm).value)}), but {problem}.")
    return "".join(f" {sentence}" for sentence in barred)


def _turned(study: Evidence, turned: ArmResult, chosen: ArmResult | None) -> tuple[str, str]:
    """Say that an arm which is too slow on a busy machine may be fast enough on a quiet one, so that nothing is
    shown."""
    slow = [arm for arm in study.done if arm.busy_machine and study.problem(arm) is not None]
    whys = "; ".join(f"{arm.arm} {study.problem(arm)}" for arm in slow)
    instead = f" in place of {chosen.arm}" if chosen else ""
    sentence = (
        f"Not shown: {whys}. On a quiet machine {turned.arm} might be shown{instead}: measure again while nothing "
        "else runs."
    )
    return sentence, f"the latency of {joined([arm.arm for arm in slow])} on a quiet machine"


def _busy(study: Evidence) -> str:
    """Name the arms that were measured on a busy machine, and say how their costs count."""
    names = [f"{arm.arm} ({arm.processor_share:.0%} of the processor)" for arm in study.done if arm.busy_machine]
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
    found, fast = study.picked, sum(too_slow(arm, study.task) is None for arm in study.done)
    return (
        f"The highest of {fast} scores is too high on average: corrected for having been picked, {highest} is at "
        f"{_number(found.value)} ({_number(found.low)} to {_number(found.high)})."
    )


def _look(study: Evidence) -> str:
    """Say that earlier studies have looked at the questions, and how strict the tests therefore are."""
    if study.look is None or study.look < 2:
        return ""
    nth = ORDINALS[study.look - 2] if study.look - 2 < len(ORDINALS) else f"{study.look}th"
    fresh = study.task.command("test --fresh")
    return f"This is the {nth} look at these questions, tested at {study.level:.2g}; fresh ones: {fresh}."


def _rare(study: Evidence) -> str:
    """Say that a class has too few test questions for a claim on macro-F1."""
    name, count = study.rarest_class or ("", 0)
    return (
        f"The class {name} has {count} test question{'s' if count != 1 else ''}: with fewer than 10 of a class "
        "macro-F1 is too uncertain for a claim that a target is reached, or that one is better or as good as another."
    )


def _cut(study: Evidence) -> str:
    if not study.cuts:
        return ""
    more = f", and {len(study.cuts) - LONGEST_CUTS} more" if len(study.cuts) > LONGEST_CUTS else ""
    return f"To fit the budget: {'; '.join(study.cuts[:LONGEST_CUTS])}{more}."


def _free_labels(study: Evidence) -> str:
    """Say that costs in money exclude the labels, if arms used different numbers of them."""
    cost, used = study.task.cost, {usage.labels for usage in study.usages.values()}
    return "Labels are counted as free." if cost.machine_hour and cost.label is None and len(used) > 1 else ""


def _improving(study: Evidence) -> str:
    """Name the arms whose search ended before they stopped improving: against them "best" is not final."""
    names = [arm.arm for arm in _still_improving(study)]
    if not names:
        return ""
    return (
        f"{joined(names)} {'was' if len(names) == 1 else 'were'} still getting better on dev when the search ended; "
        "more effort may change this."
    )


def _still_improving(study: Evidence) -> list[ArmResult]:
    return [arm for arm in study.done if arm.effort is not None and arm.effort.improving]


def _speaks_of(study: Evidence) -> str:
    """Say that a verdict is about the trained models (one seed), or about the way they are trained (several)."""
    known = {arm.name: arm for arm in study.task.arms}
    arms = [(arm, known.get(arm.arm) or arm_from_name(arm.arm)) for arm in study.done]
    trained = [result for result, arm in arms if arm is not None and method_of(arm).staged]
    several = [result for result in trained if result.seeds > 1]
    if not trained:
        return ""
    if not several:
        return "Each model was trained once; training again could give another result."
    runs = max(result.seeds for result in several)
    if len(several) == len(trained):
        return f"Every trained arm is the mean of {runs} runs, and the intervals include how much these differ."
    names, verb = joined([result.arm for result in several]), "is" if len(several) == 1 else "are"
    return (
        f"{names} {verb} the mean of {runs} runs, and the interval includes how much these differ; every other "
        "trained arm was trained once, and training it again could give another result."
    )


# ---- shared


def _not_shown(sentence: str, needs: str) -> Verdict:
    return Verdict(status="not_shown", arm=None, sentence=sentence, needs=needs)


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


def _against_next(arm: ArmResult, other: ArmResult, study: Evidence) -> str:
    if arm.cost is None:
        return "its cost is not known"
    first = _money(arm.cost, study.task)
    if other.cost is None:
        return f"it costs {first}"
    if other.cost.currency != arm.cost.currency:
        return f"it costs {first}, which cannot be set against {other.arm} while a machine hour has no price"
    if amount(other.cost) == amount(arm.cost):
        return f"it costs {first}, as does {other.arm}"
    if alike(arm.cost, other.cost):
        return f"it costs {first}, which counts as equal to {amount(other.cost)} for {other.arm}, and is no less simple"
    return f"it costs {first}, against {amount(other.cost)} for {other.arm}"


def _money(cost: Cost, task: Task) -> str:
    """Return the cost over the horizon and the number of questions, marked as assumed if the task file states none."""
    stated = "questions_per_month" in task.cost.model_fields_set
    volume = f"{'' if stated else 'an assumed '}{task.cost.questions_per_month:,.0f} questions a month"
    return f"{amount(cost)} over {task.cost.horizon_months:g} months at {volume}"


def _number(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # + 0.0: no minus before a zero


def _more_questions(more: int | None, study: Evidence) -> str:
    """Return how many more are needed, rounded up to two digits; None means more than anyone can label."""
    if more is None:
        return "no practicable number of test questions"
    unit = 10 ** max(0, len(str(more)) - 2)
    groups = "" if study.groups is None else " in new groups"
    return f"about {math.ceil(more / unit) * unit:,} more test question{'s' if more > 1 else ''}{groups}"
