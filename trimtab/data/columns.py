"""Columns of a file: which field is the question and which the answer, seen from the fields or guessed from the values."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.base.config import SLOT
from trimtab.base.errors import InputError
from trimtab.base.grammar import joined
from trimtab.base.records import Kind, Split
from trimtab.base.sanitize import printable
from trimtab.data.readers import PAIR, RawRow
from trimtab.data.values import Values, last_word

LAYOUTS = (
    "messages",
    "prompt-completion",
    "instruction",
    "conversations",
    "input-label",
    "question-answer",
    "pair",
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
    "tests": (),
    "time": (),
}
"""Roles that any row may fill beside its question and answer, and the names under which they are looked for; tests and time where named."""

# Layouts that are recognised by the names of two fields: those of the question, those of the answer; the first that fits is taken.
PAIRS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prompt-completion": (("prompt",), ("completion",)),
    "instruction": (("instruction",), ("output",)),
    "question-answer": (("question",), ("answer", "answers")),
    "input-label": (("input", "text"), ("label",)),
    "pair": (PAIR[:1], PAIR[1:]),
}
SIMILAR_NAME = 0.75  # of 1: of a less similar name one did not mean the other; "text" and "intent" have 0.6
_CONTEXT_NAMES = ("context", "contexts")
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
_LABEL_NAMES = ("label", "category", "class", "intent", "target", "sentiment", "decision")
_OUTPUT_NAMES = ("output", "answer", "completion", "response", "reply", "target", "solution", "summary")


AskedColumns = str | tuple[str, ...]
"""What a task file says of a role: a column; of `input` also several, or a template that names them in braces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Where the parts of an example stand in the rows of one file. `guessed`: from the values, not from known names.

    `input`: the columns of the question in their order, with a blank line between them, or with the texts of `template` before,
    between and behind them. `context` is the one of them that may be empty.
    """

    layout: str
    input: tuple[str, ...]
    template: tuple[str, ...] = ()
    output: str = ""
    context: str | None = None
    extras: Mapping[str, str] = field(default_factory=dict)
    guessed: bool = False

    @property
    def used(self) -> frozenset[str]:
        """Every field that is read."""
        return frozenset((*self.input, self.output, *self.extras.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the task file says about columns, all of it optional; and which splits are read of a file that has them.

    `task_file`: the file that names the columns, for messages; None where options or arguments name them.
    """

    layout: str = ""
    columns: Mapping[str, AskedColumns] = field(default_factory=dict)
    kind: Kind | None = None
    splits: tuple[Split, ...] = ("train", "dev", "test")
    task_file: Path | None = None


class ColumnsError(InputError):
    """The columns of a file cannot be told, or only guessed: `fields` are those it has, `input` and `output` the guess, if any."""

    def __init__(
        self,
        problem: str,
        remedy: str,
        *,
        file: str,
        line: int,
        fields: Sequence[str],
        input: str = "",
        output: str = "",
    ) -> None:
        super().__init__(printable(problem), printable(remedy), file=file, line=line)
        self.fields, self.input, self.output = tuple(fields), input, output


def find_columns(sample: Sequence[RawRow], wish: Wish) -> Columns:
    """The columns of a file from its first rows (at least one). Raises InputError naming the fields when they cannot be told."""
    names = list(dict.fromkeys(name for row in sample for name in row.fields))
    first = sample[0]
    source, template = _asked_input(wish.columns.get("input", ()), names)
    asked = {role: column for role, column in wish.columns.items() if isinstance(column, str) and role != "input"}
    for role, column in (*(("input", column) for column in source), *asked.items()):
        if column not in names:
            raise _no_such_column(first, column, role, names, wish.task_file)
    extras = {role: next((name for name in known if name in names), "") for role, known in EXTRAS.items()}
    extras |= {role: column for role, column in asked.items() if role in EXTRAS}
    extras = {role: column for role, column in extras.items() if column}
    target = asked.get("output") or asked.get("label")
    known = {name for sources, targets in PAIRS.values() for name in (*sources, *targets)}
    filled = [name for name in names if name not in known or Values(sample, name).filled]
    filled = filled if len(filled) > 1 else names
    layout = wish.layout or _known_layout(filled, bool(source or target))
    if layout in ("messages", "conversations"):
        column = source[0] if source else layout
        if column not in names:
            raise first.error(f"no field {column!r} for the layout {layout}", "set data.columns.input", layout)
        return Columns(layout=layout, input=(column,), extras=extras)
    guessed = False
    if layout in PAIRS:
        sources, targets = PAIRS[layout]
        source = source or (next((name for name in sources if name in filled), sources[0]),)
        target = target or next((name for name in targets if name in filled and name not in source), targets[0])
        for column in (*source, target):
            if column not in names:
                raise first.error(f"no field {column!r} for the layout {layout}", "set data.columns", column)
    else:
        layout = "table"
        source, target, guessed = _guess(sample, names, source, target, wish.kind, extras)
    context = None
    if "input" not in wish.columns:
        taken = {*source, target, *(asked.values())}
        context = _context(layout, sample, [name for name in names if name not in taken])
    if context:  # the context of a question stands before it; what an instruction is about stands after it
        source = (*source, context) if layout == "instruction" else (context, *source)
    elif len(source) > 1:
        context = next((name for name in source if name.lower() in _CONTEXT_NAMES), None)
    extras = {role: column for role, column in extras.items() if column not in (*source, target)}
    return Columns(
        layout=layout,
        input=source,
        template=template,
        output=target,
        context=context,
        extras=extras,
        guessed=guessed,
    )


def _no_such_column(row: RawRow, column: str, role: str, names: Sequence[str], task_file: Path | None) -> InputError:
    """An error at the setting that names the column, not at a row: the row is right and the setting is not."""
    near = difflib.get_close_matches(column, names, n=1, cutoff=SIMILAR_NAME)
    own_key = role in ("group", "slice")  # these have keys of their own beside data.columns
    return InputError(
        printable(f"{Path(row.file).name} has no column {column!r}" + ("" if task_file else f", named as {role}")),
        printable(f"did you mean {near[0]}? it has {joined(names)}" if near else f"it has {joined(names)}"),
        file=task_file or row.file,
        field=f"data.{role}" if own_key and task_file else "data.columns" if task_file else None,
    )


def _asked_input(asked: AskedColumns, names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that make the input, and the texts around them where it is a template."""
    if not isinstance(asked, str):
        return asked, ()
    pieces = SLOT.split(asked)
    if asked in names or len(pieces) == 1:
        return (asked,), ()
    return tuple(pieces[1::2]), tuple(pieces[::2])


def _context(layout: str, sample: Sequence[RawRow], free: Sequence[str]) -> str | None:
    """The column of what a row's question is about, where one is called so and holds text."""
    wanted = ("input",) if layout == "instruction" else _CONTEXT_NAMES
    name = next((name for name in free if name.lower() in wanted), None)
    values = [row.fields.get(name) for row in sample] if name else []
    return name if all(is_text(value) for value in values) else None


def is_text(value: Any) -> bool:
    """Whether a value is text, a list of texts, or nothing."""
    return isinstance(value, str | None) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _known_layout(names: Sequence[str], asked: bool) -> str:
    if "messages" in names:
        return "messages"
    if "conversations" in names:
        return "conversations"
    if not asked:
        for layout, (sources, targets) in PAIRS.items():
            if any(name in names for name in sources) and any(name in names for name in targets):
                return layout
    return "table"


def _guess(
    sample: Sequence[RawRow],
    names: Sequence[str],
    source: tuple[str, ...],
    target: str | None,
    kind: Kind | None,
    extras: Mapping[str, str],
) -> tuple[tuple[str, ...], str, bool]:
    """Question and answer, and whether their values had to tell.

    First by their names; else the answer is (classify) the column of the fewest values that come back, else the one other column,
    and the question is the longest text beside a label, else the first. Never a column that is empty, or numbers the rows, or says the same in all of them.
    """
    values = {name: Values(sample, name) for name in names if name not in (*extras.values(), *source, target)}
    free = [name for name, seen in values.items() if seen.filled and not seen.is_id]
    labels = [name for name in free if values[name].groups]
    guessed = False
    if target is None:
        wanted = {"classify": _LABEL_NAMES, None: _LABEL_NAMES + _OUTPUT_NAMES}.get(kind, _OUTPUT_NAMES + _LABEL_NAMES)
        target = _named(wanted, free)
    if not source:
        found = _named(_INPUT_NAMES, [name for name in free if name != target])
        texts = [name for name in free if name != target and values[name].is_text]
        if found is None:
            guessed = True
            beside_label = kind in ("classify", None) and (target is not None or labels)
            by_length = sorted(texts, key=lambda name: -values[name].mean_length)
            ordered = by_length if beside_label else sorted(texts, key=lambda name: values[name].groups)
            found = next(iter(ordered), None)
        source = (found,) if found else ()
    if target is None and source:
        guessed = True
        others = [name for name in free if name not in source and not (values[name].constant or values[name].is_date)]
        repeated = sorted((name for name in labels if name in others), key=lambda name: values[name].distinct)
        by_value = kind in ("classify", None) and repeated
        target = next(iter(repeated if by_value else others if len(others) == 1 else ()), None)
    if not source or target is None:
        if source and all(name in source or values[name].constant or values[name].is_date for name in free):
            raise _text_alone(sample[0], source)
        missing = "answer" if source else "question"
        role = "input" if not source else "label" if kind == "classify" else "output"
        fields = ", ".join(name + " (empty)" * (name in values and not values[name].filled) for name in names)
        raise ColumnsError(
            f"cannot tell which field is the {missing}; the fields are: {fields}",
            f'call it {missing}, or name it in a task file: data.columns = {{ {role} = "…" }}',
            file=sample[0].file,
            line=sample[0].line,
            fields=names,
            input=source[0] if source else "",
            output=target or "",
        )
    for name in (*source, target):
        if any(row.fields.get(name) == name for row in sample):
            raise InputError(
                f"the first line looks like a row, not like a header ({name!r} is a value further down)",
                "add a first line that names the columns",
                file=sample[0].file,
                line=1,
            )
    return source, target, guessed


def _text_alone(row: RawRow, source: Sequence[str]) -> InputError:
    """What is missing where rows are questions or texts alone, and the two ways on."""
    return row.error(
        f"there is text ({', '.join(source)}) and no column of labels or answers",
        "label some: copy about 100 of the rows to a file of their own and add a column `label` (or `answer`); or, to ask about "
        'these texts, save them as documents and draft about 100 lines of {"question": "…", "answer": "…"}',
    )


def _named(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """The column whose name, else the last word of it (`final_decision`, `longAnswer`), comes first in `wanted`."""
    whole = {name.lower(): name for name in reversed(names)}
    last = {last_word(name): name for name in reversed(names)}
    return next((found[word] for found in (whole, last) for word in wanted if word in found), None)
