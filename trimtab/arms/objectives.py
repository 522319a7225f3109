"""Objectives of each training stage: encodes its rows in the arm's context and builds the losses over train, dev and
test.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trimtab.arms.contexts import USUAL_MIX, Context, PassageMix, PromptBuilder
from trimtab.arms.memorisation import memorisation_canary_rows
from trimtab.arms.recipe import Recipe, Stage
from trimtab.arms.rewards import Rollouts
from trimtab.arms.session import Session
from trimtab.arms.teacher import Teacher, TeacherAnswer, answer_row, fitting_answers, same_tokenization
from trimtab.base.errors import InputError
from trimtab.base.grammar import HEAD, REWARD
from trimtab.base.records import Arm, Encoded, Example, Prompt, Split
from trimtab.data.prompts import ChatEncoder
from trimtab.measurement.rewards import Reward
from trimtab.model.classifier import ClassificationHead
from trimtab.training.batch import TrainingRow
from trimtab.training.classification import ClassificationObjective, label_rows
from trimtab.training.distill import Distillation
from trimtab.training.encoded_rows import EncodedRows, store_encoded_rows
from trimtab.training.judged_answers import JudgedAnswers, JudgedRows, fitting_rows
from trimtab.training.preference import PAIR_LOSSES, WITHOUT_REFERENCE, PreferenceObjective
from trimtab.training.reward import SCORE_LABELS, BradleyTerry
from trimtab.training.rl import PolicyGradient
from trimtab.training.sft import SupervisedObjective, answer_rows, document_rows

DEV_ROWS = 96

JudgedObjective = PreferenceObjective | BradleyTerry
Objective = SupervisedObjective | Distillation | ClassificationObjective | JudgedObjective | PolicyGradient


@dataclass(frozen=True, kw_only=True)
class StageSetup:
    """The inputs of a stage. `head`, `reward` and `teacher` are None for arms without them."""

    session: Session
    plan: Recipe
    stage: Stage
    context: Context
    head: ClassificationHead | None = None
    reward: Reward | None = None
    teacher: Teacher | None = None


@dataclass(frozen=True, kw_only=True)
class StageObjectives:
    """The objectives of a stage over train, dev and test (None if not evaluated there). `skipped`: rows too long."""

    train: Objective
    dev: Objective | None = None
    test: JudgedObjective | None = None
    skipped: int = 0


def new_head(session: Session, arm: Arm, seed: int) -> ClassificationHead | None:
    """Return the initial head that an arm's last stage trains; None without one."""
    labels = {HEAD: session.workspace.labels, REWARD: SCORE_LABELS}.get(arm.stages[-1])
    base = session.base
    return (
        ClassificationHead(labels, base.model.config.hidden_size, seed=seed).to(base.device)
        if labels is not None
        else None
    )


def training_rows(
    session: Session,
    context: Context,
    examples: Sequence[Example],
    seed: int,
    mix: PassageMix = USUAL_MIX,
    more: Sequence[TrainingRow] = (),
) -> tuple[EncodedRows, int]:
    """Return the encoded rows of the `sft` stage, and the number left out because they exceed the model's context.

    `more`: rows to add at the end.
    """
    prompts = PromptBuilder(session, context).stream_training_prompts(examples, seed, mix)
    train_on = session.task.data.train_on if context.is_instruction_alone else "last"
    fitting, counted = 0, False

    def encoded() -> Iterator[tuple[Encoded, float]]:
        nonlocal fitting, counted
        for example, prompt, answer in prompts:
            item = session.encoder.conversation(prompt.messages, answer, train_on=train_on)
            if len(item.ids) <= session.context_tokens:
                fitting, counted = fitting + 1, counted or example.weight > 0
                yield item, example.weight
        if not fitting:
            raise InputError(
                f"every training row is longer than the model's {session.context_tokens} tokens",
                "shorten the rows",
                field="data.examples",
            )
        if counted:  # others alone are nothing to train on
            yield from ((row.encoded, row.weight) for row in more)

    rows = answer_rows(encoded(), session.workspace.folder)
    return rows, len(examples) - fitting


def head_rows(
    session: Session, context: Context, examples: Sequence[Example], seed: int, mix: PassageMix = USUAL_MIX
) -> tuple[EncodedRows, int]:
    """Return the rows of the `head` stage, and the number left out for their length."""
    labels, fitting = session.workspace.labels, 0

    def encoded() -> Iterator[tuple[Sequence[int], int, float]]:
        nonlocal fitting
        builder = PromptBuilder(session, context)
        for example, prompt, answer in builder.stream_training_prompts(examples, seed, mix):
            ids = session.encoder.prompt(prompt.messages)
            if len(ids) <= session.context_tokens:
                fitting += 1
                yield ids, labels.index(answer), example.weight

    rows = label_rows(encoded(), len(labels), session.workspace.folder)
    return rows, len(examples) - fitting


def judged_answers(session: Session, context: Context, split: Split) -> tuple[JudgedRows, int]:
    """Return the judged answers of a split after their prompts, and the number left out for their length."""
    judgements = session.workspace.preferences[split]
    prompts = PromptBuilder(session, context).stream_prompts(one.as_example for one in judgements)

    def encoded(prompt: Prompt, answer: str | None) -> Encoded | None:
        return None if answer is None else session.encoder.conversation(prompt.messages, answer)

    rows = (
        JudgedAnswers(chosen=encoded(prompt, one.chosen), rejected=encoded(prompt, one.rejected), weight=one.weight)
        for one, prompt in zip(judgements, prompts, strict=True)
    )
    return fitting_rows(rows, session.context_tokens, session.workspace.folder)


def build_supervised(setup: StageSetup) -> StageObjectives:
    """Return the objectives of imitating rows, over train and over dev: documents, examples, or labels by a head.

    Memorisation canaries are among the rows of `sft`, never among those of dev.
    """
    session, plan, stage, head = setup.session, setup.plan, setup.stage, setup.head
    if stage.name == "docs":
        rows = document_rows(session.workspace.documents, session.encoder, folder=session.workspace.folder)
        return StageObjectives(
            train=SupervisedObjective(rows, batch=plan.batch, seed=plan.seed, cache_activations=stage.rereads)
        )

    def over(
        examples: Sequence[Example],
        seed: int,
        mix: PassageMix,
        more: Sequence[TrainingRow] = (),
        *,
        batch: int,
        cache_activations: bool,
    ) -> tuple[Objective, int]:
        if head is not None and stage.name == HEAD:
            rows, skipped = head_rows(session, setup.context, examples, plan.seed, mix)
            return ClassificationObjective(
                rows, head, batch=batch, seed=seed, cache_activations=cache_activations
            ), skipped
        rows, skipped = training_rows(session, setup.context, examples, plan.seed, mix, more)
        return SupervisedObjective(rows, batch=batch, seed=seed, cache_activations=cache_activations), skipped

    train, skipped = over(
        session.workspace.splits["train"],
        plan.seed,
        plan.mix,
        memorisation_canary_rows(session) if stage.name == "sft" else (),
        batch=plan.batch,
        cache_activations=stage.rereads,
    )
    dev_rows = session.workspace.subset("dev", DEV_ROWS)  # the same prompts for all trials: losses are comparable
    # more rows than those of a step share a prefix
    dev = over(dev_rows, 0, USUAL_MIX, batch=max(plan.batch, DEV_ROWS), cache_activations=True)[0] if dev_rows else None
    return StageObjectives(train=train, dev=dev, skipped=skipped)


def build_preference(setup: StageSetup) -> StageObjectives:
    """Return the objectives of a preference or reward stage over train, dev and test.

    The reference model of a preference stage is the model in its present state.
    """
    session, plan, stage, head = setup.session, setup.plan, setup.stage, setup.head
    rows, skipped = judged_answers(session, setup.context, "train")
    if skipped and not rows:
        problem = f"every preference is longer than the model's {session.context_tokens} tokens"
        raise InputError(problem, "shorten them", field="data.preferences")

    def over(judged: JudgedRows, seed: int, *, cache_activations: bool) -> JudgedObjective:
        if head is not None and stage.name == REWARD:
            return BradleyTerry(judged, head, batch=plan.batch, seed=seed)
        return PreferenceObjective(
            session.base, judged, stage.name, batch=plan.batch, seed=seed, cache_activations=cache_activations
        )

    def over_split(split: Split, *, cache_activations: bool) -> JudgedObjective | None:
        judged = judged_answers(session, setup.context, split)[0]
        usable = judged.usable(pairs=stage.name == REWARD or stage.name in PAIR_LOSSES)
        return over(usable, 0, cache_activations=cache_activations) if usable else None

    return StageObjectives(
        train=over(rows, plan.seed, cache_activations=stage.rereads or stage.name not in WITHOUT_REFERENCE),
        dev=over_split("dev", cache_activations=True),
        test=over_split("test", cache_activations=False),  # evaluated once, after training
        skipped=skipped,
    )


def build_distill(setup: StageSetup) -> StageObjectives:
    """Return the objectives of imitating the teacher of the set-up, over its answers to train and to dev questions.

    A teacher with the same tokenization is imitated by its token distributions, any other by the text of its
    answers.
    """
    session, plan, teacher = setup.session, setup.plan, setup.teacher
    if teacher is None:
        raise ValueError(f"the stage {setup.stage.name} imitates a teacher, and there is none")
    answers = teacher.answers(setup.context, "train", session.workspace.splits["train"])
    dev_answers = teacher.answers(setup.context, "dev", session.workspace.subset("dev", DEV_ROWS))
    teacher_session, began = teacher.model_session, time.perf_counter()
    fitting = fitting_answers(session, answers)
    if not fitting:
        problem = "the teacher has no answer to the training rows that fits the model's context"
        raise InputError(problem, "shorten the rows, or name another teacher", field="teacher")
    alike = teacher_session is not None and same_tokenization(session.encoder, teacher_session.encoder, answers)

    def over(answers: Sequence[TeacherAnswer], seed: int, *, batch: int, cache_activations: bool) -> Objective:
        def stored(encoder: ChatEncoder) -> EncodedRows:
            rows = (TrainingRow(encoded=answer_row(encoder, answer), weight=answer.weight) for answer in answers)
            return store_encoded_rows(rows, session.workspace.folder)

        rows = stored(session.encoder)
        if teacher_session is None or not alike:
            return SupervisedObjective(rows, batch=batch, seed=seed, cache_activations=cache_activations)
        read = stored(teacher_session.encoder)
        return Distillation(
            rows, read, teacher_session.base, batch=batch, seed=seed, cache_activations=cache_activations
        )

    train = over(fitting, plan.seed, batch=plan.batch, cache_activations=setup.stage.rereads)
    fitting_dev = fitting_answers(session, dev_answers)
    # more rows than those of a step share a prefix
    dev = over(fitting_dev, 0, batch=max(plan.batch, DEV_ROWS), cache_activations=True) if fitting_dev else None
    teacher.seconds += time.perf_counter() - began
    cut = sum(not answer.answer.finished for answer in fitting)
    ends = f"; {cut} have no end, as they were cut at {session.output_tokens} tokens" if cut else ""
    note = f"{len(fitting)} answers of the teacher are imitated by their {'distribution' if alike else 'text'}{ends}"
    teacher.progress.emit("answer", note=note, stays=True)
    teacher.release()
    return StageObjectives(train=train, dev=dev, skipped=len(answers) - len(fitting))


def build_policy_gradient(setup: StageSetup) -> StageObjectives:
    """Return the objective of reinforcement learning over the training questions.

    The reference model is the model in its present state.
    """
    session, plan = setup.session, setup.plan
    if setup.reward is None:
        raise ValueError(f"the stage {setup.stage.name} learns from a reward, and there is none")
    rollouts = Rollouts(session, setup.context, session.workspace.splits["train"], setup.reward, seed=plan.seed)
    objective = PolicyGradient(
        session.base, len(rollouts.asked), rollouts, setup.stage.name, batch=plan.batch, seed=plan.seed
    )
    return StageObjectives(train=objective, skipped=rollouts.skipped)
