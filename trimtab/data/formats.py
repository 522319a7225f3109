"""Reads example files: finds the files, detects their layout, converts every row, and reports what was inferred or
skipped."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trimtab.base.errors import InputError
from trimtab.base.files import is_dataset_id, sha256_text
from trimtab.base.records import AnswerForm, Example, Kind, Message, Refusal, Split
from trimtab.base.sanitize import printable
from trimtab.base.task import DRAFTED, Task
from trimtab.base.times import is_number
from trimtab.data.chat import SkipRow
from trimtab.data.column_names import ANSWERS, LABELS, is_metadata, match_name
from trimtab.data.columns import LAYOUTS, ColumnRequest, Columns, RequestedColumns, find_columns
from trimtab.data.drafted_questions import is_synthetic, without_waiting
from trimtab.data.nested import split_of
from trimtab.data.notes import columns_note, parts_note, rivals_note, squad_note
from trimtab.data.raw_rows import RawRow, RawRows
from trimtab.data.readers import read_hub, read_raw_rows, row_suffixes
from trimtab.data.row_store import RowWriter, repeated_positions, select_rows
from trimtab.data.rows import RowContent, RowReader
from trimtab.data.sources import resolve_pattern
from trimtab.data.split import SPLITS
from trimtab.data.squad import answers_of, looks_like_squad, read_paragraphs
from trimtab.data.strict_json import LONE_SURROGATE, has_lone_surrogate
from trimtab.data.values import FEW_VALUES, NEARLY_UNIQUE, ColumnValues

if TYPE_CHECKING:
    from trimtab.data.row_store import RowNumbers

__all__ = ["LAYOUTS", "DetectedFormat", "ReadRows", "detect", "read_examples"]

NO_REQUEST = ColumnRequest()
SAMPLE = 500
"""Rows by which the columns of a file are detected."""
DETECT_SAMPLE = 20_000
LONG_TEXT = 20  # mean characters from which a column could be the question
REFUSED_ROWS, REFUSED_SHARE = 20, 0.1
_CODE = re.compile(r"(?:^|\s)--?[A-Za-z]|[|{}\\]|\$[A-Za-z({]|\w\(")
"""Options, pipes, braces, variables and calls."""
NEARLY_ALL = 0.95  # share of the answers that are JSON, from which on they are scored as such


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRows:
    """The contents of a set of files: usable examples, refused rows with reasons, and notes for the user.

    `has_test`: True if the data declare some of the examples as test.
    """

    examples: Sequence[Example]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]
    has_test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectedFormat:
    """The detected format of a file: its layout, the column of each role, a guess of the task kind, and notes.

    `labels` (classify) are those of the inspected rows, `unused` the fields without a role, `grouping` those of them
    whose values group the rows. `splits`: the splits of the file itself. `is_guess`: question or answer were found by
    their values only. `form`: what the answers are written in. `rivals`: the fields that might be meant instead, each
    with a value as an example.
    """

    layout: str
    columns: Mapping[str, RequestedColumns]
    kind: Kind
    rows: int
    notes: tuple[str, ...]
    labels: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    grouping: tuple[str, ...] = ()
    splits: frozenset[Split] = frozenset()
    is_guess: bool = False
    form: AnswerForm = "words"
    rivals: Mapping[str, str] = field(default_factory=dict)


class _RowCollector:
    """A collector of the rows of a set of files, whose labels it merges, and of refusals and notes."""

    def __init__(self, task: Task) -> None:
        self.refusals: list[Refusal] = []
        self.notes: list[str] = []
        self.has_test = False
        self._merge: Mapping[str, str] = task.labels.merge
        self._merged = Counter[str]()
        self._rows = RowWriter(task.folder / ".trimtab")
        self._id_hashes = array("q")
        self._has_own_id = bytearray()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, example: Example, *, has_own_id: bool) -> None:
        """Add a row. `has_own_id`: False if its id is a hash of its content (`_content_id`)."""
        self._id_hashes.append(hash(example.id))
        self._has_own_id.append(has_own_id)
        self.has_test = self.has_test or example.split == "test"
        if example.references[0] in self._merge:
            self._merged[example.references[0]] += 1
            example = replace(example, references=(self._merge[example.references[0]],))
        self._rows.append(example)

    def finish(self) -> Sequence[Example]:
        """Return the rows, with unique ids. Raises InputError if two rows have the same own id."""
        rows, repeated = self._rows.finish(), repeated_positions(np.frombuffer(self._id_hashes, np.int64))
        rows = self._rows.rename(_numbered_ids(rows, repeated, self._has_own_id)) if len(repeated) else rows
        if self._merge:
            counts = self._merged
            listed = (
                f"{label!r} {counts[label]:,}" if counts[label] else f"{label!r} is in no row" for label in self._merge
            )
            text = f"labels.merge: {counts.total():,} rows joined to other labels ({', '.join(listed)})"
            self.notes.append(printable(text))
        return rows


def read_examples(task: Task, patterns: Sequence[str]) -> ReadRows:
    """Read the examples of the files that `patterns` name (task.data.examples or task.data.test).

    A row without an id gets a hash of its content, so that ids survive reordering; identical rows are numbered (`-2`).
    A dataset of the hub gives its split `test` for task.data.test, else `train`; a file that is a dictionary of splits
    gives its `test` for task.data.test, and omits it if other files are the test set. Harmless unusable rows are
    refused one by one. Raises InputError for everything misleading: unreadable files, malformed conversations,
    duplicate ids, bad weights, labels outside `task.labels`, fewer than two usable rows.
    """
    collector = _RowCollector(task)
    is_test = bool(task.data.test) and patterns is task.data.test
    splits: tuple[Split, ...] = ("test",) if is_test else ("train", "dev") if task.data.test else SPLITS
    request = ColumnRequest(
        layout=_layout(task),
        columns=_requested_columns(task),
        kind=task.task.kind,
        splits=splits,
        task_file=task.file,
    )
    for name, path in _files(task, patterns):
        if path is None:
            _read_file(read_hub(name, splits[0]), name, request, collector)
        elif request.layout == "squad" or (not request.layout and looks_like_squad(path)):
            _read_squad(path, task, collector)
        else:
            _read_file(read_raw_rows(path, task.data.encoding), str(path), request, collector)
    examples = collector.finish()
    _check_labels(examples, task)
    _check_times(examples, task)
    _check_enough(examples, collector.refusals, patterns, task)
    return ReadRows(
        examples=examples, refusals=tuple(collector.refusals), notes=tuple(collector.notes), has_test=collector.has_test
    )


def detect(path: Path, encoding: str = "utf-8", request: ColumnRequest = NO_REQUEST) -> DetectedFormat:
    """Detect the format of a file from its first rows; `request`: what is known already.

    Raises InputError if the format cannot be detected.
    """
    if looks_like_squad(path):
        paragraphs = list(read_paragraphs(path, encoding))
        count = sum(len(paragraph.questions) for paragraph in paragraphs)
        note = squad_note(path, count, len({paragraph.article for paragraph in paragraphs}))
        return DetectedFormat(layout="squad", columns={}, kind="answer", rows=count, notes=(note,))
    return _detect_rows(path.name, path, read_raw_rows(path, encoding), request)


def detect_hub(name: str, request: ColumnRequest = NO_REQUEST) -> DetectedFormat:
    """Detect the format of a Hugging Face dataset, as `detect` does for a file."""
    return _detect_rows(name, name, read_hub(name, "train"), request)


def _detect_rows(name: str, location: str | Path, read: RawRows, request: ColumnRequest) -> DetectedFormat:
    files: list[Refusal] = []

    def readable_rows() -> Iterator[RawRow]:
        for row in read:
            if isinstance(row, RawRow):
                yield row
            elif row.is_file:
                files.append(row)

    remaining = readable_rows()
    rows = list(itertools.islice(remaining, DETECT_SAMPLE))
    if rows and rows[0].part:  # the splits follow each other
        rows += remaining
    if not rows:
        raise InputError("no row that can be read", "put rows in it, or leave it out", file=location)
    columns = find_columns(rows[:SAMPLE], request)
    reader = RowReader(columns, None)
    references: list[str] = []
    for row in rows:
        try:
            references.append(reader.content(row).references[0])
        except SkipRow:
            continue
    source = columns.input[0] if len(columns.input) == 1 else columns.input
    roles: dict[str, RequestedColumns] = {"input": source, "output": columns.output, **columns.extras}
    form: AnswerForm = "json" if _are_objects(references) else "code" if _are_code(references) else "words"
    kind = request.kind or _guess_kind(columns, references, words=form == "words" and not columns.as_json)
    labels = tuple(sorted(set(references))) if kind == "classify" else ()
    unused = sorted({name for row in rows[:SAMPLE] for name in row.fields} - columns.used)
    rivals = {} if request.columns.keys() & {"output", "label"} else _rivals(rows, unused, columns, kind)
    notes = [columns_note(name, replace(columns, guessed=columns.guessed and not rivals), kind, len(rows), labels)]
    if len(rows) == DETECT_SAMPLE and not rows[0].part:
        notes[0] += " looked at, there may be more"
    notes[0] += rivals_note(rivals)
    parts = Counter(row.part for row in rows if row.part)
    notes += [parts_note(name, parts)] if parts else []
    notes += [f"{name}: {refusal.reason}; {refusal.remedy}" for refusal in files]
    return DetectedFormat(
        layout=columns.layout,
        columns={role: column for role, column in roles.items() if column},
        kind=kind,
        rows=len(rows),
        notes=tuple(notes),
        labels=labels,
        unused=tuple(unused),
        grouping=tuple(name for name in unused if ColumnValues(rows, name).groups),
        splits=frozenset(split for part in parts if (split := split_of(part))),
        is_guess=columns.guessed,
        form=form,
        rivals=rivals,
    )


def _rivals(rows: Sequence[RawRow], unused: Sequence[str], columns: Columns, kind: Kind) -> dict[str, str]:
    """Return the columns that could be the question or the answer instead, each with a value: by their names, by values
    that come back, or by long texts where no label was found by its name. A conversation has none."""
    if columns.layout in ("messages", "conversations"):
        return {}
    rivals = {}
    judged = (name for name in columns.input if len(columns.input) > 1 and match_name(ANSWERS, [name]))
    for name in (*judged, *unused):
        values = ColumnValues(rows, name)
        by_name = values.is_nested or match_name((*LABELS, *ANSWERS), [name]) is not None
        is_long = values.mean_length >= LONG_TEXT and (columns.guessed or kind != "classify")
        by_value = columns.layout == "table" and (values.groups or is_long)
        excluded = values.is_id or values.constant or values.is_date or is_metadata(name)
        if values.filled and (by_name or by_value) and not excluded:
            rivals[name] = values.example
    return rivals


def _are_objects(references: Sequence[str]) -> bool:
    """True if nearly all answers are objects of JSON."""
    objects = 0
    for text in references:
        with contextlib.suppress(ValueError, RecursionError):
            objects += text.lstrip().startswith("{") and isinstance(json.loads(text), dict)
    return objects > 0 and objects >= NEARLY_ALL * len(references)


def _are_code(references: Sequence[str]) -> bool:
    """True if most answers are of several words and hold signs of code. A metric of facts drops such signs, and so
    cannot tell one command from another."""
    return 2 * sum(len(text.split()) > 2 and _CODE.search(text) is not None for text in references) > len(references)


def _guess_kind(columns: Columns, references: Sequence[str], *, words: bool) -> Kind:
    """Guess the kind: classify for label names or few repeated short answers; answer for up to eight words; else
    generate. `words`: the answers are neither JSON nor code."""
    if not references:
        return "generate"
    lengths = sorted(len(text.split()) for text in references)
    distinct, rows = len(set(references)), len(references)
    if columns.layout == "input-label" and distinct < NEARLY_UNIQUE * max(rows, 2 * FEW_VALUES):
        return "classify"
    few_labels = match_name(LABELS, [columns.output]) is not None or distinct <= max(2, rows // 5)
    if few_labels and 2 * distinct <= rows and lengths[-1] <= 8 and columns.layout not in ("messages", "conversations"):
        return "classify"
    return "answer" if lengths[rows // 2] <= 8 and words else "generate"


def _layout(task: Task) -> str:
    if task.data.layout and task.data.layout not in LAYOUTS:
        close = difflib.get_close_matches(task.data.layout, LAYOUTS, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"use one of: {', '.join(LAYOUTS)}"
        raise InputError(f"unknown layout {task.data.layout!r}", remedy, file=task.file, field="data.layout")
    return task.data.layout


def _requested_columns(task: Task) -> dict[str, RequestedColumns]:
    """Return the columns that the task file names, by role."""
    named = {"group": task.data.group, "slice": task.data.slice}
    return {**task.data.columns, **{role: column for role, column in named.items() if column}}


def _files(task: Task, patterns: Sequence[str]) -> Iterator[tuple[str, Path | None]]:
    """Yield each file once; None for a dataset of the hub."""
    seen: set[Path] = set()
    for pattern in patterns:
        exists = (task.folder / pattern).exists()
        if not exists and is_dataset_id(pattern):
            yield pattern, None
            continue
        for path, _ in resolve_pattern(task.folder, pattern, row_suffixes(), "data"):
            if path not in seen:
                seen.add(path)
                yield str(path), path


def _read_file(rows: RawRows, name: str, request: ColumnRequest, collector: _RowCollector) -> None:
    first_rows = list(itertools.islice(rows, SAMPLE))
    sample = [row for row in first_rows if isinstance(row, RawRow)]
    if sample and is_synthetic(sample[0]):  # its columns are its own, whatever the task file says of the others
        request = replace(request, columns={}, layout="")
        first_rows, rows = [], without_waiting(first_rows, rows, collector.notes)
    if not sample:
        collector.refusals += [row for row in first_rows if isinstance(row, Refusal)]
        raise InputError("no row that can be read", "put rows in it, or leave it out", file=name, line=1)
    columns = find_columns(sample, request)
    reader = RowReader(columns, request.kind)
    labels, left_out = set[str](), list[str]()
    unused, parts = Counter[str](), Counter[str]()
    for row in itertools.chain(first_rows, rows):
        if isinstance(row, Refusal):
            collector.refusals.append(row)
            continue
        if row.part and split_of(row.part) not in request.splits:
            left_out.append(row.part)
            continue
        unused.update(() if is_synthetic(row) else row.fields.keys() - columns.used)
        try:
            content = reader.content(row)
        except SkipRow as skip:
            collector.refusals.append(row.refusal(skip.reason, skip.remedy))
            continue
        own_id = reader.text_of(row, "id")
        collector.add(_example(row, content, reader, own_id), has_own_id=bool(own_id))
        parts[row.part] += 1
        if request.kind == "classify":
            labels.add(content.references[0])
    collector.notes.append(columns_note(Path(name).name, columns, request.kind, parts.total(), labels))
    if set(parts) - {""}:
        collector.notes.append(parts_note(Path(name).name, parts, left_out))
    if unused:
        listed = ", ".join(sorted(unused)[:20])
        collector.notes.append(printable(f"{Path(name).name}: fields that are not used: {listed}"))


def _content_id(messages: Sequence[Message], references: Sequence[str]) -> str:
    """Return the id of a row without one of its own: a hash of its content, so that ids survive reordering."""
    turns = (part for message in messages for part in (message.role, message.content))
    return sha256_text(*turns, "", *references)[:16]


def _example(row: RawRow, content: RowContent, reader: RowReader, own_id: str | None) -> Example:
    return Example(
        id=own_id or _content_id(content.messages, content.references),
        messages=content.messages,
        references=content.references,
        group=reader.text_of(row, "group"),
        slice=DRAFTED if is_synthetic(row) else reader.text_of(row, "slice"),
        weight=reader.weight(row),
        source=reader.text_of(row, "source"),
        licence=reader.text_of(row, "licence"),
        passages=reader.passages(row),
        tests=reader.tests(row),
        time=reader.time(row),
        split=split_of(row.part) if row.part else None,
        file=row.file,
        line=row.line,
    )


def _read_squad(path: Path, task: Task, collector: _RowCollector) -> None:
    already_read, articles = len(collector), set()
    for paragraph in read_paragraphs(path, task.data.encoding):
        articles.add(paragraph.article)
        for row in paragraph.questions:
            if has_lone_surrogate(row.fields):
                collector.refusals.append(row.refusal(*LONE_SURROGATE))
                continue
            question = row.fields.get("question")
            if not isinstance(question, str) or not question.strip():
                collector.refusals.append(row.refusal("no text in question", "fill it, or leave the question out"))
                continue
            own_id = str(row.fields.get("id") or "")
            messages, references = (Message(role="user", content=question),), answers_of(row, task.task.unknown)
            example = Example(
                id=own_id or _content_id(messages, references),
                messages=messages,
                references=references,
                group=paragraph.article,
                passages=(paragraph.id,),
                file=row.file,
                line=row.line,
            )
            collector.add(example, has_own_id=bool(own_id))
    count = len(collector) - already_read
    collector.notes.append(squad_note(path, count, len(articles)))


def _numbered_ids(rows: Sequence[Example], numbers: RowNumbers, has_own: Sequence[int]) -> dict[int, str]:
    """Return new ids, by row number, for rows whose content hash is the id of another row, too: suffixes `-2`, `-3`, ….

    `numbers`: the rows whose id may not be unique. `has_own`: 1 for each row with an id of its own. Raises InputError
    if two rows have the same own id.
    """
    by_id: dict[str, Example] = {}
    names: list[str] = []
    for number, example in zip(numbers.tolist(), select_rows(rows, numbers), strict=True):
        names.append(example.id)
        other = by_id.setdefault(example.id, example) if has_own[number] else example
        if other is not example:
            raise InputError(
                f"the id {example.id[:80]!r} stands already at {other.file}:{other.line}",
                'make ids unique, or name another column: data.columns = { id = "…" }',
                file=example.file,
                line=example.line,
                field="id",
            )
    counts: Counter[str] = Counter(by_id.keys())
    new: dict[int, str] = {}
    for number, name in zip(numbers.tolist(), names, strict=True):
        if not has_own[number]:
            counts[name] += 1
            if counts[name] > 1:
                new[number] = f"{name}-{counts[name]}"
    return new


def _check_labels(examples: Sequence[Example], task: Task) -> None:
    labels = task.task.labels
    known = frozenset(labels)
    if task.task.kind != "classify" or not labels:
        return
    for example in examples:
        label = example.references[0]
        if label not in known:
            close = difflib.get_close_matches(label, labels, n=1)
            remedy = f"did you mean {close[0]!r}? mend it" if close else "mend it, or add it to task.labels"
            raise InputError(
                f"the label {label[:60]!r} is not in task.labels",
                remedy,
                file=example.file,
                line=example.line,
                field="label",
            )


def _check_times(examples: Sequence[Example], task: Task) -> None:
    """Refuse rows without a time if the task file names a time column, and mixtures of dates and numbers."""
    if "time" not in task.data.columns or not examples:
        return
    first = examples[0]
    for row in examples:
        if row.time is None or first.time is None:
            problem, remedy = "no time", "give every row one, or take columns.time out"
        elif is_number(row.time) != is_number(first.time):
            problem = (
                f"the time {row.time[:40]!r} cannot be compared with {first.time[:40]!r} at {first.file}:{first.line}"
            )
            remedy = "write dates in all files, or numbers in all"
        else:
            continue
        raise InputError(problem, remedy, file=row.file, line=row.line, field="time")


def too_many_refused(refused: int, rows: int) -> bool:
    """True if so many rows are unusable that going on would mislead."""
    return refused > REFUSED_ROWS and refused > REFUSED_SHARE * rows


def _check_enough(
    examples: Sequence[Example], refusals: Sequence[Refusal], patterns: Sequence[str], task: Task
) -> None:
    total = len(examples) + len(refusals)
    if refusals:
        first = refusals[0]
        if len(examples) < 2 or too_many_refused(len(refusals), total):
            raise InputError(
                f"{len(refusals):,} of {total:,} rows cannot be used; the first: {first.reason}",
                first.remedy,
                file=first.file,
                line=first.line,
            )
    elif len(examples) < 2:
        raise InputError(
            f"{len(examples)} usable row in {', '.join(patterns)}",
            "add rows; a study needs at least two, and some hundred to show anything",
            file=examples[0].file if examples else task.file,
            line=examples[0].line if examples else None,
        )
    if examples and all(example.weight == 0 for example in examples):
        raise InputError(
            "all weights are 0", "give some row a weight", file=examples[0].file, line=examples[0].line, field="weight"
        )
