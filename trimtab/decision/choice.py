"""The rule that chooses the arm of a study: the cheapest and simplest of those that are good enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.base.results import ArmResult
from trimtab.decision.evidence import Evidence, best_arm, score_of


@dataclass(frozen=True, kw_only=True)
class VerdictChoice:
    """The result of the rule. `arm`: the chosen arm. `fitting`: the arms that can be used, light to heavy.

    Without a target: `best` has the highest score, `candidate` is the lightest arm that is not shown to be worse than
    the best by more than the margin, and `rivals` are those that it is not shown to be within the margin of; without
    any it is `arm`.
    """

    arm: ArmResult | None
    fitting: Sequence[ArmResult]
    best: ArmResult | None = None
    candidate: ArmResult | None = None
    rivals: Sequence[ArmResult] = ()


def choose(study: Evidence) -> VerdictChoice:
    """Return the arm that a study shows; the verdict states it in words, and `sensitivity` calls this at other prices
    and targets.

    With a target: the lightest of the arms that are shown to reach it (Holm over the arms), whose latency fits and that
    can be kept at it while facts change.

    Without: a walk from the lightest arm that fits to the heaviest. An arm that is shown to be worse than the best by
    more than the margin is passed by; the first that is not is shown if it is shown to be within the margin of every
    other arm. Where a class has too few test questions for macro-F1, or a judge is uncalibrated, no arm is shown to be
    within the margin of another, nor to be worse. Errors, each at the study's level. "A dearer arm although a lighter
    one is within the margin": every lighter arm had to be shown worse, so one test of the lighter one errs, taken
    against the arm picked as best, hence times the number it was picked from. "An arm that is worse than the best by
    the margin": it had to be shown within the margin of each other arm, the truly best one among them; that the walk
    goes on to the next arm is rare where that could happen, since an arm at the margin is seldom shown to be beyond it.
    """
    if study.task.target.quality is not None:
        fitting = [arm for arm in study.passing if study.problem(arm) is None]
        return VerdictChoice(arm=fitting[0] if fitting else None, fitting=fitting)
    fitting = [arm for arm in study.done if study.problem(arm) is None]
    name = best_arm(fitting, study.task)
    if len(fitting) < 2 or name is None:
        return VerdictChoice(arm=None, fitting=fitting)
    best = next(arm for arm in fitting if arm.arm == name)
    if score_of(best).value == 0.0:
        return VerdictChoice(arm=None, fitting=fitting, best=best)
    candidate = next(arm for arm in fitting if arm is best or not worse(study, arm, best, len(fitting)))
    margin, unsure = study.task.target.margin, study.shows_nothing
    rivals = [
        arm
        for arm in fitting
        if arm is not candidate and (unsure or study.p_behind(candidate.arm, arm.arm, margin) > study.level)
    ]
    return VerdictChoice(
        arm=None if rivals else candidate, fitting=fitting, best=best, candidate=candidate, rivals=tuple(rivals)
    )


def quiet_rival(study: Evidence, choice: VerdictChoice) -> ArmResult | None:
    """Find the arm that would be shown in place of the choice if every arm measured on a busy machine were fast enough;
    None for none."""
    if not any(arm.busy_machine for arm in study.done):
        return None
    turned = choose(study.if_quiet).arm
    return turned if turned is not None and (choice.arm is None or turned.arm != choice.arm.arm) else None


def shown_arm(study: Evidence) -> ArmResult | None:
    """Return the arm that the verdict shows; None for "not shown"."""
    choice = choose(study) if study.done else None
    return None if choice is None or quiet_rival(study, choice) is not None else choice.arm


def worse(study: Evidence, arm: ArmResult, best: ArmResult, picked_from: int) -> bool:
    """True if an arm is shown to be worse than the best by more than the margin, and to differ from it at all.

    The best was picked from `picked_from` arms by the same answers, so that its p counts once for each other one.
    """
    gap = study.against(best.arm, arm.arm)
    differs = gap is not None and gap.p_holm <= study.level and gap.difference > 0
    return differs and (picked_from - 1) * study.p_behind(best.arm, arm.arm, -study.task.target.margin) <= study.level
