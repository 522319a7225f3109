"""What the report works out from the answers: the interaction of tuning and context, failures by kind, disagreements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.base.records import Answer, Estimate
from trimtab.reports.folder import Row, items_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Factorial:
    """Two by two: base or tuned weights, instruction alone or more context; every effect is in the mean item score.

    `tuning` and `context` are effects alone (against base weights with the instruction), `together` that of both, and
    `interaction` = blend − tuned − context + base: what both give beyond the sum of the two. `groups` is the number of
    groups of questions that the intervals were worked out by, None where no group repeats.
    """

    base: Row
    tuned: Row
    context: Row
    blend: Row
    tuning: Estimate
    contextual: Estimate
    together: Estimate
    interaction: Estimate
    groups: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """One question and the answer of each arm to it (the first seed's)."""

    answers: tuple[tuple[Row, Answer], ...]
    spread: float


def factorials(rows: Sequence[Row]) -> list[Factorial]:
    """Every two by two that the finished arms fill; arms without stored answers take no part."""
    table = {(row.arm.weights, row.arm.stages, row.arm.context): row for row in rows if row.answers}
    base = table.get(("base", (), "prompt"))
    if base is None:
        return []
    found = []
    for (weights, stages, context), blend in table.items():
        tuned, contextual = table.get((weights, stages, "prompt")), table.get(("base", (), context))
        if weights in ("base", "linear", "api") or context == "prompt" or tuned is None or contextual is None:
            continue
        result = _factorial(base, tuned, contextual, blend)
        if result is not None:
            found.append(result)
    return found


def _factorial(base: Row, tuned: Row, context: Row, blend: Row) -> Factorial | None:
    """Effects over the items that all four arms answered: the mean contrast with its t interval, by group where they repeat."""
    import numpy as np
    from scipy import stats

    arms = [items_of(row.answers) for row in (base, tuned, context, blend)]
    shared = sorted(set.intersection(*(set(items) for items in arms)))
    codes = _codes([arms[0][item][0].group for item in shared])
    units = max(codes, default=0) + 1
    if units < 2:
        return None
    # shapes: scores [4 arms, items], contrast [items], sums [units]
    scores = np.array([[np.mean([answer.score for answer in items[item]]) for item in shared] for items in arms])
    quantile = float(stats.t.ppf(0.975, units - 1))

    def effect(*signs: int) -> Estimate:
        contrast = np.array(signs) @ scores
        mean = float(contrast.mean())
        sums = np.bincount(codes, contrast - mean, minlength=units)
        half = quantile * float(np.sqrt(units / (units - 1) * (sums**2).sum())) / len(shared)
        return Estimate(value=mean, low=mean - half, high=mean + half, n=len(shared))

    return Factorial(
        base=base,
        tuned=tuned,
        context=context,
        blend=blend,
        tuning=effect(-1, 1, 0, 0),
        contextual=effect(-1, 0, 1, 0),
        together=effect(-1, 0, 0, 1),
        interaction=effect(1, -1, -1, 1),
        groups=units if units < len(shared) else None,
    )


def _codes(groups: Sequence[str | None]) -> list[int]:
    """The group of each item as a number from 0; an item without a group is one of its own."""
    names = [(index, "") if group is None else (-1, group) for index, group in enumerate(groups)]
    order = {name: code for code, name in enumerate(dict.fromkeys(names))}
    return [order[name] for name in names]


def group_count(answers: Sequence[Answer]) -> int | None:
    """How many groups the answered questions form; None where no group repeats."""
    groups = [answers[0].group for answers in items_of(answers).values()]
    count = max(_codes(groups), default=0) + 1
    return count if count < len(groups) else None


def failure_counts(answers: Sequence[Answer]) -> dict[str, int]:
    """How many answers failed in each way; `none` counts those that did not."""
    counts: dict[str, int] = {}
    for answer in answers:
        counts[answer.failure] = counts.get(answer.failure, 0) + 1
    return counts


def failure_examples(rows: Sequence[Row], kind: str, most: int = 3) -> list[tuple[Row, Answer]]:
    """Up to `most` answers that failed so, of different questions and groups, the first rows' first."""
    found: list[tuple[Row, Answer]] = []
    seen: set[str] = set()
    for row in rows:
        for answer in sorted(row.answers, key=lambda answer: (answer.score, answer.item_id)):
            topic = answer.group or answer.item_id
            if answer.failure == kind and topic not in seen and len(found) < most:
                seen.add(topic)
                found.append((row, answer))
    return found


def disagreements(rows: Sequence[Row], chosen: str | None, most: int = 4) -> list[Disagreement]:
    """The questions on which the arms' scores lie furthest apart: by turns some that `chosen` wins and some that it loses."""
    items = {row.name: items_of(row.answers) for row in rows if row.answers}
    with_answers = [row for row in rows if row.name in items]
    if len(with_answers) < 2:
        return []
    shared = sorted(set.intersection(*(set(answers) for answers in items.values())))
    won: list[Disagreement] = []
    lost: list[Disagreement] = []
    for item in shared:
        answers = tuple((row, items[row.name][item][0]) for row in with_answers)
        scores = [answer.score for _, answer in answers]
        own = next((answer.score for row, answer in answers if row.name == chosen), max(scores))
        if max(scores) > min(scores):
            side = won if own >= max(scores) else lost
            side.append(Disagreement(answers=answers, spread=max(scores) - min(scores)))
    return _varied(won, lost, most)


def _varied(won: list[Disagreement], lost: list[Disagreement], most: int) -> list[Disagreement]:
    """Turns between the two lists, the widest spread first, one question of each group."""
    queues = [sorted(side, key=lambda one: -one.spread) for side in (won, lost)]
    found: list[Disagreement] = []
    seen: set[str] = set()
    while len(found) < most and any(queues):
        for queue in queues:
            while queue:
                one = queue.pop(0)
                first = one.answers[0][1]
                topic = first.group or first.item_id
                if topic not in seen:
                    seen.add(topic)
                    found.append(one)
                    break
    return found[:most]
