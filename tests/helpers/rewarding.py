"""Rows, answers and task files for tests of rewards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.base.records import Example, Hit, Message, Passage
from trimtab.base.task import Task
from trimtab.measurement.rewards import Answered, AnswerTokens

UNKNOWN = "I don't know"
TOKENS = AnswerTokens(longest=12, limit=40)
PASSAGE = "The office in Bonn opens at 8:30. Leave must be asked for 14 days before, in writing."


def task_with(reward: dict[str, Any] | None = None, folder: Path = Path(), **own: Any) -> Task:
    return Task(
        task={"name": "t", "kind": "answer", **own},
        data={"examples": ["rows.jsonl"], "documents": ["handbook"], "columns": {"tests": "tests"}},
        base={"model": "m"},
        reward=reward or {},
        file=folder / "trimtab.toml",
    )


def row(*references: str, id: str = "row", question: str = "Which?", tests: str = "") -> Example:
    return Example(id=id, messages=(Message(role="user", content=question),), references=references, tests=tests)


def said(
    example: Example, text: str, *, new_tokens: int = 5, finished: bool = True, passages: Sequence[str] = ()
) -> Answered:
    hits = tuple(
        Hit(
            passage=Passage(id=f"d#{rank}", document="d", title="", path=(), text=text_, source="d"),
            rank=rank,
            score=1.0,
        )
        for rank, text_ in enumerate(passages, 1)
    )
    return Answered(example=example, text=text, new_tokens=new_tokens, finished=finished, hits=hits)
