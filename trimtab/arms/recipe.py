"""Training recipe of an arm: its settings over the defaults, for each stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from trimtab.arms.contexts import USUAL_MIX, PassageMix
from trimtab.arms.session import Session
from trimtab.base.grammar import DISTILL, HEAD, REWARDED, STAGES, method_of
from trimtab.base.records import Arm
from trimtab.model.adapters.base import WIDTH
from trimtab.model.adapters.registry import defaults_of
from trimtab.training.batch import steps_per_epoch
from trimtab.training.optim import Schedule

LEAST_STEPS = 100  # optimizer steps below which hardly any learning rate has an effect
# Stages that get more epochs with few rows: three epochs of 64 rows are 24 steps, and up to .16 worse than 100
# (`benchmarks/usual.py`).
IMITATING = ("sft", HEAD, DISTILL)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a recipe: rows, learning rate, epochs; `schedule`: the learning-rate schedule."""

    name: str
    learning_rate: float
    epochs: float
    schedule: Schedule = "cosine"

    @property
    def rereads(self) -> bool:
        """True if rows are read more than once: in several epochs, or in the trials of a search."""
        return self.epochs > 1 or self.schedule == "constant"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The training of an arm's weights: method, stages and settings, with every default filled in.

    `rank` and `virtual_tokens`: None for methods without them. `layers`: None for the default number, or all of a
    shallow model. `mix`: passages in training prompts.
    """

    method: str
    stages: tuple[Stage, ...]
    rank: int | None
    layers: int | None
    virtual_tokens: int | None
    batch: int
    seed: int
    mix: PassageMix = USUAL_MIX

    def chosen(self) -> dict[str, float | int | str]:
        """Return the settings that a search selected; empty if all are as before."""
        last = self.stages[-1]
        found = {"learning_rate": last.learning_rate, "epochs": last.epochs, "rank": self.rank}
        return (
            {name: value for name, value in found.items() if value is not None} if last.schedule == "constant" else {}
        )


def recipe(
    arm: Arm,
    rows: int,
    seed: int,
    *,
    hidden: int = WIDTH,
    epochs: float | None = None,
    by_need: bool = False,
) -> Recipe:
    """Return the recipe of an arm: its settings over the defaults, stage by stage, for a model of this hidden size.

    `epochs`: the most that the study's budget leaves, None for no limit. An imitating stage takes at least
    LEAST_STEPS; with `by_need` also a stage of reinforcement learning. A preference stage drifts further from its
    start the longer it runs, whatever dev can measure, so it gets no more.
    """
    if not method_of(arm).staged:
        raise ValueError(f"arm {arm.name} is not trained in stages")
    defaults = defaults_of(arm.weights)
    rate = defaults.rate(hidden)
    batch = _whole(arm, "batch") or (8 if rows < 1000 else 16)
    stages = [
        Stage(
            name=name,
            learning_rate=_for_stage(arm, "learning_rate", name, rate * STAGES[name].later_rate),
            epochs=min(_for_stage(arm, "epochs", name, defaults.epochs), math.inf if epochs is None else epochs),
        )
        for name in arm.stages
    ]
    for number, stage in enumerate(stages):
        needs = stage.name in IMITATING or (by_need and stage.name in REWARDED)
        if needs and is_open(arm, "epochs", stage.name):
            needed = LEAST_STEPS / steps_per_epoch(max(1, rows), batch)
            stages[number] = replace(stage, epochs=min(max(stage.epochs, needed), epochs or math.inf))
    return Recipe(
        method=arm.weights,
        stages=tuple(stages),
        rank=_whole(arm, "rank") or defaults.rank,
        layers=_whole(arm, "layers"),
        virtual_tokens=_whole(arm, "virtual_tokens") or defaults.virtual_tokens,
        batch=batch,
        seed=seed,
    )


def recipe_for(session: Session, arm: Arm, seed: int, *, epochs: float | None = None, by_need: bool = False) -> Recipe:
    """Return `recipe` for a session's rows and base model."""
    rows, hidden = len(session.workspace.splits["train"]), session.base.model.config.hidden_size
    return recipe(arm, rows, seed, hidden=hidden, epochs=epochs, by_need=by_need)


def is_open(arm: Arm, name: str, stage: str) -> bool:
    """True if the task file leaves a setting of a stage to the search."""
    setting = arm.settings.get(name)
    return setting is None or (isinstance(setting, Mapping) and stage not in setting)


def _for_stage(arm: Arm, name: str, stage: str, usual: float) -> float:
    """Return an arm's setting for one stage; the default if it has none."""
    setting = arm.settings.get(name, usual)
    return float(setting.get(stage, usual) if isinstance(setting, Mapping) else setting)


def _whole(arm: Arm, name: str) -> int | None:
    value = arm.settings.get(name)
    return value if isinstance(value, int) else None


def evaluations(epochs: float) -> int:
    """Return the number of dev evaluations in a run: fewer in a short run, as each costs as much as dozens of steps."""
    return max(2, min(4, round(4 * epochs)))
