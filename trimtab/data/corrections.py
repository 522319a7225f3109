"""Answers that people corrected, as rows in the columns of a task's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.records import Message
from trimtab.base.task import Task
from trimtab.data.chat import SkipRow
from trimtab.data.columns import AskedColumns, Wish, find_columns
from trimtab.data.formats import SAMPLE
from trimtab.data.readers import RawRow
from trimtab.data.rows import Reader

CorrectedRow = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A question with the answer that a person calls right, as an example would be."""

    id: str
    messages: tuple[Message, ...]
    answer: str
    group: str | None = None


def turns_of(messages: Sequence[Message]) -> list[dict[str, str]]:
    """A conversation as rows have it."""
    return [asdict(message) for message in messages]


def correction_rows(corrected: Sequence[Correction], task: Task, source: str) -> list[tuple[Correction, CorrectedRow]]:
    """Rows that name `source`, in the first shape that the task's own reader reads back as what was meant; its columns hold for every file of examples."""
    named: dict[str, AskedColumns] = {"group": task.data.group, "slice": task.data.slice}
    asked: dict[str, AskedColumns] = {**task.data.columns, **{role: name for role, name in named.items() if name}}
    wish = Wish(layout=task.data.layout, columns=asked, kind=task.task.kind)
    for shape in (_conversation, _question_and_answer) if corrected else ():
        made: list[tuple[Correction, CorrectedRow]] = [
            (one, {**_extras(one, asked, source), **shape(one, task)}) for one in corrected
        ]
        kept = [pair for pair, same in zip(made, _read_back(made, wish), strict=True) if same]
        if kept:
            return kept
    return []


def _extras(one: Correction, asked: Mapping[str, AskedColumns], source: str) -> dict[str, Any]:
    """What a row carries beside question and answer: every column that the task file names must be there, if only empty."""
    known = {"id": one.id, "source": source, "group": one.group, "output": one.answer, "label": one.answer}
    roles = {"id": "id", "source": "source"} | {role: name for role, name in asked.items() if isinstance(name, str)}
    return {name: known.get(role) for role, name in roles.items() if role != "input"}


def _conversation(one: Correction, task: Task) -> dict[str, Any]:
    name = task.data.columns.get("input", "messages")
    return {str(name): [*turns_of(one.messages), {"role": "assistant", "content": one.answer}]}


_NAMES = {"prompt-completion": ("prompt", "completion"), "instruction": ("instruction", "output")}


def _question_and_answer(one: Correction, task: Task) -> dict[str, Any]:
    columns = task.data.columns
    usual = ("input", "label") if task.task.kind == "classify" else ("question", "answer")
    question, answer = _NAMES.get(task.data.layout, usual)
    answer = str(columns.get("label") or columns.get("output") or answer)
    return {str(columns.get("input", question)): one.messages[-1].content, answer: one.answer}


def _read_back(made: Sequence[tuple[Correction, CorrectedRow]], wish: Wish) -> list[bool]:
    """Whether each row says, to the task's own reader, what it was made of."""
    raws = [RawRow("examples.jsonl", number, row) for number, (_, row) in enumerate(made, 1)]
    try:
        reader = Reader(find_columns(raws[:SAMPLE], wish), wish.kind)
        return [_says(reader, raw, one) for raw, (one, _) in zip(raws, made, strict=True)]
    except InputError:
        return [False] * len(made)


def _says(reader: Reader, raw: RawRow, one: Correction) -> bool:
    try:
        content = reader.content(raw)
    except SkipRow:
        return False
    return (
        content.messages == one.messages and content.references == (one.answer,) and reader.text_of(raw, "id") == one.id
    )
