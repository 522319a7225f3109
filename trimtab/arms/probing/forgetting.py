"""Probe `forgetting`: general abilities of a model before and after training, on questions written for Trimtab.

Each question has four options. The model takes the one with the least loss per token after the question, so that a
model is compared with itself and needs no instruction.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from trimtab.arms.probing.subject import Subject, finding
from trimtab.arms.session import Session
from trimtab.base.grammar import HEAD, method_of
from trimtab.base.records import Answer, Arm, Message
from trimtab.base.results import Probe
from trimtab.training.sft import answer_rows, row_losses

_FILE = Path(__file__).with_name("general.jsonl")


@dataclass(frozen=True, kw_only=True)
class GeneralQuestion:
    """A question with four options, of which one is right."""

    ability: str
    question: str
    options: tuple[str, ...]
    answer: str


@cache
def general_questions() -> tuple[GeneralQuestion, ...]:
    """Return the questions, 30 of each ability."""
    rows = map(json.loads, _FILE.read_text(encoding="utf-8").splitlines())
    return tuple(GeneralQuestion(**{**row, "options": tuple(row["options"])}) for row in rows)


def changes_the_model(arm: Arm) -> bool:
    """True if training changed weights that write text, so that something can have been forgotten."""
    return method_of(arm).uses_base and method_of(arm).staged and HEAD not in arm.stages


def general_answers(session: Session) -> tuple[Answer, ...]:
    """Return the options that the model takes under the attached weights."""
    asked = general_questions()
    encoded = [
        session.encoder.conversation((Message(role="user", content=one.question),), option)
        for one in asked
        for option in one.options
    ]
    rows = answer_rows((one, 1.0) for one in encoded)
    losses = [nats / row.trained_tokens for nats, row in zip(row_losses(session.base, rows), rows, strict=True)]
    return tuple(_answer(number, one, losses[4 * number : 4 * number + 4]) for number, one in enumerate(asked))


def _answer(number: int, asked: GeneralQuestion, losses: Sequence[float]) -> Answer:
    taken = asked.options[min(range(len(losses)), key=losses.__getitem__)]
    right = taken == asked.answer
    return Answer(
        item_id=f"general:{number}",
        split="test",
        group=None,
        slice=asked.ability,
        seed=0,
        input=asked.question,
        reference=(asked.answer,),
        answer=taken,
        score=float(right),
        format_ok=True,
        abstained=False,
        probability=None,
        seconds=0.0,
        prompt_tokens=0,
        new_tokens=0,
        hits=(),
        failure="none" if right else "wrong",
    )


def probe_forgetting(subject: Subject) -> Iterator[Probe]:
    """Yield the finding on general questions; nothing for an arm whose training changes no model that writes."""
    if subject.untrained:
        subject.tell("asking general questions")
        pairs = list(zip(subject.untrained, general_answers(subject.session), strict=True))
        yield finding("forgetting", "on general questions", pairs)
