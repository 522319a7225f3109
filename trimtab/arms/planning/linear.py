"""Prediction of the time and memory of the arm `linear`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trimtab.arms.calibration import plan_calibration
from trimtab.arms.linear import hidden_state_seconds
from trimtab.arms.planning.plan import ArmPlan
from trimtab.arms.search.context_search import SEARCH_SPACES, TrialPlan
from trimtab.arms.session import Session
from trimtab.base.machine import MemoryPeak
from trimtab.base.records import Arm
from trimtab.data.checks import linear_memory_mb

SAMPLE = 64  # rows embedded to predict the time of all
FIT_SECONDS = 2.5e-5  # seconds of all linear fits per row and label; measured on Banking77 with one core


def plan_linear(session: Session, arm: Arm, embedding: Callable[[Sequence[str]], float], *, is_timed: bool) -> ArmPlan:
    """Return the plan of the arm: embedding every row, timed on a few (`is_timed`) or on one, and the fits.

    `embedding`: returns the seconds of embedding some texts.
    """
    train, dev, test = (session.workspace.splits[name] for name in ("train", "dev", "test"))
    labels, effort = len(session.workspace.labels), session.task.study.effort
    sample = [row.input for row in session.workspace.subset("train", SAMPLE if is_timed else 1)]
    with MemoryPeak() as memory:
        each = embedding(sample) / len(sample)
    seconds = hidden_state_seconds(session) if effort in SEARCH_SPACES and is_timed else None
    hidden = () if seconds is None else (TrialPlan(what="hidden states as features", count=1, seconds=seconds),)
    return ArmPlan(
        arm=arm.name,
        answer_seconds=each * (len(train) + len(dev) + len(test)) + FIT_SECONDS * len(train) * labels,
        test_seconds=each * len(test),
        trials=(*hidden, *plan_calibration(session, arm, effort, each)),
        memory_mb=max(linear_memory_mb([row.input for row in train], labels), memory.above_present()),
    )
