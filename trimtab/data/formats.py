"""Files in, examples out: finds the files, tells their layout, reads every row, and says what was inferred, skipped or odd."""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trimtab.base.errors import InputError
from trimtab.base.files import is_dataset_id, sha256_text
from trimtab.base.records import Example, Kind, Message, Refusal, Split
from trimtab.base.sanitize import printable
from trimtab.base.task import Task
from trimtab.base.times import is_number
from trimtab.data.chat import SkipRow
from trimtab.data.columns import LAYOUTS, AskedColumns, Columns, Wish, find_columns
from trimtab.data.nested import split_of
from trimtab.data.notes import columns_note, parts_note, squad_note
from trimtab.data.readers import SUFFIXES, RawRow, Rows, read_hub, read_rows
from trimtab.data.rows import Content, Reader
from trimtab.data.sources import resolve
from trimtab.data.split import SPLITS
from trimtab.data.squad import answers_of, looks_like_squad, read_paragraphs
from trimtab.data.strict_json import HALF_PAIR, holds_half_pair
from trimtab.data.values import FEW_VALUES, NEARLY_UNIQUE, Values

__all__ = ["LAYOUTS", "Detected", "ReadRows", "detect", "read_examples"]

NO_WISH = Wish()
SAMPLE = 500
"""Rows from which the columns of a file are told."""
DETECT_SAMPLE = 20_000
LONG_TEXT = 20  # characters on average from which a column could be the question
REFUSED_ROWS, REFUSED_SHARE = 20, 0.1

_LABEL_COLUMNS = frozenset(("label", "category", "class", "intent", "sentiment"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRows:
    """What a set of files gave: usable examples, rows left out with the reason, and remarks for the user."""

    examples: tuple[Example, ...]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """What a file seems to be: its layout, the column of each role, a guess of the kind of task, and what was seen.

    `labels` (classify) are those of the rows looked at, `unused` the fields that play no role, `grouping` those of them whose values
    part the rows. `splits`: those that the file has itself. `rivals`:
    fields that might be meant instead, where question or answer are told from the values alone.
    """

    layout: str
    columns: Mapping[str, AskedColumns]
    kind: Kind
    rows: int
    notes: tuple[str, ...]
    labels: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    grouping: tuple[str, ...] = ()
    splits: frozenset[Split] = frozenset()
    rivals: tuple[str, ...] = ()


@dataclass(slots=True)
class _Found:
    """What has been read so far."""

    examples: list[Example] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_examples(task: Task, patterns: Sequence[str]) -> ReadRows:
    """The examples of the files that `patterns` name (task.data.examples or task.data.test).

    A row without an id gets one from its content, so that it stays when rows are re-ordered; identical rows are counted (`-2`).
    A dataset of the hub gives its split `test` for task.data.test, else `train`; of a file that is a dictionary of splits its `test`
    is read for task.data.test, and left out where other files are that.
    Rows that cannot be used and harm nothing are refused one by one. Raises InputError for everything that would mislead:
    unreadable files, broken conversations, duplicate ids, bad weights, labels outside `task.labels`, fewer than two usable rows.
    """
    found = _Found()
    testing = bool(task.data.test) and patterns is task.data.test
    splits: tuple[Split, ...] = ("test",) if testing else ("train", "dev") if task.data.test else SPLITS
    wish = Wish(layout=_layout(task), columns=_asked(task), kind=task.task.kind, splits=splits, task_file=task.file)
    for name, path in _files(task, patterns):
        if path is None:
            _read_file(read_hub(name, splits[0]), name, wish, found)
        elif wish.layout == "squad" or (not wish.layout and looks_like_squad(path)):
            _read_squad(path, task, found)
        else:
            _read_file(read_rows(path, task.data.encoding), str(path), wish, found)
    examples = _merged(tuple(_identified(found.examples)), task.labels.merge, found.notes)
    _check_labels(examples, task)
    _check_times(examples, task)
    _check_enough(examples, found.refusals, patterns, task)
    return ReadRows(examples=examples, refusals=tuple(found.refusals), notes=tuple(found.notes))


def detect(path: Path, encoding: str = "utf-8", wish: Wish = NO_WISH) -> Detected:
    """What a file of rows seems to hold, from its first rows; `wish`: what is known of it already.

    Raises InputError when that cannot be told.
    """
    if looks_like_squad(path):
        paragraphs = list(read_paragraphs(path, encoding))
        count = sum(len(paragraph.questions) for paragraph in paragraphs)
        note = squad_note(path, count, len({paragraph.article for paragraph in paragraphs}))
        return Detected(layout="squad", columns={}, kind="answer", rows=count, notes=(note,))
    return _detected(path.name, path, read_rows(path, encoding), wish)


def detect_hub(name: str, wish: Wish = NO_WISH) -> Detected:
    """What a Hugging Face dataset seems to hold, as `detect` tells it of a file."""
    return _detected(name, name, read_hub(name, "train"), wish)


def _detected(name: str, place: str | Path, read: Rows, wish: Wish) -> Detected:
    files: list[Refusal] = []

    def reading() -> Iterator[RawRow]:
        for row in read:
            if isinstance(row, RawRow):
                yield row
            elif row.is_file:
                files.append(row)

    left = reading()
    rows = list(itertools.islice(left, DETECT_SAMPLE))
    if rows and rows[0].part:  # the splits stand one behind the other
        rows += left
    if not rows:
        raise InputError("no row that can be read", "put rows in it, or leave it out", file=place)
    columns = find_columns(rows[:SAMPLE], wish)
    reader = Reader(columns, None)
    references: list[str] = []
    for row in rows:
        try:
            references.append(reader.content(row).references[0])
        except SkipRow:
            continue
    source = columns.input[0] if len(columns.input) == 1 else columns.input
    roles: dict[str, AskedColumns] = {"input": source, "output": columns.output, **columns.extras}
    kind = wish.kind or _guess_kind(columns, references)
    labels = tuple(sorted(set(references))) if kind == "classify" else ()
    notes = [columns_note(name, columns, kind, len(rows), labels)]
    if len(rows) == DETECT_SAMPLE and not rows[0].part:
        notes[0] += " looked at, there may be more"
    parts = Counter(row.part for row in rows if row.part)
    notes += [parts_note(name, parts)] if parts else []
    notes += [f"{name}: {one.reason}; {one.remedy}" for one in files]
    unused = sorted({name for row in rows[:SAMPLE] for name in row.fields} - columns.used)
    return Detected(
        layout=columns.layout,
        columns={role: column for role, column in roles.items() if column},
        kind=kind,
        rows=len(rows),
        notes=tuple(notes),
        labels=labels,
        unused=tuple(unused),
        grouping=tuple(name for name in unused if Values(rows, name).groups),
        splits=frozenset(split for part in parts if (split := split_of(part))),
        rivals=tuple(name for name in unused if columns.guessed and _may_be_meant(Values(rows, name))),
    )


def _may_be_meant(values: Values) -> bool:
    """True if a column could be the question or the answer by its values."""
    return (
        values.filled
        and not values.is_id
        and not values.constant
        and (values.groups or values.mean_length >= LONG_TEXT)
    )


def _guess_kind(columns: Columns, references: Sequence[str]) -> Kind:
    """classify: labels by their name, or few short answers that come back; answer: mostly up to eight words; else generate."""
    if not references:
        return "generate"
    lengths = sorted(len(text.split()) for text in references)
    distinct, rows = len(set(references)), len(references)
    if columns.layout == "input-label" and distinct < NEARLY_UNIQUE * max(rows, 2 * FEW_VALUES):
        return "classify"
    few = columns.output.lower() in _LABEL_COLUMNS or distinct <= max(2, rows // 5)
    if few and 2 * distinct <= rows and lengths[-1] <= 8 and columns.layout not in ("messages", "conversations"):
        return "classify"
    return "answer" if lengths[rows // 2] <= 8 else "generate"


def _layout(task: Task) -> str:
    if task.data.layout and task.data.layout not in LAYOUTS:
        near = difflib.get_close_matches(task.data.layout, LAYOUTS, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"use one of: {', '.join(LAYOUTS)}"
        raise InputError(f"unknown layout {task.data.layout!r}", remedy, file=task.file, field="data.layout")
    return task.data.layout


def _asked(task: Task) -> dict[str, AskedColumns]:
    """The columns that the task file names, by role."""
    named = {"group": task.data.group, "slice": task.data.slice}
    return {**task.data.columns, **{role: column for role, column in named.items() if column}}


def _files(task: Task, patterns: Sequence[str]) -> Iterator[tuple[str, Path | None]]:
    """Each file once; None for a dataset of the hub."""
    seen: set[Path] = set()
    for pattern in patterns:
        exists = (task.folder / pattern).exists()
        if not exists and is_dataset_id(pattern):
            yield pattern, None
            continue
        for path, _ in resolve(task.folder, pattern, SUFFIXES, "data"):
            if path not in seen:
                seen.add(path)
                yield str(path), path


def _read_file(rows: Rows, name: str, wish: Wish, found: _Found) -> None:
    head = list(itertools.islice(rows, SAMPLE))
    sample = [row for row in head if isinstance(row, RawRow)]
    if not sample:
        found.refusals += [row for row in head if isinstance(row, Refusal)]
        raise InputError("no row that can be read", "put rows in it, or leave it out", file=name, line=1)
    columns = find_columns(sample, wish)
    reader = Reader(columns, wish.kind)
    before, left = len(found.examples), list[str]()
    unused, parts = Counter[str](), Counter[str]()
    for row in itertools.chain(head, rows):
        if isinstance(row, Refusal):
            found.refusals.append(row)
            continue
        if row.part and split_of(row.part) not in wish.splits:
            left.append(row.part)
            continue
        unused.update(row.fields.keys() - columns.used)
        try:
            content = reader.content(row)
        except SkipRow as skip:
            found.refusals.append(row.refusal(skip.reason, skip.remedy))
            continue
        found.examples.append(_example(row, content, reader))
        parts[row.part] += 1
    examples = found.examples[before:]
    labels = {example.references[0] for example in examples} if wish.kind == "classify" else set()
    found.notes.append(columns_note(Path(name).name, columns, wish.kind, len(examples), labels))
    if set(parts) - {""}:
        found.notes.append(parts_note(Path(name).name, parts, left))
    if unused:
        listed = ", ".join(sorted(unused)[:20])
        found.notes.append(printable(f"{Path(name).name}: fields that are not used: {listed}"))


def _example(row: RawRow, content: Content, reader: Reader) -> Example:
    return Example(
        id=reader.text_of(row, "id") or "",
        messages=content.messages,
        references=content.references,
        group=reader.text_of(row, "group"),
        slice=reader.text_of(row, "slice"),
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


def _read_squad(path: Path, task: Task, found: _Found) -> None:
    before, articles = len(found.examples), set()
    for paragraph in read_paragraphs(path, task.data.encoding):
        articles.add(paragraph.article)
        for row in paragraph.questions:
            if holds_half_pair(row.fields):
                found.refusals.append(row.refusal(*HALF_PAIR))
                continue
            question = row.fields.get("question")
            if not isinstance(question, str) or not question.strip():
                found.refusals.append(row.refusal("no text in question", "fill it, or leave the question out"))
                continue
            found.examples.append(
                Example(
                    id=str(row.fields.get("id") or ""),
                    messages=(Message(role="user", content=question),),
                    references=answers_of(row, task.task.unknown),
                    group=paragraph.article,
                    passages=(paragraph.id,),
                    file=row.file,
                    line=row.line,
                )
            )
    count = len(found.examples) - before
    found.notes.append(squad_note(path, count, len(articles)))


def _identified(examples: Sequence[Example]) -> Iterator[Example]:
    """Every example with a unique id: its own, or a hash of its content."""
    given: dict[str, Example] = {}
    for example in examples:
        if not example.id:
            continue
        other = given.setdefault(example.id, example)
        if other is not example:
            raise InputError(
                f"the id {example.id[:80]!r} stands already at {other.file}:{other.line}",
                'make ids unique, or name another column: data.columns = { id = "…" }',
                file=example.file,
                line=example.line,
                field="id",
            )
    counts: Counter[str] = Counter(given.keys())
    for example in examples:
        if example.id:
            yield example
            continue
        turns = (part for message in example.messages for part in (message.role, message.content))
        base = sha256_text(*turns, "", *example.references)[:16]
        counts[base] += 1
        yield replace(example, id=base if counts[base] == 1 else f"{base}-{counts[base]}")


def _merged(examples: tuple[Example, ...], merge: Mapping[str, str], notes: list[str]) -> tuple[Example, ...]:
    """The examples with the labels that the task file joins; their ids stay, so that no row moves to another split."""
    counts = Counter(row.references[0] for row in examples if row.references[0] in merge)
    if not merge:
        return examples
    told = (f"{label!r} {counts[label]:,}" if counts[label] else f"{label!r} is in no row" for label in merge)
    notes.append(printable(f"labels.merge: {counts.total():,} rows joined to other labels ({', '.join(told)})"))
    return tuple(
        replace(row, references=(merge[row.references[0]],)) if row.references[0] in merge else row for row in examples
    )


def _check_labels(examples: Sequence[Example], task: Task) -> None:
    labels = task.task.labels
    known = frozenset(labels)
    if task.task.kind != "classify" or not labels:
        return
    for example in examples:
        label = example.references[0]
        if label not in known:
            near = difflib.get_close_matches(label, labels, n=1)
            remedy = f"did you mean {near[0]!r}? mend it" if near else "mend it, or add it to task.labels"
            raise InputError(
                f"the label {label[:60]!r} is not in task.labels",
                remedy,
                file=example.file,
                line=example.line,
                field="label",
            )


def _check_times(examples: Sequence[Example], task: Task) -> None:
    """Refuse rows without a time where the task file names a column of times, and files whose times are of two kinds."""
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


def too_many(refused: int, rows: int) -> bool:
    """Whether so many rows cannot be used that going on without them would mislead."""
    return refused > REFUSED_ROWS and refused > REFUSED_SHARE * rows


def _check_enough(
    examples: Sequence[Example], refusals: Sequence[Refusal], patterns: Sequence[str], task: Task
) -> None:
    total = len(examples) + len(refusals)
    if refusals:
        first = refusals[0]
        if len(examples) < 2 or too_many(len(refusals), total):
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
    if examples and sum(example.weight for example in examples) == 0:
        raise InputError(
            "all weights are 0", "give some row a weight", file=examples[0].file, line=examples[0].line, field="weight"
        )
