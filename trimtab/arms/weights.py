"""The weights of an arm: its stages, each an objective on the one loop, saved as an adapter folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from trimtab.arms.answerers import head_answerer, score_on
from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.identity import TRAINED_BY, depends_on, digest_of
from trimtab.arms.session import Session
from trimtab.base.errors import InputError
from trimtab.base.grammar import HEAD, METHODS, is_trained, method_of
from trimtab.base.machine import release_memory
from trimtab.base.progress import Progress
from trimtab.base.records import Arm, Example, Setting
from trimtab.measurement.evaluate import Scorer
from trimtab.model.adapters import merged, put_on, save_adapter
from trimtab.training.batch import Row
from trimtab.training.head import Classification, Head, label_rows, save_head
from trimtab.training.linear import train_linear
from trimtab.training.loop import LoopSettings, TrainingJob, TrainResult, held_out, train
from trimtab.training.monitor import Evaluation, Health, Reading
from trimtab.training.sft import Supervised, answer_rows, document_rows

DEV_ROWS, DEV_QUESTIONS = 96, 60


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a recipe: what is read, how fast and how long."""

    name: str
    learning_rate: float
    epochs: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the weights of an arm are made, every default filled in.

    `rank` and `virtual_tokens` are None but for methods that have them; `layers` None is the usual number, or all of a shallow model.
    """

    method: str
    stages: tuple[Stage, ...]
    rank: int | None
    layers: int | None
    virtual_tokens: int | None
    batch: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What making an arm's weights came to, all stages together; `best` is the reading on dev of the weights that were kept.

    `dev_scores`: what these scored on dev questions, by id; empty where they were read before the run was stopped and went on.
    """

    seconds: float = 0.0
    tokens: int = 0
    steps: int = 0
    skipped: int = 0
    epochs: float = 0.0
    health: Health = "learning"
    best: Reading | None = None
    dev_scores: Mapping[str, float] = field(default_factory=dict)

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


NOTHING = Trained()


def recipe(arm: Arm, rows: int, seed: int, *, epochs: float | None = None) -> Recipe:
    """The arm's settings over the defaults, stage by stage; `epochs` is the most that the study's budget leaves, None for no limit."""
    usual = method_of(arm).usual
    if not usual:
        raise ValueError(f"arm {arm.name} is not trained in stages")
    own = {**usual, **arm.settings}
    stages = [
        Stage(
            name=name,
            learning_rate=_for_stage(own["learning_rate"], name, usual["learning_rate"]),
            epochs=min(_for_stage(own["epochs"], name, usual["epochs"]), float("inf") if epochs is None else epochs),
        )
        for name in arm.stages
    ]
    return Recipe(
        method=arm.weights,
        stages=tuple(stages),
        rank=_whole(own, "rank"),
        layers=_whole(arm.settings, "layers"),
        virtual_tokens=_whole(own, "virtual_tokens"),
        batch=_whole(own, "batch") or (8 if rows < 1000 else 16),
        seed=seed,
    )


def _for_stage(setting: Setting, stage: str, usual: float) -> float:
    """What a setting says for one stage, the usual value where it is silent about it."""
    return float(setting.get(stage, usual) if isinstance(setting, Mapping) else setting)


def _whole(settings: Mapping[str, Setting], name: str) -> int | None:
    value = settings.get(name)
    return value if isinstance(value, int) else None


def evaluations(epochs: float) -> int:
    """How often dev is looked at: in a short run less often, as each look costs as much as dozens of steps."""
    return max(2, min(4, round(4 * epochs)))


def training_rows(session: Session, context: Context, examples: Sequence[Example], seed: int) -> tuple[list[Row], int]:
    """Encoded rows of the `sft` stage, and how many were left out because they are longer than the model's context."""
    pairs = PromptBuilder(session, context).training_prompts(examples, seed)
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


def head_rows(session: Session, context: Context, examples: Sequence[Example], seed: int) -> tuple[list[Row], int]:
    """Rows of the `head` stage: a prompt and the number of its label; and how many were left out for their length."""
    labels = session.workspace.labels
    pairs = PromptBuilder(session, context).training_prompts(examples, seed)
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
) -> Trained:
    """Make an arm's weights, stage by stage, and save them in `folder/adapter`; goes on where a former call was stopped.

    The latest weights whose loss on dev is within one standard error of the lowest are kept; the task's metric is told beside it
    (decision 12). `epochs` is the most of each stage. The model is left with the trained weights on. Nothing is done for an arm
    that has none of its own.
    """
    if not is_trained(arm):
        return NOTHING
    if arm.weights == "linear":
        return _fit_linear(session, folder, progress)
    plan = recipe(arm, len(session.workspace.splits["train"]), seed, epochs=epochs)
    prepare(session, plan)
    fingerprint = digest_of(
        depends_on(session, [arm], TRAINED_BY), repr(arm.identity), repr(asdict(plan)), repr(context)
    )
    labels, hidden_size = session.workspace.labels, session.base.model.config.hidden_size
    head = Head(labels, hidden_size, seed=seed).to(session.base.device) if HEAD in arm.stages else None
    results: list[TrainResult] = []
    skipped, looks = 0, list[Mapping[str, float]]()
    for stage in plan.stages:
        looks.clear()
        objective, dev, left_out = _objectives(session, plan, stage, context, head)
        skipped += left_out
        job = TrainingJob(
            base=session.base,
            objective=objective,
            settings=LoopSettings(
                learning_rate=stage.learning_rate, epochs=stage.epochs, evaluations=evaluations(stage.epochs)
            ),
            folder=folder / stage.name,
            evaluate=_on_dev(session, dev, context, head, scorer, looks) if dev else None,
            progress=progress,
            fingerprint=digest_of({}, fingerprint, stage.name),
            note="reading the documents" if stage.name == "docs" else "",
        )
        results.append(train(job))
    save_adapter(session.base, folder / "adapter")
    if head is not None:
        save_head(head, folder / "adapter")
    best = results[-1].best
    return Trained(
        seconds=sum(result.seconds for result in results),
        tokens=sum(result.tokens for result in results),
        steps=sum(result.steps for result in results),
        skipped=skipped,
        epochs=plan.stages[-1].epochs,
        health=results[-1].health,
        best=best and replace(best, rows=()),  # which were kept to compare with; the run keeps their mean
        dev_scores=_scores_of(results[-1], looks),
    )


def _objectives(
    session: Session, plan: Recipe, stage: Stage, context: Context, head: Head | None
) -> tuple[Supervised | Classification, Supervised | Classification | None, int]:
    """What a stage optimises, the same over dev rows where there are any, and how many training rows were left out for their length."""
    if stage.name == "docs":
        rows = document_rows(session.workspace.documents, session.encoder)
        return Supervised(rows, batch=plan.batch, seed=plan.seed), None, 0
    splits = session.workspace.splits

    def over(examples: Sequence[Example], seed: int) -> tuple[Supervised | Classification, int]:
        if head is not None and stage.name == HEAD:
            rows, skipped = head_rows(session, context, examples, plan.seed)
            return Classification(rows, head, batch=plan.batch, seed=seed), skipped
        rows, skipped = training_rows(session, context, examples, plan.seed)
        return Supervised(rows, batch=plan.batch, seed=seed), skipped

    objective, skipped = over(splits["train"], plan.seed)
    dev = session.part("dev", DEV_ROWS)
    return objective, over(dev, 0)[0] if dev else None, skipped


def _on_dev(
    session: Session,
    objective: Supervised | Classification,
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


def _fit_linear(session: Session, folder: Path, progress: Progress) -> Trained:
    began = time.perf_counter()
    train_part, dev = session.workspace.splits["train"], session.workspace.splits["dev"]
    progress.emit("train")
    model = train_linear(
        [item.input for item in train_part],
        [item.references[0] for item in train_part],
        [item.input for item in dev],
        [item.references[0] for item in dev],
        session.embedder.encode,
    )
    model.save(folder / "adapter")
    return Trained(seconds=time.perf_counter() - began)
