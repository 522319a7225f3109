"""Whether a verdict hangs on a single decision: the rule on the same answers at other margins, by other metrics, without one run or group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from trimtab.base.records import Answer
from trimtab.base.results import ArmResult, Variation
from trimtab.base.tables import METRICS
from trimtab.base.task import Task
from trimtab.decision.choice import choose
from trimtab.decision.evidence import Evidence
from trimtab.measurement.figures import score_estimate, score_floor
from trimtab.measurement.metrics import score_answer

MARGINS = (0.5, 0.75, 1.5, 2.0)  # times the stated one

Answers = Mapping[str, Sequence[Answer]]


def variations(
    results: Sequence[ArmResult],
    answers: Answers,
    task: Task,
    evidence_of: Callable[[Sequence[ArmResult], Answers, Task], Evidence],
) -> tuple[Variation, ...]:
    """What the rule shows where one thing is judged otherwise.

    `evidence_of` gives the evidence of some answers under a task. Other metrics are tried without a target alone, since a target is one of
    its metric; with a target it is moved by the margin instead.
    """
    found = []
    stated = evidence_of(results, answers, task)
    for what, moved in _moved_tasks(task):
        found.append(Variation(what=what, arm=_arm(stated.under(moved))))
    for what, other, given in _other_answers(answers, task):
        known = [_scored(one, given[one.arm], other) if one.arm in given else one for one in results]
        found.append(Variation(what=what, arm=_arm(evidence_of(known, given, other))))
    return tuple(found)


def _arm(study: Evidence) -> str | None:
    shown = choose(study).arm if study.done else None
    return None if shown is None else shown.arm


def _moved_tasks(task: Task) -> Iterator[tuple[str, Task]]:
    table = task.target
    if table.quality is None:
        for times in MARGINS:
            margin = round(table.margin * times, 6)
            yield (
                f"a margin of {margin:g}",
                task.model_copy(update={"target": table.model_copy(update={"margin": margin})}),
            )
        return
    for step in (-1, -0.5, 0.5, 1):
        quality = round(table.quality + step * table.margin, 6)
        if 0 < quality < 1:
            yield (
                f"a target of {quality:g}",
                task.model_copy(update={"target": table.model_copy(update={"quality": quality})}),
            )


def _other_answers(answers: Answers, task: Task) -> Iterator[tuple[str, Task, Answers]]:
    kind = task.task.kind
    if task.target.quality is None and kind != "generate":
        for metric in METRICS[kind]:
            if metric != task.metric:
                other = task.model_copy(update={"task": task.task.model_copy(update={"metric": metric})})
                yield f"scored by {metric}", other, {arm: _rescored(own, other) for arm, own in answers.items()}
    seeds = sorted({row.seed for own in answers.values() for row in own})
    for seed in seeds if len(seeds) > 1 else ():
        without = {arm: [row for row in own if row.seed != seed] or own for arm, own in answers.items()}
        yield f"without run {seed}", task, without
    sizes = Counter(row.group for row in next(iter(answers.values()), ()) if row.group is not None)
    if len(sizes) > 1:
        largest = max(sorted(sizes), key=lambda name: sizes[name])
        yield (
            f"without the group {largest}",
            task,
            {arm: [row for row in own if row.group != largest] for arm, own in answers.items()},
        )


def _rescored(answers: Sequence[Answer], task: Task) -> list[Answer]:
    if task.task.kind == "classify":
        return list(answers)  # macro-F1 and accuracy read the same answers
    return [
        replace(row, score=score_answer(task.metric, row.answer, row.reference, row.input, task.task.unknown))
        for row in answers
    ]


def _scored(arm: ArmResult, answers: Sequence[Answer], task: Task) -> ArmResult:
    return replace(arm, score=score_estimate(answers, task), score_floor=score_floor(answers, task))
