"""What the curves say: learning, memorising, still improving at the end; and when to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

METRIC_NOISE = 0.02  # the metric is taken on 60 dev questions: one lucky answer must not outweigh a lower dev loss
LOSS_RISE, LOSS_FALL = 0.05, 0.02  # shares of the dev loss that count as a rise and as a fall
Health = Literal["learning", "still improving", "memorising"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one look at dev gives: dev loss in nats per answer token, the task's metric (higher is better), further figures.

    Raises ValueError when it has neither loss nor metric: no weights could be told to be the best.
    """

    dev_loss: float | None = None
    dev_metric: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dev_loss is None and self.dev_metric is None:
            raise ValueError("an evaluation has a dev loss, a dev metric or both")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One evaluation within a run, and the mean train loss since the last one; every reading of a run has the same figures."""

    step: int
    train_loss: float
    dev_loss: float | None
    dev_metric: float | None
    figures: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The reading as JSON values."""
        return asdict(self)


def better(reading: Reading, than: Reading | None) -> bool:
    """Whether a reading beats the best so far: by the metric, by dev loss where metrics are as good as equal or absent."""
    if than is None:
        return True
    left, right = reading.dev_metric, than.dev_metric
    if left is not None and right is not None and (abs(left - right) > METRIC_NOISE or reading.dev_loss is None):
        return left > right
    return _badness(reading) < _badness(than)


def best_of(readings: Sequence[Reading]) -> Reading:
    """The best reading, the earliest of equals."""
    best = readings[0]
    for reading in readings[1:]:
        best = reading if better(reading, best) else best
    return best


def should_stop(readings: Sequence[Reading], patience: int) -> bool:
    """True when the best reading is at least `patience` evaluations old and dev loss stands above its lowest.

    Without a dev loss it is the metric that must stand below its highest.
    """
    if len(readings) <= patience:
        return False
    behind = len(readings) - 1 - readings.index(best_of(readings))
    return behind >= patience and _badness(readings[-1]) > min(map(_badness, readings))


def health(readings: Sequence[Reading]) -> Health:
    """What the whole curve says: memorising from a dev loss 5% above its lowest on, improving while it still fell by over 2%.

    Without a dev loss, both are a change of the metric by more than its noise. A run with fewer than two readings is taken to be
    learning.
    """
    if len(readings) < 2:
        return "learning"
    lowest = min(readings, key=_badness)
    last, former = readings[-1], readings[-2]
    if _badness(last) - _badness(lowest) > _step(lowest, LOSS_RISE) and last.train_loss < lowest.train_loss:
        return "memorising"
    if lowest is last and _badness(former) - _badness(last) > _step(former, LOSS_FALL):
        return "still improving"
    return "learning"


def _badness(reading: Reading) -> float:
    """Dev loss, or the metric turned round where there is none: lower is better."""
    if reading.dev_loss is not None:
        return reading.dev_loss
    return -reading.dev_metric if reading.dev_metric is not None else 0.0


def _step(reading: Reading, share: float) -> float:
    """By how much `_badness` must change to mean something."""
    return METRIC_NOISE if reading.dev_loss is None else share * abs(reading.dev_loss)


ADVICE: dict[Health, str] = {
    "learning": "",
    "still improving": "dev loss was still falling at the end: more epochs may help",
    "memorising": "train loss falls while dev loss rises: it memorises; the best weights were kept",
}
