"""Converts the raw rows of a file to questions and answers, with every value checked."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from trimtab.base.records import Kind, Message
from trimtab.base.times import is_number, moment
from trimtab.data.chat import SkipRow, read_turns
from trimtab.data.columns import Columns, is_text
from trimtab.data.raw_rows import RawRow
from trimtab.data.strict_json import type_name
from trimtab.data.values import squad_answers

TEXT_CAP = 1_000_000
"""Longest row in characters; more than any model reads, and the limit for comparing rows."""

_AS_TEXT = 'write text, or set task.kind = "generate", which learns it as JSON'


@dataclass(frozen=True, slots=True, kw_only=True)
class RowContent:
    """The content of a row: the turns up to the answer, and the accepted answers."""

    messages: tuple[Message, ...]
    references: tuple[str, ...]


class RowReader:
    """Converts raw rows of one file to content and optional fields; refuses a field whose type changes between rows."""

    def __init__(self, columns: Columns, kind: Kind | None) -> None:
        self.columns = columns
        self._classify = kind == "classify"
        self._types: dict[str, tuple[str, int]] = {}
        self._time_kind: tuple[bool, int] | None = None  # whether times are numbers, and since which line

    def content(self, row: RawRow) -> RowContent:
        """Return question and answers of a row; raises SkipRow for a row to leave out, InputError for one that stops
        the reading."""
        content = self._content(row)
        length = sum(map(len, (*(message.content for message in content.messages), *content.references)))
        if length > TEXT_CAP:
            raise SkipRow(
                f"{length:,} characters, and {TEXT_CAP:,} are the most that is read", "shorten it, or leave the row out"
            )
        return content

    def _content(self, row: RawRow) -> RowContent:
        columns = self.columns
        if columns.layout in ("messages", "conversations"):
            if row.fields.get(columns.input[0]) is None:
                raise SkipRow(f"no {columns.input[0]}", "add them, or leave the row out")
            messages, answer = read_turns(row, columns.input[0], is_from_value=columns.layout == "conversations")
            return RowContent(messages=messages, references=(answer,))
        return RowContent(messages=self.question(row), references=self._references(row))

    def question(self, row: RawRow) -> tuple[Message, ...]:
        """Return what is asked by a row of a table; its answer is not looked at."""
        columns, template = self.columns.input, self.columns.template
        value = row.fields.get(columns[0])
        if self.columns.layout == "prompt-completion" and isinstance(value, list) and len(columns) == 1:
            return _as_messages(row, columns[0], value)
        has_several_columns = len(columns) > 1 or bool(template)
        texts = {name: self._texts(row, name) if has_several_columns else self._text(row, name) for name in columns}
        for name, text in texts.items():
            if not text.strip() and name != self.columns.context:
                raise SkipRow(f"no text in {name}", "fill it, or leave the row out")
        if template:
            pairs = zip((*(texts[name] for name in columns), ""), template, strict=True)
            text_of_question = "".join(before + text for text, before in pairs)
        else:
            text_of_question = "\n\n".join(texts[name] for name in columns if texts[name].strip())
        return (Message(role="user", content=text_of_question),)

    def _references(self, row: RawRow) -> tuple[str, ...]:
        name = self.columns.output
        value = row.fields.get(name)
        if (
            self.columns.layout == "prompt-completion"
            and isinstance(value, list)
            and value
            and isinstance(value[0], dict)
        ):
            if len(value) != 1:
                raise row.error("a completion of more than one turn", "use the layout messages", name)
            return (_as_messages(row, name, value, answer=True)[0].content,)
        if self.columns.as_json and value is not None:
            return (json.dumps(value, ensure_ascii=False, default=str),)
        texts_of_answers = squad_answers(value)
        value = value if texts_of_answers is None else texts_of_answers
        if isinstance(value, list):
            if not all(isinstance(item, str) for item in value):
                raise row.error("a list of answers that are not all text", _AS_TEXT, name)
            self._require_same_type(row, name, "text")
            texts = [str(item) for item in value]
        else:
            texts = [self._text(row, name)]
        if self._classify:
            texts = [text.strip() for text in texts]
        texts = [text for text in dict.fromkeys(texts) if text.strip()]
        if not texts:
            raise SkipRow(f"no answer in {name}", "fill it, or leave the row out")
        if self._classify and len(texts) > 1:
            raise row.error(f"{len(texts)} labels in one row", "give each row one label", name)
        return tuple(texts)

    def _text(self, row: RawRow, name: str) -> str:
        """Return a value as text: numbers and booleans as in JSON; null is empty."""
        value = row.fields.get(name)
        if value is None:
            return ""
        kind = type_name(value)
        if kind not in ("text", "a number", "true or false"):
            raise row.error(f"is {kind}, not text", _AS_TEXT if name == self.columns.output else "write text", name)
        if isinstance(value, float) and not math.isfinite(value):
            raise row.error(f"the number {value} is not finite", "write text, or leave it out", name)
        self._require_same_type(row, name, kind)
        return value if isinstance(value, str) else json.dumps(value)

    def _texts(self, row: RawRow, name: str) -> str:
        """Return a value as text as `_text` does; the items of a list are joined by line breaks."""
        value = row.fields.get(name)
        if not isinstance(value, list) or not is_text(value):
            return self._text(row, name)
        self._require_same_type(row, name, "a list")
        return "\n".join(value)

    def _require_same_type(self, row: RawRow, name: str, kind: str) -> None:
        before, line = self._types.setdefault(name, (kind, row.line))
        if before != kind:
            raise row.error(f"is {kind}; it was {before} from line {line} on", "use one type in all rows", name)

    def text_of(self, row: RawRow, role: str) -> str | None:
        """Return the text of an optional role (id, group, slice, source, licence), None if there is none."""
        column = self.columns.extras.get(role)
        if column is None:
            return None
        return self._text(row, column).strip() or None

    def tests(self, row: RawRow) -> str:
        """Return the code that tests an answer: a text, or a list of texts in sequence; empty if there is none."""
        column = self.columns.extras.get("tests")
        return self._texts(row, column) if column else ""

    def time(self, row: RawRow) -> str | None:
        """Return the time of a row, None without a time column; raises for missing or unreadable times, and for dates
        mixed with numbers."""
        column = self.columns.extras.get("time")
        if column is None:
            return None
        value = row.fields.get(column)
        text = json.dumps(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        remedy = "write ISO dates (2026-03-01) or times in every row, or numbers in every row"
        if not isinstance(text, str) or not text.strip():
            raise row.error(f"the time is {'empty' if text in (None, '') else type_name(value)}", remedy, column)
        text = text.strip()
        try:
            moment(text)
        except ValueError:
            raise row.error(f"the time {text[:40]!r} is neither an ISO date nor a number", remedy, column) from None
        kind, before = is_number(text), self._time_kind
        if before is not None and before[0] != kind:
            named = ("a date", "a number")
            problem = f"the time is {named[kind]}; it was {named[not kind]} from line {before[1]} on"
            raise row.error(problem, remedy, column)
        self._time_kind = before or (kind, row.line)
        return text

    def weight(self, row: RawRow) -> float:
        """Return the weight of a row, 1 by default; raises if it is negative, infinite or not a number."""
        column = self.columns.extras.get("weight")
        value = row.fields.get(column) if column else None
        if column is None or value is None or value == "":
            return 1.0
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise row.error(f"the weight is {type_name(value)}, not a number", "write a number", column)
        try:
            weight = float(value)
        except (ValueError, OverflowError):
            raise row.error(f"the weight {str(value)[:40]!r} is not a number", "write a number", column) from None
        if not 0 <= weight < math.inf:
            raise row.error(f"the weight {weight} is negative or not finite", "use 0 or more", column)
        return weight

    def passages(self, row: RawRow) -> tuple[str, ...]:
        """Return the documents or passages that hold the answer: one name, or a list of names."""
        column = self.columns.extras.get("passage")
        value = row.fields.get(column) if column else None
        if column is None or value is None or value == "":
            return ()
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in values):
            raise row.error("is not text or a list of texts", "name the documents that hold the answer", column)
        return tuple(values)


def _as_messages(row: RawRow, name: str, turns: list[Any], *, answer: bool = False) -> tuple[Message, ...]:
    """Return the turns of `prompt` or `completion`, checked as a conversation with a placeholder for the missing
    side."""
    missing_side = {"role": "user", "content": "-"} if answer else {"role": "assistant", "content": "-"}
    turns_with_stub = [missing_side, *turns] if answer else [*turns, missing_side]
    messages, last = read_turns(RawRow(row.file, row.line, {name: turns_with_stub}), name, is_from_value=False)
    return (Message(role="assistant", content=last),) if answer else messages
