"""Small trainings on a tiny model, and the free memory that they see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import random_rows

from trimtab.base.machine import MemoryUse
from trimtab.base.progress import Progress
from trimtab.model.load import Base
from trimtab.training import activation_memory
from trimtab.training.loop import LoopSettings, TrainingJob, evaluate_objective
from trimtab.training.sft import SupervisedObjective

PLENTY = 1 << 40  # bytes
Free = Callable[[int], None]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Free:
    """A function that sets the memory that the machine has free, in bytes."""

    def set_free(size: int) -> None:
        monkeypatch.setattr(activation_memory, "memory_use", lambda: MemoryUse(size, size))

    return set_free


def small_job(base: Base, folder: Path, learning_rate: float, events: list | None = None) -> TrainingJob:  # type: ignore[type-arg]
    """Two epochs of twenty rows, ten steps in all, with two looks at dev."""
    dev = SupervisedObjective(random_rows(5, seed=9), batch=5, seed=0)
    return TrainingJob(
        base=base,
        objective=SupervisedObjective(random_rows(20), batch=4, seed=0),
        settings=LoopSettings(learning_rate=learning_rate, epochs=2, evaluations=2),
        folder=folder,
        evaluate=lambda: evaluate_objective(base, dev),
        progress=Progress(listeners=[] if events is None else [events.append]),
    )
