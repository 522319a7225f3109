"""What the scripts of our side share: an objective trained with a clock, and what is told of the run."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import torch
import transformers

import trimtab
from trimtab.base.progress import Event, Progress
from trimtab.model.adapters import trainable
from trimtab.training.loop import LoopSettings, TrainingJob, train


def timed(base: Any, objective: Any, plan: dict[str, Any], learning_rate: float) -> dict[str, Any]:
    """Train the steps of a plan, timed after the warm-up, and what is told of it."""
    warmup, steps = plan["warmup"], plan["warmup"] + plan["steps"]
    ends: list[float] = []

    def clock(event: Event) -> None:
        if event["stage"] == "train" and event["step"] > len(ends):
            ends.append(time.perf_counter())

    job = TrainingJob(
        base=base,
        objective=objective,
        settings=LoopSettings(learning_rate=learning_rate, epochs=steps / objective.steps_per_epoch),
        folder=Path(plan["scratch"]),
        progress=Progress(listeners=[clock]),
    )
    train(job)
    seconds = ends[steps - 1] - ends[warmup - 1]
    tokens = sum(batch.row_tokens for step in range(warmup, steps) for batch in objective.batches(step))
    versions = {one.__name__: one.__version__ for one in (trimtab, transformers, torch)}
    return {
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "trainable": sum(value.numel() for value in trainable(base.model).values()),
        "versions": versions,
    }
