"""Evidence for a verdict: the arms that ran, with scores, costs, tests and comparisons."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import combinations

from trimtab.base.grammar import CONSTANT
from trimtab.base.metrics import find_metric, mean_metric
from trimtab.base.records import Answer, Arm
from trimtab.base.results import ArmResult, Comparison, Estimate, Usage
from trimtab.base.task import DRAFTED, Task
from trimtab.decision.cost import by_weight, cost_of, costed_retrainings, floor_of, planned_retrainings
from trimtab.decision.pairs import planned_pairs
from trimtab.measurement.audit import Audited
from trimtab.measurement.clusters import too_few_groups
from trimtab.measurement.figures import (
    behind_curve,
    difference,
    picked_estimate,
    rarest_class,
    score_estimate,
    score_floor,
    score_value,
    target_curve,
)
from trimtab.measurement.latency import latencies_needed
from trimtab.measurement.replicates import Assumed, StudyScores
from trimtab.measurement.resampling import Curve
from trimtab.measurement.statistics import LEVEL, Difference, holm, look_level


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A study's figures under one task, its prices and its target.

    `p_target(arm, target)`: one-sided p of "the arm does not reach the target"; `p_behind(arm, other, margin)`:
    one-sided p of "the arm is behind the other by the margin or more". Both unadjusted. `comparisons`: the planned
    ones, with p after Holm. `groups`: how many the test questions form, None where none repeats. `cuts`: what the
    budget took from the arms. `rarest_class`: the class with fewer than 10 test questions, and their number, where the
    metric is macro-F1: no arm then passes, and none is shown to be better than another or within the margin of it.
    `uncalibrated`: a judge graded the answers, and too few of its grades are checked by people; nothing is shown then,
    either. `look`: of how many studies of the same questions this is the last; None where the questions were made for
    it alone.
    `right`: the share of right answers of each arm, empty where the metric does not say which are right. `few_groups`:
    the effective number of groups, where it is too low for good intervals.
    `trivial`: the scores of the trivial arms; `p_target` knows them too. `correct_picked`: computes `picked`.
    `former`: how many arms of former studies of these questions it takes into account.
    `study_scores`: gives what studies of other sizes are drawn from. `audited`: people's judgements that the scores and
    differences are corrected by, None without an audit. `slices`: how many test questions each slice has, empty where
    some have none. `drafted`: how many were drafted from documents. `reweighted(task)`: the evidence of the same
    answers under another mix of slices.
    `to_judge()`: how many questions people must have judged in all to settle the choice; None where no number does.
    """

    results: Sequence[ArmResult]
    comparisons: Sequence[Comparison]
    p_target: Callable[[str, float], float]
    p_behind: Callable[[str, str, float], float]
    task: Task
    usages: Mapping[str, Usage]
    groups: int | None = None
    cuts: Sequence[str] = ()
    rarest_class: tuple[str, int] | None = None
    uncalibrated: bool = False
    look: int | None = None
    right: Mapping[str, Estimate] = field(default_factory=dict)
    few_groups: int | None = None
    trivial: Mapping[str, Estimate] = field(default_factory=dict)
    correct_picked: Callable[[], Estimate | None] = lambda: None
    former: int = 0
    study_scores: Callable[[], StudyScores]
    audited: Audited | None = None
    slices: Mapping[str, int] = field(default_factory=dict)
    drafted: int = 0
    reweighted: Callable[[Task], Evidence] | None = None
    to_judge: Callable[[], int | None] = lambda: None

    @cached_property
    def picked(self) -> Estimate | None:
        """The highest score of those with a fitting latency, corrected for selection bias; None for a single one."""
        return self.correct_picked()

    def is_beaten(self, arm: ArmResult) -> bool:
        """True if a fixed rule is at least as good as an arm: one that reads no question by its score, one that learns
        from rows where a test shows it to be better."""
        mine = score_of(arm).value
        return any(
            rule.value >= mine if name in CONSTANT else rule.value > mine and self.p_behind(name, arm.arm, 0.0) <= LEVEL
            for name, rule in self.trivial.items()
        )

    @property
    def shows_nothing(self) -> bool:
        """True if no claim can be shown, whatever the scores."""
        return self.uncalibrated or self.rarest_class is not None

    @property
    def level(self) -> float:
        """The level of every test that decides."""
        return LEVEL if self.look is None else look_level(self.look)

    @cached_property
    def done(self) -> list[ArmResult]:
        """The arms that have a score, light to heavy."""
        return by_weight([arm for arm in self.results if arm.status == "done" and arm.score is not None], self.task)

    @cached_property
    def passing(self) -> list[ArmResult]:
        """The arms shown to reach the target, light to heavy: p after Holm over all arms at most the level."""
        target = self.task.target.quality
        if target is None or self.shows_nothing:
            return []
        adjusted = holm([self.p_target(arm.arm, target) for arm in self.done])
        return [arm for arm, p in zip(self.done, adjusted, strict=True) if p <= self.level]

    @cached_property
    def without_model(self) -> str | None:
        """The best of the trivial arms that are shown to reach the target, tested as the arms are; None for none."""
        target = self.task.target.quality
        if target is None or self.shows_nothing or not self.trivial:
            return None
        adjusted = holm([self.p_target(name, target) for name in self.trivial])
        reaching = [name for name, p in zip(self.trivial, adjusted, strict=True) if p <= self.level]
        return max(reaching, key=lambda name: self.trivial[name].value, default=None)

    def under(self, task: Task) -> Evidence:
        """Return the same answers under another target, volume, price or mix of slices, with every cost recomputed."""
        if task.data.mix != self.task.data.mix and self.reweighted is not None:
            return self.reweighted(task).under(task)
        return replace(self, task=task, results=[self._priced(arm, task) for arm in self.results])

    def _priced(self, arm: ArmResult, task: Task) -> ArmResult:
        usage = self.usages.get(arm.arm)
        if usage is None or arm.score is None:
            return arm
        retrainings = costed_retrainings(usage, task.cost, floor_of(arm), task.target.quality)
        return replace(arm, cost=cost_of(usage, task.cost, retrainings=retrainings))

    @property
    def if_quiet(self) -> Evidence:
        """The evidence with zero latency for arms that were measured on a busy machine: the best case for a
        quiet machine."""
        fast = [replace(arm, latency_p95_high_ms=0.0) if arm.busy_machine else arm for arm in self.results]
        return replace(self, results=fast)

    def resampled(self, size: int, draw: int, assumed: Assumed | None = None) -> Evidence:
        """Return the evidence of the `draw`-th replicate of `size` items (`StudyScores.drawn`), as the next look at
        them.

        Costs and latencies stay, and an arm's floor lies below its score by what chance leaves at that size.
        """
        whole = self.study_scores()
        study = whole.drawn(size, draw, assumed)
        nearer = math.sqrt(whole.items * whole.efficiency / study.items)

        def scored(arm: ArmResult) -> ArmResult:
            value = study.value(arm.arm)
            floor = value - nearer * (score_of(arm).value - floor_of(arm))
            return replace(arm, score=Estimate(value=value, low=floor, high=value, n=study.items), score_floor=floor)

        results = [scored(arm) for arm in self.done]
        best = best_arm(results, self.task) if self.task.target.quality is None else None
        names = [arm.arm for arm in results]
        pairs = [(best, name) for name in names if name != best] if best else []
        return replace(
            self,
            results=results,
            comparisons=_compare(pairs, names, study.difference, unsure=self.uncalibrated or bool(study.rarest_class)),
            p_target=study.p_target,
            p_behind=study.p_behind,
            rarest_class=study.rarest_class,
            look=None if self.look is None else self.look + 1,
            trivial={name: replace(score, value=study.value(name)) for name, score in self.trivial.items()},
        )

    def problem(self, arm: ArmResult) -> str | None:
        """Return why an arm cannot be chosen whatever its score; None if it can."""
        return too_slow(arm, self.task) or self._breaks(arm) or self._too_stale(arm)

    def _breaks(self, arm: ArmResult) -> str | None:
        """Return which probe that the target names the arm does not stand."""
        for name in self.task.target.probes:
            own = [one for one in arm.probes if one.probe == name]
            broken = next((one for one in own if one.found), None)
            if broken is not None:
                return f"does not stand the probe {name} ({broken.sentence})"
        return None

    def _too_stale(self, arm: ArmResult) -> str | None:
        usage = self.usages.get(arm.arm)
        if usage is None or arm not in self.passing:
            return None
        if planned_retrainings(usage, self.task.cost, floor_of(arm), self.task.target.quality) is not None:
            return None
        return "cannot be retrained often enough to hold the target while facts change"

    def against(self, first: str, second: str) -> Comparison | None:
        """Return the comparison of two arms as first minus second."""
        for found in self.comparisons:
            if (found.a, found.b) == (first, second):
                return found
            if (found.b, found.a) == (first, second):
                return found.swapped()
        return None


def best_arm(results: Sequence[ArmResult], task: Task) -> str | None:
    """Return the arm with which the others are compared: the highest score among those with a fitting latency, the
    lighter if equal."""
    done = [arm for arm in results if arm.status == "done" and arm.score is not None]
    fitting = [arm for arm in done if too_slow(arm, task) is None] or done
    return max(by_weight(fitting, task), key=lambda arm: score_of(arm).value).arm if fitting else None


def score_of(arm: ArmResult) -> Estimate:
    """Return the score of an arm that has one."""
    if arm.score is None:
        raise ValueError(f"arm {arm.arm} has no score")
    return arm.score


def too_slow(arm: ArmResult, task: Task) -> str | None:
    """Return why an arm is too slow, or None: the upper bound of its 95th percentile is compared with the limit."""
    limit, high, p95 = task.target.latency_p95_ms, arm.latency_p95_high_ms, arm.latency_p95_ms
    if limit is None:
        return None
    if high is None:
        needed = (
            f"at least {latencies_needed(len(task.arms))} answers are needed, more where neighbouring ones take alike"
        )
        return f"has no known latency at the 95th percentile ({needed}), and the limit is {limit:,.0f} ms"
    if high > limit:
        busy = " on a busy machine" if arm.busy_machine else ""
        if p95 is not None and p95 > limit:
            return f"is too slow: 1 in 20 answers took over {p95:,.0f} ms{busy} (limit {limit:,.0f} ms)"
        measured = "" if p95 is None else f"; {p95:,.0f} ms measured"
        slow = f"1 in 20 answers may take longer than {high:,.0f} ms (upper 95% bound{measured}{busy})"
        return f"is not shown to be fast enough: {slow}, and the limit is {limit:,.0f} ms"
    return None


def evidence_of(
    results: Sequence[ArmResult],
    answers: Mapping[str, Sequence[Answer]],
    arms: Sequence[Arm],
    task: Task,
    usages: Mapping[str, Usage],
    *,
    groups: int | None = None,
    cuts: Sequence[str] = (),
    look: int | None = None,
    trivial: Mapping[str, Sequence[Answer]] | None = None,
    former: Sequence[Sequence[Answer]] = (),
    audited: Audited | None = None,
    for_choice: bool = False,
) -> Evidence:
    """Test the answers of a study, and return the evidence.

    `results`: of every arm. `answers`: of the arms that ran, to the same items. `arms`: the task's, in its order.
    `groups`: how many the test questions form, None where none repeats. `cuts`: what the budget took. `look`: which
    look at these questions this is, None at the plain level of .05. `trivial`: the answers of the trivial arms.
    `former`: those of arms of former studies to the same items, among which this study's highest was picked, too.
    `audited`: people's judgements, where scores and differences are to be corrected by them. `for_choice`: only what
    `choose` asks of, without the comparisons where there is a target and without intervals.
    """
    if audited is not None:
        results = [
            replace(arm, score=audited.score(arm.arm), score_floor=audited.floor(arm.arm))
            if arm.arm in answers
            else arm
            for arm in results
        ]
    trivial = trivial or {}
    known = {**answers, **trivial}

    @cache
    def reaches(arm: str) -> Curve:
        return audited.target_curve(arm) if audited and arm in answers else target_curve(known[arm], task)

    @cache
    def lags(arm: str, other: str) -> Curve:
        judged = audited if {arm, other} <= answers.keys() else None  # of fixed rules nothing is judged
        return judged.behind_curve(arm, other) if judged else behind_curve(known[arm], known[other], task)

    target, passed = task.target.quality, list(results)
    rare = rarest_class(next(iter(answers.values())), task) if answers else None
    uncalibrated = find_metric(task.metric).judged and audited is None
    if target is not None:
        level = 0.0 if rare or uncalibrated else LEVEL if look is None else look_level(look)
        passed = _with_target(results, {arm: reaches(arm)(target) for arm in answers}, level)

    def correct_picked() -> Estimate | None:
        fitting = [answers[arm.arm] for arm in passed if arm.arm in answers and too_slow(arm, task) is None]
        rivals = [*fitting, *outdone] if fitting else []
        return picked_estimate(rivals, task) if len(rivals) > 1 else None

    def differ(a: str, b: str) -> Difference:
        return audited.difference(a, b) if audited else difference(answers[a], answers[b], task)

    def reweighted(other: Task) -> Evidence:
        scored = [_valued_again(arm, answers[arm.arm], other) if arm.arm in answers else arm for arm in results]
        return evidence_of(
            *(scored, answers, arms, other, usages),
            groups=groups,
            cuts=cuts,
            look=look,
            trivial=trivial,
            audited=audited and audited.under(other),
            for_choice=True,
        )

    outdone = _outdone(former, answers, task)
    best = None if for_choice and target is not None else best_arm(passed, task)
    pairs = [] if best is None else planned_pairs([arm for arm in arms if arm.name in answers], best)
    return Evidence(
        results=passed,
        comparisons=_compare(pairs, list(answers), differ, unsure=uncalibrated or rare is not None),
        p_target=lambda arm, target: reaches(arm)(target),
        p_behind=lambda arm, other, margin: lags(arm, other)(margin),
        task=task,
        usages=usages,
        groups=groups,
        cuts=cuts,
        rarest_class=rare,
        uncalibrated=uncalibrated,
        look=look,
        right={} if for_choice else _right(passed, answers, task),
        few_groups=too_few_groups([row.group for row in own]) if (own := next(iter(answers.values()), None)) else None,
        trivial={name: (_valued if for_choice else score_estimate)(own, task) for name, own in trivial.items()},
        correct_picked=correct_picked,
        former=len(outdone),
        study_scores=cache(lambda: StudyScores(known, task, audited)),
        audited=audited,
        slices=_slices(answers),
        drafted=_drafted(answers),
        reweighted=reweighted,
    )


def _right(results: Sequence[ArmResult], answers: Mapping[str, Sequence[Answer]], task: Task) -> dict[str, Estimate]:
    """Return the share of right answers of each arm, if the metric or its answers tell which are right."""
    metric = find_metric(task.metric)
    if metric.by_class:
        plain = task.scored_by(mean_metric(metric).name)
        return {arm: score_estimate(own, plain) for arm, own in answers.items()}
    return {arm.arm: arm.score for arm in results if arm.score} if metric.is_share else {}


def _outdone(
    former: Sequence[Sequence[Answer]], answers: Mapping[str, Sequence[Answer]], task: Task
) -> list[Sequence[Answer]]:
    """Return the former arms that answered otherwise than any other; none where one scored higher than every arm of
    this study, as the highest of all is then not this study's."""
    own = {tuple(one.score for one in rows) for rows in answers.values()}
    others = {tuple(one.score for one in rows): rows for rows in former}
    others = {scores: rows for scores, rows in others.items() if scores not in own}
    if not answers or not others:
        return []
    highest = max(score_value(rows, task) for rows in answers.values())
    return [] if any(score_value(rows, task) > highest for rows in others.values()) else [*others.values()]


def scored_again(arm: ArmResult, answers: Sequence[Answer], task: Task) -> ArmResult:
    """Return the arm with the score of other answers, or of its own under another metric or mix."""
    return replace(arm, score=score_estimate(answers, task), score_floor=score_floor(answers, task))


def _valued(answers: Sequence[Answer], task: Task) -> Estimate:
    """Return the score without its interval, which no choice needs."""
    value = score_value(answers, task)
    return Estimate(value=value, low=value, high=value, n=len(answers))


def _valued_again(arm: ArmResult, answers: Sequence[Answer], task: Task) -> ArmResult:
    """Return the arm as `scored_again` does, without intervals; with a floor only if facts change and it must stay
    above the target."""
    floor = score_floor(answers, task) if task.cost.change else None
    return replace(arm, score=_valued(answers, task), score_floor=floor)


def _drafted(answers: Mapping[str, Sequence[Answer]]) -> int:
    return len({row.item_id for row in next(iter(answers.values()), ()) if row.slice == DRAFTED})


def _slices(answers: Mapping[str, Sequence[Answer]]) -> dict[str, int]:
    own = {row.item_id: row.slice for row in next(iter(answers.values()), ())}
    counts = Counter(name for name in own.values() if name is not None)
    return dict(counts) if counts.total() == len(own) else {}


def _with_target(results: Sequence[ArmResult], chances: Mapping[str, float], level: float) -> list[ArmResult]:
    """Return the arms with their p-value of missing the target, and whether they pass at the level after Holm over all
    of them."""
    adjusted = dict(zip(chances, holm(list(chances.values())), strict=True))
    return [
        replace(arm, p_target=chances[arm.arm], passes=adjusted[arm.arm] <= level) if arm.arm in chances else arm
        for arm in results
    ]


def _compare(
    pairs: Sequence[tuple[str, str]], arms: Sequence[str], differ: Callable[[str, str], Difference], *, unsure: bool
) -> list[Comparison]:
    """Return the planned comparisons, corrected by Holm over all pairs of arms: the best was picked by looking at all
    of them.

    `unsure`: a class has too few test questions for macro-F1, and nothing is shown to differ (p_holm 1).
    """
    named = {frozenset(pair) for pair in pairs}
    others = [pair for pair in combinations(arms, 2) if pairs and frozenset(pair) not in named]
    found = [differ(a, b) for a, b in (*pairs, *others)]
    adjusted = [1.0] * len(pairs) if unsure else holm([item.p for item in found])[: len(pairs)]
    return [
        Comparison(a=a, b=b, difference=item.difference, low=item.low, high=item.high, p=item.p, p_holm=p_holm)
        for (a, b), item, p_holm in zip(pairs, found, adjusted, strict=False)
    ]
