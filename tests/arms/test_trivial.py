"""The answers that need no model: the most frequent, abstaining, the nearest training question's."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np

from trimtab.arms.session import Session
from trimtab.arms.trivial import (
    MOST_EMBEDDED,
    meaning_seconds,
    most_frequent_answer,
    nearest_answers,
    trivial_answers,
)
from trimtab.arms.workspace import Workspace
from trimtab.base.config import StudyTable
from trimtab.base.records import Document, Example, Message, Section
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


def test_the_nearest_meaning_is_of_the_embedding() -> None:
    def embed(texts: Sequence[str]) -> np.ndarray:  # what a question asks for, whatever its words
        return np.array([[float("pay" in text), float("long" in text)] for text in texts])

    train, test = rows(("Who pays?", "the office"), ("How long is it?", "30 days")), rows(("Will you pay it?", "x"))
    found = trivial_answers(train, test, a_task(), None, embed=embed)
    assert [answer.answer for answer in found["nearest-meaning"]] == ["the office"]
    assert [answer.answer for answer in found["nearest-answer"]] == ["30 days"]  # it shares "it"


def test_a_budget_leaves_time_for_the_nearest_meaning_or_leaves_it_out() -> None:
    def session(budget: str) -> Session:
        embedder = SimpleNamespace(encode=lambda texts: time.sleep(0.001 * len(texts)))
        task = a_task().model_copy(update={"study": StudyTable(budget=budget)})
        workspace = Workspace(task=task, folder=Path(), splits={"train": TRAIN * 1000, "test": TEST}, documents=())
        return cast(
            Session, SimpleNamespace(workspace=workspace, task=task, retriever=SimpleNamespace(embedder=embedder))
        )

    seconds = meaning_seconds(session("10h"))
    assert seconds is not None
    assert seconds >= 0.001 * (MOST_EMBEDDED + len(TEST))  # not of all training rows
    assert meaning_seconds(session("10s")) is None


def test_the_nearest_sentence_of_the_documents_answers() -> None:
    text = "The kitchen is on the left. Bicycles stand in the yard. The yard is locked at ten."
    page = Document(id="a", title="House", source="a.md", sections=(Section(path=(), text=text),), digest="x")
    found = trivial_answers(TRAIN, rows(("Where do bicycles stand?", "yard")), a_task(), None, documents=(page,))
    assert [answer.answer for answer in found["nearest-sentence"]] == ["Bicycles stand in the yard."]
    labels = a_task(kind="classify", metric="accuracy")
    assert "nearest-sentence" not in trivial_answers(TRAIN, TEST, labels, None, documents=(page,))


def test_known_values_that_the_question_holds_take_the_place_of_those_of_the_nearest_one() -> None:
    def slots(**held: str) -> str:
        return json.dumps({"intent": "book", "slots": held})

    train = rows(
        ("book a table in Rome", slots(city="Rome")),
        ("book a table in New York", slots(city="New York")),
        ("a table in York for nine people", slots(city="York", people="nine")),
        ("how is the weather in Rome", json.dumps({"intent": "weather", "slots": {"city": "Rome"}})),
    )
    test = rows(("book a table in NEW YORK, for nine", slots(city="New York", people="nine")), ("book a table", "{}"))
    found = trivial_answers(train, test, a_task(kind="generate"), None)
    assert [json.loads(answer.answer) for answer in found["known-values"]] == [
        {"intent": "book", "slots": {"city": "New York", "people": "nine"}},
        {"intent": "book", "slots": {}},
    ]
    assert "known-values" not in trivial_answers(TRAIN, TEST, a_task(), None)
    assert "known-values" not in trivial_answers([*train, *TRAIN], test, a_task(kind="generate"), None)


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
