"""What the curves say: learning, memorising, still improving at the end; and when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

METRIC_NOISE = 0.02  # the metric is taken on 60 dev questions: one lucky answer must not outweigh a lower dev loss
Health = Literal["learning", "still improving", "memorising"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One evaluation: mean train loss since the last one and dev loss in nats per answer token, and the task's metric on dev."""

    step: int
    train_loss: float
    dev_loss: float
    dev_metric: float | None

    def to_json(self) -> dict[str, Any]:
        """The reading as JSON values."""
        return asdict(self)


def better(reading: Reading, than: Reading | None) -> bool:
    """Whether a reading beats the best so far: by the metric, by dev loss where metrics are as good as equal or absent."""
    if than is None:
        return True
    left, right = reading.dev_metric, than.dev_metric
    if left is not None and right is not None and abs(left - right) > METRIC_NOISE:
        return left > right
    return reading.dev_loss < than.dev_loss


def best_of(readings: Sequence[Reading]) -> Reading:
    """The best reading, the earliest of equals."""
    best = readings[0]
    for reading in readings[1:]:
        best = reading if better(reading, best) else best
    return best


def should_stop(readings: Sequence[Reading], patience: int) -> bool:
    """True when the best reading is at least `patience` evaluations old and dev loss stands above its lowest."""
    if len(readings) <= patience:
        return False
    behind = len(readings) - 1 - readings.index(best_of(readings))
    return behind >= patience and readings[-1].dev_loss > min(reading.dev_loss for reading in readings)


def health(readings: Sequence[Reading]) -> Health:
    """What the whole curve says: memorising from a dev loss 5% above its lowest on, improving while it still fell by over 2%.

    A run with fewer than two readings is taken to be learning.
    """
    if len(readings) < 2:
        return "learning"
    lowest = min(readings, key=lambda reading: reading.dev_loss)
    last = readings[-1]
    if last.dev_loss > lowest.dev_loss * 1.05 and last.train_loss < lowest.train_loss:
        return "memorising"
    if lowest is last and readings[-2].dev_loss - last.dev_loss > 0.02 * readings[-2].dev_loss:
        return "still improving"
    return "learning"


ADVICE: dict[Health, str] = {
    "learning": "",
    "still improving": "dev loss was still falling at the end: more epochs may help",
    "memorising": "train loss falls while dev loss rises: it memorises; the best weights were kept",
}
