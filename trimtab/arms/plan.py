"""How long a study will take, measured on a few real steps before it starts, and what is cut when that is too long."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trimtab.arms.contexts import DEV_ITEMS, Context, PromptBuilder, context_for, context_key, tries
from trimtab.arms.run import Effort
from trimtab.arms.session import Session
from trimtab.arms.weights import DEV_QUESTIONS, DEV_ROWS, Recipe, evaluations, prepare, recipe, training_rows
from trimtab.base.codec import read_record, write_record
from trimtab.base.errors import MissingError, TrimtabError
from trimtab.base.grammar import is_trained
from trimtab.base.machine import MemoryPeak
from trimtab.base.progress import Progress
from trimtab.base.records import Arm, Prompt
from trimtab.data.checks import linear_memory_mb
from trimtab.measurement.latency import MIN_LATENCIES
from trimtab.training.predict import measure_rate, memory_mb
from trimtab.training.sft import document_rows

SAMPLE = 8
TIMED_SECONDS = 2.0  # of real training steps, for the rate of an arm
LINEAR_SAMPLE = 64
FIT_SECONDS = 2.5e-5  # of all linear fits, for each row and label; measured on Banking77 with one core
API_SECONDS = 5.0  # set aside in the budget for an endpoint, which is not timed
EPOCH_CUTS = (2.0, 1.0, 0.5, 0.25)


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Predicted seconds of one epoch of a stage, and how many there are."""

    epoch_seconds: float
    epochs: float


@dataclass(frozen=True, kw_only=True)
class ArmPlan:
    """Predicted seconds of an arm: its stages of one seed, one look at dev, answers of one seed, choosing on dev.

    `problem`: why nothing could be predicted.
    """

    arm: str
    stages: tuple[StagePlan, ...] = ()
    dev_seconds: float = 0.0
    answer_seconds: float = 0.0
    choose_seconds: float = 0.0
    memory_mb: float | None = None
    problem: str | None = None

    def seconds(self, effort: Effort) -> float:
        """Predicted seconds with that effort."""
        most = float("inf") if effort.epochs is None else effort.epochs
        training = sum(stage.epoch_seconds * min(stage.epochs, most) for stage in self.stages)
        if self.stages:
            training += self.dev_seconds * evaluations(min(self.stages[-1].epochs, most))
        return effort.seeds * (training + self.answer_seconds) + self.choose_seconds * effort.search


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The arms that fit, what each may spend, and what was cut to make them fit."""

    arms: tuple[ArmPlan, ...]
    effort: Effort
    left_out: Mapping[str, str]
    cuts: tuple[str, ...]
    precision: str | None = None  # of the base model, decided before the first arm runs

    @property
    def seconds(self) -> float:
        """Predicted seconds of all arms that will run."""
        return sum(arm.seconds(self.effort) for arm in self.arms if arm.arm not in self.left_out)


def predict(session: Session, arms: Sequence[Arm], progress: Progress | None = None) -> tuple[ArmPlan, ...]:
    """Predict every arm from real steps and answers of this machine, for a few seconds each kind."""
    progress = progress or Progress()
    plans: list[ArmPlan] = []
    chosen: set[tuple[object, ...]] = set()
    rates: dict[Context, _AnswerRate] = {}  # answering costs alike for all weights, so a context is timed once
    for number, arm in enumerate(arms, 1):
        progress.within(arm.name, 0).emit("plan", step=number, of=len(arms), note="timing a few steps")
        context = context_for(arm)
        key = context_key(arm)
        choices = 0 if key in chosen else tries(arm)
        chosen.update([key] if choices else [])
        try:
            plans.append(_predict(session, arm, context, choices, rates))
        except MissingError:
            raise
        except (TrimtabError, RuntimeError, ValueError, MemoryError) as error:
            # an arm that cannot even begin takes no time; the study tries it all the same
            problem = " ".join(str(error).split()) or type(error).__name__
            plans.append(ArmPlan(arm=arm.name, problem=problem))
    return tuple(plans)


@dataclass(frozen=True, kw_only=True)
class _AnswerRate:
    """Seconds a question takes, among many and alone, and the most memory held meanwhile, in MB."""

    many: float
    alone: float
    memory_mb: float


def _predict(session: Session, arm: Arm, context: Context, choices: int, rates: dict[Context, _AnswerRate]) -> ArmPlan:
    splits = session.workspace.splits
    if arm.endpoint:
        return ArmPlan(arm=arm.name, answer_seconds=API_SECONDS)
    if arm.weights == "linear":
        return _linear(session, arm)
    if context not in rates:
        rates[context] = _answer_rate(session, context)
    rate = rates[context]
    tests, dev = len(splits["test"]), len(splits["dev"])
    answers = rate.many * tests + rate.alone * (min(tests, MIN_LATENCIES) + 2)
    choosing = choices * rate.many * min(dev, DEV_ITEMS)
    if not is_trained(arm):
        return ArmPlan(arm=arm.name, answer_seconds=answers, choose_seconds=choosing, memory_mb=rate.memory_mb)
    plan = recipe(arm, len(splits["train"]), 0)
    stages, dev_loss, memory = _training(session, plan, context)
    return ArmPlan(
        arm=arm.name,
        stages=stages,
        dev_seconds=dev_loss + rate.many * min(dev, DEV_QUESTIONS),
        answer_seconds=answers,
        choose_seconds=choosing,
        memory_mb=memory,
    )


def _linear(session: Session, arm: Arm) -> ArmPlan:
    """The embedding of every row, timed on a few, and the fits; a budget that cuts epochs cuts nothing of them."""
    train, dev, test = (session.workspace.splits[name] for name in ("train", "dev", "test"))
    sample, labels = [example.input for example in session.part("train", LINEAR_SAMPLE)], len(session.workspace.labels)
    with MemoryPeak() as memory:
        session.embedder.encode(sample[:1])  # the first, cold one is not counted
        began = time.perf_counter()
        session.embedder.encode(sample)
        each = (time.perf_counter() - began) / len(sample)
    return ArmPlan(
        arm=arm.name,
        answer_seconds=each * (len(train) + len(dev) + len(test)) + FIT_SECONDS * len(train) * labels,
        memory_mb=memory.megabytes + linear_memory_mb([example.input for example in train], labels),
    )


def _answer_rate(session: Session, context: Context) -> _AnswerRate:
    """Speed and memory of the base model on a few dev questions."""
    splits = session.workspace.splits
    sample = session.part("dev" if splits["dev"] else "train", 2 * SAMPLE)
    session.fresh_base()
    with MemoryPeak() as memory:
        prompts = PromptBuilder(session, context).prompts(sample)
        alone = _seconds(session, prompts[:1])
        if alone < TIMED_SECONDS:  # the first one is cold, which long answers do not feel
            alone = _seconds(session, prompts[:1])
        many = _seconds(session, prompts) / len(prompts)
    return _AnswerRate(many=many, alone=alone, memory_mb=memory.megabytes)


def _seconds(session: Session, prompts: Sequence[Prompt]) -> float:
    began = time.perf_counter()
    session.answer(prompts)
    return time.perf_counter() - began


def _training(session: Session, plan: Recipe, context: Context) -> tuple[tuple[StagePlan, ...], float, float]:
    """Its stages, the seconds of one dev loss, and the predicted peak of memory in MB."""
    train, dev = session.workspace.splits["train"], session.part("dev", DEV_ROWS)
    sample = training_rows(session, context, session.part("train", 4 * SAMPLE), 0)[0]
    prepare(session, plan)
    rate = measure_rate(session.base, sample, TIMED_SECONDS).tokens_per_second
    each = sum(len(row.encoded.ids) for row in sample) / len(sample)
    tokens = {"sft": each * len(train)}
    if any(stage.name == "docs" for stage in plan.stages):
        tokens["docs"] = sum(
            len(row.encoded.ids) for row in document_rows(session.workspace.documents, session.encoder)
        )
    stages = tuple(StagePlan(epoch_seconds=tokens[stage.name] / rate, epochs=stage.epochs) for stage in plan.stages)
    return (
        stages,
        each * len(dev) / rate / 3,
        memory_mb(session.base),
    )  # a forward pass is a third of the work of a step


def fit(arms: Sequence[ArmPlan], budget: float | None, seeds: int) -> Plan:
    """Cut until the arms fit the budget: first the choosing on dev, then epochs, then seeds; then arms, the longest first.

    Test questions are never cut. Arms left out are told with the minutes they lack.
    """
    effort = Effort(seeds=seeds)
    cuts: list[str] = []
    left_out: dict[str, str] = {}

    def total(trial: Effort) -> float:
        return sum(arm.seconds(trial) for arm in arms)

    if budget is not None and total(effort) > budget:
        effort = replace(effort, search=False)
        cuts.append("numbers of shots and passages are the usual ones, not chosen on dev")
        most = max((stage.epochs for arm in arms for stage in arm.stages), default=0.0)
        for epochs in EPOCH_CUTS:
            if total(effort) > budget and epochs < most:
                effort = replace(effort, epochs=epochs)
        if effort.epochs is not None:
            cuts.append(f"at most {effort.epochs:g} epoch{'s' if effort.epochs > 1 else ''} of training")
        while total(effort) > budget and effort.seeds > 1:
            effort = replace(effort, seeds=effort.seeds - 1)
        if effort.seeds < seeds:
            cuts.append(f"{effort.seeds} of {seeds} seeds")
        spent = total(effort)
        for arm in sorted(arms, key=lambda arm: -arm.seconds(effort)):
            if spent > budget:
                left_out[arm.arm] = (
                    f"the {_minutes(budget)} min that the budget leaves lack about {_minutes(spent - budget)} min for it; "
                    "raise study.budget in a new study"
                )
                spent -= arm.seconds(effort)
    return Plan(arms=tuple(arms), effort=effort, left_out=left_out, cuts=tuple(cuts))


def _minutes(seconds: float) -> str:
    """Minutes to one digit below ten, never 0."""
    return f"{seconds / 60:.0f}" if seconds >= 600 else f"{max(0.1, seconds / 60):.1f}"


def save_plan(path: Path, plan: Plan) -> None:
    """Keep the plan, so that a resumed study goes on with the same one."""
    write_record(path, plan)


def load_plan(path: Path) -> Plan | None:
    """The plan of a study that was begun; None where there is none. Raises InputError for one that cannot be read."""
    return read_record(path, Plan) if path.is_file() else None
