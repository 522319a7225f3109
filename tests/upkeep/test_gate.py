"""The gate: passed only where everything is shown, failed where something is shown to be worse, and else nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_answers import made_answer
from made_studies import a_task

from trimtab.base.codec import from_plain, to_plain
from trimtab.base.records import Answer
from trimtab.base.results import ArmResult
from trimtab.base.task import Task
from trimtab.upkeep.gate import MOST_FORGOTTEN, candidate_gate, chance_to_pass, latency_held
from trimtab.upkeep.versions import Forgetting, GateRecord

HELD = Forgetting(passages=60, candidate=3.0, production=3.0, difference=0.0, low=-0.01, high=0.01)


@pytest.fixture
def task() -> Task:
    return a_task(margin=0.05)


def answers(name: str, scores: list[float]) -> list[Answer]:
    return [made_answer(f"{name}{number}", score) for number, score in enumerate(scores)]


def held(
    task: Task, old: tuple[list[float], list[float]], new: tuple[list[float], list[float]], **more: object
) -> GateRecord:
    ours, theirs = (answers("old", old[side]) + answers("new", new[side]) for side in (0, 1))
    given: dict[str, object] = {
        "new": {f"new{number}" for number in range(len(new[0]))},
        "outdated": (),
        "learnt": (),
        "task": task,
        "old_look": 1,
        "new_look": 1,
        "forgetting": HELD,
        "latency": None,
    }
    return candidate_gate(ours, theirs, **{**given, **more})  # type: ignore[arg-type]


SAME = ([1.0] * 150 + [0.0] * 50,) * 2
BETTER = ([1.0] * 20, [0.0] * 20)


def test_better_on_new_and_not_worse_on_old_is_a_pass(task: Task) -> None:
    found = held(task, SAME, BETTER)
    assert found.passed is True
    assert found.reasons == ()
    assert found.old_test is not None
    assert found.new_test is not None
    assert (found.old_test.questions, found.new_test.questions) == (200, 20)
    assert (found.old_test.claim, found.new_test.claim) == ("not worse", "better")
    assert found.new_test.difference == 1.0
    assert from_plain(GateRecord, to_plain(found)) == found


def test_not_shown_is_no_pass_and_no_failure(task: Task) -> None:
    few = held(task, SAME, ([1.0, 1.0], [0.0, 1.0]))
    assert few.passed is None
    assert few.reasons[0].startswith("it is not shown that the candidate is better: +0.500")
    none = held(task, SAME, ([], []))
    assert none.passed is None
    assert none.new_test is None
    assert "no test question came or changed" in none.reasons[0]
    old = held(task, (([1.0] * 20 + [0.0]), ([0.0] + [1.0] * 20)), BETTER)
    assert old.passed is None
    assert "at most 0.05 worse" in old.reasons[0]


def test_worse_on_old_questions_fails_however_good_it_is_on_new_ones(task: Task) -> None:
    found = held(task, ([1.0] * 120 + [0.0] * 80, [1.0] * 160 + [0.0] * 40), BETTER)
    assert found.passed is False
    assert "the candidate is worse: -0.200" in found.reasons[0]


def test_few_old_questions_are_left_to_people(task: Task) -> None:
    for count in (0, 19):
        found = held(task, ([1.0] * count, [1.0] * count), BETTER)
        assert found.passed is None
        assert f"{count} old test questions are left, and 20 are needed; decide by hand" in found.reasons[0]


def test_losses_within_the_margin_do_not_add_up_over_versions(task: Task) -> None:
    """Each version is a point behind the one before: within the margin of that, and shown to be behind the first."""

    def old(right: int) -> list[float]:
        return [1.0] * right + [0.0] * (300 - right)

    pair = (old(270), old(273))
    assert held(task, pair, BETTER).passed is True
    first = answers("old", old(282))
    found = held(task, pair, BETTER, first=first)
    assert found.passed is False
    assert "worse than the first version: -0.040" in found.reasons[0]
    assert found.first_test is not None
    assert held(task, pair, BETTER, first=answers("old", old(272))).passed is True
    gone = held(task, pair, BETTER, first=None)
    assert gone.passed is None
    assert "the first version's answers to the old questions are not here" in gone.reasons[0]


def test_the_chance_to_pass_grows_with_questions_and_gain_and_falls_with_looks() -> None:
    def chance(old: int = 400, new: int = 300, gain: float = 0.1, margin: float = 0.02, look: int = 1) -> float:
        return chance_to_pass(old, new, gain, margin, (1.0, 1.0), (look, look))

    assert chance(old=19) == chance(new=0) == 0
    assert 0.05 < chance() < 0.3  # ten points better, and still seldom let through
    assert chance() < chance(old=4_000) < chance(old=4_000, new=3_000) <= 1
    assert chance(gain=0.05) < chance() < chance(margin=0.1)
    assert chance(look=3) < chance()


def test_outdated_questions_say_nothing(task: Task) -> None:
    """A question whose right answer went with the documents is answered wrongly by whoever reads the new ones."""
    old = ([0.0] * 40 + [1.0] * 160, [1.0] * 200)
    assert held(task, old, BETTER).passed is False
    found = held(task, old, BETTER, outdated=[f"old{number}" for number in range(40)])
    assert found.passed is True
    assert found.old_test is not None
    assert found.old_test.questions == 160


def test_questions_that_production_learnt_say_nothing_and_some_others_have_to_be_left(task: Task) -> None:
    old = ([0.0] * 40 + [1.0] * 160, [1.0] * 200)
    found = held(task, old, BETTER, learnt=[f"old{number}" for number in range(40)])
    assert found.passed is True
    none = held(task, SAME, BETTER, learnt=[f"old{number}" for number in range(200)])
    assert none.passed is None
    assert none.old_test is None
    assert "that production was not made from" in none.reasons[0]


def test_each_look_at_the_same_questions_is_tested_at_a_lower_level(task: Task) -> None:
    new = ([1.0] * 6 + [0.0], [0.0] * 6 + [0.0])
    assert held(task, SAME, new, new_look=1).passed is True
    later = held(task, SAME, new, new_look=3)
    assert later.passed is None
    assert later.new_test is not None
    assert later.new_test.level < 0.05 / 9


@pytest.mark.parametrize(
    ("low", "high", "passed"), [(-0.02, 0.09, True), (0.05, 0.15, None), (MOST_FORGOTTEN + 0.01, 0.3, False)]
)
def test_general_text_must_not_be_forgotten(task: Task, low: float, high: float, passed: bool | None) -> None:
    found = held(task, SAME, BETTER, forgetting=replace(HELD, difference=(low + high) / 2, low=low, high=high))
    assert found.passed is passed
    assert (found.reasons == ()) is (passed is True)


def arm(p95: float | None, high: float | None) -> ArmResult:
    return ArmResult(arm="rag", status="done", latency_p95_ms=p95, latency_p95_high_ms=high)


def test_latency_is_held_to_the_limit_that_is_stated_and_else_to_productions(task: Task) -> None:
    measured = arm(200, 300), arm(150, 160)
    fits = latency_held(*measured, [[0.14] * 9], [[0.1] * 9], task)
    assert fits is not None
    assert (fits.percentile, round(fits.limit), fits.fits) == (50, 150, True)
    slow = latency_held(*measured, [[0.151] * 9], [[0.1] * 9], task)
    assert held(task, SAME, BETTER, latency=slow).passed is False
    barely = latency_held(*measured, [[0.02] * 9], [[0.001] * 9], task)
    assert held(task, SAME, BETTER, latency=barely).passed is True
    disturbed = latency_held(*measured, [[0.9] * 9, [0.12] * 9], [[0.1] * 9, [0.1] * 9], task)
    assert held(task, SAME, BETTER, latency=disturbed).passed is True
    stated = task.model_copy(update={"target": task.target.model_copy(update={"latency_p95_ms": 250.0})})
    late = latency_held(*measured, [[0.1]], [[0.1]], stated)
    assert late is not None
    assert (late.percentile, late.limit, late.fits) == (95, 250.0, False)
    unknown = latency_held(arm(None, None), arm(150, 160), [[0.1]], [[0.1]], stated)
    assert held(task, SAME, BETTER, latency=unknown).passed is None


def test_a_candidate_that_is_no_better_passes_seldom_and_one_that_is_worse_hardly_ever(task: Task) -> None:
    """The rate of false passes over simulated refreshes is at most the level, with its simulation error."""
    draw = np.random.default_rng(0)
    passes = {"equal": 0, "worse": 0}
    for _ in range(200):
        for kind, loss in (("equal", 0.0), ("worse", 0.05)):
            theirs = (draw.random(300) < 0.8).astype(float)
            ours = np.where(draw.random(300) < 0.1, (draw.random(300) < 0.8 - 10 * loss), theirs).astype(float)
            new = (
                [(draw.random(40) < p).astype(float).tolist() for p in (0.9, 0.5)]
                if kind == "worse"
                else [(draw.random(40) < 0.6).astype(float).tolist() for _ in range(2)]
            )
            found = held(task, (ours.tolist(), theirs.tolist()), (new[0], new[1]))
            passes[kind] += found.passed is True
    assert passes["equal"] <= 200 * 0.05 + 6
    assert passes["worse"] <= 200 * 0.05 + 6


def test_an_update_of_the_index_need_not_be_better_and_must_not_be_worse(task: Task) -> None:
    alike = held(task, SAME, ([], []), of_index=True, forgetting=None)
    assert alike.passed is True
    first = answers("old", [1.0] * 200)  # which answered more of them, from the documents of its time
    assert held(task, SAME, ([], []), of_index=True, forgetting=None, first=first[:20]).passed is True
    worse = held(task, SAME, ([0.0] * 20, [1.0] * 20), of_index=True, forgetting=None)
    assert worse.passed is False
    assert worse.reasons[0].startswith("the candidate is worse: -1.000")
    few = held(task, ([1.0] * 30,) * 2, ([], []), of_index=True, forgetting=None)
    assert few.passed is None
