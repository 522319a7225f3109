"""Reads a study folder into frozen records; what the files do not say stays None or empty, never zero."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import read_json
from trimtab.base.grammar import METHODS, context_of, named
from trimtab.base.records import Answer, Arm, ClassRow, Comparison, Cost, Estimate, Flip, Hit, Passage, Verdict
from trimtab.base.tables import CostTable, TargetTable
from trimtab.reports.events import Curve, Training, read_training

Stated = TypeVar("Stated", CostTable, TargetTable)
FIGURES = (
    "passes",
    "p_target",
    "format_ok",
    "train_seconds",
    "peak_memory_mb",
    "stored_bytes",
    "latency_p50_ms",
    "latency_p95_ms",
    "seconds_per_question",
)
SETTINGS = ("rank", "learning_rate", "epochs", "batch", "layers", "shots", "passages")  # of an arm of one's own


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmEntry:
    """One arm as its study wrote it down; a figure that `study.json` does not carry is None."""

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
    train_seconds: float | None = None
    peak_memory_mb: float | None = None
    stored_bytes: float | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    seconds_per_question: float | None = None
    cost: Cost | None = None
    answers: tuple[Answer, ...] = ()
    curves: tuple[Curve, ...] = ()
    health: tuple[str, ...] = ()
    classes: tuple[ClassRow, ...] = ()
    selective: Mapping[float, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The arm's name."""
        return self.arm.name


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
    manifest: Mapping[str, Any]
    cost: CostTable | None
    limits: TargetTable | None

    @property
    def done(self) -> tuple[ArmEntry, ...]:
        """The arms that have a score, best first."""
        scored = [one for one in self.arms if one.status == "done" and one.score is not None]
        return tuple(sorted(scored, key=lambda one: -one.score.value if one.score else 0.0))

    @property
    def not_done(self) -> tuple[ArmEntry, ...]:
        """The arms that failed or did not run."""
        done = {one.name for one in self.done}
        return tuple(one for one in self.arms if one.name not in done)

    def arm(self, name: str | None) -> ArmEntry | None:
        """The arm called `name`."""
        return next((one for one in self.arms if one.name == name), None)


def read_study(folder: Path) -> StudyFolder:
    """Read `study.json` and what lies beside it; everything but `study.json` may be missing.

    Raises MissingError without `study.json`, InputError where it is not JSON of the known shape.
    """
    file = folder / "study.json"
    if not file.is_file():
        raise MissingError(f"{file}: no study; run one with: trimtab study")
    try:
        raw = read_json(file)
        trained = read_training(folder / "events.jsonl")
        verdict = raw["verdict"]
        task = _task(folder / "task.toml")
        return StudyFolder(
            id=raw["study"],
            task=raw["task"],
            base=_base(task),
            metric=raw["metric"],
            target=raw.get("target"),
            verdict=Verdict(
                status=verdict["status"],
                arm=verdict.get("arm"),
                sentence=verdict["sentence"],
                flips=tuple(
                    Flip(what=flip["what"], then=flip["then"], below=flip.get("below"), above=flip.get("above"))
                    for flip in verdict.get("flips") or ()
                ),
                needs=verdict.get("needs"),
            ),
            arms=tuple(_entry(folder, entry, trained, task.get("arm", {})) for entry in raw["arms"]),
            comparisons=tuple(
                Comparison(**{key: entry[key] for key in ("a", "b", "difference", "low", "high", "p", "p_holm")})
                for entry in raw.get("comparisons") or ()
            ),
            manifest=read_json(folder / "manifest.json") if (folder / "manifest.json").is_file() else {},
            cost=_table(CostTable, task.get("cost", {})) if task else None,
            limits=_table(TargetTable, task.get("target", {})) if task else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"not a study as formats.md lays it out ({error!r})", "run the study again", file=file
        ) from error


def _entry(folder: Path, entry: Mapping[str, Any], trained: Mapping[str, Training], own: Mapping[str, Any]) -> ArmEntry:
    name = entry["arm"]
    beside = folder / "arms" / name / "arm.json"
    kept = read_json(beside) if beside.is_file() else {}
    arm = _arm(name, {**own.get(name, {}), **kept.get("arm", {}), **entry})
    by_class = kept.get("classes") or {}
    cost, training = entry.get("cost"), trained.get(name, Training())
    figures = {key: entry.get(key) for key in FIGURES}
    return ArmEntry(
        arm=arm,
        status=entry["status"],
        why=entry.get("why"),
        score=_estimate(entry),
        seed_scores=tuple(entry.get("seed_scores") or ()),
        abstention=entry.get("abstention") or {},
        slices={key: found for key, value in (entry.get("slices") or {}).items() if (found := _estimate(value))},
        extras=entry.get("extras") or {},
        chosen=entry.get("chosen") or {},
        cost=Cost(**{key: cost[key] for key in ("total", "up_front", "monthly", "currency")}) if cost else None,
        answers=_answers(folder / "arms" / name / "answers.parquet"),
        curves=training.curves,
        health=training.health,
        classes=tuple(ClassRow(**one) for one in by_class.get("rows", ())),
        selective={float(share): accuracy for share, accuracy in by_class.get("selective", {}).items()},
        **figures,
    )


def _arm(name: str, known: Mapping[str, Any]) -> Arm:
    """What an arm is: as the files say, else by the grammar of arm names; raises ValueError for what the grammar does not know."""
    meant = named(name) or Arm(name=name, weights="base", stages=(), context="prompt")
    weights = known.get("weights", meant.weights)
    if weights not in METHODS:
        raise ValueError(f"arm {name} has weights {weights!r}, which are none that there are")
    return Arm(
        name=name,
        weights=weights,
        stages=tuple(known.get("stages", meant.stages)),
        context=context_of(known.get("context", meant.context).split("+")),
        endpoint=known.get("endpoint", meant.endpoint),
        settings=known.get("settings") or {key: known[key] for key in SETTINGS if key in known},
    )


def _estimate(entry: Any) -> Estimate | None:
    if isinstance(entry, dict) and "score" in entry and isinstance(entry["score"], dict):
        entry = {**entry["score"], "score": entry["score"].get("value")}
    if not isinstance(entry, dict) or any(entry.get(key) is None for key in ("score", "low", "high")):
        return None
    return Estimate(value=entry["score"], low=entry["low"], high=entry["high"], n=entry.get("n") or 0)


def _answers(file: Path) -> tuple[Answer, ...]:
    """The answers to test questions in `answers.parquet`, by item and seed; empty when there is no file."""
    if not file.is_file():
        return ()
    import pyarrow.parquet as parquet

    rows = parquet.read_table(file).to_pylist()
    found = [_answer(row) for row in rows if row.get("split", "test") == "test"]
    return tuple(sorted(found, key=lambda answer: (answer.item_id, answer.seed)))


def _answer(row: Mapping[str, Any]) -> Answer:
    reference = row.get("reference") or ()
    return Answer(
        item_id=str(row["item_id"]),
        split="test",
        group=row.get("group"),
        slice=row.get("slice"),
        seed=row.get("seed") or 0,
        input=row.get("input") or "",
        reference=(reference,) if isinstance(reference, str) else tuple(reference),
        answer=row.get("answer") or "",
        score=row["score"],
        format_ok=row.get("format_ok", True),
        abstained=row.get("abstained", False),
        probability=row.get("probability"),
        seconds=row.get("seconds") or 0.0,
        prompt_tokens=row.get("prompt_tokens") or 0,
        new_tokens=row.get("new_tokens") or 0,
        hits=tuple(_hit(hit) for hit in row.get("passages") or ()),
        failure=row.get("failure") or "none",
    )


def _hit(row: Mapping[str, Any]) -> Hit:
    source = row.get("source") or ""
    passage = Passage(id=str(row.get("id")), document="", title="", path=(), text="", source=source)
    return Hit(passage=passage, rank=row.get("rank") or 0, score=row.get("score") or 0.0)


def _task(file: Path) -> dict[str, Any]:
    """The task file that was studied; empty where it does not lie there or cannot be read."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}


def _base(task: Mapping[str, Any]) -> str | None:
    """The base model that the task file names."""
    table = task.get("base")
    model = table.get("model") if isinstance(table, dict) else None
    return model if isinstance(model, str) else None


def _table(kind: type[Stated], values: Any) -> Stated | None:
    """One table of the task file, None where it is not valid."""
    try:
        return kind.model_validate(values)
    except ValidationError:
        return None
