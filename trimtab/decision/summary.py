"""Words of a verdict: the choice for a reader who knows no metrics or statistics, then what is not known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trimtab.base.grammar import DISTILL, HEAD, REWARDED, arm_from_name, joined, method_of
from trimtab.base.records import Arm
from trimtab.base.results import ArmResult, Cost, Estimate
from trimtab.base.task import Task
from trimtab.decision.cost import MACHINE_SECONDS
from trimtab.decision.cost_order import alike
from trimtab.decision.evidence import SHARES, Evidence, score_of

STEP = 0.01  # between the targets that are tried
LONGEST_CUTS = 3  # of those that the budget made, how many the sentence gives
ORDINALS = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
UNKNOWN, FIGURES = "Not known or weak:", "In figures:"  # headings of the lines after the first

# What an arm is, for readers who know no method: the report names its method in full.
_UNTRAINED = {
    "base": "the language model as it is",
    "api": "a language model at a provider",
    "linear": "a simple text classifier, no language model",
    "extract": "a sentence copied from your documents, no language model",
}
_TRAINED_ON = {
    "docs": "your documents",
    "sft": "your examples",
    HEAD: "your examples",
    DISTILL: "a teacher model's answers",
    **dict.fromkeys(REWARDED, "what its own answers earn"),
}
_SHOWN = {
    "rag": "shown matching passages of your documents",
    "quote": "answering in their words",
    "few-shot": "shown a few worked examples",
    "nearest-shots": "shown worked examples like the question",
}


def in_lines(opening: str, unknown: Iterable[str], figures: Iterable[str]) -> str:
    """Return the text of a verdict: what to do, what is not known, and the figures, one line each; empty ones are
    left out."""
    rest = ((UNKNOWN, " ".join(filter(None, unknown))), (FIGURES, " ".join(filter(None, figures))))
    return "\n".join((opening, *(f"{heading} {text}" for heading, text in rest if text)))


def with_more(text: str, *, unknown: Iterable[str], figures: Iterable[str]) -> str:
    """Return the text of a verdict with further sentences at the end of its lines."""
    said: dict[str, list[str]] = {"": [], UNKNOWN: [], FIGURES: []}
    for line in text.split("\n"):
        heading = next((one for one in (UNKNOWN, FIGURES) if line.startswith(one)), "")
        said[heading].append(line.removeprefix(heading).strip())
    return in_lines("\n".join(said[""]), (*said[UNKNOWN], *unknown), (*said[FIGURES], *figures))


def use(study: Evidence, chosen: ArmResult, compared: str) -> str:
    """Name the choice, how many of 100 questions it gets right, its cost, and the next best arm.

    `compared`: the sentence on what is shown of it beside the others, where there is no target.
    """
    target, right = study.task.target.quality, study.right.get(chosen.arm)
    about = f"{chosen.arm}: {in_plain_words(study, chosen.arm)}."
    if target is None:
        value = score_of(chosen).value
        enough = (
            f"about {_hundredths(right)} of 100 right answers are"
            if right
            else f"a score of {value:.2f} on a scale from 0 to 1 is"
        )
        range_text = f"Very likely it {_range(right or score_of(chosen), 'gets' if right else 'scores')}."
        said = [f"If {enough} enough, use {about}", range_text, compared]
    elif right and study.task.metric in SHARES:
        reached = f"which is shown to reach the target of {in_metric(study.task, target)}"
        said = [f"Use {about}", f"It gets {of_hundred(right)}, {reached}."]
    else:
        each = " (every class counts alike)" if study.task.metric == "macro_f1" else ""
        reached = f"its score of {score_of(chosen).value:.2f}{each} is shown to reach the target of {target:g}"
        how_good = f"It gets {of_hundred(right)}, and {reached}" if right else f"I{reached[1:]}"
        said = [f"Use {about}", f"{how_good}."]
    said += [cost_sentence(study, chosen), _next_best(study, chosen), only_measured(study)]
    return " ".join(filter(None, said))


def cost_sentence(study: Evidence, arm: ArmResult, name: str = "It") -> str:
    """Return what an arm costs over the horizon, or that it is not known."""
    table, usage = study.task.cost, study.usages.get(arm.arm)
    if arm.cost is None:
        return f"What {name if name != 'It' else 'it'} costs is not known: no price was given."
    over = f"over {table.horizon_months:g} months at {table.questions_per_month:,.0f} questions a month"
    training = ", training included" if usage is not None and usage.trained else ""
    return f"{name} costs {amount(arm.cost)} {over}{training}."


def only_measured(study: Evidence) -> str:
    """Say that a single arm was measured; empty where several were."""
    return "Nothing else was measured." if len(study.done) == 1 else ""


def unsettled(study: Evidence, best: ArmResult, others: Sequence[ArmResult], *, better: bool) -> str:
    """Say why no arm is shown without a target: another one may be as good as the one that scored highest, or better
    than it by more than the margin."""
    right = study.right.get(best.arm)
    names = joined([f"{_name_in_words(study, other.arm)}, {_got(study, other, best)}," for other in others])
    first = f"gets the most right, {of_hundred(right, '')}" if right else f"scores highest, {_of_one(score_of(best))}"
    may_be = (
        f"may be better by more than {in_metric(study.task, study.task.target.margin)}" if better else "may be as good"
    )
    return f"No choice yet: {_name_in_words(study, best.arm)} {first}. But {names} {may_be}."


def unreached(study: Evidence, nearest: ArmResult, target: float) -> str:
    """Say why no arm is shown with a target: none is shown to reach it; "yet" where the nearest may do so."""
    yet = " yet" if score_of(nearest).high > target or score_of(nearest).value > target else ""
    right = study.right.get(nearest.arm)
    how_good = f"gets {of_hundred(right)}" if right else f"scores {_of_one(score_of(nearest))}"
    unsure = score_of(nearest).value > target and not study.rarest_class
    why = ": more than the target, but too few questions were asked to be sure" if unsure else ""
    about = f"{_name_in_words(study, nearest.arm)}, {how_good}{why}."
    reach = f"is shown to reach the target of {in_metric(study.task, target)}"
    if len(study.done) == 1:
        return (
            f"No choice{yet}: the only way measured is not shown to reach the target of "
            f"{in_metric(study.task, target)}. That one, {about}"
        )
    return f"No choice{yet}: none of the {len(study.done)} ways measured {reach}. The nearest, {about}"


def assumptions(study: Evidence, of: ArmResult | None) -> list[str]:
    """Return what the task file leaves open and what weakens the study, a sentence each. `of`: the arm that the
    verdict is about."""
    return [*_not_stated(study, of), *_not_compared(study), *_weak_questions(study), *_weak_search(study)]


def _not_stated(study: Evidence, of: ArmResult | None) -> list[str]:
    task, said = study.task, []
    if task.target.quality is None:
        reached = None if of is None else reachable_target(study, of.arm)
        shown = f"; {of.arm} is shown to reach any of up to {in_metric(task, reached)}" if of and reached else ""
        said.append(f"The task file states no target{shown}.")
        if "margin" not in task.target.model_fields_set:
            count = f"differences of up to {in_metric(task, task.target.margin)} count as none"
            said.append(f"No margin is stated: {count}.")
    if of is not None and of.cost is not None:
        if "questions_per_month" not in task.cost.model_fields_set:
            said.append(f"No volume is stated: {task.cost.questions_per_month:,.0f} questions a month are assumed.")
        if of.cost.currency == MACHINE_SECONDS:
            others = {arm.cost.currency for arm in study.done if arm.cost is not None} - {MACHINE_SECONDS}
            apart = f", which cannot be compared with costs in {joined(sorted(others))}" if others else ""
            said.append(f"No price of a machine is stated, so costs are in machine hours{apart}.")
    return said


def _not_compared(study: Evidence) -> list[str]:
    lost = []
    for status, why in (("failed", "failed"), ("not_run", "did not fit the budget")):
        names = [arm.arm for arm in study.results if arm.status == status]
        lost += [f"{joined(names)} ({why})"] if names else []
    return [f"Nothing is known of {', nor of '.join(lost)}."] if lost else []


def _weak_questions(study: Evidence) -> list[str]:
    """Return what makes the test questions weak: a rare class, few groups, earlier looks."""
    said = [rare_class(study)] if study.rarest_class else []
    if study.few_groups is not None:
        groups = f"only about {study.few_groups} independent groups"
        said.append(f"The test questions form {groups}, and those of one group are alike, so every figure is rough.")
    if study.look is not None and study.look > 1:
        nth = ORDINALS[study.look - 2] if study.look - 2 < len(ORDINALS) else f"{study.look}th"
        stricter = (
            f"This is the {nth} study of these test questions, so its tests are stricter (level {study.level:.2g})"
        )
        said.append(f"{stricter}; {study.task.command('test --fresh')} draws fresh ones.")
    return said


def _weak_search(study: Evidence) -> list[str]:
    """Return what makes the arms weak: what the budget cut, searches that ended early, one training each, free
    labels."""
    said = []
    if study.cuts:
        more = f"; and {len(study.cuts) - LONGEST_CUTS} more" if len(study.cuts) > LONGEST_CUTS else ""
        said.append(f"To fit the time budget: {'; '.join(study.cuts[:LONGEST_CUTS])}{more}.")
    names = [arm.arm for arm in study.done if arm.effort is not None and arm.effort.improving]
    if names:
        were = "was" if len(names) == 1 else "were"
        said.append(f"{joined(names)} {were} still getting better when the search ended; more time may change this.")
    trained, several = trained_arms(study)
    once = joined([arm.arm for arm in trained if arm not in several])
    if once:
        was, it = ("was", "it") if len(trained) - len(several) == 1 else ("were", "they")
        said.append(f"{once} {was} trained only once; trained again, {it} may do better or worse.")
    used = {usage.labels for usage in study.usages.values()}
    if study.task.cost.machine_hour and study.task.cost.label is None and len(used) > 1:
        said.append("Labels are counted as free.")
    return said


def rare_class(study: Evidence) -> str:
    """Say that a class has too few test questions for a claim on macro-F1."""
    name, count = study.rarest_class or ("", 0)
    few = f"The class {name} has {count} test question{'s' if count != 1 else ''}"
    return (
        f"{few}: below 10 of a class, a score in which every class counts alike (macro-F1) is too uncertain "
        "to show that a target is reached, or that one way is better or as good as another."
    )


def trained_arms(study: Evidence) -> tuple[list[ArmResult], list[ArmResult]]:
    """Return the arms that were measured and whose training has chance in it, and those of them that were trained
    several times."""
    arms = [(result, _arm_of(study, result.arm)) for result in study.done]
    trained = [result for result, arm in arms if arm is not None and method_of(arm).staged]
    return trained, [result for result in trained if result.seeds > 1]


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


def in_plain_words(study: Evidence, name: str) -> str:
    """Return what an arm is, for readers who know no method; its name where it is not known."""
    arm = _arm_of(study, name)
    if arm is None:
        return name
    given = joined([_SHOWN[part] for part in arm.parts if part in _SHOWN])
    return f"{_model_in_words(arm)}{', ' if given else ''}{given}"


def in_metric(task: Task, value: float) -> str:
    """Return a value of the task's metric: "85 of 100" for a share of right answers, else the number."""
    return f"{100 * value:.4g} of 100" if task.metric in SHARES else f"{value:.4g}"


def amount(cost: Cost) -> str:
    """Return a cost in its currency, or in machine hours if they have no price."""
    if cost.currency == MACHINE_SECONDS:
        hours = cost.total / 3600
        return f"{hours:,.1f} machine hours" if hours >= 0.05 else "less than 0.1 machine hours"
    digits = 0 if cost.total >= 100 else 2
    return f"{cost.total:,.{digits}f} {cost.currency}"


def relative_cost(one: Cost | None, other: Cost | None) -> str:
    """Compare two costs, as "3.0 times as much" or "8% as much"; empty where they are alike or not comparable."""
    if one is None or other is None or one.currency != other.currency or min(one.total, other.total) <= 0:
        return ""
    if alike(*sorted((one, other), key=lambda cost: cost.total)):
        return ""
    times = one.total / other.total
    if times > 1:
        return f"{times:,.{0 if times >= 10 else 1}f} times as much"
    return f"{times:.0%} as much" if times >= 0.005 else "less than 1% as much"


def _got(study: Evidence, other: ArmResult, best: ArmResult) -> str:
    """Return the right answers of an arm, or its score, and its cost beside the best one's, as a relative clause."""
    right = study.right.get(other.arm)
    got = f"got {_hundredths(right)} of 100 right" if right else f"scored {score_of(other).value:.2f}"
    return f"which {got}{_and_costs(other.cost, best.cost)}"


def _arm_of(study: Evidence, name: str) -> Arm | None:
    return {own.name: own for own in study.task.arms}.get(name) or arm_from_name(name)


def _model_in_words(arm: Arm) -> str:
    if arm.weights in _UNTRAINED:
        return _UNTRAINED[arm.weights]
    sources = dict.fromkeys(_TRAINED_ON.get(stage, "judged answers") for stage in arm.stages)
    return f"the language model trained on {joined(sources)}"


def _name_in_words(study: Evidence, name: str) -> str:
    words = in_plain_words(study, name)
    return name if words == name else f"{name} ({words})"


def _next_best(study: Evidence, chosen: ArmResult) -> str:
    """Compare the best of the other arms that could be chosen with the chosen one: right answers and cost."""
    others = [arm for arm in study.done if arm is not chosen and study.problem(arm) is None]
    if not others:
        return ""
    other = max(others, key=lambda arm: score_of(arm).value)
    mine, its = study.right.get(chosen.arm), study.right.get(other.arm)
    is_better = score_of(other).value > score_of(chosen).value
    if mine and its:
        more = _hundredths(its) - _hundredths(mine)
        gap = f"gets {abs(more)} {'more' if more > 0 else 'fewer'} of 100 right" if more else "gets as many right"
    else:
        gap = f"scores {score_of(other).value:.2f}"
    name = _name_in_words(study, other.arm)
    which = f"{name} scores highest" if is_better else f"The next best is {name}"
    missed = study.task.target.quality is not None and other not in study.passing
    not_shown = "; it is not shown to reach the target" if missed else ""
    return f"{which}: it {gap}{_and_costs(other.cost, chosen.cost)}{not_shown}."


def _and_costs(one: Cost | None, other: Cost | None) -> str:
    if one is None:
        return ", at a cost that is not known"
    compared = relative_cost(one, other)
    if not compared and other is not None and one.currency == other.currency and alike(other, one):
        return " and costs about as much"
    return f" and costs {compared or amount(one)}"


def _hundredths(right: Estimate) -> int:
    return round(100 * right.value)


def _range(score: Estimate, verb: str) -> str:
    """Return the 95% interval in words, with the number of questions: of 100 where the score is a share ("gets")."""
    weighted = ", weighted by the mix of traffic" if score.n_effective is not None else ""
    asked = f"({score.n:,} questions were asked{weighted})"
    if verb == "gets":
        return f"gets {round(100 * score.low)} to {round(100 * score.high)} of 100 right {asked}"
    return f"scores {score.low:.2f} to {score.high:.2f} {asked}"


def of_hundred(right: Estimate, word: str = " right") -> str:
    """Return how many of 100 questions are right, with the 95% interval and the number of questions that were asked."""
    low, high = round(100 * right.low), round(100 * right.high)
    weighted = ", weighted by the mix of traffic" if right.n_effective is not None else ""
    asked = f"very likely {low} to {high}; {right.n:,} were asked{weighted}"
    return f"about {_hundredths(right)} of 100 questions{word} ({asked})"


def _of_one(score: Estimate) -> str:
    likely = f"very likely {score.low:.2f} to {score.high:.2f}"
    return f"{score.value:.2f} on a scale from 0 to 1 ({likely}; {score.n:,} questions were asked)"
