"""Which answers are shown: failures of different groups, what is mistaken for what, wins and losses by turns."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.base.records import Answer
from trimtab.measurement.inspection import disagreements, failure_counts, failure_examples, mistakes


def answers(scores: Sequence[float], groups: Sequence[str | None] | None = None, seed: int = 0) -> tuple[Answer, ...]:
    return tuple(
        Answer(
            item_id=f"{index:04d}", split="test", group=groups[index] if groups else None, slice=None, seed=seed, input="q",
            reference=("r",), answer=f"a{index % 3}", score=score, format_ok=True, abstained=False, probability=None,
            seconds=0.1, prompt_tokens=1, new_tokens=1, hits=(), failure="none" if score == 1 else "wrong",
        )
        for index, score in enumerate(scores)
    )  # fmt: skip


def test_disagreements_show_wins_and_losses_of_the_chosen_arm() -> None:
    found = disagreements({"prompt": answers([1, 1, 0, 0, 0]), "rag": answers([0, 0, 1, 1, 0])}, "rag")
    assert {one["prompt"].item_id for one in found} == {"0000", "0001", "0002", "0003"}
    assert [one["rag"].score for one in found[:2]] == [1, 0]


def test_disagreements_need_two_arms_and_show_first_seeds_and_one_question_a_group() -> None:
    one, other = answers([1, 1, 0.5], ["a", "a", "b"]), answers([0, 0, 0], ["a", "a", "b"])
    assert disagreements({"rag": one}, "rag") == ()
    found = disagreements({"rag": (*one, *answers([0, 0, 0], seed=1)), "prompt": other}, None)
    assert [(item["rag"].item_id, item["rag"].seed) for item in found] == [("0000", 0), ("0002", 0)]
    assert disagreements({"rag": other, "prompt": other}, "rag") == ()


def test_examples_come_from_different_groups_the_first_arm_first() -> None:
    rag = answers([0, 0, 0, 0, 1], ["a", "a", "b", "b", "c"])
    found = failure_examples({"rag": rag, "prompt": answers([0], ["d"])}, "wrong")
    assert [(arm, answer.group) for arm, answer in found] == [("rag", "a"), ("rag", "b"), ("prompt", "d")]
    assert len(failure_examples({"rag": answers([0] * 9)}, "wrong", most=2)) == 2


def test_failures_and_mistakes_are_counted() -> None:
    some = answers([0, 0, 1, 0, 0])
    assert failure_counts(some) == {"wrong": 4, "none": 1}
    assert failure_counts(some)["format"] == 0
    assert mistakes(some, most=1) == (("r", "a0", 2),)
    assert mistakes(some, most=9) == (("r", "a0", 2), ("r", "a1", 2))
