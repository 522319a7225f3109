"""Error analysis: counts of outcomes, confusions of labels, and the questions on which arms differ most."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from trimtab.base.records import Answer, Failure

AnswerOutcome = Literal["right", "wrong", "abstained_wrongly", "answered_wrongly"]
DISAGREEMENTS = 4
"""Most questions that `disagreements` returns."""


def failure_counts(answers: Sequence[Answer]) -> Counter[Failure]:
    """Return the number of answers by kind of failure; `none` counts those without one."""
    return Counter(answer.failure for answer in answers)


def failure_examples(
    by_arm: Mapping[str, Sequence[Answer]], kind: Failure, most: int = 3
) -> tuple[tuple[str, Answer], ...]:
    """Return up to `most` answers with this failure, each with its arm, of different questions and groups; the first
    arms' first."""
    found: list[tuple[str, Answer]] = []
    seen: set[str] = set()
    for arm, answers in by_arm.items():
        for answer in sorted(answers, key=lambda answer: (answer.score, answer.item_id)):
            topic = answer.group or answer.item_id
            if answer.failure == kind and topic not in seen and len(found) < most:
                seen.add(topic)
                found.append((arm, answer))
    return tuple(found)


def mistakes(answers: Sequence[Answer], most: int) -> tuple[tuple[str, str, int], ...]:
    """Return the most frequent confusions: right label, given label and count, the most frequent first."""
    wrong = Counter((one.reference[0], one.answer) for one in answers if one.score < 1.0 and one.reference)
    pairs = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:most]
    return tuple((right, said, times) for (right, said), times in pairs)


def disagreements(by_arm: Mapping[str, Sequence[Answer]], chosen: str | None) -> tuple[Mapping[str, Answer], ...]:
    """Return the questions with the widest spread of scores, with each arm's answer in its first seed.

    By turns some that `chosen` wins and some that it loses, the widest first, of each group of questions one.
    """
    if len(by_arm) < 2:
        return ()
    firsts = {arm: {answer.item_id: answer for answer in reversed(answers)} for arm, answers in by_arm.items()}
    won: list[Mapping[str, Answer]] = []
    lost: list[Mapping[str, Answer]] = []
    for item in sorted(set.intersection(*(set(items) for items in firsts.values()))):
        answers = {arm: items[item] for arm, items in firsts.items()}
        best = max(answer.score for answer in answers.values())
        own = answers[chosen].score if chosen in answers else best
        if _spread(answers) > 0:
            (won if own >= best else lost).append(answers)
    return _varied(won, lost)


def _spread(answers: Mapping[str, Answer]) -> float:
    scores = [answer.score for answer in answers.values()]
    return max(scores) - min(scores)


def _varied(
    won: Sequence[Mapping[str, Answer]], lost: Sequence[Mapping[str, Answer]]
) -> tuple[Mapping[str, Answer], ...]:
    """Alternate between the two lists, the widest spread first, one question of each group."""
    queues = [sorted(side, key=_spread, reverse=True) for side in (won, lost)]
    found: list[Mapping[str, Answer]] = []
    seen: set[str] = set()
    while len(found) < DISAGREEMENTS and any(queues):
        for queue in queues:
            while queue:
                one = queue.pop(0)
                first = next(iter(one.values()))
                topic = first.group or first.item_id
                if topic not in seen:
                    seen.add(topic)
                    found.append(one)
                    break
    return tuple(found[:DISAGREEMENTS])


def of_hundred(answers: Sequence[Answer]) -> Mapping[AnswerOutcome, int]:
    """Return outcomes per 100 answers, as whole numbers that add up to 100 (largest remainders first); empty for no
    answers."""
    counts = Counter(map(outcome, answers))
    shares = {kind: 100 * counts[kind] for kind in get_args(AnswerOutcome)}
    whole = {kind: share // len(answers) for kind, share in shares.items()} if answers else {}
    by_rest = sorted(whole, key=lambda kind: -(shares[kind] % len(answers)))
    for kind in by_rest[: 100 - sum(whole.values())]:
        whole[kind] += 1
    return whole


def outcome(answer: Answer) -> AnswerOutcome:
    """Return the outcome of an answer as the asker sees it; an undue abstention counts as one whatever caused it."""
    if answer.failure == "none":
        return "right"
    if answer.failure == "should_have_abstained":
        return "answered_wrongly"
    return "abstained_wrongly" if answer.abstained else "wrong"


def quartiles(answers: Sequence[Answer]) -> tuple[float, float, float]:
    """Return the quartiles of the answers' scores; raises ValueError for no answers."""
    scores = sorted(answer.score for answer in answers)
    if not scores:
        raise ValueError("no answers have no quartiles")
    lower, median, upper = (scores[math.ceil(share * len(scores)) - 1] for share in (0.25, 0.5, 0.75))
    return lower, median, upper
