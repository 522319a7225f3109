"""Answers in, the decision out: the corrections of a whole study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from made_answers import made_answer
from made_studies import a_task, costing

from trimtab.base.grammar import arm_from_name
from trimtab.base.records import Answer
from trimtab.base.results import Estimate
from trimtab.base.task import Task
from trimtab.decision.evidence import Evidence, evidence_of, scored_again
from trimtab.decision.pairs import comparisons_among
from trimtab.decision.verdict import decide
from trimtab.measurement.figures import score_estimate
from trimtab.measurement.statistics import look_level
from trimtab.studies.decide import with_labels

NAMES = ("prompt", "few-shot", "lora")


def answers_of(name: str, scores: np.ndarray) -> list[Answer]:
    return [made_answer(f"{item:03}", score, answer=name) for item, score in enumerate(scores)]


def test_comparisons_are_corrected_over_all_pairs_as_the_best_is_picked_after_looking() -> None:
    """Of three arms two comparisons are listed, and the third pair counts in the correction."""
    task, draw = a_task(None), np.random.default_rng(0)
    answers = {
        name: answers_of(name, draw.random(80) < share) for name, share in zip(NAMES, (0.6, 0.75, 0.62), strict=True)
    }
    arms = [arm for name in NAMES if (arm := arm_from_name(name)) is not None]
    results = [costing(name, float(place + 1), task) for place, name in enumerate(NAMES)]
    found = evidence_of(results, answers, arms, task, {}).comparisons
    assert len(found) == 2
    first = min(found, key=lambda one: one.p)
    assert first.p_holm == pytest.approx(min(1.0, 3 * first.p))
    assert [comparisons_among(arms) for arms in (1, 2, 5)] == [1, 1, 10]


def test_macro_f1_of_a_class_with_few_questions_claims_no_target() -> None:
    """Of 200 answers that are all right, with 9 of a class or none of a stated one; with 10 the target is reached."""
    task = Task.model_validate(
        {
            "task": {"name": "t", "kind": "classify", "metric": "macro_f1"},
            "data": {"examples": ["rows.jsonl"]},
            "base": {"model": "m"},
            "target": {"quality": 0.5},
        }
    )

    def judged(rare: int, *labels: str) -> Evidence:
        stated = with_labels(task, labels)
        answers = answers_of("a", np.ones(200))
        classes = ["b" if place < rare else "a" for place in range(200)]
        answers = [replace(one, reference=(name,), answer=name) for one, name in zip(answers, classes, strict=True)]
        return evidence_of([costing("prompt", 1.0, stated)], {"prompt": answers}, [arm_from_name("prompt")], stated, {})

    few, enough = judged(9), judged(10)
    told = decide(few)
    assert (told.status, few.results[0].passes) == ("not_shown", False)
    assert "The class b has 9 test questions" in told.sentence
    assert told.needs == "at least 10 test questions of every class"
    assert (decide(enough).arm, enough.results[0].passes) == ("prompt", True)
    assert decide(judged(10, "A", "b")).arm == "prompt"
    unasked = decide(judged(10, "a", "b", "c"))
    assert unasked.arm is None
    assert "The class c has 0 test questions" in unasked.sentence


def test_macro_f1_of_a_class_with_few_questions_shows_no_arm_without_a_target_either() -> None:
    """One arm is always right and the other seldom; with 9 questions of a class neither is shown, with 10 the better
    one is."""
    task = with_labels(a_task(None), ()).model_dump()
    task = Task.model_validate(
        {**task, "task": {"name": "t", "kind": "classify", "metric": "macro_f1"}, "data": {"examples": ["r.jsonl"]}}
    )

    def found(rare: int) -> Evidence:
        classes = ["b" if place < rare else "a" for place in range(200)]
        answers = {
            name: [
                made_answer(
                    f"{place:03}", float(right), reference=(label,), answer=label if right else "ab"[label == "a"]
                )
                for place, label in enumerate(classes)
                if (right := place % 4 == 0 or name == "lora") is not None
            ]
            for name in ("prompt", "lora")
        }
        arms = [arm for name in answers if (arm := arm_from_name(name)) is not None]
        results = [
            scored_again(costing(name, 1.0 + place, task), answers[name], task) for place, name in enumerate(answers)
        ]
        return evidence_of(results, answers, arms, task, {})

    few, enough = found(9), found(10)
    assert decide(enough).arm == "lora"
    told = decide(few)
    assert told.arm is None
    assert told.needs == "at least 10 test questions of every class"
    assert "The class b has 9 test questions" in told.sentence
    assert few.comparisons[0].p < 0.01
    assert few.comparisons[0].p_holm == 1.0


def test_a_later_look_at_the_same_questions_is_tested_more_strictly_and_says_so() -> None:
    task, right = a_task(0.8), np.r_[np.ones(88), np.zeros(12)]  # p = .025 that the score is at most .8
    answers, results = {"prompt": answers_of("prompt", right)}, [costing("prompt", 1.0, task)]
    looks = [evidence_of(results, answers, [arm_from_name("prompt")], task, {}, look=look) for look in (1, 2, 3)]
    assert [one.results[0].passes for one in looks] == [True, False, False]
    assert "used these test questions" not in decide(looks[0]).sentence
    stricter = "so that a good result may be luck and more proof is needed (level 0.0034)"
    assert f"Two earlier studies used these test questions, {stricter}" in decide(looks[2]).sentence
    assert sum(look_level(look) for look in range(1, 100_000)) == pytest.approx(0.05, abs=1e-5)


def test_an_arm_that_passes_is_shown_also_where_a_fixed_rule_reaches_the_target() -> None:
    """.605 of 400 is above .55; of 60 it is not shown to be."""
    for n, reaches in ((400, True), (60, False)):
        task = a_task(0.55)
        answers = {"prompt": answers_of("prompt", np.ones(n))}
        trivial = {"most-frequent": answers_of("most-frequent", np.arange(n) < round(0.605 * n))}
        study = evidence_of(
            [costing("prompt", 1.0, task)], answers, [arm_from_name("prompt")], task, {}, trivial=trivial
        )
        assert decide(study).arm == "prompt"
        assert study.without_model == ("most-frequent" if reaches else None)


def test_the_highest_of_several_scores_is_told_as_corrected_for_having_been_picked() -> None:
    draw, names = np.random.default_rng(3), ("prompt", "few-shot", "lora", "rag")
    task = a_task(None)
    answers = {name: answers_of(name, draw.random(100) < 0.8) for name in names}
    scores = {name: sum(one.score for one in own) / 100 for name, own in answers.items()}
    results = [
        replace(costing(name, 1.5**place, task), score=Estimate(value=scores[name], low=0.0, high=1.0, n=100))
        for place, name in enumerate(names)
    ]
    found = decide(evidence_of(results, answers, [arm_from_name(name) for name in names], task, {}))
    assert found.picked is not None
    assert found.picked.value < max(scores.values()) - 0.01
    corrected = (
        f"The highest of 4 usually looks a little better than it is; allowing for that: {100 * found.picked.value:.1f}"
    )
    assert corrected in found.sentence
    alone = decide(evidence_of(results[:1], {"prompt": answers["prompt"]}, [arm_from_name("prompt")], task, {}))
    assert alone.picked is None


def test_the_highest_over_several_studies_is_corrected_for_the_former_ones_too() -> None:
    """Ten equal arms in ten studies of one, of which the highest is kept: without the former ones nothing is taken off
    its score; with them the interval holds the true one in at least 90 of 100."""
    draw, task, held, plainly = np.random.default_rng(5), a_task(None), 0, 0
    for _ in range(100):
        rows = sorted((answers_of("prompt", draw.random(200) < 0.8) for _ in range(10)), key=scored)
        *former, highest = rows
        result = replace(costing("prompt", 1.0, task), score=score_estimate(highest, task))
        given = ([result], {"prompt": highest}, [arm_from_name("prompt")], task, {})
        picked = evidence_of(*given, former=former).picked
        assert picked is not None
        held += picked.low <= 0.8 <= picked.high
        plainly += result.score.low <= 0.8 <= result.score.high
        assert evidence_of(*given).picked is None
    assert held >= 90
    assert plainly < held


def scored(answers: Sequence[Answer]) -> float:
    return sum(one.score for one in answers)


def test_former_arms_that_answered_the_same_or_scored_higher_correct_nothing() -> None:
    task, right = a_task(None), np.arange(100) < 80
    own = answers_of("prompt", right)
    result = replace(costing("prompt", 1.0, task), score=score_estimate(own, task))
    given = ([result], {"prompt": own}, [arm_from_name("prompt")], task, {})
    assert evidence_of(*given, former=[own, own]).picked is None
    higher, lower = answers_of("prompt", np.arange(100) < 90), answers_of("prompt", np.arange(100) < 70)
    assert evidence_of(*given, former=[higher, lower]).picked is None
    assert evidence_of(*given, former=[lower, own]).picked is not None
    assert "The highest of" not in decide(evidence_of(*given)).sentence
