"""Judgements as a page would send them, and answers in use as a server keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any
from uuid import uuid4

from trimtab.base.records import Message
from trimtab.serving.feedback import JudgedAnswer, Judgement
from trimtab.serving.traffic_store import ServedAnswer, user_key

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)


def said(*texts: str) -> tuple[Message, ...]:
    """A conversation: user, assistant, user …"""
    return tuple(Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(texts))


def shown(text: str, arm: str = "rag", id: str | None = None) -> JudgedAnswer:
    return JudgedAnswer(id=id or f"q-{uuid4().hex}", arm=arm, version="1", text=text, passages=("handbook.md#2",))


def judgement(
    kind: str = "like",
    *answers: str,
    asked: str = "Which city?",
    at: float = 0,
    given: Sequence[str] = (),
    **more: Any,
) -> Judgement:
    """One of `kind` about the answers (by default `Rome`), `at` seconds after the first. `given`: the ids under which
    the answers were given, new ones unless stated."""
    judged = tuple(shown(text, id=id) for text, id in zip_longest(answers or ("Rome",), given))
    fields = {"messages": said(asked), "when": BEGIN + timedelta(seconds=at), **more}
    return Judgement(kind=kind, answers=judged, **fields)  # type: ignore[arg-type]


def served_answer(number: int, *, days: float = 0, user: str | None = None, **more: Any) -> ServedAnswer:
    """The answer `q-NUMBER`, so many days old, to a user."""
    given: dict[str, Any] = {
        "id": f"q-{number}",
        "when": datetime.now(UTC) - timedelta(days=days),
        "arm": "rag",
        "version": "one",
        "messages": said(f"Question {number}?"),
        "passages": ("handbook.md#2",),
        "answer": f"Answer {number}",
        "abstained": False,
        "probability": 0.5,
        "milliseconds": 1.0,
        "user": user_key(user) if user else None,
        "share": 1.0,
        "masked": True,
    }
    return ServedAnswer(**{**given, **more})
