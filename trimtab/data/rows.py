"""Row layouts: which field is the question and which the answer, seen from the fields or guessed from the values."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.records import Kind, Message
from trimtab.data.chat import SkipRow, read_turns
from trimtab.data.readers import RawRow, type_name

LAYOUTS = (
    "messages",
    "prompt-completion",
    "instruction",
    "conversations",
    "input-label",
    "question-answer",
    "table",
    "squad",
)
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "id": ("id",),
    "group": ("group",),
    "slice": ("slice",),
    "weight": ("weight",),
    "source": ("source",),
    "licence": ("licence", "license"),
    "passage": ("passage", "passages"),
}
"""Roles that any row may fill beside its question and answer, and the names under which they are looked for."""

TEXT_CAP = 1_000_000
"""Longest row, in characters: beyond what any model here reads, and what comparing rows for duplicates can bear."""

_PAIRS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("prompt-completion", ("prompt",), ("completion",)),
    ("instruction", ("instruction",), ("output",)),
    ("question-answer", ("question",), ("answer", "answers")),
    ("input-label", ("input", "text"), ("label",)),
)
_INPUT_NAMES = (
    "input",
    "text",
    "question",
    "prompt",
    "query",
    "message",
    "sentence",
    "utterance",
    "instruction",
    "content",
    "body",
    "review",
)
_LABEL_NAMES = ("label", "category", "class", "intent", "target", "sentiment")
_OUTPUT_NAMES = ("output", "answer", "completion", "response", "reply", "target", "solution", "summary")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Where the parts of an example stand in the rows of one file. `guessed`: from the values, not from known names."""

    layout: str
    input: str
    output: str = ""
    context: str | None = None
    extras: Mapping[str, str] = field(default_factory=dict)
    guessed: bool = False

    @property
    def used(self) -> frozenset[str]:
        """Every field that is read."""
        return frozenset((self.input, self.output, self.context or "", *self.extras.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the task file says about columns: all of it optional."""

    layout: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    kind: Kind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a row says: the turns up to the answer, and the answers that count."""

    messages: tuple[Message, ...]
    references: tuple[str, ...]


def find_columns(sample: Sequence[RawRow], wish: Wish) -> Columns:
    """The columns of a file from its first rows (at least one). Raises InputError naming the fields when they cannot be told."""
    names = list(dict.fromkeys(name for row in sample for name in row.fields))
    first = sample[0]
    for role, column in wish.columns.items():
        if column not in names:
            near = difflib.get_close_matches(column, names, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"the fields here are: {', '.join(names)}"
            raise first.error(f"no field {column!r}, which data names as {role}", remedy, role)
    extras = {role: next((name for name in known if name in names), "") for role, known in EXTRAS.items()}
    extras |= {role: column for role, column in wish.columns.items() if role in EXTRAS}
    extras = {role: column for role, column in extras.items() if column}
    asked_input, asked_output = wish.columns.get("input"), wish.columns.get("output") or wish.columns.get("label")
    layout = wish.layout or _known_layout(names, bool(asked_input or asked_output))
    if layout in ("messages", "conversations"):
        column = asked_input or layout
        if column not in names:
            raise first.error(f"no field {column!r} for the layout {layout}", "set data.columns.input", layout)
        return Columns(layout=layout, input=column, extras=extras)
    known = next((pair for pair in _PAIRS if pair[0] == layout), None)
    if known:
        source = asked_input or next((name for name in known[1] if name in names), known[1][0])
        target = asked_output or next((name for name in known[2] if name in names and name != source), known[2][0])
        for column in (source, target):
            if column not in names:
                raise first.error(f"no field {column!r} for the layout {layout}", "set data.columns", column)
        context = "input" if layout == "instruction" and "input" in names and source != "input" else None
        extras = {role: column for role, column in extras.items() if column not in (source, target, context)}
        return Columns(layout=layout, input=source, output=target, context=context, extras=extras)
    return _guess(sample, names, asked_input, asked_output, wish.kind, extras)


def _known_layout(names: Sequence[str], asked: bool) -> str:
    if "messages" in names:
        return "messages"
    if "conversations" in names:
        return "conversations"
    if not asked:
        for layout, sources, targets in _PAIRS:
            if any(name in names for name in sources) and any(name in names for name in targets):
                return layout
    return "table"


def _guess(
    sample: Sequence[RawRow],
    names: Sequence[str],
    source: str | None,
    target: str | None,
    kind: Kind | None,
    extras: Mapping[str, str],
) -> Columns:
    """The long free text is the question; the answer is a known name, else (classify) the fewest values that repeat, else the other column."""
    free = [name for name in names if name not in extras.values() and name not in (source, target)]
    texts = [name for name in free if all(isinstance(row.fields.get(name), str | None) for row in sample)]
    lower = {name.lower(): name for name in reversed(free)}
    guessed = False
    if target is None:
        wanted = {"classify": _LABEL_NAMES, None: _LABEL_NAMES + _OUTPUT_NAMES}.get(kind, _OUTPUT_NAMES + _LABEL_NAMES)
        target = next((lower[name] for name in wanted if name in lower), None)
    if source is None:
        source = next((lower[name] for name in _INPUT_NAMES if name in lower and lower[name] != target), None)
    if source is None:
        guessed = True
        others = [name for name in texts if name != target]
        ordered = sorted(others, key=lambda name: -_mean_length(sample, name))
        longest_first = target is not None or kind in ("classify", None)
        source = next(iter(ordered if longest_first else others), None)
    if target is None and source is not None:
        guessed = True
        others = [name for name in free if name != source]
        counts = {name: _distinct(sample, name) for name in others if _repeats(sample, name)}
        repeated = sorted(counts, key=lambda name: (counts[name] < 2, counts[name]))
        target = next(
            iter(repeated if kind in ("classify", None) and repeated else others if len(others) == 1 else ()), None
        )
    if source is None or target is None:
        missing = "question" if source is None else "answer"
        role = "input" if source is None else "label" if kind == "classify" else "output"
        raise sample[0].error(
            f"cannot tell which field is the {missing}; the fields are: {', '.join(names)}",
            f'name it: data.columns = {{ {role} = "…" }}',
        )
    for name in (source, target):
        if any(row.fields.get(name) == name for row in sample):
            raise InputError(
                f"the first line looks like a row, not like a header ({name!r} is a value further down)",
                "add a first line that names the columns",
                file=sample[0].file,
                line=1,
            )
    extras = {role: column for role, column in extras.items() if column not in (source, target)}
    return Columns(layout="table", input=source, output=target, extras=extras, guessed=guessed)


def _mean_length(sample: Sequence[RawRow], name: str) -> float:
    return sum(len(str(row.fields.get(name) or "")) for row in sample) / len(sample)


def _repeats(sample: Sequence[RawRow], name: str) -> bool:
    """Whether a column holds few short values that come back: what a label does."""
    if any(isinstance(row.fields.get(name), (list, dict)) for row in sample):
        return False
    return _distinct(sample, name) <= max(2, len(sample) // 2) and _mean_length(sample, name) < 60


def _distinct(sample: Sequence[RawRow], name: str) -> int:
    return len({row.fields.get(name) for row in sample})


class Reader:
    """Turns raw rows of one file into Content and extras, and refuses a field whose type changes on the way."""

    def __init__(self, columns: Columns, kind: Kind | None) -> None:
        self.columns = columns
        self._classify = kind == "classify"
        self._types: dict[str, tuple[str, int]] = {}

    def content(self, row: RawRow) -> Content:
        """Question and answers of a row. Raises SkipRow for a row to leave out, InputError for one that stops the reading."""
        content = self._content(row)
        length = sum(map(len, (*(message.content for message in content.messages), *content.references)))
        if length > TEXT_CAP:
            raise SkipRow(
                f"{length:,} characters, and {TEXT_CAP:,} are the most that is read", "shorten it, or leave the row out"
            )
        return content

    def _content(self, row: RawRow) -> Content:
        columns = self.columns
        if columns.layout in ("messages", "conversations"):
            if row.fields.get(columns.input) is None:
                raise SkipRow(f"no {columns.input}", "add them, or leave the row out")
            messages, answer = read_turns(row, columns.input, speaker=columns.layout == "conversations")
            return Content(messages=messages, references=(answer,))
        return Content(messages=self._question(row), references=self._references(row))

    def _question(self, row: RawRow) -> tuple[Message, ...]:
        name = self.columns.input
        value = row.fields.get(name)
        if self.columns.layout == "prompt-completion" and isinstance(value, list):
            return _as_messages(row, name, value)
        text = self._text(row, name)
        if self.columns.context is not None:
            more = self._text(row, self.columns.context)
            text = f"{text}\n\n{more}" if more.strip() else text
        if not text.strip():
            raise SkipRow(f"no text in {name}", "fill it, or leave the row out")
        return (Message(role="user", content=text),)

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
        if isinstance(value, list):
            if not all(isinstance(item, str) for item in value):
                raise row.error("a list of answers that are not all text", "write text", name)
            self._same_type(row, name, "text")
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
        """A value as text: numbers and truth values as JSON writes them; null is empty."""
        value = row.fields.get(name)
        if value is None:
            return ""
        kind = type_name(value)
        if kind not in ("text", "a number", "true or false"):
            raise row.error(f"is {kind}, not text", "write text", name)
        if isinstance(value, float) and not math.isfinite(value):
            raise row.error(f"the number {value} is not finite", "write text, or leave it out", name)
        self._same_type(row, name, kind)
        return value if isinstance(value, str) else json.dumps(value)

    def _same_type(self, row: RawRow, name: str, kind: str) -> None:
        before, line = self._types.setdefault(name, (kind, row.line))
        if before != kind:
            raise row.error(f"is {kind}; it was {before} from line {line} on", "use one type in all rows", name)

    def text_of(self, row: RawRow, role: str) -> str | None:
        """The text of an optional role (id, group, slice, source, licence), None when there is none."""
        column = self.columns.extras.get(role)
        if column is None:
            return None
        return self._text(row, column).strip() or None

    def weight(self, row: RawRow) -> float:
        """The weight of a row: 1 when none is given; negative, infinite or not a number is refused."""
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
        """The documents or passages that hold the answer: one name, or a list of them."""
        column = self.columns.extras.get("passage")
        value = row.fields.get(column) if column else None
        if column is None or value is None or value == "":
            return ()
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in values):
            raise row.error("is not text or a list of texts", "name the documents that hold the answer", column)
        return tuple(values)


def _as_messages(row: RawRow, name: str, turns: list[Any], *, answer: bool = False) -> tuple[Message, ...]:
    """Turns inside `prompt` or `completion`, checked as a conversation by putting the missing side beside them."""
    stub = {"role": "user", "content": "-"} if answer else {"role": "assistant", "content": "-"}
    whole = [stub, *turns] if answer else [*turns, stub]
    messages, last = read_turns(RawRow(row.file, row.line, {name: whole}), name, speaker=False)
    return (Message(role="assistant", content=last),) if answer else messages
