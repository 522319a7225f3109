"""How an arm's weights are made: the arm's settings over the usual ones, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from trimtab.arms.contexts import USUAL_MIX, PassageMix
from trimtab.arms.session import Session
from trimtab.base.grammar import DISTILL, HEAD, PREFERENCES, REWARDED, WIDTH, method_of, usual_rate
from trimtab.base.records import Arm, Setting
from trimtab.training.batch import steps_per_epoch
from trimtab.training.optim import Schedule

# Of the usual rate, for a stage that goes on from weights that answer. A tenth has pairs told right in ten steps and ruins the answers.
LATER_RATES = {**dict.fromkeys(PREFERENCES, 0.01), **dict.fromkeys(REWARDED, 0.1)}
LEAST_STEPS = 100  # of the optimizer, below which hardly any rate has its effect
# Stages that few rows make longer: three epochs of 64 rows are 24 steps, and up to .16 worse than 100 (`benchmarks/usual.py`).
IMITATING = ("sft", HEAD, DISTILL)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a recipe: what is read, how fast and how long; `schedule` is that of the rate."""

    name: str
    learning_rate: float
    epochs: float
    schedule: Schedule = "cosine"

    @property
    def rereads(self) -> bool:
        """Whether rows are read more than once: by several epochs, or by the trials of a search, which keeps the rate constant."""
        return self.epochs > 1 or self.schedule == "constant"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the weights of an arm are made, every default filled in.

    `rank` and `virtual_tokens` are None but for methods that have them; `layers` None is the usual number, or all of a shallow model.
    `mix`: what training prompts show of passages, where they show any.
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
        """What a search has chosen of it; nothing where all is as it stood before."""
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
    """The arm's settings over the defaults, stage by stage, for a model of this hidden size.

    `epochs` is the most that the study's budget leaves, None for no limit. A stage that imitates takes LEAST_STEPS at least; `by_need`:
    one that learns from rewards, too. One that learns from judgements moves away from its start the longer it goes on, whatever dev can tell.
    """
    if not method_of(arm).staged:
        raise ValueError(f"arm {arm.name} is not trained in stages")
    usual, rate = method_of(arm).usual, usual_rate(method_of(arm), hidden)
    own = {**usual, **arm.settings}
    batch = _whole(own, "batch") or (8 if rows < 1000 else 16)
    stages = [
        Stage(
            name=name,
            learning_rate=_for_stage(arm, "learning_rate", name, rate * LATER_RATES.get(name, 1.0)),
            epochs=min(_for_stage(arm, "epochs", name, usual["epochs"]), math.inf if epochs is None else epochs),
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
        rank=_whole(own, "rank"),
        layers=_whole(arm.settings, "layers"),
        virtual_tokens=_whole(own, "virtual_tokens"),
        batch=batch,
        seed=seed,
    )


def recipe_for(session: Session, arm: Arm, seed: int, *, epochs: float | None = None, by_need: bool = False) -> Recipe:
    """`recipe` for a session's rows and base model."""
    rows, hidden = len(session.workspace.splits["train"]), session.base.model.config.hidden_size
    return recipe(arm, rows, seed, hidden=hidden, epochs=epochs, by_need=by_need)


def is_open(arm: Arm, name: str, stage: str) -> bool:
    """Whether the task file leaves a setting of a stage to be searched."""
    setting = arm.settings.get(name)
    return setting is None or (isinstance(setting, Mapping) and stage not in setting)


def _for_stage(arm: Arm, name: str, stage: str, usual: float) -> float:
    """What an arm's setting says for one stage, the usual value where it is silent about it."""
    setting = arm.settings.get(name, usual)
    return float(setting.get(stage, usual) if isinstance(setting, Mapping) else setting)


def _whole(settings: Mapping[str, Setting], name: str) -> int | None:
    value = settings.get(name)
    return value if isinstance(value, int) else None


def evaluations(epochs: float) -> int:
    """How often dev is looked at: in a short run less often, as each look costs as much as dozens of steps."""
    return max(2, min(4, round(4 * epochs)))
