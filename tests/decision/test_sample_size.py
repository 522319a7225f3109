"""How many more test questions are asked for: enough for four studies in five, the same each time, and more where
less is seen."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from made_answers import made_answer
from made_studies import a_task, costing

from trimtab.base.grammar import arm_from_name
from trimtab.decision import sample_size
from trimtab.decision.choice import shown_arm
from trimtab.decision.evidence import Evidence, evidence_of
from trimtab.decision.sample_size import DRAWS, questions_needed
from trimtab.measurement.replicates import Assumed

NAMES = ("prompt", "rag", "lora", "lora+rag")


def a_study(
    *shares: float, quality: float | None = None, n: int = 200, group: int = 1, look: int | None = 1
) -> Evidence:
    """Arms from light to heavy whose share of right answers is just this; `group`: questions of a group, all right
    or all wrong."""
    task, random = a_task(quality, margin=0.05), np.random.default_rng(1)
    answers = {}
    for name, share in zip(NAMES, shares, strict=False):
        units = n // group
        right = np.repeat(random.permutation(np.arange(units) < round(share * units)), group)
        answers[name] = [
            made_answer(f"{item:04}", score, group=str(item // group) if group > 1 else None)
            for item, score in enumerate(right)
        ]
    results = [costing(name, 2.0**place, task) for place, name in enumerate(answers)]
    arms = [arm for name in answers if (arm := arm_from_name(name)) is not None]
    groups = n // group if group > 1 else None
    return evidence_of(results, answers, arms, task, {}, groups=groups, look=look)


CASES: dict[str, tuple[tuple[float, ...], dict[str, Any]]] = {
    "a target, two rivals": ((0.7, 0.8, 0.9), {"quality": 0.85}),
    "a target, in groups": ((0.7, 0.92), {"quality": 0.85, "group": 2}),
    "a lighter arm beyond the margin": ((0.74, 0.6, 0.85), {}),
    "three lighter arms beyond the margin": ((0.74, 0.72, 0.73, 0.86), {}),
    "a heavier arm no better": ((0.8, 0.81), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_so_many_questions_show_an_arm_in_four_of_five_studies(name: str) -> None:
    shares, known = CASES[name]
    study = a_study(*shares, **known)
    assert shown_arm(study) is None
    more = questions_needed(study)
    assert more is not None
    assert more == questions_needed(a_study(*shares, **known)), "the same study, the same number"
    others = range(10_000, 10_400)  # not those that the number was found by
    shown = sum(shown_arm(study.resampled(200 + more, draw)) is not None for draw in others)
    half = sum(shown_arm(study.resampled(200 + more // 2, draw)) is not None for draw in others)
    assert 0.74 <= shown / 400 <= 0.9
    assert half < shown


def test_more_are_needed_the_less_is_seen_and_the_stricter_the_look() -> None:
    gaps = [questions_needed(a_study(0.7, seen, quality=0.85)) for seen in (0.9, 0.89, 0.88)]
    assert gaps == sorted(gaps, key=lambda one: one or 0)
    assert len(set(gaps)) == 3
    looks = [questions_needed(a_study(0.7, 0.9, quality=0.85, look=look)) for look in (None, 1, 2)]
    assert looks == sorted(looks, key=lambda one: one or 0)
    assert len(set(looks)) == 3


def test_a_true_score_that_is_assumed_takes_the_place_of_the_measured_one() -> None:
    below = a_study(0.7, 0.84, quality=0.85)
    assert questions_needed(below) is None
    hoped, better = (questions_needed(below, Assumed("rag", score)) for score in (0.88, 0.9))
    assert hoped is not None
    assert better is not None
    assert better < hoped


def test_the_search_draws_a_bounded_number_of_studies(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: Counter[int] = Counter()

    def counted(study: Evidence) -> Any:
        sizes[study.results[0].score.n if study.results[0].score else 0] += 1
        return shown_arm(study)

    monkeypatch.setattr(sample_size, "shown_arm", counted)
    assert questions_needed(a_study(0.78, 0.85)) is not None
    assert max(sizes.values()) <= DRAWS
    assert len(sizes) <= 20
    sizes.clear()
    assert questions_needed(a_study(0.8, 0.85)) is None, "at the margin itself"
    assert sum(sizes.values()) < 20 * DRAWS
