"""Compares an arm's score on the newest half of the test questions with that on the earlier half."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trimtab.base.records import Answer
from trimtab.base.results import OverTime
from trimtab.base.task import Task
from trimtab.base.times import moment
from trimtab.measurement.figures import score_estimate

LEAST = 10  # questions of each half


def newest_against_earlier(arm: str, answers: Sequence[Answer], task: Task) -> OverTime | None:
    """Return an arm's scores on both halves and their difference with its 95% interval; None without times, or with too
    few questions.

    The halves are cut between two times, and a group goes by its newest question, so that no group stands in both.
    The interval is made of those of the two scores (Newcombe 1998, method 10; Zou and Donner 2008).
    """
    if not answers or any(one.time is None for one in answers):
        return None
    newest: dict[str, float] = {}
    for one in answers:
        newest[_unit(one)] = max(moment(one.time or ""), newest.get(_unit(one), -math.inf))
    times = sorted(newest[_unit(one)] for one in answers)
    cuts = [place for place in range(1, len(times)) if times[place] > times[place - 1]]
    cut = min(cuts, key=lambda place: abs(2 * place - len(times)), default=0)
    halves: list[list[Answer]] = [[], []]
    for one in answers:
        halves[newest[_unit(one)] >= times[cut]].append(one)
    if any(len({one.item_id for one in half}) < LEAST for half in halves):
        return None
    earlier, new = (score_estimate(half, task) for half in halves)
    difference = new.value - earlier.value
    return OverTime(
        arm=arm,
        since=min((one.time or "" for one in halves[1]), key=moment),
        newest=new,
        earlier=earlier,
        difference=difference,
        low=difference - math.hypot(new.value - new.low, earlier.high - earlier.value),
        high=difference + math.hypot(new.high - new.value, earlier.value - earlier.low),
    )


def _unit(answer: Answer) -> str:
    return f"row:{answer.item_id}" if answer.group is None else f"group:{answer.group}"
