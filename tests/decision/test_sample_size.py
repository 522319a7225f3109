"""How many more test questions are asked for: enough for four studies in five, the same each time, and more where
less is seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from made_answers import made_answer
from made_studies import a_task, costing

from trimtab.base.grammar import arm_from_name
from trimtab.decision import sample_size
from trimtab.decision.choice import shown_arm
from trimtab.decision.evidence import Evidence, evidence_of
from trimtab.decision.sample_size import DRAWS, questions_needed, questions_to_judge
from trimtab.measurement.audit import ENOUGH, Audited
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


def an_audit(people: dict[str, np.ndarray[Any, Any]], quality: float | None) -> tuple[Any, Any]:
    """Two arms that people grade so, and a judge that errs evenly: what gives the evidence of an audit of some of the
    questions, and the audit."""
    random, task = np.random.default_rng(0), a_task(quality, margin=0.05)
    task = task.model_copy(update={"task": task.task.model_copy(update={"kind": "generate", "metric": "judged"})})
    answers = {
        arm: [
            made_answer(f"{item:04}", float(np.clip(score + random.choice((-0.5, 0, 0, 0.5)), 0, 1)), answer=arm)
            for item, score in enumerate(scores)
        ]
        for arm, scores in people.items()
    }
    results = [costing(name, 2.0**place, task) for place, name in enumerate(answers)]
    arms = [arm for name in answers if (arm := arm_from_name(name)) is not None]

    plain: tuple[Any, Any] = ({}, {})

    def evidence(audited: Audited) -> Evidence:
        return evidence_of(results, answers, arms, task, {}, audited=audited, for_choice=True)

    def audited_of(items: Iterable[int]) -> Audited:
        said = {(f"{item:04}", arm): float(scores[item]) for item in items for arm, scores in people.items()}
        found = Audited(answers, said, task, looks=0)
        found._plain_scores, found._plain_gaps = plain  # the judge's figures are the same for all
        return found

    return evidence, audited_of


@pytest.mark.parametrize(("level", "quality"), [(0.62, None), (0.56, 0.5)])
def test_so_many_judged_questions_show_an_arm_in_four_of_five_audits(level: float, quality: float | None) -> None:
    """And half as many do so more seldom, where the figures of today are those that all questions give."""
    random, count = np.random.default_rng(3), 600
    hard = random.normal(size=count)
    people = {
        arm: np.clip(np.round(2 * (mean + 0.25 * hard + 0.25 * random.normal(size=count))) / 2, 0, 1)
        for arm, mean in (("prompt", 0.5), ("rag", level))
    }
    evidence, audited_of = an_audit(people, quality)
    whole = audited_of(range(count))
    plan = next(number for number in range(ENOUGH, count, 10) if shown_arm(evidence(whole.planned(number))))

    def share(judged: int) -> float:
        audits = [audited_of(random.permutation(count)[:judged]) for _ in range(40)]
        return float(np.mean([shown_arm(evidence(one)) is not None for one in audits]))

    assert 0.65 <= share(plan) <= 0.95
    assert share(plan // 2) < share(plan)
    assert questions_to_judge(whole, evidence) == count
    found = questions_to_judge(audited_of(range(200)), evidence)
    assert found is None or found >= 200


def test_before_anything_is_judged_the_number_is_a_guess_and_none_where_not_even_all_would_do() -> None:
    random = np.random.default_rng(4)
    people = {"prompt": np.full(300, 0.5), "rag": np.where(random.random(300) < 0.4, 1.0, 0.5)}
    evidence, audited_of = an_audit(people, None)
    guess = questions_to_judge(audited_of(()), evidence)
    assert guess is not None
    assert ENOUGH <= guess < 300
    alike = {arm: random.choice((0.0, 0.5, 1.0), size=100) for arm in people}
    evidence, audited_of = an_audit(alike, None)
    assert questions_to_judge(audited_of(range(60)), evidence) is None
