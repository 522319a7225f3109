"""What an arm may spend before it is measured, and what has been made of it by then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trimtab.arms.contexts import Context
from trimtab.arms.recipe import Recipe
from trimtab.base.results import ArmEffort, Exposure, LearningCurve
from trimtab.training.monitor import EvalRecord, Health


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What every arm may spend after the study's budget was looked at: seconds of searching on dev; `epochs` None leaves the default.

    `weighs`: whether it is chosen on dev how labels are weighed also where nothing else is searched.
    """

    seeds: int = 1
    search_seconds: float = 0.0
    epochs: float | None = None
    weighs: bool = False

    @property
    def may_search(self) -> bool:
        """Whether there is time to choose anything on dev."""
        return self.search_seconds > 0 or self.weighs


@dataclass(frozen=True, kw_only=True)
class TrainedWeights:
    """What making an arm's weights came to, all stages together; `best` is the reading on dev of the weights that were kept.

    `epochs`: of the last stage, as far as it came. `planned_steps`: as many as there would have been, had dev not ended a stage. `dev_scores`: what these scored on dev questions, by id. `pair_accuracy`: of the judged answers that were held out for the test,
    the share that is told right, and of how many; None where no stage learns from judged answers.
    `fee`: of an endpoint whose answers were imitated, in the task's currency. `recipe`: how they were made, None where nothing was trained on the loop; `effort`: the search that found it. `exposure`: of the
    canaries that they were trained on, where the task asks for any.
    """

    seconds: float = 0.0
    fee: float = 0.0
    tokens: int = 0
    steps: int = 0
    planned_steps: int = 0
    skipped: int = 0
    epochs: float = 0.0
    health: Health = "learning"
    best: EvalRecord | None = None
    dev_scores: Mapping[str, float] = field(default_factory=dict)
    recipe: Recipe | None = None
    effort: ArmEffort | None = None
    pair_accuracy: tuple[float, int] | None = None
    exposure: Exposure | None = None

    @property
    def figures(self) -> dict[str, float]:
        """What is told beside an arm's score; nothing where nothing was trained on the loop."""
        counted = {
            "skipped_rows": self.skipped,
            "train_tokens": self.tokens,
            "steps": self.steps,
            "planned_steps": self.planned_steps,
            "epochs": self.epochs,
        }
        if self.pair_accuracy:
            counted |= {"pair_accuracy": self.pair_accuracy[0], "judged_pairs": self.pair_accuracy[1]}
        return {name: float(value) for name, value in counted.items()} if self.steps else {}


NOTHING = TrainedWeights()


@dataclass(frozen=True, kw_only=True)
class ArmArtifact:
    """An arm that is ready to be measured: what it is shown, its weights seed by seed, and what finding them took.

    `dev_scores`: of dev questions that it answered on the way, by id. `is_new`: made for this measurement, not taken from another.
    `processor_share`: what other programs left of the processor meanwhile.
    """

    context: Context
    trained: tuple[TrainedWeights, ...]
    folders: tuple[Path, ...]
    effort: ArmEffort | None = None
    choose_seconds: float = 0.0
    choose_fee: float = 0.0
    index_seconds: float = 0.0
    peak_mb: float = 0.0
    dev_scores: Mapping[str, float] = field(default_factory=dict)
    learning: LearningCurve | None = None
    is_new: bool = True
    processor_share: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds of making it, search included."""
        return self.choose_seconds + self.index_seconds + sum(trained.seconds for trained in self.trained)

    @property
    def chosen(self) -> dict[str, float | int | str]:
        """What was chosen, by the names of the task file's settings; of the epochs those that were trained."""
        first = self.trained[0]
        found = {**self.context.chosen(), **(first.recipe.chosen() if first.recipe else {})}
        return {**found, "epochs": round(first.epochs, 3)} if "epochs" in found else found


def combine_efforts(context_effort: ArmEffort | None, trained: ArmEffort | None) -> ArmEffort | None:
    """The search of what an arm is shown and that of how it is trained, as one."""
    return context_effort.and_then(trained) if context_effort and trained else context_effort or trained


def search_overhead(context_effort: ArmEffort | None, trained: ArmEffort | None) -> float:
    """Seconds of everything tried but the training that was kept, which counts as training."""
    tried = [trial.seconds for trial in trained.trials if not trial.kept] if trained else []
    return (context_effort.seconds if context_effort else 0.0) + sum(tried)
