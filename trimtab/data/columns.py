"""Finds the columns of question and answer in a file, by the names of the fields or by their values."""

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
from trimtab.data.column_names import (
    ANSWERS,
    CHOICES,
    CONTEXTS,
    GRADES,
    INPUTS,
    LABELS,
    is_metadata,
    judges_answers,
    match_name,
    paired_names,
)
from trimtab.data.raw_rows import RawRow
from trimtab.data.readers import PAIR
from trimtab.data.values import ColumnValues

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
"""Optional roles beside question and answer, with the field names that are recognised; tests and time only if the task
file names them."""

# Layouts recognised by two field names: those of the question and those of the answer; the first match is taken.
PAIRS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prompt-completion": (("prompt",), ("completion",)),
    "instruction": (("instruction",), ("output",)),
    "question-answer": (("question",), ("answer", "answers")),
    "input-label": (("input", "text"), ("label",)),
    "pair": (PAIR[:1], PAIR[1:]),
}
FIELDS = 20  # fields that are named where a column cannot be told
_OF_ANSWERS = ("prompt-completion", "instruction", "question-answer")
SIMILAR_NAME = 0.75  # of 1: of a less similar name one did not mean the other; "text" and "intent" have 0.6

RequestedColumns = str | tuple[str, ...]
"""The column that a task file names for a role; for `input` also several, or a template with columns in braces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of one file by role. `guessed`: found by their values, not by known names. `as_json`: the
    answers are objects, which the model writes as JSON.

    `input`: the columns of the question in order, joined by blank lines, or by the texts of `template` before, between
    and after them. `context` is the one that may be empty.
    """

    layout: str
    input: tuple[str, ...]
    template: tuple[str, ...] = ()
    output: str = ""
    context: str | None = None
    extras: Mapping[str, str] = field(default_factory=dict)
    guessed: bool = False
    as_json: bool = False

    @property
    def used(self) -> frozenset[str]:
        """All fields that are read."""
        return frozenset((*self.input, self.output, *self.extras.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnRequest:
    """The columns that the task file names, all of them optional; and the splits to read from a file that has splits.

    `task_file`: the file that names the columns, for messages; None if options or arguments name them.
    """

    layout: str = ""
    columns: Mapping[str, RequestedColumns] = field(default_factory=dict)
    kind: Kind | None = None
    splits: tuple[Split, ...] = ("train", "dev", "test")
    task_file: Path | None = None


class ColumnsError(InputError):
    """The columns of a file cannot be found, or only guessed: `fields` are its fields, `input` and `output` the
    guess."""

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


def _extra_columns(names: Sequence[str], requested: Mapping[str, str]) -> dict[str, str]:
    """Return the columns beside question and answer, by their role: those requested, else those of a known name."""
    extras = {role: next((name for name in known if name in names), "") for role, known in EXTRAS.items()}
    extras |= {role: column for role, column in requested.items() if role in EXTRAS}
    return {role: column for role, column in extras.items() if column}


def _with_context(source: tuple[str, ...], context: str | None, layout: str) -> tuple[tuple[str, ...], str | None]:
    """Return the columns of the question with the one of its context, and that one; None without a context."""
    if context:  # a question's context stands before it, an instruction's input after it
        return ((*source, context) if layout == "instruction" else (context, *source)), context
    if len(source) > 1:
        return source, next((name for name in source if name.lower() in CONTEXTS), None)
    return source, None


def _pair_columns(
    layout: str, filled: Sequence[str], source: tuple[str, ...], target: str | None
) -> tuple[tuple[str, ...], str]:
    """Return the columns of question and answer of a layout of pairs; those that are already given stay."""
    sources, targets = PAIRS[layout]
    source = source or (next((name for name in sources if name in filled), sources[0]),)
    return source, target or next((name for name in targets if name in filled and name not in source), targets[0])


def find_columns(sample: Sequence[RawRow], request: ColumnRequest) -> Columns:
    """Return the columns of a file from its first rows (at least one); raises InputError with the fields if they cannot
    be found."""
    names = list(dict.fromkeys(name for row in sample for name in row.fields))
    first = sample[0]
    source, template = _requested_input(request.columns.get("input", ()), names)
    requested = {
        role: column for role, column in request.columns.items() if isinstance(column, str) and role != "input"
    }
    for role, column in (*(("input", column) for column in source), *requested.items()):
        if column not in names:
            raise _no_such_column(first, column, role, names, request.task_file)
    extras = _extra_columns(names, requested)
    target = requested.get("output") or requested.get("label")
    known = {name for sources, targets in PAIRS.values() for name in (*sources, *targets)}
    filled = [name for name in names if name not in known or ColumnValues(sample, name).filled]
    filled = filled if len(filled) > 1 else names
    is_graded = request.kind in ("classify", None) and _has_grade(sample, filled)
    layout = request.layout or _known_layout(filled, bool(source or target), is_graded=is_graded)
    if layout in ("messages", "conversations"):
        column = source[0] if source else layout
        if column not in names:
            raise first.error(f"no field {column!r} for the layout {layout}", "set data.columns.input", layout)
        return Columns(layout=layout, input=(column,), extras=extras)
    guessed = False
    if layout in PAIRS:
        source, target = _pair_columns(layout, filled, source, target)
        for column in (*source, target):
            if column not in names:
                raise first.error(f"no field {column!r} for the layout {layout}", "set data.columns", column)
    else:
        layout = "table"
        source, target, guessed = _guess(sample, names, source, target, request.kind, extras)
    context = None
    if "input" not in request.columns:
        used_columns = {*source, target, *(requested.values())}
        free = [name for name in names if name not in used_columns]
        context = _text_column(sample, free, ("input",) if layout == "instruction" else CONTEXTS)
        choices = _text_column(sample, free, CHOICES)
        source = (*source, choices) if choices and layout != "instruction" else source
    source, context = _with_context(source, context, layout)
    extras = {role: column for role, column in extras.items() if column not in (*source, target)}
    return Columns(
        layout=layout,
        input=source,
        template=template,
        output=target,
        context=context,
        extras=extras,
        guessed=guessed,
        as_json=request.kind in ("generate", None) and ColumnValues(sample, target).is_nested,
    )


def _no_such_column(row: RawRow, column: str, role: str, names: Sequence[str], task_file: Path | None) -> InputError:
    """Return an error at the setting that names the column, not at a row: the row is right and the setting is not."""
    near = difflib.get_close_matches(column, names, n=1, cutoff=SIMILAR_NAME)
    own_key = role in ("group", "slice")  # these have keys of their own beside data.columns
    return InputError(
        printable(f"{Path(row.file).name} has no column {column!r}" + ("" if task_file else f", named as {role}")),
        printable(f"did you mean {near[0]}? it has {joined(names)}" if near else f"it has {joined(names)}"),
        file=task_file or row.file,
        field=f"data.{role}" if own_key and task_file else "data.columns" if task_file else None,
    )


def _requested_input(requested: RequestedColumns, names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns of the input, and the texts around them if the task file gives a template."""
    if not isinstance(requested, str):
        return requested, ()
    pieces = SLOT.split(requested)
    if requested in names or len(pieces) == 1:
        return (requested,), ()
    return tuple(pieces[1::2]), tuple(pieces[::2])


def _text_column(sample: Sequence[RawRow], free: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Return the first column of one of these names, if it holds text."""
    name = next((name for name in free if name.lower() in wanted), None)
    values = [row.fields.get(name) for row in sample] if name else []
    return name if all(is_text(value) for value in values) else None


def is_text(value: Any) -> bool:
    """True if a value is text, a list of texts, or None."""
    return isinstance(value, str | None) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _has_grade(sample: Sequence[RawRow], names: Sequence[str]) -> bool:
    """True if a column that judges an answer by its name groups the rows."""
    return any(match_name(GRADES, [name]) and ColumnValues(sample, name).groups for name in names)


def _known_layout(names: Sequence[str], requested: bool, *, is_graded: bool) -> str:
    """Return the layout by the names of the fields. `is_graded`: the rows judge an answer, and the judgement is
    learnt."""
    if "messages" in names:
        return "messages"
    if "conversations" in names:
        return "conversations"
    if not requested:
        for layout, (sources, targets) in PAIRS.items():
            if layout in _OF_ANSWERS and is_graded:
                continue
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
    """Return the question and answer columns, and whether they were found by their values.

    Names come first: a column of labels, then one of answers. Else the answer is (classify) the column with the fewest
    repeated values, or the only other column; the question is the longest text beside a label, else the first text.
    Empty, constant and id columns are excluded.
    """
    values = {name: ColumnValues(sample, name) for name in names if name not in (*extras.values(), *source)}
    values = {name: seen for name, seen in values.items() if name == target or (seen.filled and not seen.is_id)}
    candidates = [name for name in values if name != target]
    labels = [name for name in candidates if values[name].groups]
    guessed = False
    if target is None:
        target = _named_target(kind, candidates, labels)
    if not source:
        source = _named_input({name: values[name] for name in candidates if name != target}, target, kind)
    if not source:
        guessed = True
        texts = [name for name in candidates if name != target and values[name].is_text]
        beside_label = kind in ("classify", None) and (target is not None or labels)
        by_length = sorted(texts, key=lambda name: -values[name].mean_length)
        ordered = by_length if beside_label else sorted(texts, key=lambda name: values[name].groups)
        source = tuple(ordered[:1])
    if target is None and source:
        guessed = True
        others = [
            name for name in candidates if name not in source and not (values[name].constant or values[name].is_date)
        ]
        repeated_labels = sorted(
            (name for name in labels if name in others), key=lambda name: (is_metadata(name), values[name].distinct)
        )
        by_value = kind in ("classify", None) and repeated_labels
        target = next(iter(repeated_labels if by_value else others if len(others) == 1 else ()), None)
    if not source or target is None:
        others = [name for name in candidates if not (name in source or values[name].constant or values[name].is_date)]
        raise _unclear_error(sample, names, source, target, kind, has_others=bool(others))
    for name in (*source, target):
        if any(row.fields.get(name) == name for row in sample):
            raise InputError(
                f"the first line looks like a row, not like a header ({name!r} is a value further down)",
                "add a first line that names the columns",
                file=sample[0].file,
                line=1,
            )
    return source, target, guessed


def _named_target(kind: Kind | None, candidates: Sequence[str], labels: Sequence[str]) -> str | None:
    """Return the column of answers by its name: of a closed set or of an unknown kind a label that groups the rows."""
    label, any_label = match_name(LABELS, labels), match_name(LABELS, candidates)
    if kind == "classify":
        return label or any_label
    answer = match_name(ANSWERS, candidates)
    return (label if kind is None else None) or answer or any_label


def _named_input(values: Mapping[str, ColumnValues], target: str | None, kind: Kind | None) -> tuple[str, ...]:
    """Return the columns of the question by their names; answers that the target judges are part of it."""
    texts = [name for name, seen in values.items() if seen.is_text]
    pair = paired_names([name for name in texts if values[name].is_complete])
    question = match_name(INPUTS, [name for name in values if name not in pair])
    if not all(values[name].groups for name in pair):
        is_answered = question is not None and any(word in name.lower() for name in pair for word in ANSWERS)
        return (question, *pair) if question and is_answered else pair
    answers = [name for name in texts if name != question and match_name(ANSWERS, [name])]
    is_judged = target is not None and kind in ("classify", None) and judges_answers(target, answers)
    return (*([question] if question else ()), *(answers if is_judged else ()))


def _unclear_error(
    sample: Sequence[RawRow],
    names: Sequence[str],
    source: Sequence[str],
    target: str | None,
    kind: Kind | None,
    *,
    has_others: bool,
) -> InputError:
    """Return the error for a file whose question or answer cannot be told; `has_others`: columns that could be the
    answer."""
    if source and not has_others:
        return _only_text_error(sample[0], source)
    missing = "answer" if source else "question"
    role = "input" if not source else "label" if kind == "classify" else "output"
    shown = [name + " (empty)" * (not ColumnValues(sample, name).filled) for name in names[:FIELDS]]
    fields = ", ".join(shown) + f" and {len(names) - FIELDS:,} more" * (len(names) > FIELDS)
    return ColumnsError(
        f"cannot tell which field is the {missing}; the fields are: {fields}",
        f'call it {missing}, or name it in a task file: data.columns = {{ {role} = "…" }}',
        file=sample[0].file,
        line=sample[0].line,
        fields=names,
        input=source[0] if source else "",
        output=target or "",
    )


def _only_text_error(row: RawRow, source: Sequence[str]) -> InputError:
    """Return the error for rows that have questions or texts only, with two ways on."""
    return row.error(
        f"there is text ({', '.join(source)}) and no column of labels or answers",
        "label some: copy about 100 of the rows to a file of their own and add a column `label` (or "
        "`answer`); or, to ask about "
        'these texts, save them as documents and draft about 100 lines of {"question": "…", "answer": "…"}',
    )
