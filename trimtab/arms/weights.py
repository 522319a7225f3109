"""The weights of an arm: its stages, each an objective on the one loop, saved as an adapter folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from trimtab.arms.answerers import head_answerer, score_on
from trimtab.arms.contexts import USUAL_MIX, Context, PassageMix, PromptBuilder
from trimtab.arms.identity import TRAINED_BY, depends_on, digest_of
from trimtab.arms.ladder import LOOKS, Open, Setting, climb
from trimtab.arms.linear import fit_linear
from trimtab.arms.recipe import Recipe, Stage, evaluations, is_open, recipe_for
from trimtab.arms.search import Menu
from trimtab.arms.session import Session
from trimtab.base.errors import InputError
from trimtab.base.grammar import HEAD, METHODS, is_trained
from trimtab.base.machine import release_memory
from trimtab.base.progress import Progress
from trimtab.base.records import Arm, Example
from trimtab.base.results import ArmEffort, Trial
from trimtab.measurement.evaluate import Scorer
from trimtab.model.adapters import merged, put_on, save_adapter
from trimtab.training.batch import Row
from trimtab.training.head import Classification, Head, label_rows, save_head
from trimtab.training.loop import LoopSettings, TrainingJob, TrainResult, held_out, train
from trimtab.training.monitor import Evaluation, Health, Reading
from trimtab.training.optim import copied, put_back
from trimtab.training.sft import Supervised, answer_rows, document_rows

DEV_ROWS, DEV_QUESTIONS = 96, 60

_Objective = Supervised | Classification


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What making an arm's weights came to, all stages together; `best` is the reading on dev of the weights that were kept.

    `dev_scores`: what these scored on dev questions, by id.
    `recipe`: how they were made, None where nothing was trained on the loop; `effort`: the search that found it.
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

    @property
    def figures(self) -> dict[str, float]:
        """What is told beside an arm's score; nothing where nothing was trained on the loop."""
        counted = {
            "skipped_rows": self.skipped,
            "train_tokens": self.tokens,
            "steps": self.steps,
            "epochs": self.epochs,
        }
        return {name: float(value) for name, value in counted.items()} if self.steps else {}


@dataclass(frozen=True, kw_only=True)
class Search:
    """What an arm may spend on finding its settings: seconds beyond one training, on this much."""

    menu: Menu
    seconds: float


NOTHING = Trained()


def training_rows(
    session: Session, context: Context, examples: Sequence[Example], seed: int, mix: PassageMix = USUAL_MIX
) -> tuple[list[Row], int]:
    """Encoded rows of the `sft` stage, and how many were left out because they are longer than the model's context."""
    pairs = PromptBuilder(session, context).training_prompts(examples, seed, mix)
    train_on = session.task.data.train_on if context.is_instruction_alone else "last"
    encoded = [session.encoder.conversation(prompt.messages, answer, train_on=train_on) for prompt, answer in pairs]
    fitting = [
        (item, example.weight)
        for item, example in zip(encoded, examples, strict=True)
        if len(item.ids) <= session.context_tokens
    ]
    if not fitting:
        raise InputError(
            f"every training row is longer than the model's {session.context_tokens} tokens",
            "shorten the rows",
            field="data.examples",
        )
    return answer_rows(fitting), len(encoded) - len(fitting)


def head_rows(
    session: Session, context: Context, examples: Sequence[Example], seed: int, mix: PassageMix = USUAL_MIX
) -> tuple[list[Row], int]:
    """Rows of the `head` stage: a prompt and the number of its label; and how many were left out for their length."""
    labels = session.workspace.labels
    pairs = PromptBuilder(session, context).training_prompts(examples, seed, mix)
    encoded = [
        (session.encoder.prompt(prompt.messages), labels.index(answer), example.weight)
        for (prompt, answer), example in zip(pairs, examples, strict=True)
    ]
    fitting = [row for row in encoded if len(row[0]) <= session.context_tokens]
    return label_rows(fitting, len(labels)), len(encoded) - len(fitting)


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
    if not session.workspace.splits["dev"] or plan.stages[-1].name == "docs":
        search = None  # nothing says which setting is better
    if search is not None:
        plan = replace(plan, schedule="constant")
    making = _Making(session, arm, context, folder, progress, scorer, plan)
    results = [making.train(stage) for stage in plan.stages[:-1]]
    effort: ArmEffort | None = None
    if search is None:
        results.append(making.train(plan.stages[-1]))
    else:
        plan, result, effort = making.search(search, may_grow=epochs is None)
        results.append(result)
    making.save()
    best = results[-1].best
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
        effort=effort,
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
        self._stage: tuple[tuple[str, PassageMix], _Objective, _Objective | None] | None = None
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

    def train(
        self, stage: Stage, name: str = "", until: int | None = None, mix: PassageMix | None = None
    ) -> TrainResult:
        """Train a stage up to a look at dev, to its end where none is named; `name` tells runs of one stage apart."""
        objective, dev = self._objectives(stage, mix)
        self.looks = self._looks.setdefault(name or stage.name, [])
        last = stage is self.plan.stages[-1] or name != ""
        looks = LOOKS if last and self.plan.schedule == "constant" else evaluations(stage.epochs)
        job = TrainingJob(
            base=self.session.base,
            objective=objective,
            settings=LoopSettings(
                learning_rate=stage.learning_rate,
                epochs=stage.epochs,
                evaluations=looks,
                schedule=self.plan.schedule if last else "cosine",
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
        plan = (
            self.plan if not name else replace(self.plan, stages=(*self.plan.stages[:-1], replace(stage, epochs=0.0)))
        )
        return digest_of(
            self.depends, repr(self.arm.identity), repr(asdict(plan)), repr(self.context), stage.name, name
        )

    def search(self, search: Search, *, may_grow: bool) -> tuple[Recipe, TrainResult, ArmEffort]:
        """Train the last stage as dev shows to be best: the recipe that was found, its run, and what was tried."""
        plan, settings = self.plan, self.arm.settings
        centre = Setting(
            learning_rate=plan.stages[-1].learning_rate,
            epochs=plan.stages[-1].epochs,
            rank=plan.rank,
            mix=plan.mix if self.context.passages else None,
        )
        free = Open(
            learning_rate=is_open(self.arm, "learning_rate"),
            epochs=is_open(self.arm, "epochs") and may_grow,
            rank="rank" not in settings and len(plan.stages) == 1,
        )
        setting, result, effort = climb(self.try_out, centre, free, search.menu, search.seconds)
        return self.with_setting(setting), result, effort

    def try_out(self, setting: Setting, until: int | None) -> TrainResult:
        """The last stage with other settings, from where the stage before it ended, or on from where this run stands."""
        if setting.rank != self._on:
            self._begin(replace(self.plan, rank=setting.rank))
            self._stage = None  # a head of its own, too
        objective, _ = self._objectives(self.plan.stages[-1], setting.mix)
        moving = objective.parameters(self.session.base)
        self._start = self._start or copied(moving)
        put_back(moving, self._start)
        stage = self.with_setting(setting).stages[-1]
        name = f"{stage.name}-{setting.learning_rate:.3g}"
        name += "" if setting.rank in (None, self.plan.rank) else f"-rank-{setting.rank}"
        if setting.mix not in (None, self.plan.mix):
            name += f"-missing-{setting.mix.gold_missing:g}-distractors-{setting.mix.distractors:g}"
        return self.train(stage, name, until, setting.mix)

    def with_setting(self, setting: Setting) -> Recipe:
        """The recipe with the last stage so set."""
        last = replace(self.plan.stages[-1], learning_rate=setting.learning_rate, epochs=setting.epochs)
        return replace(
            self.plan, stages=(*self.plan.stages[:-1], last), rank=setting.rank, mix=setting.mix or self.plan.mix
        )

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

    def _objectives(self, stage: Stage, mix: PassageMix | None = None) -> tuple[_Objective, _Objective | None]:
        """What a stage optimises, and the same over dev rows where there are any; its rows are encoded once."""
        mix = mix or self.plan.mix
        key = (stage.name, mix)
        if self._stage is None or self._stage[0] != key:
            plan = replace(self.plan, mix=mix)
            objective, dev, self.skipped = _objectives(self.session, plan, stage, self.context, self.head)
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


def _objectives(
    session: Session, plan: Recipe, stage: Stage, context: Context, head: Head | None
) -> tuple[_Objective, _Objective | None, int]:
    """What a stage optimises, the same over dev rows where there are any, and how many training rows were left out for their length."""
    if stage.name == "docs":
        rows = document_rows(session.workspace.documents, session.encoder)
        return Supervised(rows, batch=plan.batch, seed=plan.seed), None, 0
    splits = session.workspace.splits

    def over(examples: Sequence[Example], seed: int, mix: PassageMix) -> tuple[_Objective, int]:
        if head is not None and stage.name == HEAD:
            rows, skipped = head_rows(session, context, examples, plan.seed, mix)
            return Classification(rows, head, batch=plan.batch, seed=seed), skipped
        rows, skipped = training_rows(session, context, examples, plan.seed, mix)
        return Supervised(rows, batch=plan.batch, seed=seed), skipped

    objective, skipped = over(splits["train"], plan.seed, plan.mix)
    dev = session.part("dev", DEV_ROWS)  # the same prompts whatever is tried, or losses could not be compared
    return objective, over(dev, 0, USUAL_MIX)[0] if dev else None, skipped


def _on_dev(
    session: Session,
    objective: _Objective,
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
