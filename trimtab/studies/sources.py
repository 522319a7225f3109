"""What a verb is given in place of a task file: a folder, a data file or a dataset of the hub, looked at once and written down."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from trimtab.base.errors import InputError
from trimtab.base.files import matching
from trimtab.base.task import Task, load_task
from trimtab.base.visible import printable
from trimtab.data.columns import ColumnsError
from trimtab.studies.init import compose, look_at, task_file_for, write_task
from trimtab.studies.survey import Survey

MOST_FILES = 2  # example files that are told one by one


def task_at(
    source: str | Path, columns: Mapping[str, str] | None = None, tell: Callable[[str], object] = lambda _: None
) -> Task:
    """The task of a task file, a folder, a data file or a Hugging Face dataset id.

    Where there is no task file yet, what is there is looked at, a task file is written beside it, and `tell` gets at most five lines
    on what was taken for what. `columns`: those that are known, by role. Raises ColumnsError where they are a guess, InputError where
    columns are named beside a task file, which names its own, and for a file that the task file beside it does not read.
    """
    path = Path(source)
    if path.suffix == ".toml":
        _refuse_columns(columns, path)
        return load_task(path)
    target = task_file_for(source)
    if target.exists():
        _refuse_columns(columns, target)
        task = load_task(target)
        if path.is_file() and not _reads(task, path):
            problem = f"the task file beside it, {target}, reads other files"
            raise InputError(problem, "name it there, or put this file in a folder of its own", file=path)
        return task
    found = look_at(source, columns)
    _refuse_guess(found, source, columns or {})
    task = write_task(target, compose(target, found))
    for line in _told(task, found):
        tell(line)
    return task


def _refuse_columns(columns: Mapping[str, str] | None, file: Path) -> None:
    if columns:
        raise InputError("a column is named beside a task file", "name it there, under data.columns", file=file)


def _refuse_guess(found: Survey, source: str | Path, columns: Mapping[str, str]) -> None:
    """Raise ColumnsError where the columns of the largest file are a guess and others might be meant: a study would be lost."""
    for error in found.errors:
        if isinstance(error, ColumnsError) and not found.rows:
            raise error
    name, seen = max(found.rows.items(), key=lambda item: item[1].rows, default=("", None))
    if seen is None or not seen.rivals or {"input"} < columns.keys():
        return
    source_column, answer = seen.columns["input"], str(seen.columns["output"])
    asked = source_column if isinstance(source_column, str) else source_column[-1]
    raise ColumnsError(
        f"{asked!r} looks like the input and {answer!r} like the answer, and {', '.join(seen.rivals)} might be meant too",
        f"name them: trimtab init {shlex.quote(str(source))} --input {shlex.quote(asked)} --label {shlex.quote(answer)}",
        file=name,
        line=1,
        fields=(asked, answer, *seen.rivals),
        input=asked,
        output=answer,
    )


def _reads(task: Task, file: Path) -> bool:
    """True if the task file names `file`, by itself, by a pattern or by a folder."""
    own = file.resolve()
    data = task.data
    for pattern in (*data.examples, *data.test, *data.documents, *data.preferences):
        place = (task.folder / pattern).resolve()
        if own == place or (place.is_dir() and own.is_relative_to(place)):
            return True
        if not Path(pattern).is_absolute() and any(own == match.resolve() for match in matching(task.folder, pattern)):
            return True
    return False


def _told(task: Task, found: Survey) -> list[str]:
    """What was taken for what, in at most five lines."""
    notes = [found.rows[name].notes[0] for name in (*task.data.examples, *task.data.test)]
    lines = notes[:MOST_FILES]
    if len(notes) > MOST_FILES:
        lines[-1] += f"; and {len(notes) - MOST_FILES} more file{'s' * (len(notes) > MOST_FILES + 1)} like it"
    if found.documents:
        lines.append(f"documents: {', '.join(found.documents[:4])}{' …' * (len(found.documents) > 4)}")
    if found.left_out:
        more = f" (and {len(found.left_out) - 1} more)" if len(found.left_out) > 1 else ""
        lines.append(f"left out: {found.left_out[0]}{more}")
    instruction = printable(task.task.instruction, 80)
    lines.append(
        f"kind {task.task.kind}, scored by {task.metric}, “{instruction}”: all in {task.file}; edit it and run again where it is wrong"
    )
    return [printable(line, 300) for line in lines]
