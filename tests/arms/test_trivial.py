"""The answers that need no model: the most frequent, abstaining, the nearest training question's."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.arms.trivial import most_frequent_answer, nearest_answers, trivial_answers
from trimtab.base.records import Example, Message
from trimtab.base.task import Task


def a_task(**task: object) -> Task:
    return Task.model_validate(
        {
            "task": {"name": "t", "kind": "answer", "metric": "exact_match", **task},
            "data": {"examples": ["rows.jsonl"]},
            "base": {"model": "m"},
        }
    )


def rows(*pairs: tuple[str, str]) -> list[Example]:
    return [
        Example(id=f"{number}", messages=(Message(role="user", content=question),), references=(answer,))
        for number, (question, answer) in enumerate(pairs)
    ]


TRAIN = rows(
    ("Who pays for the hotel?", "the office"),
    ("How long is the annual leave?", "30 days"),
    ("What colour has the moon?", "I don't know"),
    ("Who pays for the train?", "the office"),
    ("Who is the king?", "I don't know"),
    ("What eats a comet?", "I don't know"),
)
TEST = rows(("How long is the leave?", "30 days"), ("What is beyond the moon?", "I don't know"))


def scores(found: dict[str, Sequence[object]], name: str) -> list[float]:
    return [answer.score for answer in found[name]]  # type: ignore[attr-defined]


def test_every_trivial_arm_answers_every_test_question_and_is_scored_as_arms_are() -> None:
    found = trivial_answers(TRAIN, TEST, a_task(), None)
    assert {name: scores(found, name) for name in found} == {
        "most-frequent": [0.0, 0.0],
        "always-unknown": [0.0, 1.0],
        "nearest-answer": [1.0, 1.0],
    }
    assert [answer.answer for answer in found["most-frequent"]] == ["the office"] * 2
    assert all(answer.abstained for answer in found["always-unknown"])
    assert [answer.item_id for answer in found["nearest-answer"]] == ["0", "1"]


def test_abstaining_is_an_arm_only_where_the_task_can_abstain() -> None:
    classify = a_task(kind="classify", metric="accuracy")
    labels = rows(("good film", "+"), ("bad film", "-"), ("poor film", "-"))
    found = trivial_answers(labels, rows(("a good one", "+")), classify, None)
    assert {name: scores(found, name) for name in found} == {"most-frequent": [0.0], "nearest-answer": [1.0]}
    assert most_frequent_answer(labels, classify) == "-"
    assert "always-unknown" not in trivial_answers(TRAIN, TEST, a_task(unknown=""), None)


def test_questions_without_a_word_get_the_first_answer() -> None:
    assert nearest_answers(rows(("1", "one"), ("2", "two")), rows(("2", "two"))) == ["one"]


def test_many_questions_are_answered_as_one_by_one(monkeypatch) -> None:
    train = rows(*((f"word{number} and word{number + 1}", f"{number}") for number in range(40)))
    test = rows(*((f"is it word{number}", "") for number in range(40)))
    together = nearest_answers(train, test)
    monkeypatch.setattr("trimtab.arms.trivial.AT_A_TIME", 3)
    assert nearest_answers(train, test) == together
    assert len(set(together)) > 30
