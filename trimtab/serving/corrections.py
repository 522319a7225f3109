"""Writes answers that people corrected as rows in the columns of the task's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.records import Message
from trimtab.base.task import Task
from trimtab.data.chat import SkipRow
from trimtab.data.columns import ColumnRequest, RequestedColumns, find_columns
from trimtab.data.formats import SAMPLE
from trimtab.data.raw_rows import RawRow
from trimtab.data.rows import RowReader

CorrectedRow = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A question with its corrected answer, as an example would have them."""

    id: str
    messages: tuple[Message, ...]
    answer: str
    group: str | None = None


def turns_of(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return a conversation in the format of rows."""
    return [asdict(message) for message in messages]


def correction_rows(corrected: Sequence[Correction], task: Task, source: str) -> list[tuple[Correction, CorrectedRow]]:
    """Return corrections as rows of `source`, in the first layout that the task's own reader reads back unchanged.

    Every file of examples has the same columns.
    """
    named: dict[str, RequestedColumns] = {"group": task.data.group, "slice": task.data.slice}
    requested: dict[str, RequestedColumns] = {
        **task.data.columns,
        **{role: name for role, name in named.items() if name},
    }
    request = ColumnRequest(layout=task.data.layout, columns=requested, kind=task.task.kind)
    for shape in (_conversation, _question_and_answer) if corrected else ():
        rows: list[tuple[Correction, CorrectedRow]] = [
            (one, {**_extra_columns(one, requested, source), **shape(one, task)}) for one in corrected
        ]
        readable = [pair for pair, matches in zip(rows, _read_back(rows, request), strict=True) if matches]
        if readable:
            return readable
    return []


def _extra_columns(one: Correction, requested: Mapping[str, RequestedColumns], source: str) -> dict[str, Any]:
    """Return the columns of a row beside question and answer; every column that the task file names must exist, even if
    empty."""
    known = {"id": one.id, "source": source, "group": one.group, "output": one.answer, "label": one.answer}
    roles = {"id": "id", "source": "source"} | {role: name for role, name in requested.items() if isinstance(name, str)}
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


def _read_back(rows: Sequence[tuple[Correction, CorrectedRow]], request: ColumnRequest) -> list[bool]:
    """Return, for each row, whether the task's own reader reads what it was built from."""
    raws = [RawRow("examples.jsonl", number, row) for number, (_, row) in enumerate(rows, 1)]
    try:
        reader = RowReader(find_columns(raws[:SAMPLE], request), request.kind)
        return [_reads_back(reader, raw, one) for raw, (one, _) in zip(raws, rows, strict=True)]
    except InputError:
        return [False] * len(rows)


def _reads_back(reader: RowReader, raw: RawRow, one: Correction) -> bool:
    try:
        content = reader.content(raw)
    except SkipRow:
        return False
    return (
        content.messages == one.messages and content.references == (one.answer,) and reader.text_of(raw, "id") == one.id
    )
