"""Raises errors for non-finite values and memory shortage in training, with the last intact checkpoint and the setting
to change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from trimtab.base.errors import DivergedError, MemoryRanOutError, is_out_of_memory
from trimtab.model.load import Base
from trimtab.training.batch import MICRO_TOKENS


def require_finite(
    values: Mapping[str, float | None], *, step: int, last_checkpoint: int | None, rate: float | None, precision: str
) -> None:
    """Raise DivergedError if a value is not finite at `step` (counted from 1).

    `last_checkpoint`: step of the last checkpoint, None before the first. `rate`: peak learning rate; None before the
    first optimizer step, where a lower rate cannot help.
    """
    for name, value in values.items():
        if value is None or math.isfinite(value):
            continue
        if rate is None:
            remedy = 'set base.precision = "fp32"' if precision != "fp32" else "look at the rows and their weights"
            raise DivergedError(
                f"{name} is {value} at step {step}, before any weight has changed: {remedy}, or choose another "
                "base.model"
            )
        raise DivergedError(
            f"{name} is {value} at step {step}; {_saved_state(last_checkpoint)}: start again with a lower "
            f"learning_rate (now {rate:g})"
        )


@contextmanager
def explain_memory_error(base: Base, where: str, last_checkpoint: int | None, tokens: int = 0) -> Iterator[None]:
    """Context manager: re-raises an out-of-memory error as MemoryRanOutError with advice.

    `tokens`: tokens of the current forward and backward pass, 0 outside of one.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        pass_text = f", in a pass of {tokens:,} tokens" if tokens else ""
        raise MemoryRanOutError(
            f"out of memory at {where}{pass_text}; {_saved_state(last_checkpoint)}: close other programs and go "
            f"on with --resume, or start again with {_memory_advice(base, tokens)}"
        ) from error


def _memory_advice(base: Base, tokens: int) -> str:
    """Return the settings that save memory, as text.

    `batch` is not among them: a step is split into passes of a fixed number of tokens, whatever its batch size.
    """
    ways = ["a smaller base.model"]
    if base.precision != "bf16":
        ways.append('base.precision = "bf16"')
    if tokens > MICRO_TOKENS:
        ways.append(f"rows of at most {MICRO_TOKENS:,} tokens (shorter texts, fewer shots or passages)")
    ways.append("fewer trainable parameters (a lower rank, fewer layers, lora in place of full)")
    return f"{', '.join(ways[:-1])} or {ways[-1]}"


def _saved_state(last_checkpoint: int | None) -> str:
    return "nothing was saved yet" if last_checkpoint is None else f"the checkpoint of step {last_checkpoint} is intact"
