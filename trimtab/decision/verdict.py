"""The verdict: the lightest arm that the data shows to be good enough, or what would settle it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from trimtab.base.records import ArmResult, Comparison, Cost, Estimate, Usage, Verdict
from trimtab.base.task import Task
from trimtab.decision.cost import MACHINE_SECONDS, floor_of, planned_retrainings
from trimtab.decision.flips import find_flips
from trimtab.decision.pairs import planned_pairs as planned_pairs
from trimtab.decision.weight import alike, by_weight
from trimtab.measurement.power import POWER, groups_needed, items_for_target
from trimtab.measurement.statistics import LEVEL, holm

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


def decide(
    results: Sequence[ArmResult],
    comparisons: Sequence[Comparison],
    noninferiority: Mapping[str, float],
    task: Task,
    usages: Mapping[str, Usage],
    groups: int | None = None,
) -> Verdict:
    """Decide from what was measured; pure.

    `results`: `passes` says that p_target, after Holm over the arms, is at most .05. `comparisons`: the planned ones,
    with p after Holm. `noninferiority`: for each arm but the best (`best_arm`), the unadjusted p of "worse than the
    best by the margin or more"; Holm is applied here. Only arms that ran, whose latency fits and that stay at the
    target while facts change are considered. `groups`: those of the test questions, None where none repeats. Light: least total cost; of equal costs (within 10%) the
    simpler arm (`by_weight`); arms of unknown cost last.

    With a target: the lightest arm that passes is shown. None: not shown.
    Without: let B be the arm with the highest score, and C the lightest of B and the arms shown not to be worse than
    B by the margin. C is shown when the data leaves no way for it to be the wrong choice of quality:
    1. every other arm is shown not to be better than B by more than the margin (lower limit of B - arm above -margin);
    2. if C is B, every lighter arm is shown to be worse than B (p after Holm at most .05): else it may do as well.
    Otherwise the verdict is "not shown", with the arms that the data cannot tell apart and the questions that would.
    A lighter arm that is neither shown worse nor not worse, beside a C that is shown, is named in the sentence.
    """
    done = [arm for arm in results if arm.status == "done" and arm.score is not None]
    if not done:
        whys = "; ".join(f"{arm.arm}: {arm.why}" for arm in results if arm.why)
        return _not_shown(f"No arm finished{f' ({whys})' if whys else ''}.", "an arm that runs to its end")
    study = _Evidence(done, comparisons, noninferiority, task, usages, groups)
    return _with_target(study, task.target.quality) if task.target.quality is not None else _without_target(study)


def best_arm(results: Sequence[ArmResult], task: Task) -> str | None:
    """The arm that the others are compared with: the highest score among those whose latency fits, the lighter if equal."""
    done = [arm for arm in results if arm.status == "done" and arm.score is not None]
    fitting = [arm for arm in done if _latency_problem(arm, task) is None] or done
    if not fitting:
        return None
    return max(by_weight(fitting, task), key=lambda arm: _score(arm).value).arm


@dataclass(frozen=True)
class _Evidence:
    """What the decision is made from: the arms that ran, and everything known of them."""

    done: Sequence[ArmResult]
    comparisons: Sequence[Comparison]
    noninferiority: Mapping[str, float]
    task: Task
    usages: Mapping[str, Usage]
    groups: int | None

    @property
    def too_few_groups(self) -> str | None:
        """Why no difference can be shown whatever is answered, where the groups cannot reach the corrected level."""
        compared = len(self.comparisons)
        needed = groups_needed(max(1, compared))
        if self.groups is None or self.groups >= needed:
            return None
        return f"{self.groups} groups of questions cannot show a difference in {compared} comparisons, {needed} are the least"

    @property
    def by_weight(self) -> list[ArmResult]:
        return by_weight(self.done, self.task)

    def problem(self, arm: ArmResult) -> str | None:
        """Why an arm cannot be chosen whatever its score."""
        usage, target = self.usages.get(arm.arm), self.task.target.quality
        slow = _latency_problem(arm, self.task)
        if slow or usage is None or planned_retrainings(usage, self.task.cost, floor_of(arm), target) is not None:
            return slow
        return "cannot be retrained often enough to hold the target while facts change" if arm.passes else None

    def against(self, first: str, second: str) -> Comparison | None:
        """The comparison of two arms as first minus second."""
        for found in self.comparisons:
            if (found.a, found.b) == (first, second):
                return found
            if (found.b, found.a) == (first, second):
                return found.swapped()
        return None


# ---- with a target


def _with_target(study: _Evidence, target: float) -> Verdict:
    passing = [arm for arm in study.by_weight if arm.passes]
    fitting = [arm for arm in passing if study.problem(arm) is None]
    if not fitting:
        return _passing_but_unfit(study, passing, target) if passing else _none_passes(study, target)
    winner, *rivals = fitting
    sentence = f"{winner.arm} reaches the target of {target:g} with {_scored(winner, study.task)}"
    if len(fitting) == 1:
        sentence += f"; it is the only one of {len(study.done)} arms to do so" if len(study.done) > 1 else ""
        sentence += f", and costs {_money(winner.cost, study.task)}." if winner.cost else "."
    else:
        sentence += (
            f", and is the lightest of the {len(fitting)} arms that do: {_against_next(winner, rivals[0], study)}."
        )
    sentence += "".join(
        f" {arm.arm} reaches it too, but {problem}." for arm in passing if (problem := study.problem(arm))
    )
    unknown = [arm.arm for arm in fitting if arm.cost is None]
    if unknown:
        sentence += f" What {_list(unknown)} would cost is not known: no price was given."
    ranks = [arm.arm for arm in study.by_weight]
    lighter = ranks[: ranks.index(winner.arm)]
    lesser = [arm for arm in study.by_weight if arm.arm in lighter and not arm.passes and study.problem(arm) is None]
    return Verdict(
        status="shown",
        arm=winner.arm,
        sentence=sentence,
        flips=find_flips(winner, rivals, lesser, study.task, study.usages),
    )


def _passing_but_unfit(study: _Evidence, passing: Sequence[ArmResult], target: float) -> Verdict:
    nearest = min(passing, key=lambda arm: (arm.latency_p95_high_ms is None, arm.latency_p95_high_ms or 0.0))
    problem = study.problem(nearest)
    sentence = (
        f"Not shown: {nearest.arm} reaches the target of {target:g} with {_scored(nearest, study.task)}, "
        f"but {problem}; more test questions will not help."
    )
    return _not_shown(sentence, f"not more test questions: {nearest.arm} {problem}")


def _none_passes(study: _Evidence, target: float) -> Verdict:
    fitting = [arm for arm in study.done if study.problem(arm) is None]
    nearest = max(fitting or study.done, key=lambda arm: _score(arm).value)
    score = _score(nearest)
    sentence = (
        f"Not shown: no arm is shown to reach the target of {target:g}; "
        f"the nearest is {nearest.arm} with {_scored(nearest, study.task)}"
    )
    items = items_for_target(score.value, target, len(study.done), _variance(score.low, score.high, score.n))
    if items is None:
        needs = f"not more test questions: the best score, {_number(score.value)}, is not above the target"
        return _not_shown(f"{sentence}. As it does not score above it, more test questions will not help.", needs)
    needs = _more_questions(items - score.n)
    return _not_shown(f"{sentence}; {needs} would settle it if that is its true score.", needs)


# ---- without a target


@dataclass(frozen=True)
class _Open:
    """An arm that the data cannot tell from the best, and how many items would (None: none would)."""

    arm: ArmResult
    items: float | None
    gap: Comparison | None


def _without_target(study: _Evidence) -> Verdict:
    task, margin = study.task, study.task.target.margin
    fitting = [arm for arm in study.by_weight if study.problem(arm) is None]
    if not fitting:
        problem = study.problem(study.by_weight[0])
        return _not_shown(
            f"Not shown: {study.by_weight[0].arm} {problem}, and so for every arm.", "a faster arm or machine"
        )
    if len(fitting) == 1:
        return _not_shown(
            f"Not shown: {fitting[0].arm}, with {_scored(fitting[0], task)}, has no arm to be compared with.",
            "a target, or a second arm that runs to its end",
        )
    best = next(arm for arm in fitting if arm.arm == best_arm(fitting, task))
    if _score(best).value == 0.0:
        needs = "not more test questions: a stronger base model, or a look at the instruction and the metric"
        return _not_shown(f"Not shown: every arm scored 0 on {_score(best).n:,} test questions; {needs}.", needs)
    names = [arm.arm for arm in fitting if arm is not best]
    adjusted = dict(zip(names, holm([study.noninferiority.get(name, 1.0) for name in names]), strict=True))
    good = [arm for arm in fitting if arm is best or adjusted[arm.arm] <= LEVEL]
    chosen = good[0]
    lighter = fitting[: fitting.index(chosen)]
    undecided = [found for arm in lighter if (found := _undecided(study, best, arm)) is not None]
    rivals = [
        found
        for arm in fitting
        if arm not in (best, chosen) and (found := _may_be_better(study, best, arm, margin)) is not None
    ]
    blockers = {found.arm.arm: found for found in (*rivals, *(undecided if chosen is best else ()))}
    if blockers:
        return _cannot_tell(study, best, list(blockers.values()))
    sentence = _why_chosen(study, best, chosen)
    if undecided:
        sentence += f" Lighter still, {_list([found.arm.arm for found in undecided])} may do as well: {_settled(study, undecided)}."
    return Verdict(
        status="shown",
        arm=chosen.arm,
        sentence=sentence,
        flips=find_flips(chosen, good[1:], (), task, study.usages),
    )


def _undecided(study: _Evidence, best: ArmResult, arm: ArmResult) -> _Open | None:
    """A lighter arm that is not shown to be worse than the best: how many items would show it, or that it is not."""
    gap = study.against(best.arm, arm.arm)
    if gap is None:
        return _Open(arm, None, None)
    if gap.p_holm <= LEVEL and gap.difference > 0:
        return None
    variance = _variance(gap.low, gap.high, _score(best).n)
    not_worse = _items(study.task.target.margin - gap.difference, variance, LEVEL / max(1, len(study.noninferiority)))
    worse = _items(gap.difference, variance, LEVEL / 2 / len(study.comparisons))
    worse = None if study.too_few_groups else worse
    found = [items for items in (not_worse, worse) if items is not None]
    return _Open(arm, min(found) if found else None, gap)


def _may_be_better(study: _Evidence, best: ArmResult, arm: ArmResult, margin: float) -> _Open | None:
    """An arm that is not shown to be no better than the best by the margin."""
    gap = study.against(best.arm, arm.arm)
    if gap is None:
        return _Open(arm, None, None)
    if gap.low > -margin or (gap.p_holm <= LEVEL and gap.difference > 0):
        return None
    return _Open(arm, _items(gap.difference + margin, _variance(gap.low, gap.high, _score(best).n), LEVEL / 2), gap)


def _cannot_tell(study: _Evidence, best: ArmResult, blockers: Sequence[_Open]) -> Verdict:
    parts = [
        f"{found.arm.arm} (behind by {_number(found.gap.difference)}, 95% interval {_number(found.gap.low)} to {_number(found.gap.high)})"
        if found.gap
        else f"{found.arm.arm} (not compared)"
        for found in blockers
    ]
    settled = _settled(study, blockers)
    sentence = (
        f"Not shown: {best.arm} scored best with {_scored(best, study.task)}, but these data cannot tell it from "
        f"{_list(parts)} to within {study.task.target.margin:g}; {settled}."
    )
    return _not_shown(sentence, settled.removesuffix(" would settle it"))


def _why_chosen(study: _Evidence, best: ArmResult, chosen: ArmResult) -> str:
    margin, scored = f"{study.task.target.margin:g}", _scored(chosen, study.task)
    if chosen is not best:
        return (
            f"{chosen.arm} is the lightest arm shown to be within {margin} of the best: {scored}, against "
            f"{_number(_score(best).value)} for {best.arm}; {_against_next(chosen, best, study)}."
        )
    if study.by_weight[0] is best:
        return f"{best.arm} scored best with {scored} and is the lightest; every other arm is shown not to be better by more than {margin}."
    cost = f"; it costs {_money(best.cost, study.task)}" if best.cost else ""
    return f"{best.arm} is the best arm with {scored}, and every lighter arm is shown to be worse{cost}."


def _settled(study: _Evidence, found: Sequence[_Open]) -> str:
    uncompared = [each.arm.arm for each in found if each.gap is None]
    if uncompared:
        return f"a comparison with {_list(uncompared)} would settle it"
    if any(each.items is None for each in found):
        few = study.too_few_groups
        return f"no number of test questions {f'of so few groups ({few}) ' if few else ''}would settle it"
    most = max(each.items for each in found if each.items is not None)
    return f"{_more_questions(most - max(_score(arm).n for arm in study.done))} would settle it"


def _items(gap: float, variance: float, level: float) -> float | None:
    """Items that show a mean of `gap` above 0 with 80% power, one-sided; None where it is not above."""
    if gap <= 0:
        return None
    normal = NormalDist()
    return variance * ((normal.inv_cdf(1 - level) + normal.inv_cdf(POWER)) / gap) ** 2


# ---- shared


def _not_shown(sentence: str, needs: str) -> Verdict:
    return Verdict(status="not_shown", arm=None, sentence=sentence, needs=needs)


def _score(arm: ArmResult) -> Estimate:
    if arm.score is None:
        raise ValueError(f"arm {arm.arm} has no score")
    return arm.score


def _latency_problem(arm: ArmResult, task: Task) -> str | None:
    """Why an arm is too slow: what is held against the limit is the upper bound of its 95th percentile."""
    limit, high, p95 = task.target.latency_p95_ms, arm.latency_p95_high_ms, arm.latency_p95_ms
    if limit is None:
        return None
    if high is None:
        return f"has no known latency at the 95th percentile (60 answers are needed) where {limit:,.0f} ms are allowed"
    if high > limit:
        measured = "" if p95 is None else f", {p95:,.0f} ms measured"
        return f"may take {high:,.0f} ms at the 95th percentile (upper 95% bound{measured}) where {limit:,.0f} ms are allowed"
    return None


def _variance(low: float, high: float, n: int) -> float:
    """Variance of one item, clustering included, that an interval of this width stands for."""
    return n * ((high - low) / INTERVAL) ** 2


def _scored(arm: ArmResult, task: Task) -> str:
    score = _score(arm)
    interval = f"95% interval {_number(score.low)} to {_number(score.high)}"
    return f"{NAMES[task.metric]} {_number(score.value)} on {score.n:,} test questions ({interval})"


def _against_next(arm: ArmResult, other: ArmResult, study: _Evidence) -> str:
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
    return f"{_amount(cost)} over {task.cost.horizon_months:g} months"


def _number(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # + 0.0: no minus before a zero


def _more_questions(items: float) -> str:
    """How many more are needed, to two digits, rounded up."""
    whole = max(1, math.ceil(items))
    unit = 10 ** max(0, len(str(whole)) - 2)
    return f"about {math.ceil(whole / unit) * unit:,} more test question{'s' if whole > 1 else ''}"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
