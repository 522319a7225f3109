"""The first two sentences of a verdict speak of questions and answers in plain words, and say what was assumed."""

from __future__ import annotations

import numpy as np
import pytest
from made_answers import made_answer
from made_studies import a_task, an_arm, costing, evidence, verdict

from trimtab.base.grammar import arm_from_name
from trimtab.base.results import ArmResult, Estimate
from trimtab.base.task import Task
from trimtab.decision.evidence import evidence_of
from trimtab.decision.summary import reachable_target, relative_cost

RIGHT = {
    "prompt": Estimate(value=0.40, low=0.34, high=0.46, n=300),
    "rag": Estimate(value=0.90, low=0.86, high=0.94, n=300),
    "lora+rag": Estimate(value=0.97, low=0.94, high=0.99, n=300),
}
GAPS = {("lora+rag", "rag"): (0.005, 0.013), ("lora+rag", "prompt"): (0.505, 0.05), ("rag", "prompt"): (0.5, 0.05)}


def without_defaults(task: Task) -> Task:
    """The task of a file that states neither margin nor volume."""
    plain = task.model_dump(exclude={"target": {"margin"}, "cost": {"questions_per_month"}})
    return Task.model_validate(plain)


def test_with_a_target_the_choice_its_right_answers_its_cost_and_the_next_best_come_first() -> None:
    task = a_task(0.8)
    arms = [an_arm(name, right.value, task) for name, right in RIGHT.items()]
    first = verdict(arms, task, right=RIGHT).sentence.split("\nIn figures:")[0]
    assert first.startswith(
        "Use rag (the model as it is, shown passages retrieved from the documents): it gets about 90 of 100 "
        "questions right (86 to 94; 300 were asked), and so reaches the target of 0.8; it costs "
    )
    assert "USD over 12 months at 10,000 questions a month, and the next best, lora+rag (the model tuned by" in first
    assert "gets 7 more right at" in first
    for word in (" arm", "lightest", "F1", "exact match", "interval"):
        assert word not in first


def test_the_only_arm_that_was_measured_is_called_so() -> None:
    task = a_task(0.8)
    rest = [ArmResult(arm=name, status="not_run", why="") for name in ("lora", "prompt")]
    rest.append(ArmResult(arm="few-shot", status="failed", why=""))
    found = verdict([an_arm("rag", 0.90, task), *rest], task, right=RIGHT).sentence.splitlines()[0]
    assert found.endswith(". It is the only arm that was measured: 2 did not fit the budget and 1 failed.")
    alone = verdict([an_arm("rag", 0.90, task)], task, right=RIGHT).sentence.splitlines()[0]
    assert alone.endswith(". It is the only arm that was measured.")
    both = verdict([an_arm("rag", 0.90, task), an_arm("prompt", 0.4, task), *rest], task, right=RIGHT).sentence
    assert "only arm that was measured" not in both


def test_what_the_task_file_does_not_state_stands_in_the_second_sentence() -> None:
    task = without_defaults(a_task(None))
    arms = [an_arm("rag", 0.90, task), an_arm("lora+rag", 0.905, task), an_arm("prompt", 0.4, task)]
    first, second = verdict(arms, task, GAPS, right=RIGHT, cuts=["one epoch"], few_groups=4).sentence.splitlines()[:2]
    assert first.startswith(
        "If it is enough to get about 90 of 100 questions right (86 to 94; 300 were asked), use rag ("
    )
    assert second == (
        "Not known or weak: the task file states no target (rag is shown to reach one of up to 0.85), no margin "
        "(differences of up to 0.02 count as none) and no volume (10,000 questions a month are assumed); the "
        "time budget cut searching or training, as told below; the test questions form only about 4 independent "
        "groups, so that every figure is rough."
    )
    stated = a_task(0.85)
    told = verdict([an_arm("rag", 0.95, stated)], stated).sentence
    assert "the task file states" not in told
    assert "reach one of up to" not in told


def test_without_right_answers_the_score_is_told() -> None:
    task = a_task(None)
    arms = [an_arm("rag", 0.90, task), an_arm("lora+rag", 0.93, task)]
    told = verdict(arms, task, {("lora+rag", "rag"): (0.03, 0.05)}).sentence
    assert told.startswith(
        "Not shown: lora+rag (the model tuned by a small adapter (LoRA), shown passages retrieved from the "
        "documents) scores highest, 0.93 of 1 (0.89 to 0.97; 300 questions were asked), but rag (the model as it "
        "is, shown passages retrieved from the documents)"
    )


@pytest.mark.parametrize("n", [50, 400])
def test_the_target_that_is_said_to_be_reached_is_the_highest_that_a_study_would_show(n: int) -> None:
    scores = np.arange(n) < 0.9 * n
    answers = {
        "prompt": [made_answer(f"{item:03}", score) for item, score in enumerate(scores)],
        "rag": [made_answer(f"{item:03}", 0.0) for item in range(n)],
    }
    arms = [arm for name in answers if (arm := arm_from_name(name)) is not None]

    def passes(quality: float | None) -> bool:
        task = a_task(quality)
        results = [an_arm("prompt", 0.9, task), an_arm("rag", 0.1, task)]
        return "prompt" in {arm.arm for arm in evidence_of(results, answers, arms, task, {}).passing}

    task = a_task(None)
    study = evidence_of([an_arm("prompt", 0.9, task), an_arm("rag", 0.1, task)], answers, arms, task, {})
    found = reachable_target(study, "prompt")
    assert found is not None
    assert passes(found)
    assert not passes(found + 0.01)


def test_an_arm_that_is_sure_of_nothing_reaches_no_target() -> None:
    task = a_task(None)
    assert reachable_target(evidence([an_arm("rag", 0.01, task, half=0.3)], task), "rag") is None


def test_the_next_best_is_one_that_could_be_chosen_and_a_better_one_that_is_too_slow_is_told() -> None:
    task = a_task(0.8, latency=1000.0)
    slow = an_arm("rag", 0.97, task, latency_p95_ms=1500.0)
    fast = [an_arm("lora", 0.9, task, latency_p95_ms=300.0), an_arm("prompt", 0.4, task, latency_p95_ms=300.0)]
    first, *rest = verdict([slow, *fast], task).sentence.splitlines()
    assert "the next best, prompt (" in first
    assert "rag reaches it too, but may take 1,500 ms" in first
    assert "the only one" not in " ".join(rest)


def test_training_counts_in_the_cost_of_what_was_trained_alone() -> None:
    task = a_task(0.8)
    arms = [an_arm("rag", 0.9, task), an_arm("lora", 0.91, task)]
    assert ", training included" not in verdict([arms[0], an_arm("lora", 0.5, task)], task).sentence
    assert ", training included" in verdict([an_arm("rag", 0.5, task), arms[1]], task).sentence


def test_costs_are_compared_the_way_that_reads() -> None:
    task = a_task(0.8)
    cheap, dear = (costing(name, total, task).cost for name, total in (("a", 2.0), ("b", 26.0)))
    assert relative_cost(dear, cheap) == " at 13 times the cost"
    assert relative_cost(cheap, dear) == " at 1/13 of the cost"
    assert relative_cost(cheap, cheap) == ""
    assert relative_cost(cheap, None) == ""
