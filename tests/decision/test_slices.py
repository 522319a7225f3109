"""A winner that loses a part of the questions says so; parts that differ by chance say nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from made_studies import a_task
from test_robustness import answer

from trimtab.base.records import Answer
from trimtab.decision.slices import slices_sentence


def arm(shares: dict[str, float], seed: int, each: int = 60) -> list[Answer]:
    draw, rows = np.random.default_rng(seed), []
    for place, (name, share) in enumerate(shares.items()):
        for number in range(each):
            right = float(draw.random() < share)
            rows.append(replace(answer(place * each + number, "Ada", score=right), slice=name))
    return rows


def test_a_slice_on_which_another_arm_is_better_is_named() -> None:
    answers = {"prompt": arm({"rare": 0.3, "usual": 0.99}, 0), "lora": arm({"rare": 0.95, "usual": 0.5}, 1)}
    said = slices_sentence("prompt", answers, a_task(None), 0.05)
    assert "lora on rare" in said
    assert "usual" not in said


def test_equal_arms_are_rarely_told_apart_on_any_slice() -> None:
    shares = {f"slice{n}": 0.7 for n in range(6)}
    told = [
        slices_sentence(
            "prompt", {"prompt": arm(shares, n), "lora": arm(shares, 1000 + n)}, a_task(None, margin=0.0), 0.05
        )
        for n in range(60)
    ]
    assert sum(said.startswith("On some slices") for said in told) <= 6
    none = (
        "On none of the 6 slices of the questions that were tested is another one shown to be better by more than 0 "
        "of 100."
    )
    assert none in told


def test_small_slices_and_no_choice_say_nothing() -> None:
    answers = {"prompt": arm({"rare": 0.3}, 0, each=9), "lora": arm({"rare": 0.9}, 1, each=9)}
    assert slices_sentence("prompt", answers, a_task(None), 0.05) == ""
    assert slices_sentence(None, answers, a_task(None), 0.05) == ""
