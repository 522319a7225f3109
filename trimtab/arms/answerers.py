"""An arm ready to answer: its weights on, its prompts built, one question or many."""

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
from trimtab.base.codec import read_record
from trimtab.base.errors import InputError
from trimtab.base.grammar import HEAD, is_taught, is_trained, method_of
from trimtab.base.records import Arm, Calibration, Example, Generation, Prompt
from trimtab.base.task import Task
from trimtab.inference.engine import Engine
from trimtab.inference.kv_cache import Prefix, shared_length
from trimtab.inference.label_scoring import prefill_prefix
from trimtab.inference.last_hidden import last_hidden_states
from trimtab.inference.remote import remote_model
from trimtab.measurement.calibration import tempered
from trimtab.measurement.evaluate import Scorer, evaluate
from trimtab.measurement.metrics import aggregate
from trimtab.model.adapters.apply import load_adapter, merged
from trimtab.model.classifier import ClassificationHead, load_head
from trimtab.model.fast.int8_weights import int8_forwards
from trimtab.model.fast.packed_weights import packed
from trimtab.training.classification import class_probabilities

CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True, kw_only=True)
class ReadyArm:
    """`many` answers prompts together; `alone` one prompt as a server would, what all prompts share read beforehand.

    `engine` is what `alone` writes with; None where answers are chosen, or come from an endpoint.
    """

    builder: PromptBuilder
    many: Answerer
    alone: Callable[[Prompt], Generation]
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
    """Inside, the arm answers. Trained weights come from what `run` holds, so what is measured is what was saved; its calibration too.

    `sample` are questions whose prompts show what all prompts of this arm begin with. An endpoint's answers are paid for: with
    `replies` those of `many` are kept in this file and not asked again; `alone`, whose seconds count, always asks.
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
        yield ReadyArm(builder=builder, many=many, alone=lambda prompt: asking([prompt])[0])
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
            yield ReadyArm(builder=builder, many=many, alone=lambda prompt: alone([prompt])[0])
            return
        asked = builder.prompts(sample)
        if session.task.task.kind == "classify":
            yield ReadyArm(
                builder=builder,
                many=lambda prompts: session.answer(prompts, calibration=calibration),
                alone=session.choose_alone(asked, calibration),
            )
            return
        engine = session.engine(asked)
        yield ReadyArm(
            builder=builder,
            many=builder.answer,
            alone=lambda prompt: builder.answer([prompt], engine=engine)[0],
            engine=engine,
        )


def score_on(
    session: Session, examples: Sequence[Example], builder: PromptBuilder, answer: Answerer, scorer: Scorer | None
) -> tuple[float, dict[str, float]]:
    """The task's metric over dev questions, answered by whichever weights are on; and the score of each, by its id."""
    task, prompts = session.task, builder.prompts(examples)
    answers = evaluate(examples, prompts, answer, task, split="dev", seed=0, scorer=scorer)
    said, right = [one.answer for one in answers], [one.reference for one in answers]
    value = aggregate(task.metric, said, right, [one.score for one in answers])
    return value, {one.item_id: one.score for one in answers}


def head_answerer(session: Session, head: ClassificationHead, held: Prefix | None = None) -> Answerer:
    """Answers by a classification head, for the weights that are on: one pass over each prompt, its seconds shared by tokens.

    `held` is a beginning of the prompts that was read before.
    """

    def answer(prompts: Sequence[Prompt]) -> list[Generation]:
        began = time.perf_counter()
        asked = [session.encoder.prompt(prompt.messages) for prompt in prompts]
        chances_PC = class_probabilities(head, last_hidden_states(session.base, asked, pinned=held)).tolist()
        each = (time.perf_counter() - began) / max(1, sum(map(len, asked)))
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
            for prompt, ids, row in zip(prompts, asked, chances_PC, strict=True)
        ]

    return answer


def _head_alone(session: Session, head: ClassificationHead, sample: Sequence[Prompt]) -> Answerer:
    """Answers by a head, what all prompts begin with read beforehand."""
    ids = [session.encoder.prompt(prompt.messages) for prompt in sample]
    return head_answerer(session, head, prefill_prefix(session.base, ids[0][: shared_length(ids)]) if ids else None)


def read_calibration(run: Path) -> Calibration | None:
    """How the labels of a run are weighed; None where none was kept, as for text and for arms of an older version."""
    file = run / CALIBRATION_FILE
    if not file.is_file():
        return None
    found = read_record(file, Calibration)
    if not (0 < found.temperature < math.inf and all(map(math.isfinite, found.offsets.values()))):
        raise InputError("is damaged (a temperature or an offset is out of range)", "train it again", file=file)
    return found


def _calibrated(answer: Answerer, calibration: Calibration | None) -> Answerer:
    """The answerer with its probabilities at the temperature that was kept; the answers stay."""
    if calibration is None:
        return answer
    temperature = calibration.temperature

    def weighed(one: Generation) -> Generation:
        chances = tempered(one.probabilities, temperature)
        return replace(
            one,
            probability=chances[one.text],
            probabilities=chances,
            plain_text=one.text,
            plain_probability=one.probability,
        )

    return lambda prompts: [weighed(one) for one in answer(prompts)]


def lacking_keys(task: Task) -> dict[str, str]:
    """The arms that ask or imitate an endpoint whose key is not set, each with what to do; nothing is sent."""
    lacking: dict[str, str] = {}
    for arm in task.arms:
        endpoint = arm.endpoint or (task.teacher.api if is_taught(arm) else None)
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
    if table.api != "chat":  # it writes nothing, so that no length has to be counted
        return lambda prompts: model.generate(prompts, 0, labels)
    return lambda prompts: model.generate(prompts, session.output_tokens, labels)
