"""Compares an arm's score on the newest half of the test questions with that on the earlier half."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from zlib import crc32

import numpy as np

from trimtab.base.records import Answer
from trimtab.base.results import OverTime
from trimtab.base.task import Task
from trimtab.base.times import moment
from trimtab.measurement.figures import score_estimate
from trimtab.measurement.units import FEWEST_BLOCKS, block_length, unit_codes

LEAST = 10  # questions of each half


def newest_against_earlier(arm: str, answers: Sequence[Answer], task: Task) -> OverTime | None:
    """Return an arm's scores on both halves and their difference with its 95% interval; None without times, or with too
    few questions.

    The halves are cut between two times, and a group goes by its newest question, so that no group stands in both.
    The interval is made of those of the two scores (Newcombe 1998, method 10; Zou and Donner 2008). Where questions
    near in time do alike, stretches of time count as groups.
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
    held, stretches = _held_together(halves, newest)
    earlier, new = (score_estimate(half, task) for half in held)
    difference = new.value - earlier.value
    return OverTime(
        arm=arm,
        since=min((one.time or "" for one in halves[1]), key=moment),
        newest=new,
        earlier=earlier,
        difference=difference,
        low=difference - math.hypot(new.value - new.low, earlier.high - earlier.value),
        high=difference + math.hypot(new.high - new.value, earlier.value - earlier.low),
        stretches=stretches,
    )


def stretches_of_time(answers: Mapping[str, Sequence[Answer]]) -> dict[str, str]:
    """Return the stretch of time of each question, by its id, where questions near in time do alike for any arm; empty
    where they do not, or where times are missing.

    Rows with times are split by time, so a test set is one period: an incident that lasts is one event of it, however
    many questions it touches. `answers`: of arms, to the same questions. Groups stay whole. Where no stretch is long
    enough to be independent of its neighbours, there are FEWEST_BLOCKS - 1.
    """
    first = next(iter(answers.values()), ())
    if not first or any(one.time is None for one in first):
        return {}
    newest: dict[str, float] = {}
    for one in first:
        newest[_unit(one)] = max(moment(one.time or ""), newest.get(_unit(one), -math.inf))
    ids = {one.item_id: _unit(one) for one in first}
    # of one time in an order that no file chose
    ordered = sorted(ids, key=lambda item: (newest[ids[item]], crc32(ids[item].encode())))
    place = {item: number for number, item in enumerate(ordered)}
    features = []
    for own in answers.values():
        total, count = np.zeros(len(ordered)), np.zeros(len(ordered))
        for one in own:
            total[place[one.item_id]] += one.score
            count[place[one.item_id]] += 1
        mean = total / np.maximum(count, 1)
        features.append(mean - mean.mean())
    names = [ids[item] for item in ordered]
    length = block_length(features, names)
    if length == 1:
        return {}
    codes = unit_codes(names, math.ceil(len(set(names)) / (FEWEST_BLOCKS - 1)) if length is None else length)
    return {item: f"stretch:{code}" for item, code in zip(ordered, codes, strict=True)}


def with_stretches(answers: Sequence[Answer], stretches: Mapping[str, str]) -> list[Answer]:
    """Return answers whose groups are stretches of time, where there are any."""
    return [replace(one, group=stretches.get(one.item_id, one.group)) for one in answers]


def _held_together(halves: Sequence[Sequence[Answer]], newest: Mapping[str, float]) -> tuple[list[list[Answer]], int]:
    """Return the halves with stretches of time as groups where questions near in time do alike (an incident that
    lasts), and the number of stretches; 0 where they do not.

    What is compared are scores less the mean of their half, so that a change between the halves is none.
    """
    # of one time in an order that no file chose
    ordered = [sorted(half, key=lambda one: (newest[_unit(one)], crc32(_unit(one).encode()))) for half in halves]
    scores = [np.array([one.score for one in half]) for half in ordered]
    residuals = np.concatenate([own - own.mean() for own in scores])
    length = block_length([residuals], [_unit(one) for half in ordered for one in half])
    if length == 1:
        return [list(half) for half in halves], 0
    found, stretches = [], 0
    for half in ordered:
        names = [_unit(one) for one in half]
        codes = unit_codes(names, len(names) if length is None else length)
        found.append([replace(one, group=f"stretch:{code}") for one, code in zip(half, codes, strict=True)])
        stretches += int(codes.max()) + 1
    return found, stretches


def _unit(answer: Answer) -> str:
    return f"row:{answer.item_id}" if answer.group is None else f"group:{answer.group}"
