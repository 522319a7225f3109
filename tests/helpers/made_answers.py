"""Scored answers made by hand: what a test does not state is as in a plain one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trimtab.base.records import Answer

PLAIN = Answer(
    item_id="",
    split="test",
    group=None,
    slice=None,
    seed=0,
    input="q",
    reference=("a",),
    answer="",
    score=0.0,
    format_ok=True,
    abstained=False,
    probability=None,
    seconds=0.1,
    prompt_tokens=1,
    new_tokens=1,
    hits=(),
    failure="none",
)


def made_answer(item_id: str, score: float, **known: Any) -> Answer:
    """An answer to one item."""
    return replace(PLAIN, item_id=item_id, score=float(score), **known)
