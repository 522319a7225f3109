"""Robustness checks of a verdict: the rule on the same answers at other margins, by other metrics, with what a metric
cannot decide counted as right, without one run or group."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from trimtab.base.metrics import find_metric, metrics_of
from trimtab.base.records import Answer
from trimtab.base.results import ArmResult, RobustnessCheck, Verdict
from trimtab.base.task import Task
from trimtab.decision.choice import shown_arm
from trimtab.decision.evidence import Evidence, scored_again
from trimtab.decision.sensitivity import with_setting
from trimtab.decision.summary import in_metric, way
from trimtab.measurement.metrics import is_undecided, score_answer, score_one

MARGINS = (0.5, 0.75, 1.5, 2.0)  # times the stated one
TARGETS = (-1.0, -0.5, 0.5, 1.0)  # margins above the stated one
MOST_TOLD = 3  # checks that the sentence names
SCORED_BY = "scored by "  # what a check with another metric changed, before its name

Answers = Mapping[str, Sequence[Answer]]


def robustness_checks(
    study: Evidence, answers: Answers, evidence_of: Callable[[Sequence[ArmResult], Answers, Task], Evidence]
) -> tuple[RobustnessCheck, ...]:
    """Decide the study again with one thing changed at a time.

    `evidence_of` tests other answers of the same arms. Without a target the margin and the metric change; with one the
    target does, since it is a value of its metric.
    """
    checks = [RobustnessCheck(what=what, arm=_shown(study.under(task))) for what, task in _other_targets(study.task)]
    for what, task, given in _other_answers(answers, study.task):
        results = [scored_again(arm, given[arm.arm], task) if arm.arm in given else arm for arm in study.results]
        checks.append(RobustnessCheck(what=what, arm=_shown(evidence_of(results, given, task))))
    return tuple(checks)


def robustness_sentence(verdict: Verdict, arms: int, task: Task) -> str:
    """Return what the robustness checks say: that all agree with the verdict, or what would overturn it.

    Empty if nothing is ever shown, and if fewer than two `arms` were measured, so that there was nothing to choose
    from.
    """
    other, count = differing(verdict), len(verdict.robustness)
    if not count or arms < 2 or (verdict.arm is None and not other):
        return ""
    if not other:
        first = _conditions([verdict.robustness[0].what], task)
        rest = f", and in {count - 1} more checks," if count > 1 else ""
        return f"{first[0].upper()}{first[1:]}{rest} the choice stays the same."
    by_arm: dict[str | None, list[str]] = {}
    for check in other[:MOST_TOLD]:
        by_arm.setdefault(check.arm, []).append(check.what)
    outcomes = "; ".join(
        f"{_conditions(whats, task)}, {way(arm) if arm else 'nothing'} is shown" for arm, whats in by_arm.items()
    )
    return f"In {len(other)} of {count} checks what is shown changes: {outcomes}."


def differing(verdict: Verdict) -> list[RobustnessCheck]:
    """Return the robustness checks with another verdict."""
    return [check for check in verdict.robustness if check.arm != verdict.arm]


def _conditions(whats: Sequence[str], task: Task) -> str:
    """Return what checks changed, their values as the verdict gives scores."""
    values: dict[str, list[str]] = {}
    rest = []
    for what in whats:
        target = re.fullmatch(r"(a (?:margin|target) of )(\d\S*)", what)
        rule = find_metric(what.removeprefix(SCORED_BY)).rule if what.startswith(SCORED_BY) else ""
        if target:
            values.setdefault(target[1], []).append(in_metric(task, float(target[2])))
        else:
            rest.append(f"{what} ({rule})" if rule else what)
    for which, stated in values.items():
        first = [value.removesuffix(" of 100") for value in stated[:-1]]
        rest.insert(0, f"with {which}{' or '.join([*first, stated[-1]])}")
    return " or ".join(rest)


def _shown(study: Evidence) -> str | None:
    arm = shown_arm(study)
    return None if arm is None else arm.arm


def _other_targets(task: Task) -> Iterator[tuple[str, Task]]:
    table = task.target
    if table.quality is None:
        changes = [("margin", round(table.margin * times, 6)) for times in MARGINS]
    else:
        changes = [("quality", round(table.quality + margins * table.margin, 6)) for margins in TARGETS]
    for key, value in changes:
        if 0 <= value < 1:
            what = f"a {'target' if key == 'quality' else key} of {value:g}"
            yield what, with_setting(task, "target", **{key: value})


def _other_answers(answers: Answers, task: Task) -> Iterator[tuple[str, Task, Answers]]:
    kind = task.task.kind
    if task.target.quality is None and kind != "generate":
        for metric in metrics_of(kind):
            if metric.name != task.metric and metric.score is not None:
                other = task.scored_by(metric.name)
                yield f"{SCORED_BY}{metric.name}", other, {arm: _rescored(own, other) for arm, own in answers.items()}
    decided = {arm: [_undecided_as_right(row, task) for row in own] for arm, own in answers.items()}
    if any(decided[arm] != list(own) for arm, own in answers.items()):
        yield "undecided answers counted as right", task, decided
    seeds = sorted({row.seed for own in answers.values() for row in own})
    for seed in seeds if len(seeds) > 1 else ():
        without = {arm: [row for row in own if row.seed != seed] or own for arm, own in answers.items()}
        yield f"without run {seed}", task, without
    sizes = Counter(row.group for row in next(iter(answers.values()), ()) if row.group is not None)
    if len(sizes) > 1:
        largest = max(sorted(sizes), key=lambda name: sizes[name])
        rest = {arm: [row for row in own if row.group != largest] for arm, own in answers.items()}
        yield f"without the group {largest}", task, rest


def _undecided_as_right(row: Answer, task: Task) -> Answer:
    """Return the answer with score 1 if the metric cannot tell whether it is right, else as it is."""
    undecided = is_undecided(task.metric, row.answer, row.reference, row.input, task.task.unknown)
    return replace(row, score=1.0) if undecided else row


def _rescored(answers: Sequence[Answer], task: Task) -> list[Answer]:
    def score(row: Answer) -> float:
        if task.task.kind == "classify":
            return score_one(task.metric, row.answer, row.reference, row.input)
        return score_answer(task.metric, row.answer, row.reference, row.input, task.task.unknown)

    return [replace(row, score=score(row)) for row in answers]
