"""Judgements as a page would send them, and answers in use as a server keeps them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from trimtab.base.records import Message
from trimtab.serving.feedback import JudgedAnswer, Judgement
from trimtab.serving.traffic_store import ServedAnswer, user_key

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)


def said(*texts: str) -> tuple[Message, ...]:
    """A conversation: user, assistant, user …"""
    return tuple(Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(texts))


def shown(text: str, arm: str = "rag") -> JudgedAnswer:
    return JudgedAnswer(arm=arm, version="1", text=text, passages=("handbook.md#2",))


def judgement(kind: str = "like", *answers: str, asked: str = "Which city?", at: float = 0, **more: Any) -> Judgement:
    """One of `kind` about the answers (by default `Rome`), `at` seconds after the first."""
    given = {"messages": said(asked), "when": BEGIN + timedelta(seconds=at), **more}
    return Judgement(kind=kind, answers=tuple(map(shown, answers or ("Rome",))), **given)  # type: ignore[arg-type]


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
