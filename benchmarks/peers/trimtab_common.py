"""Shared code of the scripts of our side: an objective trained with a clock, and the figures of the run."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import torch
import transformers

import trimtab
from trimtab.base.progress import Progress, ProgressEvent
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.training.loop import LoopSettings, TrainingJob, train_model


class Counting:
    """An objective that notes the tokens of each optimizer step as it is asked for them."""

    def __init__(self, objective: Any) -> None:
        self._objective = objective
        self.tokens: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objective, name)

    def batches(self, step: int) -> Any:
        found = self._objective.batches(step)
        self.tokens[step] = sum(batch.row_tokens for batch in found)
        return found


def timed(base: Any, objective: Any, plan: dict[str, Any], learning_rate: float) -> dict[str, Any]:
    """Train the steps of a plan, timed after the warm-up, and what is told of it."""
    objective = Counting(objective)
    warmup, steps = plan["warmup"], plan["warmup"] + plan["steps"]
    ends: list[float] = []

    def clock(event: ProgressEvent) -> None:
        if event["stage"] == "train" and event["step"] > len(ends):
            ends.append(time.perf_counter())

    job = TrainingJob(
        base=base,
        objective=objective,
        settings=LoopSettings(learning_rate=learning_rate, epochs=steps / objective.steps_per_epoch),
        folder=Path(plan["scratch"]),
        progress=Progress(listeners=[clock]),
    )
    train_model(job)
    seconds = ends[steps - 1] - ends[warmup - 1]
    tokens = sum(objective.tokens[step] for step in range(warmup, steps))
    versions = {one.__name__: one.__version__ for one in (trimtab, transformers, torch)}
    return {
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "trainable": sum(value.numel() for value in trainable_parameters(base.model).values()),
        "versions": versions,
    }
