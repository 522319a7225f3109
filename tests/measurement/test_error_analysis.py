"""Which answers are shown: failures of different groups, what is mistaken for what, wins and losses by turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.records import Answer, Failure
from trimtab.measurement.error_analysis import (
    disagreements,
    failure_counts,
    failure_examples,
    mistakes,
    of_hundred,
    outcome,
    quartiles,
)


def answers(scores: Sequence[float], groups: Sequence[str | None] | None = None, seed: int = 0) -> tuple[Answer, ...]:
    return tuple(
        Answer(
            item_id=f"{index:04d}", split="test", group=groups[index] if groups else None, slice=None, seed=seed,
            input="q",
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


@given(st.lists(st.tuples(st.sampled_from(get_args(Failure)), st.booleans()), min_size=1, max_size=300))
def test_of_100_questions_whole_numbers_add_up_to_100(kinds: list[tuple[Failure, bool]]) -> None:
    """Each within one of its share (Hamilton's rule keeps quota)."""
    (one,) = answers([0.0])
    given = [replace(one, failure=failure, abstained=abstained) for failure, abstained in kinds]
    whole = of_hundred(given)
    assert sum(whole.values()) == 100
    for kind, number in whole.items():
        assert abs(number - 100 * sum(outcome(answer) == kind for answer in given) / len(given)) < 1


def test_the_largest_remainders_get_what_is_left() -> None:
    thirds = [*answers([1.0]), *answers([0.0])[:1], replace(answers([0.0])[0], failure="should_have_abstained")]
    assert of_hundred(thirds) == {"right": 34, "wrong": 33, "abstained_wrongly": 0, "answered_wrongly": 33}
    assert of_hundred(()) == {}


def test_an_abstention_that_was_not_due_is_one_whatever_it_came_from() -> None:
    (one,) = answers([0.0])
    assert outcome(replace(one, failure="retrieval_miss", abstained=True)) == "abstained_wrongly"
    assert outcome(replace(one, failure="retrieval_miss")) == "wrong"
    assert outcome(replace(one, failure="none", abstained=True)) == "right"


def test_quartiles_are_scores_that_so_many_answers_do_not_exceed() -> None:
    assert quartiles(answers([0.4, 0.1, 0.3, 0.2])) == (0.1, 0.2, 0.3)
    assert quartiles(answers([0.7])) == (0.7, 0.7, 0.7)
    with pytest.raises(ValueError, match="no answers"):
        quartiles(())
