"""The weights of an arm: its stages, each an objective on the one loop, kept as an adapter folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.session import Session
from trimtab.base.errors import InputError
from trimtab.base.files import sha256_text
from trimtab.base.machine import release_memory
from trimtab.base.progress import Progress
from trimtab.base.records import Arm, Example
from trimtab.model.adapters import add_lora, load_adapter, merged, save_adapter, unfreeze
from trimtab.training.batch import Row
from trimtab.training.loop import LoopSettings, TrainingJob, TrainResult, held_out, train
from trimtab.training.monitor import Evaluation, Health
from trimtab.training.sft import Supervised, answer_rows, document_rows

RANK, ALPHA_PER_RANK, LAYERS = 16, 2, 6
# LoRA wants about ten times the rate of full tuning (Thinking Machines 2025, "LoRA without regret").
RATES = {"lora": 5e-4, "freeze": 1e-4, "full": 5e-5}
EPOCHS = 3.0
DEV_ROWS, DEV_QUESTIONS = 96, 60


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the weights of an arm are made, every default filled in; `layers` None is the usual number, or all of a shallow model."""

    method: str
    stages: tuple[str, ...]
    rank: int
    layers: int | None
    learning_rate: float
    epochs: float
    batch: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training an arm came to, all stages together."""

    folder: Path
    seconds: float
    tokens: int
    steps: int
    health: Health
    skipped: int


def recipe(arm: Arm, rows: int, seed: int, *, epochs: float | None = None) -> Recipe:
    """The arm's settings over the defaults; `epochs` is the most that the study's budget leaves, None for no limit."""
    own = arm.settings
    wanted = float(own.get("epochs", EPOCHS))
    return Recipe(
        method=arm.weights,
        stages=arm.stages,
        rank=int(own.get("rank", RANK)),
        layers=int(own["layers"]) if "layers" in own else None,
        learning_rate=float(own.get("learning_rate", RATES[arm.weights])),
        epochs=wanted if epochs is None else min(wanted, epochs),
        batch=int(own.get("batch", 8 if rows < 1000 else 16)),
        seed=seed,
    )


def evaluations(epochs: float) -> int:
    """How often dev is looked at: in a short run less often, as each look costs as much as dozens of steps."""
    return max(2, min(4, round(4 * epochs)))


def training_rows(session: Session, context: Context, examples: Sequence[Example], seed: int) -> tuple[list[Row], int]:
    """Encoded rows of the `sft` stage, and how many were left out because they are longer than the model's context."""
    pairs = PromptBuilder(session, context).training_prompts(examples, seed)
    train_on = session.task.data.train_on if context.kind == "prompt" else "last"
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


def prepare(session: Session, plan: Recipe) -> None:
    """Put what may move onto a fresh base."""
    base = session.fresh_base(will_change=True)
    if plan.method == "lora":
        add_lora(base, plan.rank, plan.rank * ALPHA_PER_RANK, plan.seed)
    else:
        unfreeze(base, plan.method, plan.layers or min(LAYERS, base.model.config.num_hidden_layers))


def train_weights(
    session: Session,
    plan: Recipe,
    context: Context,
    folder: Path,
    progress: Progress,
    metric: Callable[[], float] | None,
) -> Trained:
    """Run the stages in their order and keep the result in `folder/adapter`; goes on where a former call was stopped.

    `metric` scores the weights that are on, on dev questions. The model is left with the trained weights on.
    """
    prepare(session, plan)
    train_part, dev_part = session.workspace.splits["train"], session.workspace.splits["dev"][:DEV_ROWS]
    results: list[TrainResult] = []
    skipped = 0
    for stage in plan.stages:
        if stage == "docs":
            rows, dev_rows = document_rows(session.workspace.documents, session.encoder), []
        else:
            rows, skipped = training_rows(session, context, train_part, plan.seed)
            dev_rows = training_rows(session, context, dev_part, plan.seed)[0] if dev_part else []
        dev = Supervised(dev_rows, batch=plan.batch, seed=0)
        results.append(
            train(
                TrainingJob(
                    base=session.base,
                    objective=Supervised(rows, batch=plan.batch, seed=plan.seed),
                    settings=LoopSettings(
                        learning_rate=plan.learning_rate, epochs=plan.epochs, evaluations=evaluations(plan.epochs)
                    ),
                    folder=folder / stage,
                    evaluate=_on_dev(session, dev, metric if stage == "sft" else None) if dev_rows else None,
                    progress=progress,
                    fingerprint=_fingerprint(session, plan, stage, rows),
                    note="reading the documents" if stage == "docs" else "",
                )
            )
        )
    save_adapter(session.base, folder / "adapter")
    return Trained(
        folder=folder,
        seconds=sum(result.seconds for result in results),
        tokens=sum(result.tokens for result in results),
        steps=sum(result.steps for result in results),
        health=results[-1].health,
        skipped=skipped,
    )


def put_on(session: Session, folder: Path) -> None:
    """Load a kept adapter onto a fresh base."""
    load_adapter(session.fresh_base(will_change=True), folder / "adapter")


def _on_dev(session: Session, dev: Supervised, metric: Callable[[], float] | None) -> Callable[[], Evaluation]:
    """Dev loss, and the metric with the adapter merged, as it will be answered with."""

    def look() -> Evaluation:
        seen = held_out(session.base, dev)
        if metric is None:
            return seen
        release_memory()
        with merged(session.base.model):
            seen = replace(seen, dev_metric=metric())
        release_memory()
        return seen

    return look


def _fingerprint(session: Session, plan: Recipe, stage: str, rows: Sequence[Row]) -> str:
    ids = (",".join(map(str, row.encoded.ids)) for row in rows)
    return sha256_text(str(asdict(plan)), stage, str(session.base_folder), *ids)
