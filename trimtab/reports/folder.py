"""Reads a study folder into frozen records; all files but `study.json` are optional."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from trimtab.base.codec import read_record
from trimtab.base.config import ArmTable, BaseTable, CostTable, DataTable, TargetTable
from trimtab.base.errors import MissingError
from trimtab.base.files import read_own
from trimtab.base.grammar import arm_from_name
from trimtab.base.records import Answer, Arm, Calibration
from trimtab.base.results import (
    ArmEffort,
    ArmRecord,
    ArmResult,
    ClassRow,
    Comparison,
    Cost,
    Estimate,
    Exposure,
    HumanAudit,
    LearningCurve,
    Sample,
    StudyResult,
    TrivialArm,
    Verdict,
    Volume,
)
from trimtab.base.task import custom_arm
from trimtab.measurement.evaluate import load_answers
from trimtab.reports.events import ArmTraining, TrainingCurve, read_training

TableT = TypeVar("TableT", ArmTable, BaseTable, CostTable, DataTable, TargetTable)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmEntry:
    """One arm of a study: its result, and the contents of its files."""

    arm: Arm
    status: str
    why: str | None = None
    score: Estimate | None = None
    passes: bool | None = None
    p_target: float | None = None
    seed_scores: tuple[float, ...] = ()
    format_ok: float | None = None
    abstention: Mapping[str, float] = field(default_factory=dict)
    slices: Mapping[str, Estimate] = field(default_factory=dict)
    extras: Mapping[str, float] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)
    effort: ArmEffort | None = None
    learning: LearningCurve | None = None
    exposure: Exposure | None = None
    train_seconds: float | None = None
    peak_memory_mb: float | None = None
    stored_bytes: float | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_p95_high_ms: float | None = None
    seconds_per_question: float | None = None
    cost: Cost | None = None
    processor_share: float | None = None
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


_OF_RESULT = ({item.name for item in fields(ArmEntry)} & {item.name for item in fields(ArmResult)}) - {"arm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFolder:
    """A study as read from its folder."""

    id: str
    task: str
    base: str | None
    metric: str
    target: float | None
    verdict: Verdict
    arms: tuple[ArmEntry, ...]
    comparisons: tuple[Comparison, ...]
    level: float
    manifest: Mapping[str, Any]
    cost: CostTable | None
    limits: TargetTable | None
    data: DataTable | None
    volume: Volume | None
    sample: Sample | None
    trivial: tuple[TrivialArm, ...] = ()
    audit: HumanAudit | None = None

    @property
    def done(self) -> tuple[ArmEntry, ...]:
        """The arms with a score, best first."""
        scored = [one for one in self.arms if one.status == "done" and one.score is not None]
        return tuple(sorted(scored, key=lambda one: -one.score.value if one.score else 0.0))

    @property
    def not_done(self) -> tuple[ArmEntry, ...]:
        """The arms that failed or did not run."""
        done = {one.name for one in self.done}
        return tuple(one for one in self.arms if one.name not in done)

    def arm(self, name: str | None) -> ArmEntry | None:
        """Return the arm called `name`, None if there is none."""
        return next((one for one in self.arms if one.name == name), None)


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
        id=result.study,
        task=result.task,
        base=_base(task),
        metric=result.metric,
        target=result.target,
        verdict=result.verdict,
        arms=tuple(
            _entry(folder / "arms" / one.arm, one, trained.get(one.arm, ArmTraining()), task) for one in result.arms
        ),
        comparisons=result.comparisons,
        level=result.level,
        manifest=read_own(manifest) if manifest.is_file() else {},
        cost=_table(CostTable, task.get("cost", {})) if task else None,
        limits=_table(TargetTable, task.get("target", {})) if task else None,
        data=_table(DataTable, task.get("data", {})) if task else None,
        volume=result.volume,
        sample=result.sample,
        trivial=result.trivial,
        audit=result.audit,
    )


def _entry(folder: Path, result: ArmResult, trained: ArmTraining, task: Mapping[str, Any]) -> ArmEntry:
    record = read_record(folder / "arm.json", ArmRecord) if (folder / "arm.json").is_file() else None
    classes_section = record.classes if record else None
    answers = load_answers(folder / "answers.parquet") if (folder / "answers.parquet").is_file() else ()
    return ArmEntry(
        arm=record.arm if record else _arm(result.arm, task),
        answers=tuple(sorted((one for one in answers if one.split == "test"), key=lambda one: (one.item_id, one.seed))),
        curves=trained.curves,
        health=trained.health,
        classes=classes_section.rows if classes_section else (),
        selective=classes_section.selective if classes_section else {},
        calibrations=tuple(
            read_record(file, Calibration) for file in sorted(folder.glob("run-*/calibration.json")) if classes_section
        ),
        **{name: getattr(result, name) for name in _OF_RESULT},
    )


def _arm(name: str, task: Mapping[str, Any]) -> Arm:
    """Return the arm of a name without a record: from the task file, else by the grammar of arm names."""
    tables = task.get("arm")
    own = _table(ArmTable, tables.get(name)) if isinstance(tables, dict) and name in tables else None
    try:
        parsed = arm_from_name(name)
    except ValueError:
        parsed = None
    if own is not None:
        return custom_arm(name, own)
    return parsed or Arm(name=name, weights="base", stages=(), context="prompt")


def _task(file: Path) -> dict[str, Any]:
    """Return the task file of the study; empty if it is missing or unreadable."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, ValueError, RecursionError):  # not UTF-8, not TOML, or an integer with too many digits
        return {}


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
