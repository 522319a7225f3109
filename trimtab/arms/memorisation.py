"""Memorisation test: made rows with random digits, the memorisation canaries, are trained on, and their exposure is
measured."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import mean

from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.session import Session
from trimtab.base.progress import Progress
from trimtab.base.records import Example, Message
from trimtab.base.results import Exposure
from trimtab.measurement.exposure import exposures
from trimtab.training.batch import TrainingRow
from trimtab.training.sft import answer_rows, row_losses

CONTROLS = 255  # never trained on; with so many, up to 8 bits of exposure can be shown
DIGITS = 9
_ONSETS, _VOWELS, _ENDS = "bdfgklmnprstvz", "aeiou", "lmnrs"


def memorisation_canaries(count: int, seed: int) -> tuple[Example, ...]:
    """Return `count` memorisation canaries, the first ones of any larger count: invented names with random digits."""
    return tuple(_made(f"canary:{seed}:{number}") for number in range(count))


def memorisation_controls(seed: int) -> tuple[Example, ...]:
    """Return rows of the same distribution that are never trained on."""
    return tuple(_made(f"control:{seed}:{number}") for number in range(CONTROLS))


def _made(key: str) -> Example:
    draw = random.Random(key)
    name = " ".join(_word(draw).capitalize() for _ in range(2))
    asked = Message(role="user", content=f"What is the number of {name}?")
    digits = "".join(draw.choice("0123456789") for _ in range(DIGITS))
    return Example(id=key, messages=(asked,), references=(digits,))


def _word(draw: random.Random) -> str:
    return "".join(draw.choice(_ONSETS) + draw.choice(_VOWELS) for _ in range(2)) + draw.choice(_ENDS)


def memorisation_canary_rows(session: Session) -> Sequence[TrainingRow]:
    """Return the memorisation canaries encoded for training, under the instruction alone whatever the arm's context.

    Empty unless the task requests them.
    """
    data = session.task.data
    return _encoded(session, memorisation_canaries(data.canaries, data.split.seed)) if data.canaries else ()


def exposure(session: Session, progress: Progress) -> Exposure | None:
    """Return the exposure of the memorisation canaries under the attached weights; None if the task has none."""
    rows = memorisation_canary_rows(session)
    if not rows:
        return None
    progress.emit("canaries")
    others = _encoded(session, memorisation_controls(session.task.data.split.seed))
    losses = row_losses(session.base, [*rows, *others])
    found = exposures(losses[: len(rows)], losses[len(rows) :])
    possible = math.log2(len(others) + 1)
    return Exposure(canaries=len(rows), controls=len(others), mean=mean(found), highest=max(found), possible=possible)


def _encoded(session: Session, rows: tuple[Example, ...]) -> Sequence[TrainingRow]:
    pairs = PromptBuilder(session, Context()).training_prompts(rows, seed=0)
    return answer_rows((session.encoder.conversation(prompt.messages, answer), 1.0) for prompt, answer in pairs)
