"""What each stage of an arm optimises: its rows as the context builds them, and the same over dev."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from trimtab.arms.canaries import canary_rows
from trimtab.arms.contexts import USUAL_MIX, Context, PassageMix, PromptBuilder
from trimtab.arms.recipe import Recipe, Stage
from trimtab.arms.rollouts import Rollouts
from trimtab.arms.session import Session
from trimtab.arms.teacher import Teacher, TeacherAnswer, answer_row, fitting_answers, same_tokens
from trimtab.base.errors import InputError
from trimtab.base.grammar import DISTILL, HEAD, JUDGED, REWARD, REWARDED
from trimtab.base.records import Arm, Encoded, Example, Prompt, Split
from trimtab.measurement.rewards import Reward
from trimtab.model.classifier import ClassificationHead
from trimtab.training.batch import TrainingRow, default_microbatch_tokens
from trimtab.training.classification import ClassificationObjective, label_rows
from trimtab.training.distill import Distillation, TeacherTargets
from trimtab.training.preference import WITHOUT_REFERENCE, JudgedAnswers, PreferenceObjective, fitting_rows, usable_rows
from trimtab.training.reward import SCORE_LABELS, BradleyTerry, ComparedAnswers
from trimtab.training.rl import PolicyGradient
from trimtab.training.sft import SupervisedObjective, answer_rows, document_rows

DEV_ROWS = 96

Judging = PreferenceObjective | BradleyTerry
Imitating = SupervisedObjective | Distillation
Objective = Imitating | ClassificationObjective | Judging | PolicyGradient


@dataclass(frozen=True, kw_only=True)
class StageSetup:
    """What a stage is made from; `head`, `reward` and `teacher` are None for arms that have none."""

    session: Session
    plan: Recipe
    stage: Stage
    context: Context
    head: ClassificationHead | None = None
    reward: Reward | None = None
    teacher: Teacher | None = None


@dataclass(frozen=True, kw_only=True)
class StageObjectives:
    """What a stage optimises over the training rows, the same over those of dev and of test where it is evaluated there, and how many rows were too long."""

    train: Objective
    dev: Objective | None = None
    test: Judging | None = None
    skipped: int = 0


def new_head(session: Session, arm: Arm, seed: int) -> ClassificationHead | None:
    """The head that an arm's last stage trains, as it begins; None where it trains none."""
    labels = {HEAD: session.workspace.labels, REWARD: SCORE_LABELS}.get(arm.stages[-1])
    base = session.base
    return (
        ClassificationHead(labels, base.model.config.hidden_size, seed=seed).to(base.device)
        if labels is not None
        else None
    )


def training_rows(
    session: Session, context: Context, examples: Sequence[Example], seed: int, mix: PassageMix = USUAL_MIX
) -> tuple[list[TrainingRow], int]:
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
) -> tuple[list[TrainingRow], int]:
    """Rows of the `head` stage: a prompt and the number of its label; and how many were left out for their length."""
    labels = session.workspace.labels
    pairs = PromptBuilder(session, context).training_prompts(examples, seed, mix)
    encoded = [
        (session.encoder.prompt(prompt.messages), labels.index(answer), example.weight)
        for (prompt, answer), example in zip(pairs, examples, strict=True)
    ]
    fitting = [row for row in encoded if len(row[0]) <= session.context_tokens]
    return label_rows(fitting, len(labels)), len(encoded) - len(fitting)


def judged_answers(session: Session, context: Context, split: Split) -> tuple[list[JudgedAnswers], int]:
    """The judged answers of a split behind their prompts as this context builds them, and how many were left out for their length."""
    judgements = session.workspace.preferences[split]
    prompts = PromptBuilder(session, context).prompts([one.asked for one in judgements])

    def encoded(prompt: Prompt, answer: str | None) -> Encoded | None:
        return None if answer is None else session.encoder.conversation(prompt.messages, answer)

    rows = [
        JudgedAnswers(chosen=encoded(prompt, one.chosen), rejected=encoded(prompt, one.rejected), weight=one.weight)
        for one, prompt in zip(judgements, prompts, strict=True)
    ]
    return fitting_rows(rows, session.context_tokens)


def supervised_objectives(
    session: Session, plan: Recipe, stage: Stage, context: Context, head: ClassificationHead | None
) -> tuple[Objective, Objective | None, int]:
    """What a stage optimises, the same over dev rows where there are any, and how many training rows were left out for their length.

    Canaries stand among the rows of `sft`, never among those of dev.
    """
    tokens = default_microbatch_tokens(session.base.model.dtype)
    if stage.name == "docs":
        rows = document_rows(session.workspace.documents, session.encoder)
        return (
            SupervisedObjective(rows, batch=plan.batch, seed=plan.seed, cache_activations=stage.rereads, tokens=tokens),
            None,
            0,
        )
    splits = session.workspace.splits

    def over(
        examples: Sequence[Example], seed: int, mix: PassageMix, *, batch: int, cache_activations: bool
    ) -> tuple[Objective, int]:
        if head is not None and stage.name == HEAD:
            rows, skipped = head_rows(session, context, examples, plan.seed, mix)
            return ClassificationObjective(
                rows, head, batch=batch, seed=seed, cache_activations=cache_activations, tokens=tokens
            ), skipped
        rows, skipped = training_rows(session, context, examples, plan.seed, mix)
        return SupervisedObjective(
            rows, batch=batch, seed=seed, cache_activations=cache_activations, tokens=tokens
        ), skipped

    objective, skipped = over(splits["train"], plan.seed, plan.mix, batch=plan.batch, cache_activations=stage.rereads)
    if stage.name == "sft" and isinstance(objective, SupervisedObjective):
        objective.rows += canary_rows(session)
    dev = session.part("dev", DEV_ROWS)  # the same prompts whatever is tried, or losses could not be compared
    together = _read_together(session, plan)
    return objective, over(dev, 0, USUAL_MIX, batch=together, cache_activations=True)[0] if dev else None, skipped


def _read_together(session: Session, plan: Recipe) -> int:
    """How many rows of dev are read together: all of them, of which more share their beginning than of the rows of a step.

    In float32 as many as a step has: seeded losses are held to the bit there, and a sum's last bits hang on what is summed together.
    """
    return plan.batch if session.base.model.dtype == torch.float32 else max(plan.batch, DEV_ROWS)


def judged_objectives(
    session: Session, plan: Recipe, stage: Stage, context: Context, head: ClassificationHead | None
) -> tuple[Judging, Judging | None, Judging | None, int]:
    """What a stage that learns from judged answers optimises, the same over those of dev and of test, and how many were too long.

    The reference of a preference stage is the model as it is now.
    """
    rows, skipped = judged_answers(session, context, "train")
    if skipped and not rows:
        problem = f"every preference is longer than the model's {session.context_tokens} tokens"
        raise InputError(problem, "shorten them", field="data.preferences")

    def over(judged: Sequence[JudgedAnswers], seed: int, *, cache_activations: bool) -> Judging:
        if head is not None and stage.name == REWARD:
            tokens = default_microbatch_tokens(session.base.model.dtype)
            return BradleyTerry(compared(judged), head, batch=plan.batch, seed=seed, tokens=tokens)
        return PreferenceObjective(
            session.base, judged, stage.name, batch=plan.batch, seed=seed, cache_activations=cache_activations
        )

    def held_out_in(split: Split, *, cache_activations: bool) -> Judging | None:
        judged = judged_answers(session, context, split)[0]
        some = compared(judged) if stage.name == REWARD else usable_rows(judged, stage.name)
        return over(judged, 0, cache_activations=cache_activations) if some else None

    objective = over(rows, plan.seed, cache_activations=stage.rereads or stage.name not in WITHOUT_REFERENCE)
    # those of the test are read once more, when all is trained
    return objective, held_out_in("dev", cache_activations=True), held_out_in("test", cache_activations=False), skipped


def compared(rows: Sequence[JudgedAnswers]) -> list[ComparedAnswers]:
    """The pairs among judged answers; judgements of one answer say nothing of another."""
    return [
        ComparedAnswers(chosen=row.chosen, rejected=row.rejected, weight=row.weight)
        for row in rows
        if row.chosen is not None and row.rejected is not None and row.weight > 0
    ]


def taught_objectives(
    session: Session, plan: Recipe, stage: Stage, context: Context, teacher: Teacher
) -> tuple[Imitating, Imitating | None, int]:
    """What a stage that imitates a teacher optimises, the same over its answers to dev questions, and how many rows were left out.

    A teacher with the same tokens is imitated by its distribution, any other by the text of its answers.
    """
    tokens = default_microbatch_tokens(session.base.model.dtype)
    said = teacher.answers(context, "train", session.workspace.splits["train"])
    said_on_dev = teacher.answers(context, "dev", session.part("dev", DEV_ROWS))
    own, began = teacher.own, time.perf_counter()
    fitting = fitting_answers(session, said)
    if not fitting:
        problem = "the teacher has no answer to the training rows that fits the model's context"
        raise InputError(problem, "shorten the rows, or name another teacher", field="teacher")
    alike = own is not None and same_tokens(session.encoder, own.encoder, said)

    def over(taught: Sequence[TeacherAnswer], seed: int, *, batch: int, cache_activations: bool) -> Imitating:
        rows = [TrainingRow(encoded=answer_row(session.encoder, one), weight=one.weight) for one in taught]
        if own is None or not alike:
            return SupervisedObjective(rows, batch=batch, seed=seed, cache_activations=cache_activations, tokens=tokens)
        read = [answer_row(own.encoder, one) for one in taught]
        lessons = [TeacherTargets(student=row, teacher=other) for row, other in zip(rows, read, strict=True)]
        return Distillation(
            lessons, own.base, batch=batch, seed=seed, cache_activations=cache_activations, tokens=tokens
        )

    objective = over(fitting, plan.seed, batch=plan.batch, cache_activations=stage.rereads)
    of_dev, together = fitting_answers(session, said_on_dev), _read_together(session, plan)
    dev = over(of_dev, 0, batch=together, cache_activations=True) if of_dev else None
    teacher.seconds += time.perf_counter() - began
    cut = sum(not one.answer.finished for one in fitting)
    ends = f"; {cut} have no end, as they were cut at {session.output_tokens} tokens" if cut else ""
    note = f"{len(fitting)} answers of the teacher are imitated by their {'distribution' if alike else 'text'}{ends}"
    teacher.progress.emit("answer", note=note, stays=True)
    return objective, dev, len(said) - len(fitting)


def rewarded_objective(
    session: Session, plan: Recipe, stage: Stage, context: Context, reward: Reward
) -> tuple[PolicyGradient, int]:
    """What a stage that learns from rewards optimises over the training questions, and how many were too long.

    The reference is the model as it is now.
    """
    roll = Rollouts(session, context, session.workspace.splits["train"], reward, seed=plan.seed)
    objective = PolicyGradient(session.base, len(roll.asked), roll, stage.name, batch=plan.batch, seed=plan.seed)
    return objective, roll.skipped


def _supervised(made: StageSetup) -> StageObjectives:
    objective, dev, skipped = supervised_objectives(made.session, made.plan, made.stage, made.context, made.head)
    return StageObjectives(train=objective, dev=dev, skipped=skipped)


def _judged(made: StageSetup) -> StageObjectives:
    objective, dev, test, skipped = judged_objectives(made.session, made.plan, made.stage, made.context, made.head)
    return StageObjectives(train=objective, dev=dev, test=test, skipped=skipped)


def _rewarded(made: StageSetup) -> StageObjectives:
    if made.reward is None:
        raise ValueError(f"the stage {made.stage.name} learns from a reward, and there is none")
    objective, skipped = rewarded_objective(made.session, made.plan, made.stage, made.context, made.reward)
    return StageObjectives(train=objective, skipped=skipped)


def _taught(made: StageSetup) -> StageObjectives:
    if made.teacher is None:
        raise ValueError(f"the stage {made.stage.name} imitates a teacher, and there is none")
    objective, dev, skipped = taught_objectives(made.session, made.plan, made.stage, made.context, made.teacher)
    made.teacher.let_go()
    return StageObjectives(train=objective, dev=dev, skipped=skipped)


# What each stage optimises; the names are those of the grammar.
OBJECTIVES: Mapping[str, Callable[[StageSetup], StageObjectives]] = {
    **dict.fromkeys(("docs", "sft", HEAD), _supervised),
    **dict.fromkeys(JUDGED, _judged),
    **dict.fromkeys(REWARDED, _rewarded),
    DISTILL: _taught,
}
