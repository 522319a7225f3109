"""How long a study will take, by what was foretold of its arms, and what is cut when that is too long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trimtab.arms.run import Effort
from trimtab.arms.weights import evaluations
from trimtab.base.codec import read_record, write_record

EPOCH_CUTS = (2.0, 1.0, 0.5, 0.25)


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Predicted seconds of one epoch of a stage, and how many there are."""

    epoch_seconds: float
    epochs: float


@dataclass(frozen=True, kw_only=True)
class ArmPlan:
    """Predicted seconds of an arm: its stages of one seed, one look at dev, answers of one seed, choosing on dev.

    `problem`: why nothing could be predicted.
    """

    arm: str
    stages: tuple[StagePlan, ...] = ()
    dev_seconds: float = 0.0
    answer_seconds: float = 0.0
    choose_seconds: float = 0.0
    memory_mb: float | None = None
    problem: str | None = None

    def seconds(self, effort: Effort) -> float:
        """Predicted seconds with that effort."""
        most = float("inf") if effort.epochs is None else effort.epochs
        training = sum(stage.epoch_seconds * min(stage.epochs, most) for stage in self.stages)
        if self.stages:
            training += self.dev_seconds * evaluations(min(self.stages[-1].epochs, most))
        return effort.seeds * (training + self.answer_seconds) + self.choose_seconds * effort.search


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The arms that fit, what each may spend, and what was cut to make them fit."""

    arms: tuple[ArmPlan, ...]
    effort: Effort
    left_out: Mapping[str, str]
    cuts: tuple[str, ...]
    precision: str | None = None  # of the base model, decided before the first arm runs

    @property
    def seconds(self) -> float:
        """Predicted seconds of all arms that will run."""
        return sum(arm.seconds(self.effort) for arm in self.arms if arm.arm not in self.left_out)


def fit(arms: Sequence[ArmPlan], budget: float | None, seeds: int) -> Plan:
    """Cut until the arms fit the budget: first the choosing on dev, then epochs, then seeds; then arms, the longest first.

    Test questions are never cut. Arms left out are told with the minutes they lack.
    """
    effort = Effort(seeds=seeds)
    cuts: list[str] = []
    left_out: dict[str, str] = {}

    def total(trial: Effort) -> float:
        return sum(arm.seconds(trial) for arm in arms)

    if budget is not None and total(effort) > budget:
        effort = replace(effort, search=False)
        cuts.append("numbers of shots and passages are the usual ones, not chosen on dev")
        most = max((stage.epochs for arm in arms for stage in arm.stages), default=0.0)
        for epochs in EPOCH_CUTS:
            if total(effort) > budget and epochs < most:
                effort = replace(effort, epochs=epochs)
        if effort.epochs is not None:
            cuts.append(f"at most {effort.epochs:g} epoch{'s' if effort.epochs > 1 else ''} of training")
        while total(effort) > budget and effort.seeds > 1:
            effort = replace(effort, seeds=effort.seeds - 1)
        if effort.seeds < seeds:
            cuts.append(f"{effort.seeds} of {seeds} seeds")
        spent = total(effort)
        for arm in sorted(arms, key=lambda arm: -arm.seconds(effort)):
            if spent > budget:
                left_out[arm.arm] = (
                    f"the {_minutes(budget)} min that the budget leaves lack about {_minutes(spent - budget)} min for it; "
                    "raise study.budget in a new study"
                )
                spent -= arm.seconds(effort)
    return Plan(arms=tuple(arms), effort=effort, left_out=left_out, cuts=tuple(cuts))


def _minutes(seconds: float) -> str:
    """Minutes to one digit below ten, never 0."""
    return f"{seconds / 60:.0f}" if seconds >= 600 else f"{max(0.1, seconds / 60):.1f}"


def save_plan(path: Path, plan: Plan) -> None:
    """Keep the plan, so that a resumed study goes on with the same one."""
    write_record(path, plan)


def load_plan(path: Path) -> Plan | None:
    """The plan of a study that was begun; None where there is none. Raises InputError for one that cannot be read."""
    return read_record(path, Plan) if path.is_file() else None
