"""What the curves say: learning, memorising, diverging, still improving at the end; and when to stop."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

REWARD_FIGURE = "train_reward"  # what answers that were learnt from earned
LOSS_RISE, LOSS_FALL = 0.05, 0.02  # shares of the dev loss that count as a rise and as a fall
Health = Literal["learning", "still improving", "memorising", "diverging", "gaming"]


@dataclass(frozen=True, kw_only=True)
class DevEvaluation:
    """What one look at dev gives: dev loss in nats per answer token, the task's metric (higher is better), further figures.

    `rows` is what each row of dev adds, the same rows in the same order at every look: their mean is the dev loss, or the metric
    where there is no loss. Without them a difference has no standard error, and every one counts.
    Raises ValueError when it has neither loss nor metric: no weights could be told to be the best.
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
    """One evaluation within a run, and the mean train loss since the last one; every reading of a run has the same figures.

    `figures` are those of dev and, as `train_…`, the means of the steps' own since the last reading.
    """

    step: int
    train_loss: float
    dev_loss: float | None
    dev_metric: float | None
    figures: Mapping[str, float] = field(default_factory=dict)
    rows: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The reading as JSON values."""
        return asdict(self)


def best_of(readings: Sequence[EvalRecord]) -> EvalRecord:
    """The latest reading whose dev loss is within one paired standard error of the lowest; without losses, by the highest metric.

    All are compared with one, so the best does not hang on the order in which they are compared; a later one of equals
    was trained longer at a lower rate. A new reading is the best or leaves the former one the best: no third one has to be kept.
    """
    lowest = _lowest_record(readings)
    return max((record for record in readings if not _clearly_worse(record, lowest)), key=lambda one: one.step)


def paired_error(left: EvalRecord, right: EvalRecord) -> float:
    """One standard error of the difference of two readings, from the differences row by row; 0 where rows were not kept."""
    gaps = [one - other for one, other in zip(left.rows, right.rows, strict=True)]
    return statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0


def should_stop(readings: Sequence[EvalRecord], patience: int) -> bool:
    """True when the best reading is at least `patience` evaluations old: each since then is worse by over one standard error."""
    return bool(readings) and len(readings) - 1 - readings.index(best_of(readings)) >= patience


def health(readings: Sequence[EvalRecord]) -> Health:
    """What the whole curve says: improving while dev loss still fell by over 2% at the end, something is wrong when it is 5% above its lowest.

    Where train loss went on falling since then, it memorises; where that rose by 5% too, it diverges. Without a dev loss, these are a
    change of the metric by more than one paired standard error. Gaming: answers earn more than they did when the metric on dev was at
    its best, and the metric is clearly worse. A run with fewer than two readings is taken to be learning.
    """
    if len(readings) < 2:
        return "learning"
    lowest = _lowest_record(readings)
    last, former = readings[-1], readings[-2]
    rise, fall = (
        loss_or_negated_metric(last) - loss_or_negated_metric(lowest),
        loss_or_negated_metric(former) - loss_or_negated_metric(last),
    )
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
    """The reading with the lowest dev loss, the earliest of equals."""
    return min(readings, key=lambda record: (loss_or_negated_metric(record), record.step))


def _clearly_worse(record: EvalRecord, than: EvalRecord) -> bool:
    return _exceeds(loss_or_negated_metric(record) - loss_or_negated_metric(than), paired_error(record, than))


def loss_or_negated_metric(record: EvalRecord) -> float:
    """Dev loss, or the metric turned round where there is none: lower is better."""
    if record.dev_loss is not None:
        return record.dev_loss
    return -record.dev_metric if record.dev_metric is not None else 0.0


def _exceeds(gap: float, error: float) -> bool:
    """Whether a gap is more than that: one answer more of a right/wrong metric is one standard error, but for its last bits."""
    return gap > error and not math.isclose(gap, error)


def _min_change(record: EvalRecord, other: EvalRecord, share: float) -> float:
    """By how much `badness` must change to mean something."""
    return paired_error(record, other) if record.dev_loss is None else share * abs(record.dev_loss)


ADVICE: dict[Health, str] = {
    "learning": "",
    "still improving": "dev loss was still falling at the end: more epochs may help",
    "memorising": "train loss falls while dev loss rises: it memorises; the best weights were kept",
    "gaming": "answers earn more while the metric on dev falls: the reward is gamed; the best weights by the metric were kept",
    "diverging": "train loss and dev loss both rose: lower learning_rate; the best weights were kept",
}
