"""The first two sentences of a verdict speak of questions and answers in plain words, and say what was assumed."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_answers import made_answer
from made_studies import USAGES, a_task, an_arm, costing, evidence, usage, verdict

from trimtab.base.grammar import METHODS, arm_from_name
from trimtab.base.results import ArmResult, Estimate, TokenFee
from trimtab.base.task import Task
from trimtab.decision.caveats import audit_sentence
from trimtab.decision.evidence import evidence_of
from trimtab.decision.summary import (
    explained,
    in_lines,
    in_metric,
    in_plain_words,
    of_hundred,
    reachable_target,
    way,
    with_more,
)

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
        "Use rag: the language model as it is, given matching passages of your documents. It gets about 90 of "
        "100 questions right (very likely 86 to 94; 300 were asked), which is shown to reach the target of 80 of "
        "100. It costs "
    )
    assert "USD over 12 months at 10,000 questions a month. lora+rag (the model trained on your" in first
    assert "scores highest: it gets 7 more of 100 right, for 14.34 USD." in first
    assert "The next best" not in first
    for word in (" arm", "lightest", "F1", "exact match", "interval"):
        assert word not in first


def test_beside_a_graded_score_stands_the_share_of_exactly_right_answers_where_it_is_told() -> None:
    task = a_task(0.8)
    exact = {"rag": 0.31, "prompt": 0.02}
    arms = [an_arm(name, RIGHT[name].value, task, extras={"exact": share}) for name, share in exact.items()]
    told = verdict(arms, task).sentence
    assert "It scores 0.90 on a scale from 0 to 1 (very likely 0.86 to 0.94; 300 questions were asked; 31.0% of" in told
    assert "prompt (the model as it is), scores 0.40 (2.0% exactly right)" in told
    assert "exactly" not in verdict([an_arm(name, 0.9, task) for name in exact], task).sentence


def test_the_only_arm_that_was_measured_is_called_so() -> None:
    task = a_task(0.8)
    rest = [ArmResult(arm=name, status="not_run", why="") for name in ("lora", "prompt")]
    rest.append(ArmResult(arm="few-shot", status="failed", why=""))
    found = verdict([an_arm("rag", 0.90, task), *rest], task, right=RIGHT).sentence.splitlines()[0]
    assert found.endswith(" a month. Nothing else was measured.")
    told = verdict([an_arm("rag", 0.90, task), *rest], task, right=RIGHT).sentence
    assert "few-shot could not be measured: its run failed. lora and prompt were not measured: they did not fit" in told
    alone = verdict([an_arm("rag", 0.90, task)], task, right=RIGHT).sentence.splitlines()[0]
    assert alone.endswith(" a month. Nothing else was measured.")
    both = verdict([an_arm("rag", 0.90, task), an_arm("prompt", 0.4, task), *rest], task, right=RIGHT).sentence
    assert "Nothing else was measured" not in both


def test_what_the_task_file_does_not_state_stands_in_the_second_sentence() -> None:
    task = without_defaults(a_task(None))
    arms = [an_arm("rag", 0.90, task), an_arm("lora+rag", 0.905, task), an_arm("prompt", 0.4, task)]
    first, second = verdict(arms, task, GAPS, right=RIGHT, cuts=["one epoch"], few_groups=4).sentence.splitlines()[:2]
    assert first.startswith("If it is good enough for you (no target is stated), use rag: ")
    assert (
        "(very likely 86 to 94; 300 were asked); do not promise more than 85, which is lower than that range on purpose"
        in first
    )
    assert "no other way is better by more than the assumed margin of 2 of 100" not in first  # it is not the best
    assert "rag is at most the assumed margin of 2 of 100 behind it" in first
    assert second == (
        "Not known or weak: No volume is stated: 10,000 questions a month are assumed. The test questions form groups "
        "(questions that the split keeps together, such as those about one document) that count as only 4; those of "
        "one group are alike, so every figure is rough. To fit the time budget: one epoch. lora+rag was trained only "
        "once; trained again, it may do better or worse."
    )
    stated = a_task(0.85)
    told = verdict([an_arm("rag", 0.95, stated)], stated).sentence
    assert "is stated" not in told
    assert "promise" not in told


def test_without_right_answers_the_score_is_told() -> None:
    task = a_task(None)
    arms = [an_arm("rag", 0.90, task), an_arm("lora+rag", 0.93, task)]
    told = verdict(arms, task, {("lora+rag", "rag"): (0.03, 0.05)}).sentence
    assert told.startswith(
        "No choice yet: the test is too small to say whether rag (the language model as it is, given matching passages "
        "of your documents) may take the place of lora+rag (the model trained on your examples, given matching "
        "passages). lora+rag scored highest, 0.93 on a scale from 0 to 1 (very likely 0.89 to 0.97; 300 questions "
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
    assert "The next best, prompt (" in first
    assert "; it is not shown to reach the target." in first
    assert "reaches the target too, but is too slow: 1 in 20 answers took over 1,500 ms" in first
    assert "the only one" not in " ".join(rest)


def test_training_counts_in_the_cost_of_what_was_trained_alone() -> None:
    task = a_task(0.8)
    arms = [an_arm("rag", 0.9, task), an_arm("lora", 0.91, task)]
    assert ", training included" not in verdict([arms[0], an_arm("lora", 0.5, task)], task).sentence
    assert ", training included" in verdict([an_arm("rag", 0.5, task), arms[1]], task).sentence


def test_a_cost_that_counts_as_equal_is_called_so_and_another_one_is_an_amount() -> None:
    task = a_task(0.8)
    near, far = costing("lora+rag", 104.0, task), costing("lora+rag", 260.0, task)
    assert (
        "for 104 USD, which counts as equal" in verdict([costing("rag", 100.0, task), near], task, usages={}).sentence
    )
    apart = verdict([costing("rag", 100.0, task), far], task, usages={}).sentence
    assert ", for 260 USD." in apart
    assert "counts as equal" not in apart


def test_costs_far_apart_that_count_as_equal_come_with_the_reason() -> None:
    task = a_task(0.8)
    wide = costing("lora+rag", 540.0, task, low=60.0, high=600.0)
    text = verdict([costing("rag", 80.0, task), wide], task, usages={}).sentence
    assert "for 540 USD (roughly timed)" in text
    assert "which counts as equal" not in text


def test_costs_in_hours_and_in_money_are_alike_at_the_price_that_their_totals_give() -> None:
    task = a_task(0.8, machine_hour=None)
    used = {
        "prompt": USAGES["prompt"],
        "api-big": usage(runs_on_own_machine=False, token_fee=TokenFee(input=2, output=0)),
    }
    arms = [an_arm("prompt", 0.9, task), an_arm("api-big", 0.95, task, used=used["api-big"])]
    told = verdict(arms, task, usages=used).sentence
    # 12 x 10,000 questions: 0.2 s each are 6.67 hours, 500 tokens each are 120 USD
    assert "prompt is cheaper if a machine hour costs less than about 18.00 USD." in told
    indexed = {**used, "api-big": replace(used["api-big"], index_seconds=30.0)}
    assert "is cheaper if" not in verdict(arms, task, usages=indexed).sentence  # hours that its cost does not count


def test_an_arm_is_explained_once_where_it_comes_first_and_never_in_a_word_that_is_like_its_name() -> None:
    study = evidence([an_arm(name, 0.9, a_task()) for name in ("rag", "lora")], a_task())
    text = f"{way('lora')} is ahead. Use {way('rag')}:. {way('rag')} and {way('lora')}; rag, lora, {way('few-shot')}."
    assert explained(text, study) == (
        "lora (the language model trained on your examples) is ahead. Use rag: the model as it is, given matching "
        "passages of your documents. rag and lora; rag, lora, few-shot."
    )


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_range_is_never_rounded_to_a_narrower_one(one: float, other: float) -> None:
    low, high = sorted((one, other))
    told = of_hundred(Estimate(value=(low + high) / 2, low=low, high=high, n=10))
    first, last = map(int, re.findall(r"likely (\d+) to (\d+)", told)[0])
    assert first <= 100 * round(low, 3) + 1e-4  # as the figures below say it
    assert last >= 100 * round(high, 3) - 1e-4
    assert last - first < 100 * (high - low) + 2.1


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
        with_passages = "the language model trained on your examples, given matching passages of your documents"
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


@pytest.mark.parametrize(("untried", "told"), [(0.25, True), (0.01, False)])
def test_answers_in_a_language_that_the_metric_was_not_tried_in_are_told(untried: float, told: bool) -> None:
    task = a_task(0.8)
    arms = [an_arm(name, 0.9, task, extras={"untried": untried}) for name in ("rag", "prompt")]
    assert ("It was not tried in the language of 25% of" in audit_sentence(None, arms, task)) is told
