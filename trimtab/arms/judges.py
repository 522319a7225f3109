"""The models that judge answers for the metric `judged`: an endpoint that writes one of a few words, a local model that
chooses one, or an arm that was trained to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import cached_property, partial
from typing import Any

from trimtab.arms.answerers import ReadyArm, ready_arm
from trimtab.arms.contexts import context_for
from trimtab.arms.fingerprint import judge_folder, judge_version
from trimtab.arms.session import Session
from trimtab.arms.store import measured_precision, with_measured_rows
from trimtab.arms.trained_judges import TrainedJudge, trained_judge
from trimtab.arms.workspace import FOLDER, open_for_answering
from trimtab.base.config import JudgeTable
from trimtab.base.errors import ContextLengthError, InputError
from trimtab.base.files import read_own_lines
from trimtab.base.records import Example, Generation, Prompt
from trimtab.base.task import Task
from trimtab.data.columns import ColumnRequest, find_columns
from trimtab.data.prompts import ChatEncoder
from trimtab.data.raw_rows import RawRow
from trimtab.data.rows import RowReader
from trimtab.inference.label_scoring import LabelRequest, choose_labels
from trimtab.inference.remote import remote_model
from trimtab.measurement.judge import Judge, JudgeModel, graded_columns
from trimtab.measurement.scorer import ScorerRow
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import Base, load_base

JUDGEMENTS, REPLIES = "judgements.jsonl", "judge_replies.jsonl"
REPLY_TOKENS = 120  # of a word and a sentence


def open_judge(task: Task) -> Judge:
    """Return the judge of a task whose metric is `judged`; a local model is loaded when it is first asked.

    Raises InputError if the key of an endpoint is not set.
    """
    table = judge_table(task)
    trained = trained_judge(task)
    if trained:
        model = _trained(task, trained)
    else:
        model = _endpoint(task, task.judging_endpoint) if task.judging_endpoint else _local(task)
    return Judge(table, model, task.folder / FOLDER / JUDGEMENTS)


def read_judgements(task: Task) -> Iterator[dict[str, Any]]:
    """Yield the judgements that were kept for a task, of every judge it had."""
    return read_own_lines(task.folder / FOLDER / JUDGEMENTS, "key", "degree", "version")


def judging_fee(task: Task, since: datetime) -> float:
    """Return the fee of the judgements that were kept since a moment, in the task's currency; 0 without a price."""
    endpoint = task.judging_endpoint
    price = task.api[endpoint].price_per_million if endpoint else None
    if price is None:
        return 0.0
    version, moment = judge_version(task), since.isoformat(timespec="seconds")
    return math.fsum(
        price.fee(line["prompt_tokens"], line["new_tokens"])
        for line in read_judgements(task)
        if line["version"] == version and line.get("time", "") >= moment
    )


def judge_table(task: Task) -> JudgeTable:
    """Return the table `[judge]`. Raises InputError without one."""
    if task.judge is None:
        raise InputError("there is no table [judge]", "add it with criteria", file=task.file, field="judge")
    return task.judge


def _endpoint(task: Task, name: str) -> JudgeModel:
    table, replies = task.api[name], task.folder / FOLDER / REPLIES
    remote_model(table)  # a key that is not set is reported before anything runs
    return JudgeModel(
        name=f"api-{name}",
        version=judge_version(task),
        ask=lambda prompts, _words: remote_model(table, replies).generate(prompts, REPLY_TOKENS),
        gives_reasons=True,
        forget=lambda: replies.unlink(missing_ok=True),
    )


def _local(task: Task) -> JudgeModel:
    chooser = _WordChooser(task)
    return JudgeModel(name=judge_table(task).by, version=judge_version(task), ask=chooser.choose)


def _trained(task: Task, judge: TrainedJudge) -> JudgeModel:
    chooser = _TrainedChooser(judge)
    return JudgeModel(
        name=judge_table(task).by,
        version=judge.version,
        ask=chooser.choose,
        compose=partial(judging_prompt, judge.task),
    )


def judging_prompt(judging: Task, criterion: str, row: ScorerRow) -> Prompt:
    """Return what an arm of a judging task reads of a criterion and an answer: the text that a row of its data with the
    same columns would have been trained on.
    """
    fields = graded_columns(criterion, row) | {"label": ""}
    named = {name: column for name, column in judging.data.columns.items() if name == "input"}
    raw = RawRow(file="", line=1, fields=fields)
    columns = find_columns([raw], ColumnRequest(columns={**named, "label": "label"}, kind="classify"))
    return Prompt(id=row[0], messages=RowReader(columns, "classify").question(raw))


class _TrainedChooser:
    """An arm of the judging task, opened when it is first asked, and open until the process ends."""

    def __init__(self, judge: TrainedJudge) -> None:
        self._judge = judge

    @cached_property
    def _ready(self) -> ReadyArm:
        judge = self._judge
        task = with_measured_rows(judge.task, judge.saved)
        session = Session(open_for_answering(task, rows=True), measured_precision(judge.saved, task))
        context = context_for(judge.arm, judge.saved.chosen)
        return ExitStack().enter_context(ready_arm(session, judge.arm, context, judge.saved.folder))

    def choose(self, prompts: Sequence[Prompt], _degrees: Sequence[str]) -> Sequence[Generation]:
        """Return the degree that the arm chooses for each, of those that it was taught."""
        asked = [Example(id=prompt.id, messages=prompt.messages, references=()) for prompt in prompts]
        return self._ready.answer_batch(self._ready.builder.prompts(asked))


class _WordChooser:
    """A model of its own, apart from the arms' base model, to which adapters are attached."""

    def __init__(self, task: Task) -> None:
        self._task = task

    @cached_property
    def _base(self) -> Base:
        return accelerate(load_base(judge_folder(self._task), self._task.base.precision))

    @cached_property
    def _encoder(self) -> ChatEncoder:
        ends = getattr(self._base.model.generation_config, "eos_token_id", None)
        return ChatEncoder(self._base.tokenizer, [ends] if isinstance(ends, int) else list(ends or []))

    def choose(self, prompts: Sequence[Prompt], words: Sequence[str]) -> list[Generation]:
        """Return the most probable of the words after each prompt."""
        asked = [LabelRequest(id=prompt.id, ids=self._encoder.prompt(prompt.messages)) for prompt in prompts]
        words_ids = [self._encoder.answer(word) for word in words]
        try:
            return choose_labels(self._base, asked, words, words_ids)
        except ContextLengthError as error:
            problem, remedy = (
                f"the judge cannot read an answer whole: {error.problem}",
                "name one with a longer context",
            )
            raise InputError(problem, remedy, file=self._task.file, field="judge.by") from None
