"""The weights of an arm: its stages, each an objective on the one loop, saved as an adapter folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial, reduce
from pathlib import Path

from trimtab.arms.answerers import head_answerer, score_on
from trimtab.arms.canaries import exposure
from trimtab.arms.contexts import Context, PassageMix, PromptBuilder
from trimtab.arms.identity import TRAINED_BY, depends_on, digest_of
from trimtab.arms.ladder import LOOKS, Open, Setting, climb
from trimtab.arms.linear import fit_linear
from trimtab.arms.objectives import Objective, judged_objectives, supervised_objectives
from trimtab.arms.recipe import Recipe, Stage, evaluations, is_open, recipe_for
from trimtab.arms.search import Menu
from trimtab.arms.session import Session
from trimtab.base.grammar import HEAD, METHODS, PREFERENCES, is_trained
from trimtab.base.machine import release_memory
from trimtab.base.progress import Progress
from trimtab.base.records import Arm
from trimtab.base.results import ArmEffort, Exposure, Trial
from trimtab.measurement.evaluate import Scorer
from trimtab.model.adapters import merged, put_on, save_adapter
from trimtab.training.head import Head, save_head
from trimtab.training.loop import LoopSettings, TrainingJob, TrainResult, held_out, train
from trimtab.training.monitor import Evaluation, Health, Reading
from trimtab.training.optim import copied, put_back
from trimtab.training.preference import Preference

DEV_QUESTIONS = 60


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What making an arm's weights came to, all stages together; `best` is the reading on dev of the weights that were kept.

    `dev_scores`: what these scored on dev questions, by id. `pair_accuracy`: of the judged answers that were held out for the test,
    the share that is told right, and of how many; None where no stage learns from judged answers.
    `recipe`: how they were made, None where nothing was trained on the loop; `effort`: the search that found it. `exposure`: of the
    canaries that they were trained on, where the task asks for any.
    """

    seconds: float = 0.0
    tokens: int = 0
    steps: int = 0
    skipped: int = 0
    epochs: float = 0.0
    health: Health = "learning"
    best: Reading | None = None
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
            "epochs": self.epochs,
        }
        if self.pair_accuracy:
            counted |= {"pair_accuracy": self.pair_accuracy[0], "judged_pairs": self.pair_accuracy[1]}
        return {name: float(value) for name, value in counted.items()} if self.steps else {}


@dataclass(frozen=True, kw_only=True)
class Search:
    """What an arm may spend on finding its settings: seconds beyond one training, on this much."""

    menu: Menu
    seconds: float


NOTHING = Trained()


def prepare(session: Session, plan: Recipe) -> None:
    """Put what may move onto a fresh base."""
    base = session.fresh_base()
    usual = int(METHODS[plan.method].usual.get("layers", 0))
    layers = plan.layers or min(usual, base.model.config.num_hidden_layers)
    put_on(base, plan.method, plan.seed, rank=plan.rank, layers=layers, virtual_tokens=plan.virtual_tokens)


def train_weights(
    session: Session,
    arm: Arm,
    context: Context,
    folder: Path,
    progress: Progress,
    *,
    seed: int = 0,
    epochs: float | None = None,
    scorer: Scorer | None = None,
    search: Search | None = None,
    found: Recipe | None = None,
) -> Trained:
    """Make an arm's weights, stage by stage, and save them in `folder/adapter`; goes on where a former call was stopped.

    The latest weights whose loss on dev is within one standard error of the lowest are kept; the task's metric is told beside it
    (decision 12). `epochs` is the most of each stage. With `search` the last stage's rate and length are searched on dev; `found` is
    what a search with another seed found. The model is left with the trained weights on. Nothing is done for an arm that has none of
    its own.
    """
    if not is_trained(arm):
        return NOTHING
    if arm.weights == "linear":
        return _fit_linear(session, folder, progress, search)
    plan = replace(found, seed=seed) if found else recipe_for(session, arm, seed, epochs=epochs, by_need=bool(search))
    making = _Making(session, arm, context, folder, progress, scorer, plan)
    results, efforts = making.train_all(search, may_grow=epochs is None)
    making.save()
    plan, best = making.plan, results[-1].best
    return Trained(
        seconds=sum(result.seconds for result in results),
        tokens=sum(result.tokens for result in results),
        steps=sum(result.steps for result in results),
        skipped=making.skipped,
        epochs=plan.stages[-1].epochs,
        health=results[-1].health,
        best=best and replace(best, rows=()),  # which were kept to compare with; the run keeps their mean
        dev_scores=_scores_of(results[-1], making.looks) or making.scores_on_dev(),
        recipe=plan,
        effort=reduce(ArmEffort.and_then, efforts) if efforts else None,
        pair_accuracy=making.pair_accuracy(),
        exposure=exposure(session, progress) if "sft" in arm.stages else None,
    )


class _Making:
    """Weights in the making: what may move is on the base, and each stage is an objective on the one loop."""

    def __init__(
        self,
        session: Session,
        arm: Arm,
        context: Context,
        folder: Path,
        progress: Progress,
        scorer: Scorer | None,
        plan: Recipe,
    ) -> None:
        self.session, self.arm, self.context, self.folder = session, arm, context, folder
        self.progress, self.scorer, self.plan = progress, scorer, plan
        self.depends = depends_on(session, [arm], TRAINED_BY)
        self.looks: list[Mapping[str, float]] = []
        self._looks: dict[str, list[Mapping[str, float]]] = {}
        self._stage: tuple[tuple[str, PassageMix], Objective, Objective | None] | None = None
        self._judged: Preference | None = None  # those that are held out for the test, with the reference's sums
        self.skipped = 0
        self._begin(plan)

    def _begin(self, plan: Recipe) -> None:
        """Put what may move onto the base as it is at the start."""
        prepare(self.session, plan)
        labels, base = self.session.workspace.labels, self.session.base
        self.head = (
            Head(labels, base.model.config.hidden_size, seed=plan.seed).to(base.device)
            if HEAD in self.arm.stages
            else None
        )
        self._on, self._start = plan.rank, copied({})

    def train_all(self, search: Search | None, *, may_grow: bool) -> tuple[list[TrainResult], list[ArmEffort]]:
        """Every stage, one after the other; each that dev can judge shares the time of the search with those that are left."""
        searched = [number for number, stage in enumerate(self.plan.stages) if search and self._may_be_searched(stage)]
        results: list[TrainResult] = []
        efforts: list[ArmEffort] = []
        for number in range(len(self.plan.stages)):
            self._start = copied({})
            if search is None or number not in searched:
                results.append(self.train(self.plan.stages[number]))
                continue
            spent = sum(effort.seconds for effort in efforts)
            share = (search.seconds - spent) / (len(searched) - searched.index(number))
            result, effort = self.search(number, replace(search, seconds=share), may_grow=may_grow)
            if len(searched) > 1:
                effort = _of_stage(effort, self.plan.stages[number].name)
            results.append(result)
            efforts.append(effort)
        return results, efforts

    def _may_be_searched(self, stage: Stage) -> bool:
        """Whether something of dev says which setting of a stage is better."""
        workspace = self.session.workspace
        rows = workspace.preferences if stage.name in PREFERENCES else workspace.splits
        return stage.name != "docs" and bool(rows["dev"])

    def train(
        self, stage: Stage, name: str = "", until: int | None = None, mix: PassageMix | None = None
    ) -> TrainResult:
        """Train a stage up to a look at dev, to its end where none is named; `name` tells runs of one stage apart."""
        objective, dev = self._objectives(stage, mix)
        self.looks = self._looks.setdefault(name or stage.name, [])
        looks = LOOKS if stage.schedule == "constant" else evaluations(stage.epochs)
        job = TrainingJob(
            base=self.session.base,
            objective=objective,
            settings=LoopSettings(
                learning_rate=stage.learning_rate,
                epochs=stage.epochs,
                evaluations=looks,
                schedule=stage.schedule,
            ),
            folder=self.folder / (name or stage.name),
            evaluate=_on_dev(self.session, dev, self.context, self.head, self.scorer, self.looks) if dev else None,
            progress=self.progress,
            fingerprint=self._fingerprint(stage, name),
            note="reading the documents" if stage.name == "docs" else f"trial {name}" if name else "",
            trial=name,
        )
        if until is None:
            return train(job)
        mark = sorted(job.marks)[:until][-1]
        return _up_to(train(job, until=mark), mark)

    def _fingerprint(self, stage: Stage, name: str) -> str:
        """What a run is never resumed without; one that is searched may be made longer."""
        plan = self._with_stage(replace(stage, epochs=0.0)) if name else self.plan
        return digest_of(
            self.depends, repr(self.arm.identity), repr(asdict(plan)), repr(self.context), stage.name, name
        )

    def search(self, number: int, search: Search, *, may_grow: bool) -> tuple[TrainResult, ArmEffort]:
        """Train a stage as dev shows to be best, and put what was found into the plan: its run, and what was tried."""
        self.plan = self._with_stage(replace(self.plan.stages[number], schedule="constant"))
        stage = self.plan.stages[number]
        shows_passages = self.context.passages > 0 and stage.name not in PREFERENCES
        centre = Setting(
            learning_rate=stage.learning_rate,
            epochs=stage.epochs,
            rank=self.plan.rank,
            mix=self.plan.mix if shows_passages else None,
        )
        free = Open(
            learning_rate=is_open(self.arm, "learning_rate", stage.name),
            epochs=is_open(self.arm, "epochs", stage.name) and may_grow,
            rank="rank" not in self.arm.settings and number == 0,
        )
        run = partial(self.try_out, number)
        setting, result, effort = climb(run, centre, free, search.menu, search.seconds)
        self.plan = self.with_setting(number, setting)
        return result, effort

    def try_out(self, number: int, setting: Setting, until: int | None) -> TrainResult:
        """A stage with other settings, from where the stage before it ended, or on from where this run stands."""
        if setting.rank != self._on:
            self._begin(replace(self.plan, rank=setting.rank))
            self._stage = None  # a head of its own, too
        objective, _ = self._objectives(self.plan.stages[number], setting.mix)
        moving = objective.parameters(self.session.base)
        self._start = self._start or copied(moving)
        put_back(moving, self._start)
        stage = self.with_setting(number, setting).stages[number]
        name = f"{stage.name}-{setting.learning_rate:.3g}"
        name += "" if setting.rank in (None, self.plan.rank) else f"-rank-{setting.rank}"
        if setting.mix not in (None, self.plan.mix):
            name += f"-missing-{setting.mix.gold_missing:g}-distractors-{setting.mix.distractors:g}"
        return self.train(stage, name, until, setting.mix)

    def with_setting(self, number: int, setting: Setting) -> Recipe:
        """The recipe with a stage so set."""
        set_so = replace(self.plan.stages[number], learning_rate=setting.learning_rate, epochs=setting.epochs)
        plan = self._with_stage(set_so)
        return replace(plan, rank=setting.rank, mix=setting.mix or plan.mix)

    def _with_stage(self, stage: Stage) -> Recipe:
        """The recipe with this stage in place of that of its name."""
        stages = (stage if one.name == stage.name else one for one in self.plan.stages)
        return replace(self.plan, stages=tuple(stages))

    def pair_accuracy(self) -> tuple[float, int] | None:
        """Of the judged answers that are held out for the test, the share that the weights that are on tell right, and their number."""
        if self._judged is None:
            return None
        seen = held_out(self.session.base, self._judged)
        return seen.figures["pair_accuracy"], len(self._judged.rows)

    def scores_on_dev(self) -> Mapping[str, float]:
        """What the weights that are on score on the dev questions of a look, by id."""
        dev, session = self.session.part("dev", DEV_QUESTIONS), self.session
        if not dev:
            return {}
        answer = head_answerer(session, self.head) if self.head else session.answer
        with merged(session.base.model):
            return score_on(session, dev, PromptBuilder(session, self.context), answer, self.scorer)[1]

    def save(self) -> None:
        """Keep the weights that are on."""
        if self.head is None:
            save_adapter(self.session.base, self.folder / "adapter")
        else:
            save_head(self.session.base, self.head, self.folder / "adapter")

    def _objectives(self, stage: Stage, mix: PassageMix | None = None) -> tuple[Objective, Objective | None]:
        """What a stage optimises, and the same over dev rows where there are any; its rows are encoded once."""
        mix = mix or self.plan.mix
        key = (stage.name, mix)
        if self._stage is None or self._stage[0] != key:
            plan = replace(self.plan, mix=mix)
            objective: Objective
            dev: Objective | None
            if stage.name in PREFERENCES:
                objective, dev, self._judged, self.skipped = judged_objectives(self.session, plan, stage, self.context)
            else:
                objective, dev, self.skipped = supervised_objectives(self.session, plan, stage, self.context, self.head)
            self._stage = key, objective, dev
        return self._stage[1:]


def _up_to(result: TrainResult, step: int) -> TrainResult:
    """What a run that has gone on since had come to at a step."""
    if result.steps <= step:
        return result
    return replace(
        result,
        finished=False,
        steps=step,
        seconds=result.seconds * step / result.steps,
        readings=tuple(reading for reading in result.readings if reading.step <= step),
    )


def _of_stage(effort: ArmEffort, stage: str) -> ArmEffort:
    """The search of one of several stages, its name in every trial."""
    return replace(effort, trials=tuple(replace(one, what={"stage": stage, **one.what}) for one in effort.trials))


def _on_dev(
    session: Session,
    objective: Objective,
    context: Context,
    head: Head | None,
    scorer: Scorer | None,
    looks: list[Mapping[str, float]],
) -> Callable[[], Evaluation]:
    """The loss over dev, and the task's metric on dev questions, asked with the adapter merged; their scores are added to `looks`."""
    dev = session.part("dev", DEV_QUESTIONS)
    builder = PromptBuilder(session, context)
    answer = head_answerer(session, head) if head else session.answer

    def look() -> Evaluation:
        seen = held_out(session.base, objective)
        release_memory()
        with merged(session.base.model):
            value, scores = score_on(session, dev, builder, answer, scorer)
        looks.append(scores)
        release_memory()
        return replace(seen, dev_metric=value)

    return look


def _scores_of(result: TrainResult, looks: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Of the looks of this sitting, which are the last of the readings, the one at the weights that were kept."""
    steps = [reading.step for reading in result.readings]
    if result.best is None or result.best.step not in steps:
        return {}
    place = steps.index(result.best.step) - (len(steps) - len(looks))
    return looks[place] if place >= 0 else {}


def _fit_linear(session: Session, folder: Path, progress: Progress, search: Search | None) -> Trained:
    """The linear arm: every trial but the one that was kept is its search, the rest is its training."""
    began = time.perf_counter()
    progress.emit("train")
    tried = fit_linear(session, folder / "adapter", search_seconds=search.seconds if search else 0.0)
    best = max(tried, key=lambda trial: trial.dev_accuracy)  # the first of equals, as it is chosen
    rows = len(session.workspace.splits["dev"])
    trials = tuple(
        Trial(
            what={"features": one.features, "penalty": one.penalty},
            dev_loss=None,
            dev_metric=one.dev_accuracy,
            rows=rows,
            seconds=one.seconds,
            kept=one is best,
        )
        for one in tried
    )
    beside = sum(trial.seconds for trial in trials if not trial.kept)
    return Trained(
        seconds=time.perf_counter() - began - beside,
        effort=ArmEffort(seconds=beside, trials=trials, stopped="no trial was better"),
    )
