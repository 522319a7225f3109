"""Words of a verdict: the choice for a reader who knows no metrics or statistics, then what is not known."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from trimtab.base.grammar import PARTS, STAGES, arm_from_name, joined, method_of
from trimtab.base.metrics import find_metric
from trimtab.base.records import Arm
from trimtab.base.results import ArmResult, Comparison, Cost, Estimate
from trimtab.base.task import Task
from trimtab.decision.cost import ALIKE, MACHINE_SECONDS, alike
from trimtab.decision.evidence import Evidence, score_of

STEP = 0.01  # between the targets that are tried
LONGEST_CUTS = 3  # of those that the budget made, how many the sentence gives
_NUMBERS = dict(enumerate(("One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"), 1))
UNKNOWN, FIGURES = "Not known or weak:", "In figures:"  # headings of the lines after the first
EACH_CLASS = "each class counts alike; 1 is best"  # what macro-F1 is
GROUPS = "questions that the split keeps together, such as those about one document"
MOST_NAMED = 3  # arms or slices, beyond which they are counted and not named
_MENTION = re.compile("\x02(.+?)\x03(:?)")  # an arm's name as `way` marks it, and a colon that its words would follow

# What an arm is, for readers who know no method: the report names its method in full.
_UNTRAINED = {
    "base": "the language model as it is",
    "api": "a language model at a provider",
    "linear": "a simple text classifier, no language model",
    "extract": "a sentence copied from your documents, no language model",
}
_SAID_AGAIN = {"the language model": "the model", " of your documents": ""}  # what follows its first mention


def way(name: str) -> str:
    """Return an arm's name, marked so that `explained` finds it."""
    return f"\x02{name}\x03"


def ways(arms: Iterable[ArmResult]) -> str:
    """Return the marked names of arms, joined."""
    return joined([way(arm.arm) for arm in arms])


def explained(text: str, study: Evidence) -> str:
    """Return a text with the names of arms that `way` marked, each arm that was measured with its plain words where it
    comes first; what the words before have said already is said shorter."""
    explained_before: set[str] = set()
    measured = {arm.arm for arm in study.done}

    def named(mention: re.Match[str]) -> str:
        name, colon = mention.groups()
        words = name if name in explained_before or name not in measured else in_plain_words(study, name)
        for whole, short in _SAID_AGAIN.items():
            before = whole in explained_before
            explained_before.update([whole] * (whole in words))
            words = words.replace(whole, short) if before else words
        explained_before.add(name)
        if words == name:
            return name
        return f"{name}: {words}" if colon else f"{name} ({words})"

    return _MENTION.sub(named, text)


def unmarked(text: str) -> str:
    """Return a text with the names of arms that `way` marked, without their words."""
    return _MENTION.sub(r"\1\2", text)


def in_lines(opening: str, unknown: Iterable[str], figures: Iterable[str]) -> str:
    """Return the text of a verdict: what to do, what is not known, and the figures, one line each; empty ones are
    left out."""
    rest = ((UNKNOWN, " ".join(filter(None, unknown))), (FIGURES, " ".join(filter(None, figures))))
    return "\n".join((opening, *(f"{heading} {text}" for heading, text in rest if text)))


def with_more(text: str, *, unknown: Iterable[str], figures: Iterable[str]) -> str:
    """Return the text of a verdict with further sentences at the end of its lines."""
    sentences: dict[str, list[str]] = {"": [], UNKNOWN: [], FIGURES: []}
    for line in text.split("\n"):
        heading = next((mark for mark in (UNKNOWN, FIGURES) if line.startswith(mark)), "")
        sentences[heading].append(line.removeprefix(heading).strip())
    return in_lines("\n".join(sentences[""]), (*sentences[UNKNOWN], *unknown), (*sentences[FIGURES], *figures))


def use(study: Evidence, chosen: ArmResult, compared: str) -> str:
    """Name the choice, how many of 100 questions it gets right, its cost, and the next best arm.

    `compared`: the sentence on what is shown of it beside the others, where there is no target.
    """
    task, right = study.task, study.right.get(chosen.arm)
    target = task.target.quality
    if target is None:
        name, ending = "If it is good enough for you (no target is stated), use", promise(study, chosen, "; {}")
    else:
        name, ending = "Use", f", which is shown to reach the target of {in_metric(task, target)}"
    if right and not find_metric(task.metric).is_share:
        quality = f"It gets {of_hundred(right)}. Its score ({EACH_CLASS}) is {score_of(chosen).value:.2f}{ending}."
    else:
        quality = f"It {f'gets {of_hundred(right)}' if right else f'scores {_of_one(chosen)}'}{ending}."
    parts = (f"{name} {way(chosen.arm)}:.", quality, cost_sentence(study, chosen), beside_next_best(study, chosen))
    return " ".join(filter(None, (*parts, compared, only_measured(study))))


def promise(study: Evidence, arm: ArmResult, within: str) -> str:
    """Say the highest score to promise of an arm (`reachable_target`), and why where that is below the range of its
    score. Put into `within`; empty for none."""
    reached, low = reachable_target(study, arm.arm), score_of(arm).low
    if not reached:
        return ""
    why = (
        ", which is lower than that range on purpose: a promise needs more proof"
        if round(100 * reached) < _down(low)
        else ""
    )
    most = f"{100 * reached:.0f}" if find_metric(study.task.metric).is_share else in_metric(study.task, reached)
    return within.format(f"do not promise more than {most}{why}")


def cost_sentence(study: Evidence, arm: ArmResult) -> str:
    """Return what an arm costs over the horizon, or that it is not known; the arm is "it"."""
    if arm.cost is None:
        return "What it costs is not known: no price was given."
    return f"It costs {_whole_cost(study, arm)}."


def _whole_cost(study: Evidence, arm: ArmResult) -> str:
    table, usage = study.task.cost, study.usages.get(arm.arm)
    over = f"over {table.horizon_months:g} months at {table.questions_per_month:,.0f} questions a month"
    training = ", training included" if usage is not None and usage.trained else ""
    return f"{amount(arm.cost)} {over}{training}" if arm.cost else "an unknown amount"


def only_measured(study: Evidence) -> str:
    """Say that a single arm was measured; empty where several were."""
    return "Nothing else was measured." if len(study.done) == 1 else ""


def unsettled(
    study: Evidence, best: ArmResult, rivals: Sequence[ArmResult], gaps: Sequence[Comparison | None], *, better: bool
) -> str:
    """Say why no arm is shown without a target: one of `rivals` may be as good as the arm that scored highest, or
    better than it by more than the margin. `gaps`: that arm's lead over each of them."""
    right = study.right.get(best.arm)
    which = "which is better" if better else f"whether {ways(rivals)} may take the place of {way(best.arm)}"
    how_good = of_hundred(right) if right else _of_one(best)
    costs = f", and costs {_whole_cost(study, best)}" if best.cost else ""
    sentences = [
        f"No choice yet: the test is too small to say {which}.",
        f"{way(best.arm)} scored highest, {how_good}{costs}.",
        "" if best.cost else cost_sentence(study, best),
    ]
    for other, gap in list(zip(rivals, gaps, strict=True))[:MOST_NAMED]:
        lies = "it was not compared" if gap is None else _open_difference(study, best.arm, other.arm, gap, better)
        its = study.right.get(other.arm)
        got = f"got {_hundredths(its)} of 100 right" if its else f"scored {plain_score(other)}"
        sentences.append(f"{way(other.arm)} {got}{_and_costs(other.cost, best.cost)}; {lies}.")
    rest = rivals[MOST_NAMED:]
    sentences.append(f"The same is open for {ways(rest)}." if rest else "")
    return " ".join(filter(None, sentences))


def _open_difference(study: Evidence, best: str, other: str, gap: Comparison, better: bool) -> str:
    """Say between which ends the true difference of two arms may lie, and what of the margin that leaves open."""
    task, margin, share = study.task, study.task.target.margin, find_metric(study.task.metric).is_share
    unit, of_margin = " of 100" if share else "", the_margin(task)

    def end(hundredths: int) -> str:
        return f"{hundredths}" if share else f"{hundredths / 100:.2f}"

    if gap.low < 0 < gap.high:
        lies = f"from {way(best)} {end(_up(gap.high))}{unit} ahead to {way(other)} {end(_up(-gap.low))} ahead"
    else:
        leader, low, high = (best, gap.low, gap.high) if gap.high > 0 else (other, -gap.high, -gap.low)
        lies = f"from {way(leader)} {end(_down(low))} to {end(_up(high))}{unit} ahead"
    text = f"the true difference may lie anywhere {lies}"
    if better and -gap.low > margin:
        return text
    if better:
        return f"{text}, and more proof is needed that it is not better by more than {of_margin}"
    if gap.low <= margin <= gap.high:
        return f"{text}, which is less or more than {of_margin}"
    return f"{text}, and more proof is needed to say whether it is more than {of_margin}"


def the_margin(task: Task) -> str:
    """Return the margin in words, and whether it is stated or assumed."""
    stated = "stated" if "margin" in task.target.model_fields_set else "assumed"
    return f"the {stated} margin of {in_metric(task, task.target.margin)}"


def unreached(study: Evidence, nearest: ArmResult, target: float) -> str:
    """Say why no arm is shown with a target: none is shown to reach it; "yet" where the nearest may do so."""
    yet = " yet" if score_of(nearest).high > target or score_of(nearest).value > target else ""
    task, right = study.task, study.right.get(nearest.arm)
    how_good = f"gets {of_hundred(right)}" if right else f"scores {_of_one(nearest)}"
    if right and not find_metric(task.metric).is_share:
        how_good += f" with a score ({EACH_CLASS}) of {score_of(nearest).value:.2f}"
    unsure = score_of(nearest).value > target and not study.shows_nothing
    why = ": more than the target, but too few questions were asked to be sure" if unsure else ""
    about = f"{way(nearest.arm)}, {how_good}{why}."
    reach = f"is shown to reach the target of {in_metric(task, target)}"
    if len(study.done) == 1:
        only = f"the only way measured is not shown to reach the target of {in_metric(task, target)}"
        return f"No choice{yet}: {only}. That one, {about}"
    return f"No choice{yet}: none of the {len(study.done)} ways measured {reach}. The nearest, {about}"


def assumptions(
    study: Evidence, of: ArmResult | None, rests_on: Sequence[ArmResult], opening: str, *, shown: bool
) -> list[str]:
    """Return what the task file leaves open and what weakens the study, a sentence each.

    `of`: the arm that the verdict is about, `shown` or not. `rests_on`: that arm and those it was held against.
    `opening`: the text before, whose words are not explained again.
    """
    statements = [*_not_stated(study, of, opening, shown=shown), *_not_compared(study)]
    return [*statements, *_weak_questions(study, opening), *_weak_search(study, rests_on)]


def _not_stated(study: Evidence, of: ArmResult | None, opening: str, *, shown: bool) -> list[str]:
    task, sentences = study.task, []
    if task.target.quality is None:
        if not shown:  # else the opening says it
            promised = "" if of is None else promise(study, of, f"; of {way(of.arm)}, {{}}")
            sentences.append(f"No target is stated{promised}.")
        if "margin" not in task.target.model_fields_set and the_margin(task) not in opening:
            count = f"differences of up to {in_metric(task, task.target.margin)} count as none"
            sentences.append(f"No margin is stated: {count}.")
    of = of or next((arm for arm in study.done if arm.cost is not None), None)
    if of is not None and of.cost is not None:
        if "questions_per_month" not in task.cost.model_fields_set:
            sentences.append(
                f"No volume is stated: {task.cost.questions_per_month:,.0f} questions a month are assumed."
            )
        if of.cost.currency == MACHINE_SECONDS:
            others = {arm.cost.currency for arm in study.done if arm.cost is not None} - {MACHINE_SECONDS}
            machines = "costs of your own machines" if others else "costs"
            sentences.append(f"No machine price is stated, so {machines} are in machine hours.")
    return sentences


def _not_compared(study: Evidence) -> list[str]:
    sentences = []
    for status, singular, plural in (
        ("failed", "could not be measured: its run failed", "could not be measured: their runs failed"),
        (
            "not_run",
            "was not measured: it did not fit the time budget",
            "were not measured: they did not fit the time budget",
        ),
    ):
        arms = [arm for arm in study.results if arm.status == status]
        sentences += [f"{ways(arms)} {singular if len(arms) == 1 else plural}."] if arms else []
    return sentences


def _weak_questions(study: Evidence, opening: str) -> list[str]:
    """Return what makes the test questions weak: a rare class, few groups, earlier looks."""
    sentences = [rare_class(study)] if study.rarest_class else []
    if study.few_groups is not None:
        what = "" if GROUPS in opening else f" ({GROUPS})"
        groups = f"The test questions form groups{what} that count as only {study.few_groups}"
        sentences.append(f"{groups}; those of one group are alike, so every figure is rough.")
    if study.look is not None and study.look > 1:
        before = study.look - 1
        studies = f"{_NUMBERS.get(before, str(before))} earlier {'study' if before == 1 else 'studies'}"
        used = f"{studies} used these test questions"
        more = f"so that a good result may be luck and more proof is needed (level {study.level:.2g})"
        sentences.append(
            f"{used}, {more}; of all new questions ({study.task.command('test --fresh')}), fewer are enough."
        )
    return sentences


def _weak_search(study: Evidence, rests_on: Sequence[ArmResult]) -> list[str]:
    """Return what makes the arms weak: what the budget cut, searches that ended early, one training of those that the
    verdict rests on, free labels."""
    sentences = []
    if study.cuts:
        more = f"; and {len(study.cuts) - LONGEST_CUTS} more" if len(study.cuts) > LONGEST_CUTS else ""
        sentences.append(f"To fit the time budget: {'; '.join(study.cuts[:LONGEST_CUTS])}{more}.")
    improving = [arm for arm in study.done if arm.effort is not None and arm.effort.improving]
    if improving:
        were, their = ("was", "its") if len(improving) == 1 else ("were", "their")
        still = f"still getting better when the search for {their} settings ended"
        sentences.append(f"{ways(improving)} {were} {still}; more time may raise {their} score.")
    trained, several = trained_arms(study)
    once = [arm for arm in dict.fromkeys(arm.arm for arm in rests_on) if arm in {one.arm for one in trained}]
    once = [arm for arm in once if arm not in {one.arm for one in several}]
    if once:
        was, it = ("was", "it") if len(once) == 1 else ("were", "they")
        sentences.append(
            f"{joined(map(way, once))} {was} trained only once; trained again, {it} may do better or worse."
        )
    used = {usage.labels for usage in study.usages.values()}
    if study.task.cost.machine_hour and study.task.cost.label is None and len(used) > 1:
        sentences.append("Labels are counted as free.")
    return sentences


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
    if study.shows_nothing:
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
    given = joined([PARTS[part].given for part in arm.parts])
    return f"{_model_in_words(arm)}{', ' if given else ''}{given}"


def in_metric(task: Task, value: float) -> str:
    """Return a value of the task's metric: "85 of 100" for a share of right answers, else the number."""
    return f"{100 * value:.4g} of 100" if find_metric(task.metric).is_share else f"{value:.4g}"


def amount(cost: Cost) -> str:
    """Return a cost in its currency, or in machine hours if they have no price."""
    if cost.currency == MACHINE_SECONDS:
        hours = cost.total / 3600
        return f"{hours:,.1f} machine hours" if hours >= 0.05 else "less than 0.1 machine hours"
    digits = 0 if cost.total >= 100 else 2
    return f"{cost.total:,.{digits}f} {cost.currency}"


def _arm_of(study: Evidence, name: str) -> Arm | None:
    return {own.name: own for own in study.task.arms}.get(name) or arm_from_name(name)


def _model_in_words(arm: Arm) -> str:
    if arm.weights in _UNTRAINED:
        return _UNTRAINED[arm.weights]
    sources = dict.fromkeys(STAGES[stage].learned_from for stage in arm.stages)
    return f"the language model trained on {joined(sources)}"


def next_best(study: Evidence, chosen: ArmResult) -> ArmResult | None:
    """Return the best of the other arms that could be chosen; None for none."""
    others = [arm for arm in study.done if arm is not chosen and study.problem(arm) is None]
    return max(others, key=lambda arm: score_of(arm).value, default=None)


def beside_next_best(study: Evidence, chosen: ArmResult) -> str:
    """Compare the best of the other arms that could be chosen with the chosen one: right answers and cost."""
    other = next_best(study, chosen)
    if other is None:
        return ""
    mine, its = study.right.get(chosen.arm), study.right.get(other.arm)
    is_better = score_of(other).value > score_of(chosen).value
    if mine and its:
        more = round(100 * (its.value - mine.value))
        gap = f"gets {abs(more)} {'more' if more > 0 else 'fewer'} of 100 right" if more else "gets about as many right"
    else:
        gap = f"scores {plain_score(other)}"
    which = f"{way(other.arm)} scores highest: it" if is_better else f"The next best, {way(other.arm)},"
    missed = study.task.target.quality is not None and other not in study.passing
    not_shown = "; it is not shown to reach the target" if missed else ""
    return f"{which} {gap}{_and_costs(other.cost, chosen.cost)}{not_shown}.{_even_price(study, chosen, other)}"


def _and_costs(one: Cost | None, other: Cost | None) -> str:
    if one is None:
        return ", at a cost that is not known"
    if other is None or one.currency != other.currency or not alike(other, one):
        return f", for {amount(one)}"
    less, more = sorted((one.total, other.total))
    if more <= (1 + ALIKE) * less:
        return f", for {amount(one)}, which counts as equal"
    return f", for {amount(one)} (roughly timed)"


def _even_price(study: Evidence, one: ArmResult, other: ArmResult) -> str:
    """Say at which price of a machine hour two arms cost alike, if one is in machine hours and the other, which uses no
    machine of one's own, in money."""
    if one.cost is None or other.cost is None or one.cost.currency == other.cost.currency:
        return ""
    own, bought = (one, other) if one.cost.currency == MACHINE_SECONDS else (other, one)
    usage = study.usages.get(bought.arm)
    if own.cost is None or bought.cost is None or min(own.cost.total, bought.cost.total) <= 0:
        return ""
    if usage is None or usage.index_seconds + usage.choose_seconds > 0:
        return ""  # hours of its own, which no price counts
    price = bought.cost.total / (own.cost.total / 3600)
    price = round(price, 1 - math.floor(math.log10(price)))
    at = f"a machine hour costs less than about {price:,.2f} {bought.cost.currency}"
    return f" {way(own.arm)} is cheaper if {at}." if price >= 0.01 else ""


def _hundredths(right: Estimate) -> int:
    return round(100 * right.value)


def _down(value: float) -> int:
    """Return a low end in hundredths, rounded down."""
    return math.floor(round(100 * round(value, 3), 6))


def _up(value: float) -> int:
    """Return a high end in hundredths, rounded up."""
    return math.ceil(round(100 * round(value, 3), 6))


def ends(estimate: Estimate) -> tuple[int, int]:
    """Return the ends of an interval in hundredths, rounded outwards."""
    return _down(estimate.low), _up(estimate.high)


def of_hundred(right: Estimate) -> str:
    """Return how many of 100 questions are right, with the 95% interval and the number of questions that were asked."""
    weighted = ", weighted by the mix of traffic" if right.n_effective is not None else ""
    asked = f"very likely {_down(right.low)} to {_up(right.high)}; {right.n:,} were asked{weighted}"
    return f"about {_hundredths(right)} of 100 questions right ({asked})"


def _of_one(arm: ArmResult) -> str:
    """Return a score between 0 and 1 with its 95% interval, and the share of exactly right answers if that is told."""
    score = score_of(arm)
    likely = f"very likely {_down(score.low) / 100:.2f} to {_up(score.high) / 100:.2f}"
    exact = f"; {arm.exact} of the answers are exactly right" if arm.exact else ""
    return f"{score.value:.2f} on a scale from 0 to 1 ({likely}; {score.n:,} questions were asked{exact})"


def plain_score(arm: ArmResult, digits: int = 2) -> str:
    """Return a score between 0 and 1 without its interval, with the share of exactly right answers if that is told."""
    return f"{score_of(arm).value:.{digits}f}{f' ({arm.exact} exactly right)' if arm.exact else ''}"
