"""The first two sentences of a verdict speak of questions and answers in plain words, and say what was assumed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from made_answers import made_answer
from made_studies import a_task, an_arm, costing, evidence, verdict

from trimtab.base.grammar import METHODS, arm_from_name
from trimtab.base.results import ArmResult, Estimate
from trimtab.base.task import Task
from trimtab.decision.evidence import evidence_of
from trimtab.decision.summary import in_lines, in_metric, in_plain_words, reachable_target, relative_cost, with_more

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
        "Use rag: the language model as it is, shown matching passages of your documents. It gets about 90 of "
        "100 questions right (very likely 86 to 94; 300 were asked), which is shown to reach the target of 80 of "
        "100. It costs "
    )
    assert "USD over 12 months at 10,000 questions a month. lora+rag (the language model trained on your" in first
    assert "scores highest: it gets 7 more of 100 right and costs 1.2 times as much." in first
    assert "The next best" not in first
    for word in (" arm", "lightest", "F1", "exact match", "interval"):
        assert word not in first


def test_the_only_arm_that_was_measured_is_called_so() -> None:
    task = a_task(0.8)
    rest = [ArmResult(arm=name, status="not_run", why="") for name in ("lora", "prompt")]
    rest.append(ArmResult(arm="few-shot", status="failed", why=""))
    found = verdict([an_arm("rag", 0.90, task), *rest], task, right=RIGHT).sentence.splitlines()[0]
    assert found.endswith(" a month. Nothing else was measured.")
    told = verdict([an_arm("rag", 0.90, task), *rest], task, right=RIGHT).sentence
    assert "Nothing is known of few-shot (failed), nor of lora and prompt (did not fit the budget)." in told
    alone = verdict([an_arm("rag", 0.90, task)], task, right=RIGHT).sentence.splitlines()[0]
    assert alone.endswith(" a month. Nothing else was measured.")
    both = verdict([an_arm("rag", 0.90, task), an_arm("prompt", 0.4, task), *rest], task, right=RIGHT).sentence
    assert "Nothing else was measured" not in both


def test_what_the_task_file_does_not_state_stands_in_the_second_sentence() -> None:
    task = without_defaults(a_task(None))
    arms = [an_arm("rag", 0.90, task), an_arm("lora+rag", 0.905, task), an_arm("prompt", 0.4, task)]
    first, second = verdict(arms, task, GAPS, right=RIGHT, cuts=["one epoch"], few_groups=4).sentence.splitlines()[:2]
    assert first.startswith("If about 90 of 100 right answers are enough, use rag: ")
    assert "Very likely it gets 86 to 94 of 100 right (300 questions were asked)." in first
    assert second == (
        "Not known or weak: The task file states no target; rag is shown to reach any of up to 85 of 100. No "
        "margin is stated: differences of up to 2 of 100 count as none. No volume is stated: 10,000 questions a "
        "month are assumed. The test questions form only about 4 independent groups, and those of one group are "
        "alike, so every figure is rough. To fit the time budget: one epoch. lora+rag was trained only once; "
        "trained again, it may do better or worse."
    )
    stated = a_task(0.85)
    told = verdict([an_arm("rag", 0.95, stated)], stated).sentence
    assert "is stated" not in told
    assert "states no" not in told
    assert "reach any of up to" not in told


def test_without_right_answers_the_score_is_told() -> None:
    task = a_task(None)
    arms = [an_arm("rag", 0.90, task), an_arm("lora+rag", 0.93, task)]
    told = verdict(arms, task, {("lora+rag", "rag"): (0.03, 0.05)}).sentence
    assert told.startswith(
        "No choice yet: lora+rag (the language model trained on your examples, shown matching passages of your "
        "documents) scores highest, 0.93 on a scale from 0 to 1 (very likely 0.89 to 0.97; 300 questions were "
        "asked). But rag (the language model as it is,"
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
    assert "The next best is prompt (" in first
    assert "; it is not shown to reach the target." in first
    assert (
        "rag reaches the target too, but is not shown to be fast enough: 1 in 20 answers may take longer than 1,500 ms"
        in first
    )
    assert "the only one" not in " ".join(rest)


def test_training_counts_in_the_cost_of_what_was_trained_alone() -> None:
    task = a_task(0.8)
    arms = [an_arm("rag", 0.9, task), an_arm("lora", 0.91, task)]
    assert ", training included" not in verdict([arms[0], an_arm("lora", 0.5, task)], task).sentence
    assert ", training included" in verdict([an_arm("rag", 0.5, task), arms[1]], task).sentence


def test_costs_are_compared_the_way_that_reads() -> None:
    task = a_task(0.8)
    cheap, dear = (costing(name, total, task).cost for name, total in (("a", 2.0), ("b", 26.0)))
    assert relative_cost(dear, cheap) == "13 times as much"
    assert relative_cost(cheap, dear) == "8% as much"
    assert relative_cost(cheap, cheap) == ""
    assert relative_cost(cheap, None) == ""


def test_the_lines_of_a_verdict_stay_in_their_order_whatever_is_added() -> None:
    text = in_lines("Use rag.", ["One is not known."], [])
    more = with_more(text, unknown=["Two is not known.", ""], figures=["One figure."])
    assert more == "Use rag.\nNot known or weak: One is not known. Two is not known.\nIn figures: One figure."
    assert with_more("Use rag.", unknown=[""], figures=[]) == "Use rag."
    assert with_more("Use rag.", unknown=["A."], figures=[]) == "Use rag.\nNot known or weak: A."


@pytest.mark.parametrize("method", METHODS)
def test_every_arm_is_described_without_the_name_of_a_method(method: str) -> None:
    study = evidence([], a_task())
    name = {"base": "prompt", "api": "api-big"}.get(method, method)
    words = in_plain_words(study, name)
    assert words != name
    assert not re.search(rf"\b{re.escape(method)}\b|\bLoRA|adapter|tuned|endpoint|classifier over", words)
    if METHODS[method].staged:
        assert words == "the language model trained on your examples"
        assert in_plain_words(study, f"{name}-docs") == f"{words[: -len('examples')]}documents and your examples"
        with_passages = "the language model trained on your examples, shown matching passages of your documents"
        assert in_plain_words(study, f"{name}+rag") == with_passages


def test_an_arm_of_an_unknown_name_is_called_by_it() -> None:
    assert in_plain_words(evidence([], a_task()), "mine") == "mine"


def test_a_share_of_right_answers_is_told_of_100_and_another_score_as_it_is() -> None:
    assert in_metric(a_task(), 0.85) == "85 of 100"
    assert in_metric(a_task(), 0.29) == "29 of 100"
    assert in_metric(a_task(), 0.025) == "2.5 of 100"
    graded = a_task().model_dump()
    graded["task"]["metric"] = "token_f1"
    assert in_metric(Task.model_validate(graded), 0.85) == "0.85"
