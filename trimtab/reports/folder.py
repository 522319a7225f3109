"""Reads a study folder into frozen records; all files but `study.json` are optional."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from trimtab.base.codec import read_record
from trimtab.base.config import ArmTable, BaseTable, CostTable, DataTable, TargetTable, TaskTable
from trimtab.base.errors import MissingError
from trimtab.base.files import read_own
from trimtab.base.grammar import arm_from_name
from trimtab.base.metrics import Metric, find_metric, right_metric
from trimtab.base.records import Answer, Arm, Calibration, Kind
from trimtab.base.results import ArmRecord, ArmResult, ClassRow, StudyResult
from trimtab.base.task import custom_arm
from trimtab.decision.evidence import score_of
from trimtab.measurement.evaluate import load_answers
from trimtab.reports.events import ArmTraining, TrainingCurve, read_training

TableT = TypeVar("TableT", ArmTable, BaseTable, CostTable, DataTable, TargetTable, TaskTable)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmEntry:
    """One arm of a study: its result, and the contents of its files."""

    arm: Arm
    result: ArmResult
    answers: tuple[Answer, ...] = ()
    curves: tuple[TrainingCurve, ...] = ()
    health: tuple[str, ...] = ()
    classes: tuple[ClassRow, ...] = ()
    selective: Mapping[float, float] = field(default_factory=dict)
    calibrations: tuple[Calibration, ...] = ()

    @property
    def name(self) -> str:
        """The arm's name."""
        return self.arm.name


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFolder:
    """A study as read from its folder."""

    result: StudyResult
    base: str | None
    kind: Kind
    arms: tuple[ArmEntry, ...]
    manifest: Mapping[str, Any]
    cost: CostTable | None
    limits: TargetTable | None
    data: DataTable | None

    @property
    def metric(self) -> Metric:
        """The task's metric."""
        return find_metric(self.result.metric)

    @property
    def right_metric(self) -> Metric | None:
        """The metric that says which answers are right; None where they are graded only."""
        return right_metric(self.metric, self.kind)

    @property
    def done(self) -> tuple[ArmEntry, ...]:
        """The arms with a score, best first."""
        scored = [entry for entry in self.arms if entry.result.status == "done" and entry.result.score is not None]
        return tuple(sorted(scored, key=lambda entry: -score_of(entry.result).value))

    @property
    def not_done(self) -> tuple[ArmEntry, ...]:
        """The arms that failed or did not run."""
        done = {entry.name for entry in self.done}
        return tuple(entry for entry in self.arms if entry.name not in done)

    def arm(self, name: str | None) -> ArmEntry | None:
        """Return the arm called `name`, None if there is none."""
        return next((entry for entry in self.arms if entry.name == name), None)


def read_study(folder: Path) -> StudyFolder:
    """Read `study.json` and the optional files beside it.

    Raises MissingError without `study.json`, InputError if a file is damaged or of another version.
    """
    file = folder / "study.json"
    if not file.is_file():
        raise MissingError(f"{file}: no study; run one with: trimtab study")
    result = read_record(file, StudyResult)
    trained, task = read_training(folder / "events.jsonl"), _task(folder / "task.toml")
    manifest = folder / "manifest.json"
    return StudyFolder(
        result=result,
        base=_base(task),
        kind=_kind(result.metric, task),
        arms=tuple(
            _entry(folder / "arms" / arm.arm, arm, trained.get(arm.arm, ArmTraining()), task) for arm in result.arms
        ),
        manifest=read_own(manifest) if manifest.is_file() else {},
        cost=_table(CostTable, task.get("cost", {})) if task else None,
        limits=_table(TargetTable, task.get("target", {})) if task else None,
        data=_table(DataTable, task.get("data", {})) if task else None,
    )


def _entry(folder: Path, result: ArmResult, trained: ArmTraining, task: Mapping[str, Any]) -> ArmEntry:
    record = read_record(folder / "arm.json", ArmRecord) if (folder / "arm.json").is_file() else None
    classes = record.classes if record else None
    answers = load_answers(folder / "answers.parquet") if (folder / "answers.parquet").is_file() else ()
    return ArmEntry(
        arm=record.arm if record else _arm(result.arm, task),
        result=result,
        answers=tuple(sorted((row for row in answers if row.split == "test"), key=lambda row: (row.item_id, row.seed))),
        curves=trained.curves,
        health=trained.health,
        classes=classes.rows if classes else (),
        selective=classes.selective if classes else {},
        calibrations=tuple(
            read_record(file, Calibration) for file in sorted(folder.glob("run-*/calibration.json")) if classes
        ),
    )


def _arm(name: str, task: Mapping[str, Any]) -> Arm:
    """Return the arm of a name without a record: from the task file, else by the grammar of arm names."""
    tables = task.get("arm")
    table = _table(ArmTable, tables.get(name)) if isinstance(tables, dict) and name in tables else None
    if table is not None:
        return custom_arm(name, table)
    try:
        parsed = arm_from_name(name)
    except ValueError:
        parsed = None
    return parsed or Arm(name=name, weights="base", stages=(), context="prompt")


def _task(file: Path) -> dict[str, Any]:
    """Return the task file of the study; empty if it is missing or unreadable."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, ValueError, RecursionError):  # not UTF-8, not TOML, or an integer with too many digits
        return {}


def _kind(metric: str, task: Mapping[str, Any]) -> Kind:
    """Return the kind of the task, without its file the first that its metric is for."""
    table = _table(TaskTable, task.get("task", {}))
    return table.kind if table else next(iter(find_metric(metric).kinds), "generate")


def _base(task: Mapping[str, Any]) -> str | None:
    """Return the base model of the task file, or the default."""
    table = _table(BaseTable, task.get("base", {})) if task else None
    return table.model if table else None


def _table(kind: type[TableT], values: Any) -> TableT | None:
    """Return a table of the task file, None if it is invalid."""
    try:
        return kind.model_validate(values)
    except ValidationError:
        return None
