"""Teacher for distillation: its answers to training and dev questions, computed once and saved; and the loaded teacher
model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.session import BATCH_ITEMS, Session
from trimtab.base.config import ApiTable
from trimtab.base.files import append_own, read_own_lines, sha256_text
from trimtab.base.grammar import imitates_teacher
from trimtab.base.machine import release_memory
from trimtab.base.progress import Progress
from trimtab.base.records import Arm, Encoded, Example, Generation, Prompt, Split
from trimtab.base.task import Task
from trimtab.data.prompts import ChatEncoder
from trimtab.inference.remote import remote_model
from trimtab.model.catalog import resolve
from trimtab.model.fast.packed_weights import packed
from trimtab.model.load import count_parameters, read_config

TAUGHT = "teacher.jsonl"


@dataclass(frozen=True, kw_only=True)
class TeacherAnswer:
    """A question, the teacher's answer, and the weight of its row."""

    prompt: Prompt
    answer: Generation
    weight: float


def teachers(task: Task, arms: Sequence[Arm]) -> list[str]:
    """Return the endpoints used as teachers, if an arm is trained on their answers."""
    return [task.teacher.api] if task.teacher.api is not None and any(map(imitates_teacher, arms)) else []


def teacher_folder(task: Task) -> Path:
    """Return the folder of the local model of `[teacher]`. Raises MissingError for an absent one."""
    return resolve(task.teacher.model or "", task.teacher.revision, near=task.folder)


def teacher_session(session: Session) -> Session:
    """Return a session with the local model of `[teacher]` as its base model, which it loads when first needed."""
    task = session.workspace.task
    base = task.base.model_copy(update={"model": str(teacher_folder(session.task)), "revision": None})
    table = task.task.model_copy(update={"output_tokens": session.output_tokens})
    own = task.model_copy(update={"base": base, "task": table})
    return Session(replace(session.workspace, task=own), session.base.precision)


class Teacher:
    """The teacher of `[teacher]`: an endpoint, or a model loaded beside the base model while it is needed.

    `seconds` and `fee`: the cost of its answers, earlier processes included: seconds of this machine, and the fee in
    the task's currency.
    """

    def __init__(self, session: Session, folder: Path, progress: Progress) -> None:
        """Answers are saved in the session's folder for all arms of a study, if it has one, else in `folder`.

        Raises MissingError for an absent model, InputError for an API key that is not set.
        """
        task = session.task
        self._session, self.progress = session, progress
        self._kept = session.teacher_folder or folder / TAUGHT
        self._answers: dict[Split, list[TeacherAnswer]] = {}
        self._model_session: Session | None = None
        self.seconds = self.fee = 0.0
        self._endpoint = task.api[task.teacher.api] if task.teacher.api is not None else None
        if self._endpoint is not None:
            self._remote = remote_model(self._endpoint, self._kept)
        else:
            teacher_folder(task)  # absent, it is reported now

    @property
    def model_session(self) -> Session | None:
        """Return the teacher model as a session of its own, loaded at first use; None for an endpoint."""
        if self._model_session is None and self._endpoint is None:
            self._model_session = teacher_session(self._session)
        return self._model_session

    def release(self) -> None:
        """Free the memory of the model; it is loaded again when needed."""
        self._model_session = None
        release_memory()

    def answers(self, context: Context, split: Split, examples: Sequence[Example]) -> list[TeacherAnswer]:
        """Return the teacher's answers to examples of a split in an arm's context; rows without weight are skipped.

        Raises RemoteError if an endpoint fails; its earlier answers are saved.
        """
        if split not in self._answers:
            asked = [example for example in examples if example.weight > 0]
            prompts = PromptBuilder(self._session, context).prompts(asked)
            generations = self._ask_endpoint(self._endpoint, prompts) if self._endpoint else self._ask_model(prompts)
            self._answers[split] = [
                TeacherAnswer(prompt=prompt, answer=answer, weight=example.weight)
                for example, prompt, answer in zip(asked, prompts, generations, strict=True)
            ]
        return self._answers[split]

    def _ask_endpoint(self, table: ApiTable, prompts: Sequence[Prompt]) -> list[Generation]:
        """Return answers of an endpoint, and add their fee."""
        session = self._session
        self.progress.emit("answer", note=f"asking the teacher, {table.model}")
        labels = session.workspace.labels if session.task.task.kind == "classify" else ()
        generations = self._remote.generate(prompts, session.output_tokens, labels)
        price = table.price_per_million
        if price is not None:
            self.fee += sum(price.fee(answer.prompt_tokens, answer.new_tokens) for answer in generations)
        return generations

    def _ask_model(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Return greedy answers. A batch with one that is not saved is answered whole, with the same neighbours."""
        kept = {line["request"]: line for line in read_own_lines(self._kept, "request")}
        keys = [self._key(prompt) for prompt in prompts]
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(prompts), BATCH_ITEMS):
            part = slice(start, start + BATCH_ITEMS)
            if not all(key in kept for key in keys[part]):
                for key, line in zip(keys[part], self._batch(prompts[part]), strict=True):
                    kept[key] = {"request": key, **line}
                    append_own(self._kept, kept[key])
            self.progress.emit("answer", step=min(part.stop, len(prompts)), of=len(prompts), note="the teacher")
        lines = [kept[key] for key in keys]
        self.seconds += sum(line["seconds"] for line in lines)
        return [
            Generation(id=prompt.id, text=line["text"], finished=line["finished"], seconds=line["seconds"])
            for prompt, line in zip(prompts, lines, strict=True)
        ]

    def _key(self, prompt: Prompt) -> str:
        """Return the key of a saved answer: what it depends on besides the teacher and the labels."""
        turns = (text for turn in prompt.messages for text in (turn.role, turn.content))
        return sha256_text(str(self._session.output_tokens), *turns)

    def _batch(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Return answers of the loaded model; an empty one for a prompt that does not fit."""
        session = self.model_session
        if session is None:
            raise ValueError("an endpoint is asked elsewhere")
        began = time.perf_counter()
        room = session.context_tokens - session.max_answer_tokens
        fitting = [prompt for prompt in prompts if len(session.encoder.prompt(prompt.messages)) <= room]
        with packed(session.base):
            by_id = {answer.id: answer for answer in session.answer(fitting)}
        nothing = Generation(id="", text="", finished=False)
        each = (time.perf_counter() - began) / len(prompts)
        answers = [by_id.get(prompt.id, nothing) for prompt in prompts]
        return [{"text": answer.text, "finished": answer.finished, "seconds": each} for answer in answers]


@dataclass(frozen=True, kw_only=True)
class TeacherCost:
    """Predicted seconds and bytes of a teacher, and the tokens of the training rows with its answers."""

    seconds: float = 0.0
    bytes: int = 0
    tokens: float = 0.0


def predict_teacher_cost(session: Session, questions: int, each: float, new_tokens: float) -> TeacherCost:
    """Predict the cost of a local teacher from its size; the base model takes `each` seconds a question.

    `new_tokens`: of an answer. Raises MissingError for an absent model.
    """
    folder = teacher_folder(session.task)
    numbers, size = count_parameters(folder), session.base.model.dtype.itemsize
    larger = numbers / sum(parameter.numel() for parameter in session.base.model.parameters())
    states = questions * new_tokens * read_config(folder).hidden_size
    return TeacherCost(seconds=larger * questions * each, bytes=round((numbers + states) * size))


def answer_row(encoder: ChatEncoder, taught: TeacherAnswer) -> Encoded:
    """Return a teacher's answer after its prompt, encoded for a model; a truncated answer has no end token."""
    prompt_ids = encoder.prompt(taught.prompt.messages)
    answer_ids = encoder.answer(taught.answer.text) if taught.answer.finished else encoder.text(taught.answer.text)
    return Encoded(ids=(*prompt_ids, *answer_ids), trained=(False,) * len(prompt_ids) + (True,) * len(answer_ids))


def fitting_answers(session: Session, taught: Sequence[TeacherAnswer]) -> list[TeacherAnswer]:
    """Return the answers that have a token to learn from and fit the model's context with their prompt."""
    rows = ((answer, answer_row(session.encoder, answer)) for answer in taught)
    return [answer for answer, row in rows if any(row.trained) and len(row.ids) <= session.context_tokens]


def same_tokenization(one: ChatEncoder, other: ChatEncoder, taught: Sequence[TeacherAnswer]) -> bool:
    """True if two models have the same vocabulary and tokenize these answers alike."""
    if one.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        return False
    return all(one.answer(item.answer.text) == other.answer(item.answer.text) for item in taught)
