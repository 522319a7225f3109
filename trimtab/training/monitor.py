"""Early stopping, choice of the best weights, and a diagnosis from the training and dev curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

REWARD_FIGURE = "train_reward"  # mean reward of the sampled answers
LOSS_RISE, LOSS_FALL = 0.05, 0.02  # relative changes of the dev loss that count
Health = Literal["learning", "still improving", "memorising", "diverging", "gaming"]


@dataclass(frozen=True, kw_only=True)
class DevEvaluation:
    """One dev evaluation: loss in nats per answer token, the task's metric (higher is better), further figures.

    `rows`: each dev row's contribution, the same rows in the same order at every evaluation; their mean is the dev
    loss, or the metric if there is no loss. Without them a difference has no standard error, and every difference
    counts. Raises ValueError if it has neither loss nor metric, as no weights could then be the best.
    """

    dev_loss: float | None = None
    dev_metric: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    rows: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.dev_loss is None and self.dev_metric is None:
            raise ValueError("an evaluation has a dev loss, a dev metric or both")


@dataclass(frozen=True, kw_only=True)
class EvalRecord:
    """A dev evaluation within a run, and the mean train loss since the previous one; all records of a run have the same
    figures.

    `figures`: those of dev, and as `train_…` the means of the steps' figures since the previous record.
    """

    step: int
    train_loss: float
    dev_loss: float | None
    dev_metric: float | None
    figures: Mapping[str, float] = field(default_factory=dict)
    rows: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return asdict(self)


def best_of(readings: Sequence[EvalRecord]) -> EvalRecord:
    """Return the latest record whose dev loss is within one paired standard error of the lowest (or metric, of the
    highest).

    All are compared with the lowest, so the best does not depend on an order of comparison. Of equals the latest was
    trained longer at a lower rate. A new record either is the best or leaves the previous best: no third one has to be
    kept.
    """
    lowest = _lowest_record(readings)
    return max((record for record in readings if not _clearly_worse(record, lowest)), key=lambda one: one.step)


def paired_error(left: EvalRecord, right: EvalRecord) -> float:
    """Return the standard error of the difference of two records over the same rows; 0 if rows were not recorded."""
    gaps = [one - other for one, other in zip(left.rows, right.rows, strict=True)]
    return statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0


def should_stop(readings: Sequence[EvalRecord], patience: int) -> bool:
    """True if the best record is at least `patience` evaluations old: each since then is worse by over one standard
    error.
    """
    return bool(readings) and len(readings) - 1 - readings.index(best_of(readings)) >= patience


def health(readings: Sequence[EvalRecord]) -> Health:
    """Diagnose the whole curve of a run.

    "still improving": dev loss still fell by over 2% at the end. If it ended 5% above its lowest: "memorising" if train
    loss kept falling since then, "diverging" if it rose by 5% too. Without a dev loss, the thresholds are one paired
    standard error of the metric. "gaming": rewards are higher than when the dev metric was best, and the metric is
    clearly worse. A run with fewer than two records is "learning".
    """
    if len(readings) < 2:
        return "learning"
    lowest = _lowest_record(readings)
    last, former = readings[-1], readings[-2]
    rise = loss_or_negated_metric(last) - loss_or_negated_metric(lowest)
    fall = loss_or_negated_metric(former) - loss_or_negated_metric(last)
    if REWARD_FIGURE in last.figures:
        if last.figures[REWARD_FIGURE] > lowest.figures[REWARD_FIGURE] and _exceeds(rise, paired_error(lowest, last)):
            return "gaming"
    elif _exceeds(rise, _min_change(lowest, last, LOSS_RISE)):
        if last.train_loss < lowest.train_loss:
            return "memorising"
        if last.train_loss - lowest.train_loss > LOSS_RISE * abs(lowest.train_loss):
            return "diverging"
    if lowest is last and _exceeds(fall, _min_change(former, last, LOSS_FALL)):
        return "still improving"
    return "learning"


def _lowest_record(readings: Sequence[EvalRecord]) -> EvalRecord:
    """Return the record with the lowest dev loss, the earliest of equals."""
    return min(readings, key=lambda record: (loss_or_negated_metric(record), record.step))


def _clearly_worse(record: EvalRecord, than: EvalRecord) -> bool:
    return _exceeds(loss_or_negated_metric(record) - loss_or_negated_metric(than), paired_error(record, than))


def loss_or_negated_metric(record: EvalRecord) -> float:
    """Return the dev loss, or the negated metric if there is none: lower is better."""
    if record.dev_loss is not None:
        return record.dev_loss
    return -record.dev_metric if record.dev_metric is not None else 0.0


def _exceeds(gap: float, error: float) -> bool:
    """True if a gap exceeds the error beyond rounding: one more right answer is one standard error of a right/wrong
    metric.
    """
    return gap > error and not math.isclose(gap, error)


def _min_change(record: EvalRecord, other: EvalRecord, share: float) -> float:
    """Return how much `loss_or_negated_metric` must change to be meaningful."""
    return paired_error(record, other) if record.dev_loss is None else share * abs(record.dev_loss)


ADVICE: dict[Health, str] = {
    "learning": "",
    "still improving": "dev loss was still falling at the end: more epochs may help",
    "memorising": "train loss falls while dev loss rises: it memorises; the best weights were kept",
    "gaming": "rewards rise while the metric on dev falls: reward hacking; the best weights by the metric were kept",
    "diverging": "train loss and dev loss both rose: lower learning_rate; the best weights were kept",
}
