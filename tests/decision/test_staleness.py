"""What changing facts ask of an arm is always told: how often, at which cost, and when reading costs less."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest
from made_studies import a_task, an_arm, evidence

from trimtab.decision.staleness import longest_period_sentence, staleness_sentence, training_due

SLOW = {"share": 0.3, "per_month": 0.2, "lead_days": 7}


def told(name: str, score: float = 0.95, quality: float | None = 0.85, change: dict[str, Any] | None = None) -> str:
    task = a_task(quality, change=SLOW if change is None else change)
    arms = [an_arm(one, score, task, score_floor=score - 0.03) for one in ("lora", "rag", "prompt")]
    study = evidence(arms, task)
    return staleness_sentence(study, next(arm for arm in study.done if arm.arm == name))


def test_an_arm_in_whose_weights_the_facts_are_is_told_how_often_and_how_dear() -> None:
    said = told("lora")
    found = re.search(
        r"again every ([\d.]+) (months|days), (\d+) times in 12 months, at ([\d.]+) USD each, (\d+)% of", said
    )
    assert found is not None, said
    assert "Reading the documents instead, " in said
    stricter = re.search(r"(\d+) times", told("lora", quality=0.9))
    assert stricter is not None
    assert int(stricter[1]) > int(found[3])


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("rag", {}, "so its index is updated and nothing is trained again, at "),
        ("prompt", {}, "answers from what its model knew before"),
        ("lora", {"quality": None}, "state target.quality"),
        ("lora", {"change": {"share": 0.01, "per_month": 0.2, "lead_days": 7}}, "holds the target without training"),
        ("lora", {"change": {"share": 0.9, "per_month": 30.0, "lead_days": 20}}, "not sure to hold the target, even"),
    ],
)
def test_there_is_a_line_for_every_kind_of_arm(name: str, given: dict[str, Any], words: str) -> None:
    said = told(name, **given)
    assert said.startswith("Facts change")
    assert words in said


def test_without_facts_that_change_nothing_is_said() -> None:
    task = a_task()
    study = evidence([an_arm("lora", 0.95, task)], task)
    assert staleness_sentence(study, study.done[0]) == ""


def test_before_anything_is_measured_the_longest_period_is_told() -> None:
    assert longest_period_sentence(a_task()) == ""
    assert "for" in longest_period_sentence(a_task(0.85, change=SLOW))
    assert "so few" in longest_period_sentence(a_task(0.5, change=SLOW))
    assert "too fast" in longest_period_sentence(a_task(0.99, change={"share": 1.0, "per_month": 30.0, "lead_days": 9}))
    assert "state target.quality" in longest_period_sentence(a_task(None, change=SLOW))


def test_a_version_is_due_sooner_the_stricter_the_target() -> None:
    made, low = date(2026, 1, 1), 0.95
    due = [training_due(low, made, a_task(quality, change=SLOW)) for quality in (0.8, 0.85, 0.9)]
    days = [day for day in due if day is not None]
    assert len(days) == 3
    assert sorted(days, reverse=True) == days
    assert training_due(low, made, a_task(0.96, change=SLOW)) == made
    assert training_due(low, made, a_task(0.5, change=SLOW)) is None
    assert training_due(low, made, a_task()) is None
