"""Records of building an arm: the allowance for search and training, and the artifact that results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trimtab.arms.contexts import Context
from trimtab.arms.recipe import Recipe
from trimtab.base.records import Answer
from trimtab.base.results import ArmEffort, Exposure, LearningCurve
from trimtab.training.monitor import EvalRecord, Health


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """The limits of every arm: seconds of search on dev, seeds, and epochs (None for the default).

    `weighs`: True if the calibration of labels is chosen on dev even where nothing else is searched.
    """

    seeds: int = 1
    search_seconds: float = 0.0
    epochs: float | None = None
    weighs: bool = False

    @property
    def may_search(self) -> bool:
        """True if there is time to choose anything on dev."""
        return self.search_seconds > 0 or self.weighs


@dataclass(frozen=True, kw_only=True)
class TrainedWeights:
    """The result of training an arm's weights, all stages together. `best`: the dev evaluation of the kept weights.

    `epochs`: of the last stage, as trained. `planned_steps`: the steps without early stopping. `dev_scores`: the
    score of each dev question, by id. `pair_accuracy`: the share of held-out test pairs that are ranked right, and
    their number; None unless a stage learns from preferences. `fee`: of the teacher's endpoint, in the task's
    currency. `recipe`: None if the training loop trained nothing. `effort`: the search that found the recipe.
    `exposure`: of the memorisation canaries, if the task has any.
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
        """Return the training figures for reports; empty if the training loop trained nothing."""
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
    """An arm that is ready to be measured: its context, its weights by seed, and the cost of finding them.

    `dev_scores`: the score of each dev question that was answered on the way, by id. `is_new`: True if it was built
    for this measurement. `processor_share`: the share of the processor that other programs left meanwhile.
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
        """Return the seconds of building it, search included."""
        return self.choose_seconds + self.index_seconds + sum(trained.seconds for trained in self.trained)

    @property
    def chosen(self) -> dict[str, float | int | str]:
        """Return the selected settings by their names in the task file; the epochs as trained."""
        first = self.trained[0]
        found = {**self.context.chosen(), **(first.recipe.chosen() if first.recipe else {})}
        return {**found, "epochs": round(first.epochs, 3)} if "epochs" in found else found

    def with_runs(self, runs: Sequence[ArmArtifact]) -> ArmArtifact:
        """Return the arm with the runs of further seeds, each built as an artifact of its own."""
        return replace(
            self,
            trained=(*self.trained, *(weights for run in runs for weights in run.trained)),
            folders=(*self.folders, *(folder for run in runs for folder in run.folders)),
            peak_mb=max([self.peak_mb, *(run.peak_mb for run in runs)]),
        )


@dataclass(frozen=True, kw_only=True)
class AnsweredRun:
    """The answers of one run of an arm to a split, and the seconds they took. `figures`: measured with them.

    `peak_mb`: the memory of the process that answered, if that was another one.
    """

    answers: tuple[Answer, ...]
    seconds: float
    figures: Mapping[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0


def combine_efforts(context_effort: ArmEffort | None, trained: ArmEffort | None) -> ArmEffort | None:
    """Return the search of the context and the search of the training settings as one."""
    return context_effort.and_then(trained) if context_effort and trained else context_effort or trained


def search_overhead(context_effort: ArmEffort | None, trained: ArmEffort | None) -> float:
    """Return the seconds of all trials except the training that was kept, which counts as training."""
    tried = [trial.seconds for trial in trained.trials if not trial.kept] if trained else []
    return (context_effort.seconds if context_effort else 0.0) + sum(tried)
