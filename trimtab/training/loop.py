"""The training loop: optimizer steps, dev evaluation, checkpoints, and a clean stop on signals."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from trimtab.base.errors import InputError, StoppedError
from trimtab.base.files import locked
from trimtab.base.progress import STOP_SIGNALS, Progress
from trimtab.model import process_group
from trimtab.model.load import Base
from trimtab.training import checkpoint as checkpoints
from trimtab.training.activation_memory import ActivationBudget, activation_budget, optimizer_bytes
from trimtab.training.batch import Batch, batch_tokens
from trimtab.training.checkpoint import Checkpoint
from trimtab.training.errors import explain_memory_error, require_finite
from trimtab.training.losses import Loss, PlainLoss
from trimtab.training.monitor import ADVICE, DevEvaluation, EvalRecord, Health, best_of, health, should_stop
from trimtab.training.optim import Optimizer, Schedule, learning_rate_at
from trimtab.training.parallel import map_microbatches

SAVE_SECONDS = 60.0
VERSION = 3  # of a checkpoint's state; earlier ones chose the best weights by another rule
AnyBatch = TypeVar("AnyBatch", bound=Batch)


class TrainingObjective(Protocol[AnyBatch]):
    """Protocol of a training objective: its parameters, micro-batches and losses.

    The losses of the micro-batches sum to the step's loss. An objective that needs more than tokens and labels, such as
    reference log-probabilities, subclasses `Batch`.
    """

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        ...

    def parameters(self, base: Base) -> Mapping[str, nn.Parameter]:
        """Return the trained parameters by name: the model's trainable ones, and heads beside it."""
        ...

    def batches(self, step: int) -> Sequence[AnyBatch]:
        """Return the micro-batches of optimizer step `step` (from 0); must depend on `step` and the weights alone."""
        ...

    def loss(self, base: Base, batch: AnyBatch) -> Loss:
        """Return this micro-batch's part of the step's loss and figures."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Length and learning rate of a run.

    `epochs` may be fractional. `clip` bounds the gradient norm of a step. `evaluations`: dev evaluations over the whole
    run. `patience`: see `should_stop`. `schedule`: see `learning_rate_at`.
    """

    learning_rate: float
    epochs: float
    weight_decay: float = 0.0
    clip: float = 1.0
    evaluations: int = 4
    patience: int = 2
    schedule: Schedule = "cosine"


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The inputs of `train_model`; checkpoints are written to `folder`.

    `evaluate` evaluates the current weights on dev; without it nothing stops early and the last weights are kept.
    `fingerprint` identifies data and settings: a run is never resumed with others. `note`, `trial` (which of several
    runs of one stage this is) and `run` are part of every event.
    """

    base: Base
    objective: TrainingObjective[Any]
    settings: LoopSettings
    folder: Path
    evaluate: Callable[[], DevEvaluation] | None = None
    progress: Progress = field(default_factory=Progress)
    fingerprint: str = ""
    note: str = ""
    trial: str = ""

    @property
    def event_fields(self) -> dict[str, Any]:
        """Fields of every event of this run."""
        named = (("note", self.note), ("trial", self.trial), ("run", self.run))
        return {name: text for name, text in named if text}

    @property
    def run(self) -> str:
        """The run's folder relative to the event file, unique within a study."""
        home = self.progress.path.parent if self.progress.path else self.folder.parent
        return self.folder.relative_to(home).as_posix() if self.folder.is_relative_to(home) else self.folder.name

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return max(1, math.ceil(self.settings.epochs * self.objective.steps_per_epoch))

    @property
    def evaluation_steps(self) -> set[int]:
        """Steps after which the weights are evaluated on dev."""
        times = self.settings.evaluations if self.evaluate is not None else 0
        return {max(1, round(self.steps * (number + 1) / times)) for number in range(times)}

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The state of a run after `steps` of `planned` optimizer steps (`epochs`).

    If `finished`, the model has its best weights. `seconds`: training and dev evaluation, over all resumed sessions.
    """

    finished: bool
    steps: int
    epochs: float
    planned: int
    seconds: float
    tokens: int
    best: EvalRecord | None
    health: Health
    readings: tuple[EvalRecord, ...]


@dataclass
class _State:
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    figure_sums: dict[str, float] = field(default_factory=dict)  # like loss_sum, since the last record
    readings: list[EvalRecord] = field(default_factory=list)
    last_checkpoint: int | None = None  # its step
    checkpointing_noted: bool = False  # True once a note said that passes recompute their layers

    def to_json(self) -> dict[str, Any]:
        names = ("step", "seconds", "tokens", "loss_sum", "loss_count", "figure_sums")
        values = {key: getattr(self, key) for key in names}
        return {**values, "readings": [record.to_json() for record in self.readings]}

    @property
    def newest_is_best(self) -> bool:
        return best_of(self.readings) is self.readings[-1]


def train_model(job: TrainingJob, until: int | None = None) -> TrainResult:
    """Train an objective; resumes from the checkpoints in the job's folder if there are any.

    `until`: a step to stop after, with everything saved and that step's weights in the model; a later call continues,
    with the same result to the bit as an uninterrupted run. Raises StoppedError after a signal, with everything saved;
    DivergedError if a loss, a figure or the gradient is not finite; MemoryRanOutError; InputError for checkpoints of
    other data, settings, precision or version, or if a checkpoint cannot be written; BusyError if another process
    writes to the folder.

    In a group of processes (`model/process_group.py`) all must call it alike, with the same folder, after the model was
    divided (`model/sharded.py`). They share the micro-batches of each step, the first one writes, and a signal to one
    stops all.
    """
    with _one_writer(job.folder), _collect_stop_signals() as stop, _optimizer(job) as optimizer:
        settings, steps, evaluation_steps = job.settings, job.steps, job.evaluation_steps
        budget = activation_budget(job.base, optimizer_bytes(optimizer.masters))
        state = _resume(job, optimizer)
        last = steps if until is None else min(until, steps)
        began = last_save = time.monotonic()
        before = state.seconds
        stopped_early = should_stop(state.readings, settings.patience)
        while state.step < last and not stopped_early:
            _step(job, optimizer, state, budget)
            state.seconds = before + time.monotonic() - began
            evaluated = state.step in evaluation_steps
            if evaluated:
                _evaluate(job, state)
                state.seconds = before + time.monotonic() - began
                stopped_early = should_stop(state.readings, settings.patience)
            is_due = process_group.is_main_process() and time.monotonic() - last_save > SAVE_SECONDS
            must_stop, is_due = process_group.any_process(bool(stop), is_due)
            if evaluated or must_stop or state.step == last or is_due:
                _save(job, optimizer, state)
                last_save = time.monotonic()
            if must_stop:
                raise StoppedError(f"stopped at step {state.step} of {steps}, all saved; go on with --resume")
        return _result(job, optimizer, state, finished=stopped_early or state.step == steps)


def _one_writer(folder: Path) -> AbstractContextManager[None]:
    """Context manager: this process, the first of its group, is the folder's only writer."""
    return locked(folder) if process_group.is_main_process() else nullcontext()


@contextmanager
def _optimizer(job: TrainingJob) -> Iterator[Optimizer]:
    """Context manager: the optimizer of the trained parameters; frees all gradients at the end."""
    settings = job.settings
    optimizer = Optimizer(job.objective.parameters(job.base), weight_decay=settings.weight_decay, clip=settings.clip)
    try:
        yield optimizer
    finally:
        optimizer.release()


def _step(job: TrainingJob, optimizer: Optimizer, state: _State, budget: ActivationBudget) -> None:
    """Run one optimizer step over its micro-batches and emit its event."""
    settings, steps = job.settings, job.steps
    loss = 0.0
    figures: dict[str, float] = {}
    where = f"step {state.step + 1} of {steps}"
    with explain_memory_error(job.base, where, state.last_checkpoint):
        batches = job.objective.batches(state.step)
    _note_checkpointing(job, state, budget.note(max(map(batch_tokens, batches), default=0)))

    def forward(numbered_batch: tuple[int, AnyBatch]) -> PlainLoss:
        _, batch = numbered_batch
        with explain_memory_error(job.base, where, state.last_checkpoint, tokens=batch_tokens(batch)):
            return job.objective.loss(budget.base_for(job.base, batch_tokens(batch)), batch).plain()

    def backward(numbered_batch: tuple[int, AnyBatch], part: PlainLoss, counts: bool) -> PlainLoss:
        place, batch = numbered_batch
        part_loss = Loss.from_plain(part)
        with explain_memory_error(job.base, where, state.last_checkpoint, tokens=batch_tokens(batch)):
            optimizer.backward(part_loss.value if counts else 0.0 * part_loss.value, place)
        return part_loss.detached().plain()

    numbered = list(enumerate(batches))
    parts = map_microbatches(forward, numbered, size=lambda one: batch_tokens(one[1]), then=backward)
    for batch, part_loss in zip(batches, map(Loss.from_plain, parts), strict=True):
        loss += float(part_loss.value)
        _add_figures(figures, part_loss)
        state.tokens += batch.row_tokens
    norm = optimizer.clip_gradients()
    _require_finite(job, state, state.step + 1, {"loss": loss, "gradient norm": norm, **figures})
    rate = learning_rate_at(state.step, steps, settings.learning_rate, settings.schedule)
    with explain_memory_error(job.base, where, state.last_checkpoint):
        optimizer.step(rate)
    state.step += 1
    state.loss_sum += loss
    state.loss_count += 1
    for name, value in figures.items():
        state.figure_sums[name] = state.figure_sums.get(name, 0.0) + value
    _emit_step(job, state, {"loss": loss, "gradient_norm": norm, "learning_rate": rate, **figures})


def _note_checkpointing(job: TrainingJob, state: _State, note: str | None) -> None:
    """Emit the note that passes recompute their layers, once in a run."""
    if note and not state.checkpointing_noted:
        state.checkpointing_noted = True
        job.progress.emit("train", **{**job.event_fields, "note": note}, stays=True)


def evaluate_objective(base: Base, objective: TrainingObjective[Any]) -> DevEvaluation:
    """Return the mean loss (nats) and figures over one epoch of an objective, each step weighted by its trained tokens.

    `rows` of the result are in the order of their token ids within a step, however the steps are split; empty if the
    objective gives no terms of its loss.
    """
    total, tokens = 0.0, 0
    rows: list[float] = []
    figures: dict[str, float] = {}

    def forward(batch: Batch) -> PlainLoss:
        return objective.loss(base, batch).plain()

    with torch.no_grad():
        for step in range(objective.steps_per_epoch):
            batches = objective.batches(step)
            trained = sum(batch.trained_tokens for batch in batches)
            parts = list(map(Loss.from_plain, map_microbatches(forward, batches, size=batch_tokens)))
            total += trained * sum(float(part_loss.value) for part_loss in parts)
            tokens += trained
            by_ids: list[tuple[tuple[int, ...], float]] = []
            for batch, part_loss in zip(batches, parts, strict=True):
                ids = (batch.tree.row(path) for path in batch.tree.paths)
                by_ids += zip(ids, part_loss.by_row(batch), strict=False)  # no terms: no rows
                _add_figures(figures, part_loss, times=trained)
            rows += [trained * value for _, value in sorted(by_ids)]
    return DevEvaluation(
        dev_loss=total / tokens,
        figures={name: value / tokens for name, value in figures.items()},
        rows=tuple(value * len(rows) / tokens for value in rows),
    )


def _add_figures(figures: dict[str, float], part_loss: Loss, times: float = 1.0) -> None:
    for name, value in part_loss.figures.items():
        number = float(value.detach()) if isinstance(value, Tensor) else value
        figures[name] = figures.get(name, 0.0) + times * number


def _require_finite(job: TrainingJob, state: _State, step: int, values: Mapping[str, float | None]) -> None:
    rate = job.settings.learning_rate if state.step else None
    require_finite(values, step=step, last_checkpoint=state.last_checkpoint, rate=rate, precision=job.base.precision)


def _emit_step(job: TrainingJob, state: _State, figures: Mapping[str, Any]) -> None:
    job.progress.emit(
        "train",
        step=state.step,
        of=job.steps,
        **figures,
        tokens_per_second=state.tokens / state.seconds if state.seconds else None,
        **job.event_fields,
    )


def _evaluate(job: TrainingJob, state: _State) -> None:
    if job.evaluate is None:
        return
    with explain_memory_error(
        job.base, f"the dev evaluation after step {state.step} of {job.steps}", state.last_checkpoint
    ):
        evaluation = job.evaluate()
    _require_finite(
        job,
        state,
        state.step,
        {"dev loss": evaluation.dev_loss, "dev metric": evaluation.dev_metric, **evaluation.figures},
    )
    count = max(1, state.loss_count)
    record = EvalRecord(
        step=state.step,
        train_loss=state.loss_sum / count,
        dev_loss=evaluation.dev_loss,
        dev_metric=evaluation.dev_metric,
        figures={f"train_{name}": value / count for name, value in state.figure_sums.items()}
        | dict(evaluation.figures),
        rows=evaluation.rows,
    )
    state.loss_sum, state.loss_count, state.figure_sums = 0.0, 0, {}
    state.readings.append(record)
    record_fields = record.to_json()
    figures, _ = record_fields.pop("figures"), record_fields.pop("rows")
    event_fields = {name: text for name, text in job.event_fields.items() if name != "note"}
    job.progress.emit("dev", **record_fields, of=job.steps, best=state.newest_is_best, **figures, **event_fields)


def _save(job: TrainingJob, optimizer: Optimizer, state: _State) -> None:
    named = {"version": VERSION, "fingerprint": job.fingerprint, "precision": job.base.precision}
    kept = Checkpoint(
        weights=optimizer.weights(),
        moments=optimizer.moments(),
        state={**named, **state.to_json()},
        sharded=optimizer.sharded,
    )
    checkpoints.save(job.checkpoints, kept, best=best_of(state.readings).step if state.readings else None)
    process_group.all_gather(None)  # it is there for all of them
    state.last_checkpoint = state.step


def _resume(job: TrainingJob, optimizer: Optimizer) -> _State:
    found = _newest_checkpoint(job)
    if found is None:
        return _State()
    saved = dict(found.state)
    version = saved.pop("version", 1)
    checks = (
        (version != VERSION, f"version {version} of Trimtab's checkpoints; this Trimtab reads {VERSION}"),
        (saved.pop("fingerprint", None) != job.fingerprint, "other data or settings"),
        (saved.pop("precision", None) != job.base.precision, "another precision"),
        (found.weights.keys() != optimizer.parameters.keys(), "other trainable weights"),
    )
    for differs, what in checks:
        if differs:
            raise InputError(
                f"the checkpoint was made with {what}",
                "start a new run, or restore the former data and settings",
                file=job.checkpoints,
            )
    optimizer.load_weights(found.weights)
    optimizer.load_moments(found.moments)
    readings = [_record_from_json(record) for record in saved.pop("readings")]
    return _State(**saved, readings=readings, last_checkpoint=saved["step"])


def _newest_checkpoint(job: TrainingJob) -> Checkpoint | None:
    """Return the newest intact checkpoint; the processes of a group take the one that the first finds."""
    found: Checkpoint | None = None
    if process_group.is_main_process():
        found = checkpoints.load(job.checkpoints, lambda line: job.progress.emit("train", note=line, stays=True))
    step = process_group.broadcast(lambda: None if found is None else int(found.state["step"]))
    if found is None and step is not None:
        return checkpoints.load_step(job.checkpoints, step)
    return found


def _record_from_json(saved: Mapping[str, Any]) -> EvalRecord:
    return EvalRecord(**{**saved, "rows": tuple(saved["rows"])})


def _result(job: TrainingJob, optimizer: Optimizer, state: _State, *, finished: bool) -> TrainResult:
    """Return the result; a finished run restores its best weights first."""
    readings = tuple(state.readings)
    verdict = health(readings)
    best = best_of(readings) if readings else None
    if finished and best is not None:
        optimizer.load_weights(checkpoints.load_step(job.checkpoints, best.step).weights)
    if finished and ADVICE[verdict]:
        job.progress.emit("train", step=state.step, of=job.steps, note=ADVICE[verdict])
    return TrainResult(
        finished=finished,
        steps=state.step,
        epochs=state.step / job.objective.steps_per_epoch,
        planned=job.steps,
        seconds=state.seconds,
        tokens=state.tokens,
        best=best,
        health=verdict,
        readings=readings,
    )


@contextmanager
def _collect_stop_signals() -> Iterator[list[int]]:
    """Context manager: collects stop signals, so that the current step can be finished and saved.

    A second signal kills the process as usual; one that is ignored, as SIGHUP under nohup, stays ignored.
    """
    caught: list[int] = []
    former: dict[signal.Signals, Any] = {}

    def note(number: int, _: Any) -> None:
        caught.append(number)
        signal.signal(number, former[signal.Signals(number)])

    try:
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                former[number] = signal.getsignal(number)
                signal.signal(number, note)
    except ValueError:  # not the main thread, which alone may handle signals
        former.clear()
    try:
        yield caught
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
