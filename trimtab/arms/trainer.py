"""The weights of an arm: its stages, each an objective on the one loop, saved as an adapter folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial, reduce
from pathlib import Path

from trimtab.arms.answerers import head_answerer, score_on
from trimtab.arms.artifacts import NOTHING, TrainedWeights
from trimtab.arms.canaries import exposure
from trimtab.arms.contexts import Context, PassageMix, PromptBuilder
from trimtab.arms.dev_eval import DEV_QUESTIONS, evaluate_on_dev, scores_of
from trimtab.arms.fingerprint import TRAINED_BY, digest_of, fingerprint_of
from trimtab.arms.linear import fit_linear
from trimtab.arms.objectives import (
    OBJECTIVES,
    Judging,
    Objective,
    StageSetup,
    new_head,
)
from trimtab.arms.recipe import Recipe, Stage, evaluations, recipe_for
from trimtab.arms.rewards import reward_for
from trimtab.arms.search.context_search import SearchSpace
from trimtab.arms.search.lr_search import LOOKS, TrainingSetting, open_settings, search_learning_rate
from trimtab.arms.session import Session
from trimtab.arms.teacher import Teacher
from trimtab.base.files import sha256_once
from trimtab.base.grammar import (
    DISTILL,
    JUDGED,
    METHODS,
    PREFERENCES,
    REWARD,
    REWARDED,
    is_rewarded,
    is_taught,
    is_trained,
)
from trimtab.base.progress import Progress
from trimtab.base.records import Arm
from trimtab.base.results import ArmEffort, Trial
from trimtab.measurement.evaluate import Scorer
from trimtab.measurement.rewards import Reward
from trimtab.model.adapters.apply import attach, load_adapter, save_adapter
from trimtab.model.classifier import save_head
from trimtab.model.fast.packed_weights import merged_and_packed
from trimtab.training.loop import LoopSettings, TrainingJob, TrainResult, evaluate_objective, train_model
from trimtab.training.monitor import DevEvaluation
from trimtab.training.optim import restore, snapshot


@dataclass(frozen=True, kw_only=True)
class TrainingSearch:
    """What an arm may spend on finding its settings: seconds beyond one training, on this much."""

    menu: SearchSpace
    seconds: float


def prepare_base(session: Session, plan: Recipe, begin: Path | None = None) -> None:
    """Put what may move onto a fresh base, as it is at the start or as it was saved in the folder `begin`."""
    base = session.fresh_base()
    if begin is not None:
        load_adapter(base, begin)
        return
    usual = int(METHODS[plan.method].usual.get("layers", 0))
    layers = plan.layers or min(usual, base.model.config.num_hidden_layers)
    attach(base, plan.method, plan.seed, rank=plan.rank, layers=layers, virtual_tokens=plan.virtual_tokens)


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
    reward_program: Scorer | None = None,
    search: TrainingSearch | None = None,
    found: Recipe | None = None,
    like: Path | None = None,
    begin: Path | None = None,
) -> TrainedWeights:
    """Make an arm's weights, stage by stage, and save them in `folder/adapter`; goes on where a former call was stopped.

    The latest weights whose loss on dev is within one standard error of the lowest are kept (for labels of a closed set the loss of
    the choice); the task's metric is told beside it, and decides in its place where a stage learns from rewards or pairs. `reward_program` is that of `reward_for`. `epochs` is the
    most of each stage. With `search` the rate and length of every stage that dev can judge are searched; `found` is what a search with
    another seed found, and `like` is the folder of that run. `begin`: a folder with saved weights of this arm to go on from, in place of the base's. The model is left with the trained weights on. Nothing is done for an arm that has none of its own.
    """
    if not is_trained(arm):
        return NOTHING
    if arm.weights == "linear":
        return _fit_linear(session, folder, progress, search, like)
    plan = replace(found, seed=seed) if found else recipe_for(session, arm, seed, epochs=epochs, by_need=bool(search))
    # what is wrong with the reward or the teacher is told before the stages that come first are trained
    reward = reward_for(session, arm, scorer=scorer, program=reward_program) if is_rewarded(arm) else None
    teacher = Teacher(session, folder, progress) if is_taught(arm) else None
    making = _Making(session, arm, context, folder, progress, scorer, reward, teacher, plan, begin)
    results, efforts = making.train_all(search, may_grow=epochs is None)
    making.save()
    plan, best = making.plan, results[-1].best
    return TrainedWeights(
        seconds=sum(result.seconds for result in results) + (teacher.seconds if teacher else 0.0),
        fee=teacher.fee if teacher else 0.0,
        tokens=sum(result.tokens for result in results),
        steps=sum(result.steps for result in results),
        planned_steps=sum(result.planned for result in results),
        skipped=making.skipped,
        epochs=results[-1].epochs,
        health=results[-1].health,
        best=best and replace(best, rows=()),  # which were kept to compare with; the run keeps their mean
        dev_scores=scores_of(results[-1], making.looks) or making.scores_on_dev(),
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
        reward: Reward | None,
        teacher: Teacher | None,
        plan: Recipe,
        begin: Path | None = None,
    ) -> None:
        self.begin = begin
        self.session, self.arm, self.context, self.folder = session, arm, context, folder
        self.progress, self.scorer, self.plan = progress, scorer, plan
        self.reward, self.teacher = reward, teacher
        self.depends = fingerprint_of(session, [arm], TRAINED_BY)
        self.looks: list[Mapping[str, float]] = []
        self._looks: dict[str, list[Mapping[str, float]]] = {}
        self._stage: tuple[tuple[str, PassageMix], Objective, Objective | None] | None = None
        self._judged: Judging | None = None  # those that are held out for the test, with the reference's sums
        self.skipped = 0
        self._begin(plan)

    def _begin(self, plan: Recipe) -> None:
        """Put what may move onto the base as it is at the start."""
        prepare_base(self.session, plan, self.begin)
        self.head = new_head(self.session, self.arm, plan.seed)
        self._on, self._start = plan.rank, snapshot({})

    def train_all(self, search: TrainingSearch | None, *, may_grow: bool) -> tuple[list[TrainResult], list[ArmEffort]]:
        """Every stage, one after the other; each that dev can judge shares the time of the search with those that are left."""
        several = sum(stage.name != "docs" for stage in self.plan.stages) > 1
        results: list[TrainResult] = []
        efforts: list[ArmEffort] = []
        for number in range(len(self.plan.stages)):
            self._start = snapshot({})
            if search is None or not self._may_be_searched(self.plan.stages[number]):
                results.append(self.train(self.plan.stages[number]))
                continue
            spent = sum(effort.seconds for effort in efforts)
            share = (search.seconds - spent) / sum(stage.name != "docs" for stage in self.plan.stages[number:])
            result, effort = self.search(number, replace(search, seconds=share), may_grow=may_grow)
            if several:
                effort = _of_stage(effort, self.plan.stages[number].name)
            results.append(result)
            efforts.append(effort)
        return results, efforts

    def _may_be_searched(self, stage: Stage) -> bool:
        """Whether something of dev says which setting of a stage, whose turn it is, is better."""
        return self._look_at_dev(stage, self._objectives(stage)[1]) is not None

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
            evaluate=self._look_at_dev(stage, dev),
            progress=self.progress,
            fingerprint=self._fingerprint(stage, name),
            note="reading the documents" if stage.name == "docs" else f"trial {name}" if name else "",
            trial=name,
        )
        if until is None:
            return train_model(job)
        mark = sorted(job.evaluation_steps)[:until][-1]
        return _up_to(train_model(job, until=mark), mark)

    def _look_at_dev(self, stage: Stage, dev: Objective | None) -> Callable[[], DevEvaluation] | None:
        """What looks at dev in a stage; nothing where nothing of dev says how good the weights are. What only scores is asked no question."""
        by_metric = stage.name in (*REWARDED, *PREFERENCES) and self.session.workspace.splits["dev"]
        if dev is None and not by_metric:
            return None
        if dev is not None and stage.name == REWARD:
            return partial(evaluate_objective, self.session.base, dev)
        return evaluate_on_dev(self.session, stage.name, dev, self.context, self.head, self.scorer, self.looks)

    def _fingerprint(self, stage: Stage, name: str) -> str:
        """What a run is never resumed without; one that is searched may be made longer."""
        plan = self._with_stage(replace(stage, epochs=0.0)) if name else self.plan
        begun = (
            [] if self.begin is None else [sha256_once(file) for file in sorted(self.begin.iterdir()) if file.is_file()]
        )
        return digest_of(
            self.depends,
            *(repr(self.arm.identity), repr(asdict(plan)), repr(self.context), stage.name, name),
            *begun,
        )

    def search(self, number: int, search: TrainingSearch, *, may_grow: bool) -> tuple[TrainResult, ArmEffort]:
        """Train a stage as dev shows to be best, and put what was found into the plan: its run, and what was tried."""
        self.plan = self._with_stage(replace(self.plan.stages[number], schedule="constant"))
        stage = self.plan.stages[number]
        free = open_settings(self.arm, self.plan, number, self.context)
        centre = TrainingSetting(
            learning_rate=stage.learning_rate,
            epochs=stage.epochs,
            rank=self.plan.rank,
            mix=self.plan.mix if free.mix else None,
        )
        free = replace(free, epochs=free.epochs and may_grow)
        setting, result, effort = search_learning_rate(
            partial(self.try_out, number), centre, free, search.menu, search.seconds
        )
        self.plan = self.with_setting(number, setting)
        return result, effort

    def try_out(self, number: int, setting: TrainingSetting, until: int | None) -> TrainResult:
        """A stage with other settings, from where the stage before it ended, or on from where this run stands."""
        if setting.rank != self._on:
            self._begin(replace(self.plan, rank=setting.rank))
            if self.plan.stages[number].name != DISTILL:  # a head of its own, too; what a teacher says stays
                self._stage = None
        objective, _ = self._objectives(self.plan.stages[number], setting.mix)
        moving = objective.parameters(self.session.base)
        self._start = self._start or snapshot(moving)
        restore(moving, self._start)
        stage = self.with_setting(number, setting).stages[number]
        name = f"{stage.name}-{setting.learning_rate:.3g}"
        name += "" if setting.rank in (None, self.plan.rank) else f"-rank-{setting.rank}"
        if setting.mix not in (None, self.plan.mix):
            name += f"-missing-{setting.mix.gold_missing:g}-distractors-{setting.mix.distractors:g}"
        return self.train(stage, name, until, setting.mix)

    def with_setting(self, number: int, setting: TrainingSetting) -> Recipe:
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
        seen = evaluate_objective(self.session.base, self._judged)
        return seen.figures["pair_accuracy"], len(self._judged.rows)

    def scores_on_dev(self) -> Mapping[str, float]:
        """What the weights that are on score on the dev questions of a look, by id."""
        dev, session = self.session.part("dev", DEV_QUESTIONS), self.session
        if not dev or REWARD in self.arm.stages:
            return {}
        builder = PromptBuilder(session, self.context)
        answer = head_answerer(session, self.head) if self.head else builder.answer
        with merged_and_packed(session.base):
            return score_on(session, dev, builder, answer, self.scorer)[1]

    def save(self) -> None:
        """Keep the weights that are on."""
        if self.head is None:
            save_adapter(self.session.base, self.folder / "adapter")
        else:
            last = self.session.encoder.answer("")[-1] if REWARD in self.arm.stages else None
            save_head(self.session.base, self.head, self.folder / "adapter", scored_token=last)

    def _objectives(self, stage: Stage, mix: PassageMix | None = None) -> tuple[Objective, Objective | None]:
        """What a stage optimises, and the same over dev rows where there are any; its rows are encoded once."""
        mix = mix or self.plan.mix
        key = (stage.name, mix)
        if self._stage is None or self._stage[0] != key:
            plan, self._stage = replace(self.plan, mix=mix), None  # what is kept for the rows before is let go of first
            setup = StageSetup(
                session=self.session,
                plan=plan,
                stage=stage,
                context=self.context,
                head=self.head,
                reward=self.reward,
                teacher=self.teacher,
            )
            made = OBJECTIVES[stage.name](setup)
            self.skipped = made.skipped
            if stage.name in JUDGED:
                self._judged = made.test
            self._stage = key, made.train, made.dev
        return self._stage[1:]


def _up_to(result: TrainResult, step: int) -> TrainResult:
    """What a run that has gone on since had come to at a step."""
    if result.steps <= step:
        return result
    return replace(
        result,
        finished=False,
        steps=step,
        epochs=result.epochs * step / result.steps,
        seconds=result.seconds * step / result.steps,
        readings=tuple(reading for reading in result.readings if reading.step <= step),
    )


def _of_stage(effort: ArmEffort, stage: str) -> ArmEffort:
    """The search of one of several stages, its name in every trial."""
    return replace(effort, trials=tuple(replace(one, what={"stage": stage, **one.what}) for one in effort.trials))


def _fit_linear(
    session: Session, folder: Path, progress: Progress, search: TrainingSearch | None, like: Path | None
) -> TrainedWeights:
    """The linear arm: with a search every trial but the one that was kept is that, the rest is its training; else all of it is."""
    began = time.perf_counter()
    progress.emit("train")
    limit = search.seconds if search else 0.0
    fitted = fit_linear(session, folder / "adapter", search_seconds=limit, like=like and like / "adapter")
    taken = time.perf_counter() - began
    if search is None:
        return TrainedWeights(seconds=taken)
    rows = len(session.workspace.splits["dev"])
    trials = tuple(
        Trial(
            what={"features": one.features, "penalty": one.penalty},
            dev_loss=None,
            dev_metric=one.dev_accuracy,
            rows=rows,
            seconds=one.seconds,
            kept=one is fitted.kept,
        )
        for one in fitted.trials
    )
    beside = sum(trial.seconds for trial in trials if not trial.kept)
    return TrainedWeights(
        seconds=taken - beside, effort=ArmEffort(seconds=beside, trials=trials, stopped=fitted.stopped)
    )
