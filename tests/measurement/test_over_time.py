"""The newer half of the test questions against the older half."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from made_answers import made_answer

from trimtab.base.records import Answer
from trimtab.base.task import Task
from trimtab.decision.caveats import over_time_sentence
from trimtab.decision.summary import way
from trimtab.measurement.figures import score_estimate
from trimtab.measurement.over_time import newest_against_earlier, stretches_of_time, with_stretches

TASK = Task.model_validate(
    {"task": {"name": "t", "kind": "answer", "metric": "exact_match"}, "data": {"examples": ["rows.jsonl"]}}
)


def timed(shares: list[float], each: int = 60) -> list[Answer]:
    """Right answers by year: these shares of `each`."""
    return [
        made_answer(f"{year}-{n:03}", n < share * each, time=str(2020 + year))
        for year, share in enumerate(shares)
        for n in range(each)
    ]


def test_the_halves_are_cut_between_two_times() -> None:
    found = newest_against_earlier("rag", timed([0.9, 0.9, 0.6]), TASK)
    assert found is not None
    assert found.since == "2021"  # 60 and 120, or 120 and 60: the first of equals
    assert (found.earlier.n, found.newest.n) == (60, 120)
    assert found.difference == found.newest.value - found.earlier.value


def test_a_fall_is_shown_and_said() -> None:
    found = newest_against_earlier("rag", timed([0.9, 0.6]), TASK)
    assert found is not None
    assert found.high < 0
    assert f"{way('rag')} scores 0.600, on the older half 0.900" in over_time_sentence(found)
    assert "shown to get worse with time" in over_time_sentence(found)


def test_the_interval_is_newcombes_and_holds_what_does_not_change() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(300):
        rows = [made_answer(f"{n:03}", random.random() < 0.8, time=f"2026-01-{1 + n // 10:02}") for n in range(120)]
        found = newest_against_earlier("rag", rows, TASK)
        assert found is not None
        held += found.low <= 0 <= found.high
    assert 275 <= held <= 297


def test_incidents_that_last_are_no_change_with_time() -> None:
    """A quarter of the time answers are worse, ten in a row or more."""
    random, held, runs = np.random.default_rng(1), 0, 40
    for _ in range(runs):
        bad = np.repeat(random.random(40) < 0.25, 10)
        rows = [
            made_answer(
                f"{n:03}", random.random() < (0.3 if bad[n] else 0.9), time=f"2026-{1 + n // 28:02}-{1 + n % 28:02}"
            )
            for n in range(240)
        ]
        found = newest_against_earlier("rag", rows, TASK)
        assert found is not None
        held += found.low <= 0 <= found.high
        if found.stretches:
            assert "independent stretches of time" in over_time_sentence(found)
    assert held >= runs - 6  # 95%, less three standard errors


def test_a_group_stands_in_one_half() -> None:
    rows = timed([0.9, 0.6], each=40)
    rows = [replace(row, group=row.item_id[-3:-1]) for row in rows]  # each of both years
    assert newest_against_earlier("rag", rows, TASK) is None


def test_nothing_is_said_without_times_or_of_few_questions() -> None:
    rows = timed([0.9, 0.6], each=9)
    assert newest_against_earlier("rag", rows, TASK) is None
    assert newest_against_earlier("rag", [replace(row, time=None) for row in timed([0.9, 0.6])], TASK) is None
    assert over_time_sentence(None) == ""


def period(random: np.random.Generator, n: int, lasting: int) -> list[Answer]:
    """A question an hour; a quarter of the time is an incident, of so many questions on average: .3 right, else .9."""
    is_bad, rows = random.random() < 0.25, []
    for place in range(n):
        is_bad = random.random() >= 1 / lasting if is_bad else random.random() < 1 / (3 * lasting)
        when = f"2026-{1 + place // 600:02}-{1 + place // 24 % 25:02}T{place % 24:02}:00:00"
        rows.append(made_answer(f"{place:04}", random.random() < (0.3 if is_bad else 0.9), time=when))
    return rows


def test_where_incidents_last_stretches_of_time_are_the_unit_of_the_score() -> None:
    """The score of a long time, .75, is held by 67% of intervals that count questions; by at least 85% of these."""
    random = np.random.default_rng(0)
    held = plainly = 0
    for _ in range(60):
        rows = period(random, 400, 10)
        for own, counts in ((rows, False), (with_stretches(rows, stretches_of_time({"rag": rows})), True)):
            score = score_estimate(own, TASK)
            within = score.low <= 0.75 <= score.high
            held, plainly = held + (within and counts), plainly + (within and not counts)
    assert held >= 0.85 * 60 > plainly


def test_without_times_or_likeness_in_time_questions_stay_the_unit() -> None:
    random = np.random.default_rng(1)
    rows = [made_answer(f"{n:03}", random.random() < 0.8, time=f"2026-01-{1 + n // 10:02}") for n in range(200)]
    assert stretches_of_time({"rag": rows}) == {}
    assert stretches_of_time({"rag": [replace(rows[0], time=None), *rows[1:]]}) == {}
    assert stretches_of_time({}) == {}
    assert with_stretches(rows, {}) == rows


def test_a_stretch_is_whole_of_all_arms_and_groups_stay_in_one() -> None:
    rows = [replace(row, group=f"user-{n // 2}") for n, row in enumerate(period(np.random.default_rng(3), 400, 20))]
    calm = [replace(row, score=1.0) for row in rows]
    stretches = stretches_of_time({"calm": calm, "rag": rows})
    assert set(stretches) == {row.item_id for row in rows}
    assert 5 <= len(set(stretches.values())) < 100
    assert all(stretches[a.item_id] == stretches[b.item_id] for a, b in zip(rows[::2], rows[1::2], strict=True))
