"""The teacher of a task: its answers to training and dev questions, asked once and kept, and the model itself where it is loaded beside."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.session import BATCH_ITEMS, Session
from trimtab.base.config import ApiTable
from trimtab.base.files import append_line, read_json_lines, sha256_text
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
    """A question, the teacher's answer to it, and the weight of its row."""

    prompt: Prompt
    answer: Generation
    weight: float


def teachers(task: Task, arms: Sequence[Arm]) -> list[str]:
    """The endpoints that are asked for answers to imitate, where one of the arms is trained on them."""
    return [task.teacher.api] if task.teacher.api is not None and any(map(imitates_teacher, arms)) else []


class Teacher:
    """Answers as `[teacher]` says: an endpoint, or a model that is loaded beside the base while it is needed.

    `seconds` and `fee` are what its answers took, in former sittings too: seconds of this machine, the fee in the task's currency.
    """

    def __init__(self, session: Session, folder: Path, progress: Progress) -> None:
        """Answers are kept where the session says so, for all arms of a study, else in `folder`.

        Raises MissingError for a model that is not there, InputError for a key that is not set.
        """
        task = session.task
        self._session, self.progress = session, progress
        self._kept = session.teacher_folder or folder / TAUGHT
        self._answers: dict[Split, list[TeacherAnswer]] = {}
        self._own: Session | None = None
        self.seconds = self.fee = 0.0
        self._endpoint = task.api[task.teacher.api] if task.teacher.api is not None else None
        if self._endpoint is not None:
            self._remote = remote_model(self._endpoint, self._kept)
        else:
            self._folder = resolve(task.teacher.model or "", task.teacher.revision, near=task.folder)

    @property
    def own(self) -> Session | None:
        """The model, as a session of its own over the same rows, loaded when first asked for; None for an endpoint."""
        if self._own is None and self._endpoint is None:
            session = self._session
            base = session.task.base.model_copy(update={"model": str(self._folder), "revision": None})
            table = session.workspace.task.task.model_copy(update={"output_tokens": session.output_tokens})
            task = session.workspace.task.model_copy(update={"base": base, "task": table})
            self._own = Session(replace(session.workspace, task=task), session.base.precision)
        return self._own

    def release(self) -> None:
        """Give the memory of the model back; it is loaded again when it is asked for."""
        self._own = None
        release_memory()

    def answers(self, context: Context, split: Split, examples: Sequence[Example]) -> list[TeacherAnswer]:
        """What the teacher says to examples of a split in an arm's context; rows without a weight are not asked.

        Raises RemoteError when an endpoint cannot be asked; what it said until then is kept.
        """
        if split not in self._answers:
            asked = [one for one in examples if one.weight > 0]
            prompts = PromptBuilder(self._session, context).prompts(asked)
            generations = self._ask_endpoint(self._endpoint, prompts) if self._endpoint else self._ask_model(prompts)
            self._answers[split] = [
                TeacherAnswer(prompt=prompt, answer=answer, weight=one.weight)
                for one, prompt, answer in zip(asked, prompts, generations, strict=True)
            ]
        return self._answers[split]

    def _ask_endpoint(self, table: ApiTable, prompts: Sequence[Prompt]) -> list[Generation]:
        """Answers of an endpoint, their fee added up."""
        session = self._session
        self.progress.emit("answer", note=f"asking the teacher, {table.model}")
        labels = session.workspace.labels if session.task.task.kind == "classify" else ()
        generations = self._remote.generate(prompts, session.output_tokens, labels)
        price = table.price_per_million
        if price is not None:
            self.fee += (
                sum(one.prompt_tokens * price.input + one.new_tokens * price.output for one in generations) / 1e6
            )
        return generations

    def _ask_model(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Greedy answers. Of a batch that was not kept whole all is asked again, so that each prompt has the same neighbours."""
        kept = {line["request"]: line for line in read_json_lines(self._kept, "request")}
        keys = [self._key(prompt) for prompt in prompts]
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(prompts), BATCH_ITEMS):
            part = slice(start, start + BATCH_ITEMS)
            if not all(key in kept for key in keys[part]):
                for key, line in zip(keys[part], self._batch(prompts[part]), strict=True):
                    kept[key] = {"request": key, **line}
                    append_line(self._kept, kept[key])
            self.progress.emit("answer", step=min(part.stop, len(prompts)), of=len(prompts), note="the teacher")
        found = [kept[key] for key in keys]
        self.seconds += sum(line["seconds"] for line in found)
        return [
            Generation(id=prompt.id, text=line["text"], finished=line["finished"], seconds=line["seconds"])
            for prompt, line in zip(prompts, found, strict=True)
        ]

    def _key(self, prompt: Prompt) -> str:
        """What an answer is kept under: what it depends on beside the teacher and the labels, with others of which nothing goes on."""
        turns = (text for turn in prompt.messages for text in (turn.role, turn.content))
        return sha256_text(str(self._session.output_tokens), *turns)

    def _batch(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Answers of the loaded model; to a prompt that it has no room for it says nothing."""
        own = self.own
        if own is None:
            raise ValueError("an endpoint is asked elsewhere")
        began = time.perf_counter()
        room = own.context_tokens - own.max_answer_tokens
        fitting = [one for one in prompts if len(own.encoder.prompt(one.messages)) <= room]
        with packed(own.base):
            by_id = {one.id: one for one in own.answer(fitting)}
        nothing = Generation(id="", text="", finished=False)
        each = (time.perf_counter() - began) / len(prompts)
        generations = [by_id.get(prompt.id, nothing) for prompt in prompts]
        return [{"text": one.text, "finished": one.finished, "seconds": each} for one in generations]


@dataclass(frozen=True, kw_only=True)
class TeacherCost:
    """What a teacher is foretold to take: seconds of answering and reading its answers, bytes in memory; tokens of the training rows with them."""

    seconds: float = 0.0
    bytes: int = 0
    tokens: float = 0.0


def predict_teacher_cost(session: Session, questions: int, each: float, new_tokens: float) -> TeacherCost:
    """The work of a teacher that is loaded here, as its size is to the base's, which takes `each` seconds to answer a question and read that again.

    `new_tokens`: of an answer. Raises MissingError for a model that is not there.
    """
    table = session.task.teacher
    folder = resolve(table.model or "", table.revision, near=session.task.folder)
    numbers, size = count_parameters(folder), session.base.model.dtype.itemsize
    larger = numbers / sum(parameter.numel() for parameter in session.base.model.parameters())
    states = questions * new_tokens * read_config(folder).hidden_size
    return TeacherCost(seconds=larger * questions * each, bytes=round((numbers + states) * size))


def answer_row(encoder: ChatEncoder, taught: TeacherAnswer) -> Encoded:
    """A teacher's answer behind its prompt, as some model reads both; one that was cut off does not end."""
    prompt_ids = encoder.prompt(taught.prompt.messages)
    answer_ids = encoder.answer(taught.answer.text) if taught.answer.finished else encoder.text(taught.answer.text)
    return Encoded(ids=(*prompt_ids, *answer_ids), trained=(False,) * len(prompt_ids) + (True,) * len(answer_ids))


def fitting_answers(session: Session, taught: Sequence[TeacherAnswer]) -> list[TeacherAnswer]:
    """Those that hold a token to learn from and fit the model's context with their prompt."""
    rows = [answer_row(session.encoder, one) for one in taught]
    return [
        one
        for one, row in zip(taught, rows, strict=True)
        if any(row.trained) and len(row.ids) <= session.context_tokens
    ]


def same_tokenization(one: ChatEncoder, other: ChatEncoder, taught: Sequence[TeacherAnswer]) -> bool:
    """Whether two models mean the same by every token id, and write these answers with the same ones."""
    if one.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        return False
    return all(one.answer(item.answer.text) == other.answer(item.answer.text) for item in taught)
