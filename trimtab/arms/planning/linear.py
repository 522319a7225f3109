"""Prediction of the time and memory of the arm `linear`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trimtab.arms.calibration import plan_calibration
from trimtab.arms.linear import fits_budget, hidden_state_seconds, input_template
from trimtab.arms.planning.plan import ArmPlan
from trimtab.arms.search.context_search import SEARCH_SPACES, TrialPlan
from trimtab.arms.session import Session
from trimtab.base.machine import MemoryPeak
from trimtab.base.records import Arm
from trimtab.data.checks import linear_memory_mb
from trimtab.training.linear import CHOICE_ROWS

SAMPLE = 64  # rows embedded to predict the time of all
# Seconds of all fits of a column of a row, and beside that for each label; Banking77, tweets and graded answers, one
# core.
ROW_SECONDS, LABEL_SECONDS = 6e-4, 1e-4
WORDS_SECONDS = 1e-4  # of answering from words and letters alone
FITS = 9  # on the rows of the choice; on all rows it is one


def plan_linear(session: Session, arm: Arm, embedding: Callable[[Sequence[str]], float], *, is_timed: bool) -> ArmPlan:
    """Return the plan of the arm: embedding every row if that fits the budget, timed on a few (`is_timed`) or on one,
    and the fits.

    `embedding`: returns the seconds of embedding some texts.
    """
    train = session.workspace.training_rows("linear")
    dev, test = session.workspace.splits["dev"], session.workspace.splits["test"]
    labels, effort = len(session.workspace.labels), session.task.study.effort
    sample = [row.input for row in session.workspace.subset("train", SAMPLE if is_timed else 1)]
    with MemoryPeak() as memory:
        each = embedding(sample) / len(sample)
    each = each if fits_budget(session, each) else WORDS_SECONDS
    space = SEARCH_SPACES.get(effort)
    seconds = hidden_state_seconds(session) if space and space.hidden_states and is_timed else None
    hidden = () if seconds is None else (TrialPlan(what="hidden states as features", count=1, seconds=seconds),)
    return ArmPlan(
        arm=arm.name,
        answer_seconds=each * (len(train) + len(dev) + len(test)) + _fit_seconds(session, len(train), labels),
        test_seconds=each * len(test),
        trials=(*hidden, *plan_calibration(session, arm, effort, each)),
        memory_mb=max(linear_memory_mb([row.input for row in train], labels), memory.above_present()),
    )


def _fit_seconds(session: Session, rows: int, labels: int) -> float:
    """Return the seconds of choosing and fitting."""
    fitted = min(rows, CHOICE_ROWS) + max(0, rows - CHOICE_ROWS) / FITS
    columns = max(1, len(input_template(session.task)) - 1)
    return fitted * columns * (ROW_SECONDS + LABEL_SECONDS * labels)
