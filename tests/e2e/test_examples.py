"""The examples run as they stand, with the real small model: tuning, judged answers and rewards help, an edited fact
is answered at once, and rows end in a verdict."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_sft_loop_teaches_the_words_and_what_was_saved_answers_alike():
    before, after = runpy.run_path(str(EXAMPLES / "sft_loop.py"))["main"]()
    assert before < after
    assert after >= 2


@pytest.mark.stress
def test_dpo_loop_turns_the_preference_of_the_base_model_on_questions_that_it_never_saw():
    before, after = runpy.run_path(str(EXAMPLES / "dpo_loop.py"))["main"]()
    assert max(before) < 0  # nats: the worse answer of every held-out pair is the likelier one
    assert sum(nats > 0 for nats in after) >= 0.9 * len(after)


@pytest.mark.stress
def test_grpo_loop_earns_more_on_questions_that_it_never_saw_and_not_by_being_short():
    example = runpy.run_path(str(EXAMPLES / "grpo_loop.py"))
    assert example["reward"]("Paris.", "Paris") == 0
    (before, _), (after, length) = example["main"]()
    assert after > before + 0.1
    assert length >= example["LEAST"]


def test_rag_answers_what_its_documents_say_with_the_source_an_edited_fact_too_and_says_what_is_not_there():
    example = runpy.run_path(str(EXAMPLES / "rag.py"))
    answers = example["main"]()
    sources = [source.partition("#")[0] for _, _, source, _ in answers]
    assert sources == ["travel.md", "leave.md", "doors.md", "", "travel.md"]
    for (_, sentence, source, quoted), fact in zip(
        answers, ("120 euros", "28 days", "building C", None, "95 euros"), strict=True
    ):
        if fact is None:
            assert (sentence, source, quoted) == (example["UNKNOWN"], "", "")
        else:
            assert fact in sentence
            assert fact in quoted
            assert quoted in sentence


def test_rows_to_verdict_measures_every_arm_and_teaches_some():
    results, verdict = runpy.run_path(str(EXAMPLES / "rows_to_verdict.py"))["main"]()
    score = {result.arm: result.score for result in results}
    assert list(score) == ["linear", "prompt", "few-shot", "lora"]
    assert all(estimate.low <= estimate.value <= estimate.high and estimate.n == 40 for estimate in score.values())
    assert score["lora"].value > score["prompt"].value
    assert all(result.cost.total > 0 for result in results)
    assert verdict.status in ("shown", "not_shown")
    assert verdict.status == "not_shown" or verdict.arm in score


def test_examples_can_be_read_in_one_sitting():
    files = sorted(EXAMPLES.glob("*.py"))
    assert files
    assert all(len(file.read_text(encoding="utf-8").splitlines()) < 120 for file in files)
