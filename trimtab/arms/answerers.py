"""Answering with an arm: attaches its weights and builds its prompts, for one question or many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.extract import extract_answerer
from trimtab.arms.linear import Answerer, linear_answerer
from trimtab.arms.session import Session
from trimtab.base.codec import read_record_if_any
from trimtab.base.errors import InputError
from trimtab.base.grammar import HEAD, imitates_teacher, is_trained, method_of
from trimtab.base.records import Arm, Calibration, Example, Generation, Prompt
from trimtab.base.task import Task
from trimtab.inference.engine import Engine
from trimtab.inference.kv_cache import Prefix, shared_length
from trimtab.inference.label_scoring import prefill_prefix
from trimtab.inference.last_hidden import last_hidden_states
from trimtab.inference.remote import remote_model
from trimtab.measurement.calibration import tempered
from trimtab.measurement.evaluate import Scorer, evaluate_prompts
from trimtab.measurement.metrics import aggregate
from trimtab.model.adapters.apply import load_adapter, merged
from trimtab.model.classifier import ClassificationHead, load_head
from trimtab.model.fast.int8_weights import int8_forwards
from trimtab.model.fast.packed_weights import packed
from trimtab.training.classification import class_probabilities

CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True, kw_only=True)
class ReadyArm:
    """An arm whose weights are attached. `answer_batch` answers prompts together, `answer_one` one as a server would.

    `engine`: the text generator of `answer_one`; None if answers are chosen labels or come from an endpoint.
    """

    builder: PromptBuilder
    answer_batch: Answerer
    answer_one: Callable[[Prompt], Generation]
    engine: Engine | None = None


@contextmanager
def ready_arm(
    session: Session,
    arm: Arm,
    context: Context,
    run: Path,
    sample: Sequence[Example] = (),
    *,
    replies: Path | None = None,
) -> Iterator[ReadyArm]:
    """Context manager: yields the arm ready to answer, with the weights and the calibration that are saved in `run`.

    `sample`: questions whose prompts show the common prefix of this arm's prompts. Answers of an endpoint cost
    money: with `replies`, those of `answer_batch` are kept in this file and not requested again; `answer_one`, which
    is timed, always requests.
    """
    calibration = read_calibration(run)
    if not method_of(arm).uses_base:
        builder = PromptBuilder(session, context, fits=False)
        if arm.endpoint:
            many, asking = _remote(session, arm, replies), _remote(session, arm)
        elif context.threshold is not None:
            many = asking = extract_answerer(session.task.task.unknown, context.threshold)
        else:
            many = asking = _calibrated(linear_answerer(session, run / "adapter"), calibration)
        yield ReadyArm(builder=builder, answer_batch=many, answer_one=lambda prompt: asking([prompt])[0])
        return
    base = session.fresh_base()
    if is_trained(arm):
        load_adapter(base, run / "adapter")
    with merged(base.model), int8_forwards(base) if session.eight_bit else packed(base):
        builder = PromptBuilder(session, context)
        if HEAD in arm.stages:
            head = load_head(base, run / "adapter")
            many = _calibrated(head_answerer(session, head), calibration)
            alone = _calibrated(_head_alone(session, head, builder.prompts(sample)), calibration)
            yield ReadyArm(builder=builder, answer_batch=many, answer_one=lambda prompt: alone([prompt])[0])
            return
        prompt_ids = builder.prompts(sample)
        if session.task.task.kind == "classify":
            yield ReadyArm(
                builder=builder,
                answer_batch=lambda prompts: session.answer(prompts, calibration=calibration),
                answer_one=session.label_chooser(prompt_ids, calibration),
            )
            return
        engine = session.engine(prompt_ids)
        yield ReadyArm(
            builder=builder,
            answer_batch=builder.answer,
            answer_one=lambda prompt: builder.answer([prompt], engine=engine)[0],
            engine=engine,
        )


def score_on_dev(
    session: Session, examples: Sequence[Example], builder: PromptBuilder, answer: Answerer, scorer: Scorer | None
) -> tuple[float, dict[str, float]]:
    """Return the task's metric over dev questions under the attached weights, and the score of each question by id."""
    task, prompts = session.task, builder.prompts(examples)
    scored = evaluate_prompts(examples, prompts, answer, task, split="dev", seed=0, scorer=scorer)
    predicted, right = [row.answer for row in scored], [row.reference for row in scored]
    value = aggregate(task.metric, predicted, right, [row.score for row in scored])
    return value, {row.item_id: row.score for row in scored}


def head_answerer(session: Session, head: ClassificationHead, prefix: Prefix | None = None) -> Answerer:
    """Return an answerer that uses a classification head on the attached weights: one forward pass over each prompt.

    `prefix`: a precomputed beginning of the prompts.
    """

    def answer(prompts: Sequence[Prompt]) -> list[Generation]:
        began = time.perf_counter()
        prompt_ids = [session.encoder.prompt(prompt.messages) for prompt in prompts]
        chances_PC = class_probabilities(head, last_hidden_states(session.base, prompt_ids, pinned=prefix)).tolist()
        each = (time.perf_counter() - began) / max(1, sum(map(len, prompt_ids)))
        return [
            Generation(
                id=prompt.id,
                text=head.labels[max(range(len(row)), key=row.__getitem__)],
                prompt_tokens=len(ids),
                seconds=each * len(ids),
                prefill_seconds=each * len(ids),
                probability=max(row),
                probabilities=dict(zip(head.labels, row, strict=True)),
            )
            for prompt, ids, row in zip(prompts, prompt_ids, chances_PC, strict=True)
        ]

    return answer


def _head_alone(session: Session, head: ClassificationHead, sample: Sequence[Prompt]) -> Answerer:
    """Return an answerer by a head with the common prefix of the prompts precomputed."""
    ids = [session.encoder.prompt(prompt.messages) for prompt in sample]
    return head_answerer(session, head, prefill_prefix(session.base, ids[0][: shared_length(ids)]) if ids else None)


def read_calibration(run: Path) -> Calibration | None:
    """Return the label calibration of a run; None if none was saved, as for text."""
    file = run / CALIBRATION_FILE
    calibration = read_record_if_any(file, Calibration)
    numbers = (calibration.temperature, *calibration.offsets.values()) if calibration else (1.0,)
    if not (numbers[0] > 0 and all(map(math.isfinite, numbers))):
        raise InputError("is damaged (a temperature or an offset is out of range)", "train it again", file=file)
    return calibration


def _calibrated(answer: Answerer, calibration: Calibration | None) -> Answerer:
    """Return the answerer with its probabilities at the saved temperature; the answers do not change."""
    if calibration is None:
        return answer
    temperature = calibration.temperature

    def recalibrated(generation: Generation) -> Generation:
        chances = tempered(generation.probabilities, temperature)
        return replace(
            generation,
            probability=chances[generation.text],
            probabilities=chances,
            plain_text=generation.text,
            plain_probability=generation.probability,
        )

    return lambda prompts: [recalibrated(generation) for generation in answer(prompts)]


def missing_api_keys(task: Task) -> dict[str, str]:
    """Return the arms that use an endpoint whose API key is not set, each with the remedy. Nothing is sent."""
    lacking: dict[str, str] = {}
    for arm in task.arms:
        endpoint = arm.endpoint or (task.teacher.api if imitates_teacher(arm) else None)
        if endpoint:
            try:
                remote_model(task.api[endpoint])
            except InputError as error:
                lacking[arm.name] = f"{error.problem}; {error.remedy}"
    return lacking


def _remote(session: Session, arm: Arm, replies: Path | None = None) -> Answerer:
    table = session.task.api[arm.endpoint or ""]
    model = remote_model(table, replies)
    labels = session.workspace.labels if session.task.task.kind == "classify" else ()
    if not table.writes_text:  # a decision endpoint writes no text, so no length has to be counted
        return lambda prompts: model.generate(prompts, 0, labels)
    return lambda prompts: model.generate(prompts, session.output_tokens, labels)
