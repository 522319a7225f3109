"""Canaries: made rows with random digits among the training rows, and how far the weights remember them word for word."""

from __future__ import annotations

import math
import random
from statistics import mean

from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.session import Session
from trimtab.base.progress import Progress
from trimtab.base.records import Example, Message
from trimtab.base.results import Exposure
from trimtab.measurement.exposure import exposures
from trimtab.training.batch import TrainingRow
from trimtab.training.sft import answer_rows, row_losses

CONTROLS = 255  # never trained on: up to 8 bits can be shown
DIGITS = 9
_ONSETS, _VOWELS, _ENDS = "bdfgklmnprstvz", "aeiou", "lmnrs"


def canaries(count: int, seed: int) -> tuple[Example, ...]:
    """So many made rows: whose number is asked, a made name, and random digits as the answer; the first of more are the same."""
    return tuple(_made(f"canary:{seed}:{number}") for number in range(count))


def controls(seed: int) -> tuple[Example, ...]:
    """Rows of the same distribution that nothing is ever trained on."""
    return tuple(_made(f"control:{seed}:{number}") for number in range(CONTROLS))


def _made(key: str) -> Example:
    draw = random.Random(key)
    name = " ".join(_word(draw).capitalize() for _ in range(2))
    asked = Message(role="user", content=f"What is the number of {name}?")
    digits = "".join(draw.choice("0123456789") for _ in range(DIGITS))
    return Example(id=key, messages=(asked,), references=(digits,))


def _word(draw: random.Random) -> str:
    return "".join(draw.choice(_ONSETS) + draw.choice(_VOWELS) for _ in range(2)) + draw.choice(_ENDS)


def canary_rows(session: Session) -> list[TrainingRow]:
    """The canaries as they are trained on, under the instruction alone whatever the arm's context is; none unless the task asks for any."""
    data = session.task.data
    return _encoded(session, canaries(data.canaries, data.split.seed)) if data.canaries else []


def exposure(session: Session, progress: Progress) -> Exposure | None:
    """How far the weights that are on remember the canaries that they were trained on; None where the task asks for none."""
    rows = canary_rows(session)
    if not rows:
        return None
    progress.emit("canaries")
    others = _encoded(session, controls(session.task.data.split.seed))
    losses = row_losses(session.base, [*rows, *others])
    found = exposures(losses[: len(rows)], losses[len(rows) :])
    possible = math.log2(len(others) + 1)
    return Exposure(canaries=len(rows), controls=len(others), mean=mean(found), highest=max(found), possible=possible)


def _encoded(session: Session, rows: tuple[Example, ...]) -> list[TrainingRow]:
    pairs = PromptBuilder(session, Context()).training_prompts(rows, seed=0)
    return answer_rows((session.encoder.conversation(prompt.messages, answer), 1.0) for prompt, answer in pairs)
