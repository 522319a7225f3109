"""The one training loop: an objective's batches and loss, steps, dev evaluation, checkpoints, and a clean stop."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from trimtab.base.errors import DivergedError, InputError, StoppedError
from trimtab.base.files import locked
from trimtab.base.progress import Progress
from trimtab.model.adapters import trainable
from trimtab.model.load import Base
from trimtab.training import checkpoint as checkpoints
from trimtab.training.batch import Batch
from trimtab.training.checkpoint import Checkpoint
from trimtab.training.monitor import ADVICE, Health, Reading, best_of, health, should_stop
from trimtab.training.optim import Optimizer, learning_rate_at

SAVE_SECONDS = 60.0


class Objective(Protocol):
    """What is optimised: the micro-batches of a step, and the loss of each, which sum to the step's loss."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that see every row once."""
        ...

    def batches(self, step: int) -> Sequence[Batch]:
        """Micro-batches of optimizer step `step`, counted from 0."""
        ...

    def loss(self, base: Base, batch: Batch) -> Tensor:
        """This micro-batch's part of the step's loss."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long and how fast. Dev is looked at `evaluations` times over the whole run; `patience` is that of `should_stop`.

    `epochs` may be a part of one; `clip` bounds the norm of the gradient of a step.
    """

    learning_rate: float
    epochs: float
    weight_decay: float = 0.0
    clip: float = 1.0
    evaluations: int = 4
    patience: int = 2


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run, its best weights loaded into the model. Seconds are those of training and dev evaluation, all sittings."""

    steps: int
    seconds: float
    tokens: int
    best: Reading | None
    health: Health
    readings: tuple[Reading, ...]


@dataclass
class _State:
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    readings: list[Reading] = field(default_factory=list)

    def to_json(self, fingerprint: str, precision: str) -> dict[str, Any]:
        values = {key: getattr(self, key) for key in ("step", "seconds", "tokens", "loss_sum", "loss_count")}
        return {
            **values,
            "readings": [reading.to_json() for reading in self.readings],
            "fingerprint": fingerprint,
            "precision": precision,
        }


def train(
    base: Base,
    objective: Objective,
    settings: LoopSettings,
    folder: Path,
    *,
    dev: Objective | None = None,
    metric: Callable[[], float] | None = None,
    progress: Progress | None = None,
    fingerprint: str = "",
    note: str = "",
) -> TrainResult:
    """Train whatever of `base` may move, going on from the checkpoints in `folder` when there are any.

    `dev` gives the held-out loss and `metric` the task's own figure at each evaluation; the best weights are loaded at the end.
    `fingerprint` names data and settings: a run is never resumed on others. Raises StoppedError after a signal, with everything
    saved; DivergedError when a loss or the gradient is not finite; InputError for checkpoints of other data, settings or precision,
    and when one cannot be written; BusyError when another process writes the folder.
    """
    with locked(folder), _graceful() as stop:
        run = _Run(
            base, objective, settings, folder / "checkpoints", dev, metric, progress or Progress(), fingerprint, note
        )
        return run.go(stop)


class _Run:
    """One run's moving parts; `go` is the loop."""

    def __init__(
        self,
        base: Base,
        objective: Objective,
        settings: LoopSettings,
        folder: Path,
        dev: Objective | None,
        metric: Callable[[], float] | None,
        progress: Progress,
        fingerprint: str,
        note: str,
    ) -> None:
        self.base, self.objective, self.settings, self.folder = base, objective, settings, folder
        self.dev, self.metric, self.progress, self.fingerprint, self.note = dev, metric, progress, fingerprint, note
        self.steps = max(1, math.ceil(settings.epochs * objective.steps_per_epoch))
        self.optimizer = Optimizer(trainable(base.model), weight_decay=settings.weight_decay, clip=settings.clip)
        self.state = self._resume()
        marks = {round(self.steps * (number + 1) / settings.evaluations) for number in range(settings.evaluations)}
        self.marks = {max(1, mark) for mark in marks} if dev is not None else set()

    def go(self, stop: list[int]) -> TrainResult:
        began = last_save = time.monotonic()
        before = self.state.seconds
        stopped_early = should_stop(self.state.readings, self.settings.patience)
        while self.state.step < self.steps and not stopped_early:
            self._step()
            self.state.seconds = before + time.monotonic() - began
            evaluated = self.state.step in self.marks
            if evaluated:
                self._evaluate()
                self.state.seconds = before + time.monotonic() - began
                stopped_early = should_stop(self.state.readings, self.settings.patience)
            if evaluated or stop or self.state.step == self.steps or time.monotonic() - last_save > SAVE_SECONDS:
                self._save(best=evaluated and self._newest_is_best())
                last_save = time.monotonic()
            if stop:
                raise StoppedError(f"stopped at step {self.state.step} of {self.steps}, all saved; go on with --resume")
        return self._finish()

    def _step(self) -> None:
        """One optimizer step."""
        loss = 0.0
        for batch in self.objective.batches(self.state.step):
            part = self.objective.loss(self.base, batch)
            part.backward()  # type: ignore[no-untyped-call]
            self.optimizer.collect()
            loss += float(part.detach())
            self.state.tokens += batch.ids_N.shape[0]
        self._require_number("loss", loss)
        rate = learning_rate_at(self.state.step, self.steps, self.settings.learning_rate)
        norm = self.optimizer.clip_gradients()
        self._require_number("gradient norm", norm)
        self.optimizer.step(rate)
        self.state.step += 1
        self.state.loss_sum += loss
        self.state.loss_count += 1
        self.progress.emit(
            "train",
            step=self.state.step,
            of=self.steps,
            loss=loss,
            gradient_norm=norm,
            learning_rate=rate,
            tokens_per_second=self.state.tokens / self.state.seconds if self.state.seconds else None,
            **({"note": self.note} if self.note else {}),
        )

    def _require_number(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise DivergedError(
                f"{what} is {value} at step {self.state.step + 1}; the last checkpoint is intact: "
                f"lower learning_rate (now {self.settings.learning_rate:g})"
            )

    def _evaluate(self) -> None:
        if self.dev is None:
            return
        reading = Reading(
            step=self.state.step,
            train_loss=self.state.loss_sum / max(1, self.state.loss_count),
            dev_loss=mean_loss(self.base, self.dev),
            dev_metric=self.metric() if self.metric else None,
        )
        self._require_number("dev loss", reading.dev_loss)
        self.state.loss_sum, self.state.loss_count = 0.0, 0
        self.state.readings.append(reading)
        self.progress.emit("dev", **{**reading.to_json(), "of": self.steps, "best": self._newest_is_best()})

    def _newest_is_best(self) -> bool:
        return best_of(self.state.readings) is self.state.readings[-1]

    def _save(self, *, best: bool) -> None:
        state = self.state.to_json(self.fingerprint, self.base.precision)
        kept = Checkpoint(weights=self.optimizer.weights(), moments=self.optimizer.moments(), state=state)
        checkpoints.save(self.folder, kept, best=best)

    def _resume(self) -> _State:
        found = checkpoints.load(self.folder)
        if found is None:
            return _State()
        saved = dict(found.state)
        for key, mine in (("fingerprint", self.fingerprint), ("precision", self.base.precision)):
            if saved.pop(key) != mine:
                raise InputError(
                    f"the checkpoint was made with another {'data or settings' if key == 'fingerprint' else 'precision'}",
                    "start a new run, or put back what was changed",
                    file=self.folder,
                )
        self.optimizer.load_weights(found.weights)
        self.optimizer.load_moments(found.moments)
        return _State(**{**saved, "readings": [Reading(**reading) for reading in saved["readings"]]})

    def _finish(self) -> TrainResult:
        readings = tuple(self.state.readings)
        best = checkpoints.load_best(self.folder)
        if best is not None:
            self.optimizer.load_weights(best.weights)
        verdict = health(readings)
        if ADVICE[verdict]:
            self.progress.emit("train", step=self.state.step, of=self.steps, note=ADVICE[verdict])
        return TrainResult(
            steps=self.state.step,
            seconds=self.state.seconds,
            tokens=self.state.tokens,
            best=best_of(readings) if readings else None,
            health=verdict,
            readings=readings,
        )


def mean_loss(base: Base, objective: Objective) -> float:
    """Loss over one pass of an objective, in nats per trained token: each step counts by the tokens trained on in it."""
    total, tokens = 0.0, 0
    with torch.no_grad():
        for step in range(objective.steps_per_epoch):
            batches = objective.batches(step)
            trained = sum(batch.trained_tokens for batch in batches)
            total += trained * sum(float(objective.loss(base, batch)) for batch in batches)
            tokens += trained
    return total / tokens


@contextmanager
def _graceful() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying, so that a step can be finished and saved; a second one kills as usual."""
    caught: list[int] = []
    former: dict[signal.Signals, Any] = {}

    def note(number: int, _: Any) -> None:
        caught.append(number)
        signal.signal(number, former[signal.Signals(number)])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            former[number] = signal.getsignal(number)
            signal.signal(number, note)
    except ValueError:  # not the main thread: signals are not ours to handle
        former.clear()
    try:
        yield caught
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
