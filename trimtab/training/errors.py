"""What training says where it cannot go on: what happened at which step, what is intact, and the setting that helps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from trimtab.base.errors import DivergedError, MemoryRanOutError, memory_ran_out
from trimtab.model.load import Base
from trimtab.training.batch import default_microbatch_tokens


def require_finite(
    values: Mapping[str, float | None], *, step: int, last_checkpoint: int | None, rate: float | None, precision: str
) -> None:
    """Raise DivergedError where one of them is not finite at `step`, counted from 1; `last_checkpoint` is the step of the last checkpoint.

    `rate` is the peak of the learning rate, None where no weight has moved yet, so that a lower one would not help.
    """
    for name, value in values.items():
        if value is None or math.isfinite(value):
            continue
        if rate is None:
            remedy = 'set base.precision = "fp32"' if precision != "fp32" else "look at the rows and their weights"
            raise DivergedError(
                f"{name} is {value} at step {step}, before any weight has moved: {remedy}, or choose another base.model"
            )
        raise DivergedError(
            f"{name} is {value} at step {step}; {_saved_state(last_checkpoint)}: start again with a lower learning_rate (now {rate:g})"
        )


@contextmanager
def explain_memory_error(base: Base, where: str, last_checkpoint: int | None, tokens: int = 0) -> Iterator[None]:
    """Inside, memory that runs out is told as MemoryRanOutError; `tokens` are those of the pass under way."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not memory_ran_out(error):
            raise
        pass_text = f", in a pass of {tokens:,} tokens" if tokens else ""
        raise MemoryRanOutError(
            f"the memory ran out at {where}{pass_text}; {_saved_state(last_checkpoint)}: close other programs and go on with --resume, "
            f"or start again with {_memory_advice(base, tokens)}"
        ) from error


def _memory_advice(base: Base, tokens: int) -> str:
    """What takes less memory. A larger or smaller `batch` is not among it: a step is made of passes of so many tokens."""
    ways = ["a smaller base.model"]
    if base.precision != "bf16":
        ways.append('base.precision = "bf16"')
    if tokens > (most := default_microbatch_tokens(base.model.dtype)):
        ways.append(f"rows of at most {most:,} tokens (shorter texts, fewer shots or passages)")
    ways.append("fewer numbers that move (a lower rank, fewer layers, lora in place of full)")
    return f"{', '.join(ways[:-1])} or {ways[-1]}"


def _saved_state(last_checkpoint: int | None) -> str:
    return "nothing was saved yet" if last_checkpoint is None else f"the checkpoint of step {last_checkpoint} is intact"
