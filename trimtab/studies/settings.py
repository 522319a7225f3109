"""Task settings as keyword arguments in Python: checked, merged into the tables of a task file, written as TOML."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypedDict

from pydantic import BaseModel, ValidationError

from trimtab.base.config import (
    ApiTable,
    ArmTable,
    BaseTable,
    CostTable,
    DataTable,
    Effort,
    JudgeTable,
    RetrievalTable,
    SplitTable,
    StudyTable,
    TargetTable,
    TaskTable,
    TeacherTable,
)
from trimtab.base.errors import OptionError
from trimtab.base.plugins import plugins
from trimtab.base.records import Kind
from trimtab.base.task import Task, toml_string
from trimtab.base.validation_errors import as_input_error
from trimtab.data.columns import RequestedColumns

COLUMNS = ("input", "label", "output")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TABLES: Mapping[str, type[BaseModel]] = {"task": TaskTable, "data": DataTable, "study": StudyTable}


class TaskKeywords(TypedDict, total=False):
    """Keyword arguments for the keys of the tables task, data and study; the other tables are objects, those of plugins
    too.

    `input`, `label` and `output` name columns. `documents`, `test` and `preferences` are paths; `test` may also be
    data in memory. `target`: the score that is good enough; `base`: the base model; each may also be a table.
    """

    input: str | Sequence[str]
    label: str
    output: str
    name: str
    kind: Kind
    instruction: str
    metric: str
    unknown: str
    labels: Sequence[str]
    output_tokens: int
    format: str
    documents: str | Path | Sequence[str | Path]
    test: Any
    preferences: str | Path | Sequence[str | Path]
    columns: Mapping[str, str]
    layout: str
    encoding: str
    group: str
    slice: str
    mix: Mapping[str, float]
    split: SplitTable
    leakage: str
    train_on: str
    canaries: int
    seeds: int
    test_rows: int | Literal["all", "auto"]
    effort: Effort
    learning_curve: bool
    probes: Sequence[str]
    rewords: str
    language: str
    base: str | BaseTable
    target: float | TargetTable
    retrieval: RetrievalTable
    teacher: TeacherTable
    judge: JudgeTable
    arm: Mapping[str, ArmTable]
    api: Mapping[str, ApiTable]
    cost: CostTable


def refuse_unknown(settings: Iterable[str], verb: str, own: Iterable[str]) -> None:
    """Raise OptionError for the first keyword that is neither in `verb`'s `own` nor a setting, with the most similar
    one.
    """
    keywords = {*TaskKeywords.__annotations__, *plugins("tables")}
    known = sorted({*own, *keywords} - {"task", "settings"})
    for name in settings:
        if name not in keywords:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"it takes: {', '.join(known)}"
            raise OptionError(f"trimtab.{verb}() takes no argument {name!r}; {remedy}")


def merge_settings(tables: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of a task file with the settings merged in, each in its own table."""
    found: dict[str, Any] = copy.deepcopy(dict(tables))
    for name, value in settings.items():
        plain = _plain(value)
        if name in COLUMNS:
            columns = found.setdefault("data", {}).setdefault("columns", {})
            for other in COLUMNS[1:] if name != "input" else ():
                columns.pop(other, None)
            columns[name] = plain
        elif name in Task.model_fields:
            key = {"target": "quality", "base": "model"}.get(name)
            found[name] = {
                **found.get(name, {}),
                **(plain if isinstance(plain, Mapping) or key is None else {key: plain}),
            }
        else:
            table = next(table for table, model in _TABLES.items() if name in model.model_fields)
            found.setdefault(table, {})[name] = plain
    return found


def task_of(tables: Mapping[str, Any], file: Path) -> Task:
    """Return the task of these tables. Raises InputError for the first problem."""
    try:
        return Task(**{**tables, "file": file})
    except ValidationError as error:
        raise as_input_error(error, Task, Path("settings")) from None


def to_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return tables of a task file as TOML."""
    parts = []
    for name, table in tables.items():
        lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if value is not None]
        parts.append("\n".join([f"[{name}]", *lines, ""]))
    return "\n".join(parts)


def _plain(value: Any) -> Any:
    """Return a setting as TOML values: objects as tables of the set fields, paths as text, sequences as lists."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(exclude_unset=True))
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else toml_string(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{_key(key)} = {_value(item)}" for key, item in value.items() if item is not None)
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date) else repr(value)


def named_columns(settings: Mapping[str, Any]) -> dict[str, RequestedColumns]:
    """Return the columns that settings name, by role."""
    named = {**settings.get("columns", {}), **{name: settings[name] for name in COLUMNS if name in settings}}
    return {role: column if isinstance(column, str) else tuple(column) for role, column in named.items()}
