"""Answers in, the decision out: every test of a study, its corrections, and the verdict; pure, so that a simulation can ask it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

from trimtab.base.records import Answer, Arm
from trimtab.base.results import ArmResult, Comparison, Usage, Verdict
from trimtab.base.task import Task
from trimtab.decision.audited import unless_uneven, with_corrected_scores
from trimtab.decision.evidence import Evidence, best_arm, too_slow
from trimtab.decision.pairs import planned_pairs
from trimtab.decision.verdict import decide
from trimtab.measurement.audit import Audited
from trimtab.measurement.figures import (
    behind_curve,
    difference,
    picked_estimate,
    rarest_class,
    score_estimate,
    target_curve,
)
from trimtab.measurement.resampling import Curve
from trimtab.measurement.statistics import LEVEL, holm, look_level


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The arms with their tests of the target, the planned comparisons, and the verdict."""

    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...]
    verdict: Verdict


def judge(
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
    audited: Audited | None = None,
) -> Judged:
    """Test every arm's answers and decide. `answers`: of the arms that ran, to the same items; `arms`: the task's, in its order.

    `groups`: how many the test questions form, None where none repeats. `cuts`: what the budget took. `look`: which one at these questions
    this is, None at the plain level of .05. `trivial`: the answers of the trivial arms. `audited`: people's judgements, where scores and
    differences are to be corrected by them.
    """
    found = evidence_of(
        results, answers, arms, task, usages, groups=groups, cuts=cuts, look=look, trivial=trivial, audited=audited
    )
    fitting = [arm.arm for arm in results if arm.arm in answers and too_slow(arm, task) is None]
    picked = picked_estimate([answers[arm] for arm in fitting], task) if len(fitting) > 1 else None
    verdict = decide(replace(found, picked=picked))
    if audited is not None:
        verdict = unless_uneven(verdict, audited, task)
    return Judged(arms=tuple(found.results), comparisons=tuple(found.comparisons), verdict=verdict)


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
    audited: Audited | None = None,
) -> Evidence:
    """The evidence of a study: its arms with their tests of the target, and the planned comparisons. Arguments as in `judge`."""
    if audited is not None:
        results = with_corrected_scores(results, audited)
    trivial = trivial or {}
    known = {**answers, **trivial}

    @cache
    def reaches(arm: str) -> Curve:
        return audited.target_curve(arm) if audited and arm in answers else target_curve(known[arm], task)

    @cache
    def lags(arm: str, other: str) -> Curve:
        return audited.behind_curve(arm, other) if audited else behind_curve(answers[arm], answers[other], task)

    target, passed = task.target.quality, list(results)
    rare = rarest_class(next(iter(answers.values())), task) if answers else None
    if target is not None:
        passed = _with_target(
            results,
            {arm: reaches(arm)(target) for arm in answers},
            0.0 if rare else LEVEL if look is None else look_level(look),
        )
    best = best_arm(passed, task)
    pairs = [] if best is None else planned_pairs([arm for arm in arms if arm.name in answers], best)
    return Evidence(
        results=passed,
        comparisons=_compare(pairs, answers, task, audited),
        p_target=lambda arm, target: reaches(arm)(target),
        p_behind=lambda arm, other, margin: lags(arm, other)(margin),
        task=task,
        usages=usages,
        groups=groups,
        cuts=cuts,
        rarest_class=rare,
        look=look,
        trivial={name: score_estimate(own, task) for name, own in trivial.items()},
    )


def _with_target(results: Sequence[ArmResult], chances: Mapping[str, float], level: float) -> list[ArmResult]:
    """The arms with their p of missing the target, and whether it passes at the level after Holm over all of them."""
    adjusted = dict(zip(chances, holm(list(chances.values())), strict=True))
    return [
        replace(arm, p_target=chances[arm.arm], passes=adjusted[arm.arm] <= level) if arm.arm in chances else arm
        for arm in results
    ]


def _compare(
    pairs: Sequence[tuple[str, str]], answers: Mapping[str, Sequence[Answer]], task: Task, audited: Audited | None
) -> list[Comparison]:
    """The planned comparisons, corrected by Holm over all pairs of arms: the best was picked by looking at all of them."""
    named = {frozenset(pair) for pair in pairs}
    others = [pair for pair in combinations(answers, 2) if pairs and frozenset(pair) not in named]
    found = [
        audited.difference(a, b) if audited else difference(answers[a], answers[b], task) for a, b in (*pairs, *others)
    ]
    adjusted = holm([item.p for item in found])[: len(pairs)]
    return [
        Comparison(a=a, b=b, difference=item.difference, low=item.low, high=item.high, p=item.p, p_holm=p_holm)
        for (a, b), item, p_holm in zip(pairs, found, adjusted, strict=False)
    ]
