"""Training of an arm's weights: its stages, each an objective run by the training loop, saved as an adapter folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from trimtab.arms.answerers import head_answerer, score_on_dev
from trimtab.arms.artifacts import NOTHING, TrainedWeights
from trimtab.arms.contexts import Context, PassageMix, PromptBuilder
from trimtab.arms.dev_eval import DEV_QUESTIONS, evaluate_on_dev, scores_at_best
from trimtab.arms.fingerprint import TRAINED_BY, digest_of, fingerprint_of
from trimtab.arms.linear import fit_linear
from trimtab.arms.memorisation import exposure
from trimtab.arms.objectives import JudgedObjective, Objective, StageObjectives, StageSetup, new_head
from trimtab.arms.recipe import Recipe, Stage, evaluations, recipe_for
from trimtab.arms.rewards import reward_for
from trimtab.arms.search.context_search import SearchSpace
from trimtab.arms.search.lr_search import LOOKS, TrainingSetting, open_settings, rate_at, search_learning_rate
from trimtab.arms.session import Session
from trimtab.arms.teacher import Teacher
from trimtab.base.errors import DivergedError, InputError
from trimtab.base.files import sha256_cached
from trimtab.base.grammar import (
    DISTILL,
    JUDGED,
    PREFERENCES,
    REWARD,
    REWARDED,
    STAGES,
    imitates_teacher,
    is_trained,
    learns_from_rewards,
)
from trimtab.base.progress import Progress
from trimtab.base.records import Arm
from trimtab.base.results import ArmEffort, Trial
from trimtab.base.tables import resolve
from trimtab.measurement.evaluate import Scorer
from trimtab.measurement.rewards import Reward
from trimtab.model import process_group
from trimtab.model.adapters.apply import attach, load_adapter, save_adapter
from trimtab.model.adapters.registry import defaults_of
from trimtab.model.classifier import save_head
from trimtab.model.fast.packed_weights import merged_and_packed
from trimtab.model.sharded import shard
from trimtab.training.loop import LoopSettings, TrainingJob, TrainResult, evaluate_objective, train_model
from trimtab.training.monitor import DevEvaluation
from trimtab.training.optim import restore, snapshot


@dataclass(frozen=True, kw_only=True)
class TrainingSearch:
    """The allowance for searching training settings: seconds beyond one training, at an effort level."""

    menu: SearchSpace
    seconds: float


def prepare_base(session: Session, plan: Recipe, begin: Path | None = None) -> None:
    """Attach the trainable parts to a fresh base model, new or as saved in `begin`, and divide it in a group."""
    base = session.fresh_base()
    if begin is not None:
        load_adapter(base, begin)
    else:
        layers = plan.layers or min(defaults_of(plan.method).layers or 0, base.model.config.num_hidden_layers)
        attach(base, plan.method, plan.seed, rank=plan.rank, layers=layers, virtual_tokens=plan.virtual_tokens)
    if process_group.size() > 1:
        shard(base)


def require_shardable(arm: Arm) -> None:
    """Raise InputError, with the reason, for an arm that several processes cannot train together."""
    alone = {
        "linear": "its features are fitted at once",
        "qlora": "4-bit weights are not divided",
        DISTILL: "its teacher answers in one process",
        **dict.fromkeys(REWARDED, "its answers are sampled by the inference engine, which needs the whole model"),
    }
    reason = next((alone[name] for name in (arm.weights, *arm.stages) if name in alone), None)
    if reason is not None:
        raise InputError(f"{arm.name} is trained by one process: {reason}", "start it without torchrun")


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
    """Train an arm's weights, stage by stage, and save them in `folder/adapter`; resumes an interrupted call.

    The latest weights whose dev loss is within one standard error of the lowest are kept (for labels of a closed
    set, the log loss of the choice); the task's metric is reported too, and decides for reinforcement learning and
    preferences. `reward_program` is that of `reward_for`. `epochs`: the most of each stage. With `search`, rate and
    length of every stage that dev can evaluate are searched. `found`: the settings that a search with another seed
    found. `like`: the folder of that run. `begin`: a folder with saved weights of this arm to continue from, instead
    of the base model's. The model is left with the trained weights attached. Does nothing for an arm without weights
    of its own.
    """
    if not is_trained(arm):
        return NOTHING
    if arm.weights == "linear":
        return _fit_linear(session, folder, progress, search, like)
    plan = replace(found, seed=seed) if found else recipe_for(session, arm, seed, epochs=epochs, by_need=bool(search))
    # problems of reward or teacher are raised before the earlier stages are trained
    reward = reward_for(session, arm, scorer=scorer, program=reward_program) if learns_from_rewards(arm) else None
    teacher = Teacher(session, folder, progress) if imitates_teacher(arm) else None
    trainer = _WeightTrainer(session, arm, context, folder, progress, scorer, reward, teacher, plan, begin)
    results: list[TrainResult] = []
    effort: ArmEffort | None = None
    for number in range(len(plan.stages)):
        if search and trainer.can_search(trainer.plan.stages[number]):
            left = search.seconds - (effort.seconds if effort else 0.0)
            result, own = trainer.search(number, replace(search, seconds=left), may_grow=epochs is None)
            effort = effort.and_then(own) if effort else own
        else:
            result = train_model(trainer.job(trainer.plan.stages[number]))
        results.append(result)
    trainer.save()
    best = results[-1].best
    return TrainedWeights(
        seconds=sum(result.seconds for result in results) + (teacher.seconds if teacher else 0.0),
        fee=teacher.fee if teacher else 0.0,
        tokens=sum(result.tokens for result in results),
        steps=sum(result.steps for result in results),
        planned_steps=sum(result.planned for result in results),
        skipped=trainer.skipped,
        epochs=results[-1].epochs,
        health=results[-1].health,
        best=best and replace(best, rows=()),  # stored for comparison; the run stores their mean
        dev_scores=scores_at_best(results[-1], trainer.dev_evaluations) or trainer.scores_on_dev(),
        recipe=trainer.plan,
        effort=effort,
        pair_accuracy=trainer.pair_accuracy(),
        exposure=exposure(session, progress) if "sft" in arm.stages else None,
    )


def train_trial(
    session: Session,
    arm: Arm,
    context: Context,
    folder: Path,
    progress: Progress,
    step: int,
    *,
    epochs: float | None = None,
    scorer: Scorer | None = None,
) -> None:
    """Train a rate of an arm's ladder up to the first dev evaluation, unless it diverges. `step`: see `rate_at`.

    `train_weights` with a search finds the run in `folder` and goes on with it.
    """
    plan = recipe_for(session, arm, 0, epochs=epochs, by_need=True)
    trainer = _WeightTrainer(session, arm, context, folder, progress, scorer, None, None, plan)
    with suppress(DivergedError):  # which the search finds, too
        trainer.train_variant(0, rate_at(trainer.begin_search(0), step), 1)


class _WeightTrainer:
    """Trains the stages of an arm, each an objective that the training loop runs."""

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
        self.dev_evaluations: list[Mapping[str, float]] = []
        self._dev_evaluations: dict[str, list[Mapping[str, float]]] = {}
        self._stage: tuple[tuple[str, PassageMix], Objective, Objective | None] | None = None
        self._judged: JudgedObjective | None = None  # pairs held out for the test, with the reference model's sums
        self.skipped = 0
        self._begin(plan)

    def _begin(self, plan: Recipe) -> None:
        """Attach the newly initialised trainable parts to the base model."""
        prepare_base(self.session, plan, self.begin)
        self.head = new_head(self.session, self.arm, plan.seed)
        self._attached_rank, self._stage_start = plan.rank, snapshot({})

    def can_search(self, stage: Stage) -> bool:
        """Return True if dev can compare settings of a stage."""
        return self._dev_evaluator(stage, self._objectives(stage)[1]) is not None

    def job(self, stage: Stage, name: str = "", mix: PassageMix | None = None) -> TrainingJob:
        """Return a stage as a job of the training loop. `name` distinguishes runs of one stage."""
        objective, dev = self._objectives(stage, mix)
        self.dev_evaluations = self._dev_evaluations.setdefault(name or stage.name, [])
        dev_evaluations = LOOKS if stage.schedule == "constant" else evaluations(stage.epochs)
        return TrainingJob(
            base=self.session.base,
            objective=objective,
            settings=LoopSettings(
                learning_rate=stage.learning_rate,
                epochs=stage.epochs,
                evaluations=dev_evaluations,
                schedule=stage.schedule,
            ),
            folder=self.folder / (name or stage.name),
            evaluate=self._dev_evaluator(stage, dev),
            progress=self.progress,
            fingerprint=self._fingerprint(stage, name),
            note="reading the documents" if stage.name == "docs" else f"trial {name}" if name else "",
            trial=name,
        )

    def _dev_evaluator(self, stage: Stage, dev: Objective | None) -> Callable[[], DevEvaluation] | None:
        """Return the dev evaluation of a stage; None if dev cannot rate its weights.

        A stage that only scores answers no questions, and is rated by its loss over dev, as is one that several
        processes train.
        """
        by_metric = stage.name in (*REWARDED, *PREFERENCES) and self.session.workspace.splits["dev"]
        if dev is None and not by_metric:
            return None
        if process_group.size() > 1:  # answers need the whole model in one process, losses do not
            return None if dev is None else partial(evaluate_objective, self.session.base, dev)
        if dev is not None and stage.name == REWARD:
            return partial(evaluate_objective, self.session.base, dev)
        return evaluate_on_dev(
            self.session, stage.name, dev, self.context, self.head, self.scorer, self.dev_evaluations
        )

    def _fingerprint(self, stage: Stage, name: str) -> str:
        """Return the fingerprint that a resumed run must match; a searched run may be extended."""
        plan = self._with_stage(replace(stage, epochs=0.0)) if name else self.plan
        begin_files = sorted(self.begin.iterdir()) if self.begin else ()
        return digest_of(
            self.depends,
            *(repr(self.arm.identity), repr(asdict(plan)), repr(self.context), stage.name, name),
            *(sha256_cached(file) for file in begin_files if file.is_file()),
        )

    def search(self, number: int, search: TrainingSearch, *, may_grow: bool) -> tuple[TrainResult, ArmEffort]:
        """Train a stage with the settings that dev selects, and put them into the recipe.

        Later stages get as large a share of `search.seconds`.
        """
        centre, free = self.begin_search(number), open_settings(self.arm, self.plan, number, self.context)
        free = replace(free, epochs=free.epochs and may_grow)
        setting, result, effort = search_learning_rate(
            partial(self.train_variant, number),
            centre,
            free,
            search.menu,
            search.seconds / _searched(self.plan, number),
        )
        self.plan = self.with_setting(number, setting)
        if _searched(self.plan) > 1:
            effort = _with_stage_name(effort, self.plan.stages[number].name)
        return result, effort

    def begin_search(self, number: int) -> TrainingSetting:
        """Give a stage the schedule of trials, and return its usual setting, around which settings are searched."""
        self._stage_start = snapshot({})
        self.plan = self._with_stage(replace(self.plan.stages[number], schedule="constant"))
        stage, free = self.plan.stages[number], open_settings(self.arm, self.plan, number, self.context)
        return TrainingSetting(
            learning_rate=stage.learning_rate,
            epochs=stage.epochs,
            rank=self.plan.rank,
            mix=self.plan.mix if free.mix else None,
        )

    def train_variant(self, number: int, setting: TrainingSetting, until: int | None) -> TrainResult:
        """Train a stage with other settings, from the end of the stage before it, or resume that run.

        `until`: the number of its last dev evaluation; None for its end.
        """
        if setting.rank != self._attached_rank:
            self._begin(replace(self.plan, rank=setting.rank))
            if self.plan.stages[number].name != DISTILL:  # with a new head; the teacher's answers are reused
                self._stage = None
        objective, _ = self._objectives(self.plan.stages[number], setting.mix)
        moving = objective.parameters(self.session.base)
        self._stage_start = self._stage_start or snapshot(moving)
        restore(moving, self._stage_start)
        stage = self.with_setting(number, setting).stages[number]
        name = f"{stage.name}-{setting.learning_rate:.3g}"
        name += "" if setting.rank in (None, self.plan.rank) else f"-rank-{setting.rank}"
        if setting.mix not in (None, self.plan.mix):
            name += f"-missing-{setting.mix.gold_missing:g}-distractors-{setting.mix.distractors:g}"
        job = self.job(stage, name, setting.mix)
        if until is None:
            return train_model(job)
        last = sorted(job.evaluation_steps)[:until][-1]
        return _result_at_step(train_model(job, until=last), last)

    def with_setting(self, number: int, setting: TrainingSetting) -> Recipe:
        """Return the recipe with a setting applied to a stage."""
        set_so = replace(self.plan.stages[number], learning_rate=setting.learning_rate, epochs=setting.epochs)
        plan = self._with_stage(set_so)
        return replace(plan, rank=setting.rank, mix=setting.mix or plan.mix)

    def _with_stage(self, stage: Stage) -> Recipe:
        """Return the recipe with this stage in place of the one with its name."""
        stages = (stage if one.name == stage.name else one for one in self.plan.stages)
        return replace(self.plan, stages=tuple(stages))

    def pair_accuracy(self) -> tuple[float, int] | None:
        """Return the share of held-out test pairs that the attached weights rank right, and their number."""
        if self._judged is None:
            return None
        seen = evaluate_objective(self.session.base, self._judged)
        return seen.figures["pair_accuracy"], len(self._judged.rows)

    def scores_on_dev(self) -> Mapping[str, float]:
        """Return the attached weights' scores on the dev questions of an evaluation, by id."""
        dev, session = self.session.workspace.subset("dev", DEV_QUESTIONS), self.session
        if not dev or REWARD in self.arm.stages or process_group.size() > 1:
            return {}
        builder = PromptBuilder(session, self.context)
        answer = head_answerer(session, self.head) if self.head else builder.answer
        with merged_and_packed(session.base):
            return score_on_dev(session, dev, builder, answer, self.scorer)[1]

    def save(self) -> None:
        """Save the attached weights."""
        if self.head is None:
            save_adapter(self.session.base, self.folder / "adapter")
        else:
            last = self.session.encoder.answer("")[-1] if REWARD in self.arm.stages else None
            save_head(self.session.base, self.head, self.folder / "adapter", scored_token=last)

    def _objectives(self, stage: Stage, mix: PassageMix | None = None) -> tuple[Objective, Objective | None]:
        """Return the objective of a stage over train, and over dev (None without rows); its rows are encoded once."""
        mix = mix or self.plan.mix
        key = (stage.name, mix)
        if self._stage is None or self._stage[0] != key:
            plan, self._stage = replace(self.plan, mix=mix), None  # release the caches of the previous rows first
            setup = StageSetup(
                session=self.session,
                plan=plan,
                stage=stage,
                context=self.context,
                head=self.head,
                reward=self.reward,
                teacher=self.teacher,
            )
            objectives: StageObjectives = resolve(STAGES[stage.name].objective)(setup)
            self.skipped = objectives.skipped
            if stage.name in JUDGED:
                self._judged = objectives.test
            self._stage = key, objectives.train, objectives.dev
        return self._stage[1:]


def _result_at_step(result: TrainResult, step: int) -> TrainResult:
    """Return the result that a run had after `step` steps, with seconds and epochs in proportion."""
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


def _searched(plan: Recipe, first: int = 0) -> int:
    """Return the number of stages from `first` on that a search may choose settings of: all but reading documents."""
    return sum(stage.name != "docs" for stage in plan.stages[first:])


def _with_stage_name(effort: ArmEffort, stage: str) -> ArmEffort:
    """Return the effort of one of several stages with the stage's name in every trial."""
    return replace(effort, trials=tuple(replace(one, what={"stage": stage, **one.what}) for one in effort.trials))


def _fit_linear(
    session: Session, folder: Path, progress: Progress, search: TrainingSearch | None, like: Path | None
) -> TrainedWeights:
    """Train the linear arm; of a search, the trials that were not selected do not count as training."""
    began = time.perf_counter()
    progress.emit("train")
    limit = search.seconds if search and search.menu.hidden_states else 0.0
    fitted = fit_linear(session, folder / "adapter", search_seconds=limit, like=like and like / "adapter")
    taken = time.perf_counter() - began
    if search is None:
        return TrainedWeights(seconds=taken)
    rows = len(session.workspace.splits["dev"])
    trials = tuple(
        Trial(
            what={
                "features": trial.choice.features,
                "penalty": trial.choice.penalty,
                "weights": "balanced" if trial.choice.balanced else "as they are",
            },
            dev_loss=None,
            dev_metric=trial.dev_score,
            rows=rows,
            seconds=trial.seconds,
            kept=trial is fitted.kept,
        )
        for trial in fitted.trials
    )
    beside = sum(trial.seconds for trial in trials if not trial.kept)
    return TrainedWeights(
        seconds=taken - beside, effort=ArmEffort(seconds=beside, trials=trials, stopped=fitted.stopped)
    )
