"""Reads `events.jsonl` into training curves, and the training loop's final note on each run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trimtab.base.files import read_own_lines

FIGURES = ("loss", "dev_loss", "dev_metric", "reward", "kl")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPoint:
    """One training event: its step, its figures, and whether its weights were the best so far.

    `reward` and `kl`, for stages with rewards: the mean reward, and the KL divergence from the reference in nats per
    token.
    """

    step: int
    loss: float | None = None
    dev_loss: float | None = None
    dev_metric: float | None = None
    reward: float | None = None
    kl: float | None = None
    best: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCurve:
    """The events of one training run; `phase` counts the stages of an arm and seed from 0."""

    seed: int
    phase: int
    points: tuple[TrainingPoint, ...]

    @property
    def kept_step(self) -> int | None:
        """The step whose weights were kept: the last that was the best so far."""
        return next((point.step for point in reversed(self.points) if point.best), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmTraining:
    """The training of one arm: a curve for each seed and stage, and the distinct final notes of the loop."""

    curves: tuple[TrainingCurve, ...] = ()
    health: tuple[str, ...] = ()


def read_training(file: Path) -> dict[str, ArmTraining]:
    """Return the training of each arm; empty if the file does not exist."""
    runs: dict[tuple[str, int], list[_OpenCurve]] = {}
    notes: dict[tuple[str, int], str] = {}
    for event in read_own_lines(file):
        figures = {key: event.get(key) for key in FIGURES}
        arm, step, total_steps = event.get("arm"), event.get("step"), event.get("of") or 0
        if event.get("stage") not in ("train", "dev") or arm is None or step is None:
            continue
        key = (arm, event.get("seed") or 0)
        if set(figures.values()) == {None}:
            if event.get("note"):
                notes[key] = str(event["note"])
            continue
        notes.pop(key, None)  # a note on a run that was continued or repeated no longer holds
        curves, trial = runs.setdefault(key, []), str(event.get("trial") or "")
        resumed = next((run for run in curves if trial and run.trial == trial), None)
        if resumed is not None:  # a resumed trial moves to the end: the kept trial is the last to be trained to its end
            curves.remove(resumed)
            curves.append(resumed)
        elif not curves or trial or curves[-1].is_over(step, total_steps):
            curves.append(_OpenCurve(total_steps=total_steps, trial=trial))
        curves[-1].add(step, figures, event.get("best") is True)
    found: dict[str, ArmTraining] = {}
    for (arm, seed), curves in runs.items():
        before = found.get(arm, ArmTraining())
        kept = {run.stage: run for run in curves if run.trial}  # by stage, the run that was trained to its end
        curves = [run for run in curves if not run.trial or run is kept[run.stage]]
        training_curves = tuple(
            TrainingCurve(seed=seed, phase=phase, points=tuple(run.points)) for phase, run in enumerate(curves)
        )
        own_notes = [notes[arm, seed]] if (arm, seed) in notes else []
        found[arm] = ArmTraining(
            curves=(*before.curves, *training_curves),
            health=tuple(dict.fromkeys((*before.health, *own_notes))),
        )
    return found


@dataclass(slots=True)
class _OpenCurve:
    """The points of one seed and stage while they are read; `trial` is its name if it is one of several."""

    total_steps: int
    trial: str = ""
    points: list[TrainingPoint] = field(default_factory=list)

    @property
    def stage(self) -> str:
        """The stage of a trial, with which its name begins."""
        return self.trial.partition("-")[0]

    def is_over(self, step: int, total_steps: int) -> bool:
        """True if an event belongs to the next stage: another number of steps, or a new start after the last step."""
        return (total_steps not in (0, self.total_steps)) or (
            0 < self.total_steps <= self.points[-1].step and step < self.points[-1].step
        )

    def add(self, step: int, figures: Mapping[str, float | None], best: bool) -> None:
        """Add the figures of `step`; an earlier step (a resumed run) replaces what followed it."""
        if self.points and step < self.points[-1].step:
            self.points = [point for point in self.points if point.step < step]
        if self.points and self.points[-1].step == step:
            last = self.points[-1]
            merged = {key: getattr(last, key) if value is None else value for key, value in figures.items()}
            self.points[-1] = TrainingPoint(step=step, best=last.best or best, **merged)
        else:
            self.points.append(TrainingPoint(step=step, best=best, **figures))
