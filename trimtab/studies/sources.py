"""Resolution of a command's input (a folder, a data file, a hub dataset, or data in memory) into a task file and data.

Each is examined once and written down, so that everything after starts from a task file and data beside it.
"""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from trimtab.base.errors import InputError, OptionError
from trimtab.base.files import matching, write_atomic
from trimtab.base.sanitize import one_line, printable
from trimtab.base.task import TASK_FILE, Task, check_task, load_task, task_file_for
from trimtab.data.columns import ColumnsError
from trimtab.studies.detect import FolderContents
from trimtab.studies.init import detect_source, task_file_text, wish_for, write_task
from trimtab.studies.settings import merge_settings, named_columns, task_of, to_toml

MOST_FILES = 2  # example files that are listed one by one
MADE = "# Written by trimtab.study() from data in memory, and written anew each time."


class ArrowData(Protocol):
    """Protocol of tables that export their columns by Arrow's C interface: pandas, Polars, PyArrow, DuckDB."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return a capsule with the stream."""


Data = ArrowData | Iterable[Mapping[str, Any]]
DataSource = str | Path | Task | Data
Tell = Callable[[str], object]


def task_for(
    source: DataSource,
    settings: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    tell: Tell = lambda _: None,
) -> Task:
    """Return the task of whatever a command is given.

    `settings`: task-file settings besides what is detected in the data. `folder`: where data in memory are saved;
    default a new temporary folder. `tell` gets at most five lines on what was detected. Raises OptionError for
    settings beside a Task, and for values that are no data.
    """
    settings = settings or {}
    if isinstance(source, Task):
        if settings or folder is not None:
            raise OptionError(
                f"a Task has its settings; leave out {', '.join([*settings, 'folder'][:3])}, or set it there"
            )
        return source
    if isinstance(source, str | Path):
        if folder is not None:
            raise OptionError("folder= is for data in memory; a file is worked on where it is, leave folder out")
        return task_at(source, settings, tell)
    if folder is not None:
        return _task_in_memory(source, settings, Path(folder), tell)
    place = Path(tempfile.mkdtemp(prefix="trimtab-"))
    try:
        task = _task_in_memory(source, settings, place, tell)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    tell(f"working in {place}; name a folder= to keep it")
    return task


def task_at(source: str | Path, settings: Mapping[str, Any] | None = None, tell: Tell = lambda _: None) -> Task:
    """Return the task of a task file, a folder, a data file or a Hugging Face dataset id.

    Without a task file the data are examined, a task file is written beside them, and `tell` gets at most five lines
    on what was detected. An existing task file is used, and must agree with `settings`. Raises ColumnsError if the
    columns are a guess; InputError if the task file disagrees, and for a data file that the task file beside it does
    not read.
    """
    settings = settings or {}
    path = Path(source)
    target = path if path.suffix == ".toml" else task_file_for(source)
    if target == path or target.exists():
        task = load_task(target)
        _refuse_others(task, settings)
        if path != target and path.is_file() and not _reads(task, path):
            problem = f"the task file beside it, {target}, reads other files"
            raise InputError(problem, "name it there, or put this file in a folder of its own", file=path)
        return task
    found = detect_source(source, wish_for(named_columns(settings), settings.get("kind")))
    _refuse_guess(found, source, settings)
    text = task_file_text(target, found)
    if settings:
        tables = merge_settings(tomllib.loads(text), settings)
        task_of(tables, target)
        text = to_toml(tables)
    task = write_task(target, text)
    for line in _summary_lines(task, found, f"all in {target}; edit it and run again where it is wrong"):
        tell(line)
    return task


def _refuse_others(task: Task, settings: Mapping[str, Any]) -> None:
    """Raise InputError if a task file disagrees with the settings."""
    if not settings:
        return
    tables = tomllib.loads(task.file.read_text(encoding="utf-8-sig"))
    for name, value in settings.items():
        if task_of(merge_settings(tables, {name: value}), task.file) != task:
            raise InputError(
                "the task file says something else", "change it there, or leave it out", file=task.file, field=name
            )


def _refuse_guess(found: FolderContents, source: object, settings: Mapping[str, Any]) -> None:
    """Raise ColumnsError if the columns of the largest file are a guess and others are possible: a study would be
    wasted.
    """
    for error in found.errors:
        if isinstance(error, ColumnsError) and not found.rows:
            raise error
    name, seen = max(found.rows.items(), key=lambda item: item[1].rows, default=("", None))
    if seen is None or not (seen.is_guess and seen.rivals) or {"input"} < named_columns(settings).keys():
        return
    asked, answer = seen.columns["input"], str(seen.columns["output"])
    asked = asked if isinstance(asked, str) else asked[-1]
    if isinstance(source, str | Path):
        place = shlex.quote(str(source))
        remedy = f"name them: trimtab init {place} --input {shlex.quote(asked)} --label {shlex.quote(answer)}"
    else:
        remedy = f"name them: input={asked!r}, label={answer!r} (or output= where answers are no closed set)"
    raise ColumnsError(
        f"{asked!r} looks like the input and {answer!r} like the answer, and {', '.join(seen.rivals)} might be "
        "meant too",
        remedy,
        file=name,
        line=1,
        fields=(asked, answer, *seen.rivals),
        input=asked,
        output=answer,
    )


def _reads(task: Task, file: Path) -> bool:
    """True if the task file names `file`: by itself, by a pattern or by a folder."""
    own = file.resolve()
    data = task.data
    for pattern in (*data.examples, *data.test, *data.documents, *data.preferences):
        place = (task.folder / pattern).resolve()
        if own == place or (place.is_dir() and own.is_relative_to(place)):
            return True
        if not Path(pattern).is_absolute() and any(own == match.resolve() for match in matching(task.folder, pattern)):
            return True
    return False


def _summary_lines(task: Task, found: FolderContents, remedy: str) -> list[str]:
    """Return what was detected, in at most five lines; the last one is the remedy if it is wrong."""
    notes = [found.rows[name].notes[0] for name in (*task.data.examples, *task.data.test) if name in found.rows]
    lines = notes[:MOST_FILES]
    if len(notes) > MOST_FILES:
        lines[-1] += f"; and {len(notes) - MOST_FILES} more file{'s' * (len(notes) > MOST_FILES + 1)} like it"
    if task.data.documents:
        named = task.data.documents
        lines.append(f"documents: {', '.join(named[:4])}{' …' * (len(named) > 4)}")
    if found.left_out:
        more = f" (and {len(found.left_out) - 1} more)" if len(found.left_out) > 1 else ""
        lines.append(f"left out: {found.left_out[0]}{more}")
    kind = f"kind {task.task.kind}, scored by {task.metric}, “{printable(task.task.instruction, 80)}”"
    lines.append(f"{kind}: {remedy}")
    return [printable(line, 400) for line in lines]


def _task_in_memory(data: Data, settings: Mapping[str, Any], folder: Path, tell: Tell) -> Task:
    """Return a task in a folder of its own: data written as files, documents copied, and a generated task file that may
    be overwritten.
    """
    target = folder / TASK_FILE
    if target.exists() and not target.read_text(encoding="utf-8", errors="replace").startswith(MADE):
        raise InputError("is a task file of your own", "choose another folder=", file=target)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: settings[name] for name in ("documents", "test", "preferences") if _is_paths(settings.get(name))}
    placed = {name: [_copy_into(path, folder, name) for path in _listed(value)] for name, value in paths.items()}
    if "test" in settings and "test" not in paths:
        placed["test"] = [_write_data(settings["test"], folder, "test")]
    settings = {**settings, **placed}
    wish = wish_for(named_columns(settings), settings.get("kind"))
    found = detect_source(folder / _write_data(data, folder, "data"), wish)
    found.documents += placed.get("documents", ())
    _refuse_guess(found, data, settings)
    tables = merge_settings(tomllib.loads(task_file_text(target, found)), settings)
    task = task_of(tables, target)
    check_task(task)
    write_atomic(target, f"{MADE}\n\n{to_toml(tables)}")
    for line in _summary_lines(task, found, "kind=, metric= and instruction= say otherwise"):
        tell(line)
    return task


def _is_paths(value: Any) -> bool:
    return isinstance(value, str | Path) or (
        isinstance(value, list | tuple) and all(isinstance(item, str | Path) for item in value)
    )


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | Path) else list(value)


def _copy_into(path: str | Path, folder: Path, name: str) -> str:
    """Copy a file or folder into the task's folder below `name`. Return its path there."""
    source = Path(path).expanduser()
    if not source.exists():
        raise InputError(f"{printable(str(path), 200)} does not exist", "check the path", field=name)
    goal = folder / name / source.resolve().name
    goal.parent.mkdir(exist_ok=True)
    if source.is_dir():
        shutil.rmtree(goal, ignore_errors=True)
        shutil.copytree(source, goal)
    else:
        shutil.copyfile(source, goal)
    return f"{name}/{goal.name}"


def _write_data(data: Data, folder: Path, name: str) -> str:
    """Write data in memory as a file of rows and return its name: an Arrow table as Parquet, rows as JSON lines."""
    if hasattr(data, "__arrow_c_stream__"):
        return _as_parquet(data, folder, f"{name}.parquet")
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise OptionError(f"this is no data but of type {type(data).__name__}; {_DATA}")
    rows = iter(data)
    first = next(rows, None)
    if not isinstance(first, Mapping):
        what = "missing" if first is None else f"of type {type(first).__name__}"
        raise OptionError(f"the first row is {what}; {_DATA}")
    classes = {key: kind for key, kind in getattr(data, "features", {}).items() if hasattr(kind, "int2str")}
    file = folder / f"{name}.jsonl"
    lines = (_line(number, row, classes) for number, row in enumerate(chain([first], rows), start=1))
    write_atomic(file, "".join(lines))
    return file.name


_DATA = "give a path, a DataFrame, an Arrow table, a datasets.Dataset or a list of dictionaries"


def _line(number: int, row: Mapping[str, Any], classes: Mapping[str, Any]) -> str:
    """Return a row as a line of JSON; class numbers of `datasets` by their names."""
    fields = dict(row)
    for key, kind in classes.items():
        if fields.get(key) is not None:
            fields[key] = kind.int2str(fields[key]) if fields[key] >= 0 else None
    try:
        line = json.dumps(fields, ensure_ascii=False, allow_nan=False)
        is_whole = line.isascii() or not any("\ud800" <= character <= "\udfff" for character in line)
        return (
            line if is_whole else json.dumps(fields)
        ) + "\n"  # an escaped half of a character is refused where it is read
    except (TypeError, ValueError) as error:
        raise InputError(
            f"row {number} has a value that is no JSON ({one_line(error)})", "write it as text", field="data"
        ) from None


def _as_parquet(data: Any, folder: Path, name: str) -> str:
    """Write an Arrow table without pandas' row labels. Return its name."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(data)
    columns = {name: table[name] for name in table.column_names if not name.startswith("__index_level_")}
    for column, values in columns.items():
        if pyarrow.types.is_dictionary(values.type):  # Polars' categories, which Parquet cannot represent
            columns[column] = pyarrow.array(values.to_pylist())
    # Neither compressed nor dictionary-encoded: a column of one label would unpack to more than foreign text may
    pyarrow.parquet.write_table(
        pyarrow.table(columns), folder / name, compression="none", use_dictionary=False, store_schema=False
    )
    return name
