"""Reads `events.jsonl` into training curves, and what the training loop said of each run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trimtab.base.files import read_json_lines

MEASURED = ("loss", "dev_loss", "dev_metric", "reward", "kl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One training event: the step, what was measured at it, and whether its weights were the best so far.

    `reward` and `kl`, of a stage that learns from rewards: what answers earn, and their distance from the reference in nats a token.
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
    """The events of one training run: `phase` counts the stages of one arm and seed from 0."""

    seed: int
    phase: int
    points: tuple[Point, ...]

    @property
    def kept(self) -> int | None:
        """The step whose weights were kept: the last one that was the best so far."""
        return next((point.step for point in reversed(self.points) if point.best), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One arm's training: a curve for each seed and stage, and what the loop said of how it ended, each thing once."""

    curves: tuple[TrainingCurve, ...] = ()
    health: tuple[str, ...] = ()


def read_training(file: Path) -> dict[str, Training]:
    """The training of each arm; empty where there is no file."""
    runs: dict[tuple[str, int], list[_OpenCurve]] = {}
    said: dict[tuple[str, int], str] = {}
    for event in read_json_lines(file):
        figures = {key: event.get(key) for key in MEASURED}
        arm, step, of = event.get("arm"), event.get("step"), event.get("of") or 0
        if event.get("stage") not in ("train", "dev") or arm is None or step is None:
            continue
        key = (arm, event.get("seed") or 0)
        if set(figures.values()) == {None}:
            if event.get("note"):
                said[key] = str(event["note"])
            continue
        said.pop(key, None)  # what was said of a run that then went on or was made again no longer holds
        own, trial = runs.setdefault(key, []), str(event.get("trial") or "")
        same = next((run for run in own if trial and run.trial == trial), None)
        if same is not None:  # the trial that goes on stands last: the one that was kept is trained to its end last
            own.remove(same)
            own.append(same)
        elif not own or trial or own[-1].is_over(step, of):
            own.append(_OpenCurve(of=of, trial=trial))
        own[-1].add(step, figures, event.get("best") is True)
    found: dict[str, Training] = {}
    for (arm, seed), own in runs.items():
        before = found.get(arm, Training())
        kept = {run.stage: run for run in own if run.trial}  # of each stage the run that was trained to its end
        own = [run for run in own if not run.trial or run is kept[run.stage]]
        curves = tuple(TrainingCurve(seed=seed, phase=phase, points=tuple(run.points)) for phase, run in enumerate(own))
        notes = [said[arm, seed]] if (arm, seed) in said else []
        found[arm] = Training(curves=(*before.curves, *curves), health=tuple(dict.fromkeys((*before.health, *notes))))
    return found


@dataclass(slots=True)
class _OpenCurve:
    """The points of one seed and stage while they are read; `of` is its number of steps, `trial` its name where it is one of several."""

    of: int
    trial: str = ""
    points: list[Point] = field(default_factory=list)

    @property
    def stage(self) -> str:
        """Which stage a trial belongs to: its name begins with it."""
        return self.trial.partition("-")[0]

    def is_over(self, step: int, of: int) -> bool:
        """Whether an event belongs to the next stage: another number of steps, or a new start after the last step."""
        return (of not in (0, self.of)) or (0 < self.of <= self.points[-1].step and step < self.points[-1].step)

    def add(self, step: int, figures: Mapping[str, float | None], best: bool) -> None:
        """Add what was measured at `step`; a step that comes again (a resumed run) replaces what followed it."""
        if self.points and step < self.points[-1].step:
            self.points = [point for point in self.points if point.step < step]
        if self.points and self.points[-1].step == step:
            last = self.points[-1]
            merged = {key: getattr(last, key) if value is None else value for key, value in figures.items()}
            self.points[-1] = Point(step=step, best=last.best or best, **merged)
        else:
            self.points.append(Point(step=step, best=best, **figures))
