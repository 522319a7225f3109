"""What a study writes down: `study.json`, each arm's `arm.json`, and the manifest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtab.arms.plan import Plan
from trimtab.arms.run import Outcome
from trimtab.arms.session import Session
from trimtab.arms.workspace import Workspace
from trimtab.base.files import append_line, read_lines, read_object, sha256_file, sha256_text, write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.base.records import Arm, ArmResult, Cost, Estimate, StudyResult
from trimtab.decision.cost import Usage
from trimtab.measurement.statistics import too_few_groups

OPENINGS = "openings.jsonl"


def to_json(result: StudyResult) -> dict[str, Any]:
    """`study.json` as an object."""
    return {
        "study": result.study,
        "task": result.task,
        "metric": result.metric,
        "target": result.target,
        "verdict": {**asdict(result.verdict), "flips": [_without_none(asdict(flip)) for flip in result.verdict.flips]},
        "arms": [arm_to_json(arm) for arm in result.arms],
        "comparisons": [asdict(comparison) for comparison in result.comparisons],
        "report": result.report,
    }


def arm_to_json(result: ArmResult) -> dict[str, Any]:
    """One arm as it stands in `study.json`: without a score where it did not finish."""
    if result.status != "done" or result.score is None:
        return {"arm": result.arm, "status": result.status, "why": result.why}
    plain = asdict(result)
    plain.pop("why")
    return {
        **plain,
        **_interval(result.score),
        "slices": {name: _interval(value) for name, value in result.slices.items()},
    }


def arm_from_json(plain: Mapping[str, Any]) -> ArmResult:
    """The record that `arm_to_json` wrote."""
    if plain["status"] != "done":
        return ArmResult(arm=plain["arm"], status=plain["status"], why=plain["why"])
    values = {key: value for key, value in plain.items() if key not in ("low", "high", "n")}
    values["score"] = _estimate(plain)
    values["slices"] = {name: _estimate(value) for name, value in plain["slices"].items()}
    values["seed_scores"] = tuple(plain["seed_scores"])
    values["cost"] = Cost(**plain["cost"]) if plain["cost"] else None
    return ArmResult(**values)


def save_arm(folder: Path, arm: Arm, outcome: Outcome, digest: str) -> None:
    """Write `arm.json`; it is written last, so an arm that has it is complete."""
    usage = {**asdict(outcome.usage), "token_price": None}
    identity = {
        "weights": arm.weights,
        "stages": list(arm.stages),
        "context": arm.context,
        "settings": dict(arm.settings),
    }
    write_json(
        folder / "arm.json",
        {
            **identity,
            "digest": digest,
            "usage": usage,
            "result": arm_to_json(outcome.result),
            "classes": asdict(outcome.classes) if outcome.classes else None,
        },
    )


def load_arm(folder: Path, digest: str, session: Session, arm: Arm) -> tuple[ArmResult, Usage] | None:
    """A finished arm of the same data and task; None where there is none."""
    file = folder / "arm.json"
    if not file.is_file():
        return None
    plain = read_object(file, "digest", "usage", "result")
    if plain["digest"] != digest:
        return None
    price = session.task.api[arm.name.removeprefix("api-")].price_per_million if arm.weights == "api" else None
    return arm_from_json(plain["result"]), Usage(**{**plain["usage"], "token_price": price})


def arm_digest(workspace: Workspace, arm: Arm, effort: object) -> str:
    """What an arm's result depends on: data, documents, task, the arm, and its effort."""
    parts = (workspace.data_digest, workspace.documents_digest, workspace.task_digest, repr(arm), repr(effort))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def count_opening(workspace: Workspace, study: str) -> int:
    """Note that a study opens this test set, once a study; how often it was opened, this time included."""
    test = hashlib.sha256("\0".join(sorted(example.id for example in workspace.splits["test"])).encode()).hexdigest()
    path = workspace.folder / OPENINGS
    seen = [entry["study"] for entry in read_lines(path) if entry["test"] == test]
    if study not in seen:
        append_line(path, {"test": test, "study": study})
    return len({*seen, study})


def manifest(
    session: Session,
    plan: Plan,
    openings: int,
    smallest: float,
    results: Sequence[ArmResult],
    measured: Mapping[str, float],
) -> dict[str, Any]:
    """Everything that the figures rest on, each figure marked measured, predicted or yours."""
    workspace, task = session.workspace, session.task
    rows = [example for part in workspace.splits.values() for example in part]
    figures: dict[str, Any] = {"smallest_difference": _figure(smallest, "predicted")}
    for arm in plan.arms:
        figures[f"{arm.arm}.seconds"] = _figure(
            arm.seconds(plan.effort), "predicted", error=_error(arm.seconds(plan.effort), measured.get(arm.arm))
        )
        if arm.memory_mb is not None:
            peak = next((result.peak_memory_mb for result in results if result.arm == arm.arm), None)
            figures[f"{arm.arm}.memory_mb"] = _figure(arm.memory_mb, "predicted", error=_error(arm.memory_mb, peak))
    for result in results:
        if result.score is not None:
            figures[f"{result.arm}.score"] = _figure(result.score.value, "measured")
            figures[f"{result.arm}.measured_seconds"] = _figure(measured.get(result.arm, 0.0), "measured")
    cost = task.cost
    whose = "yours" if "questions_per_month" in cost.model_fields_set else "assumed"
    figures["questions_per_month"] = _figure(cost.questions_per_month, whose)
    if cost.machine_hour:
        figures["machine_hour"] = _figure(cost.machine_hour.price, "yours")
    return {
        "hashes": {
            "data": workspace.data_digest,
            "documents": workspace.documents_digest,
            "task": workspace.task_digest,
            "base": _weights_digest(session.base_folder),
            **({"embedding": session.embedder.digest} if workspace.documents else {}),
        },
        "versions": versions(),
        "machine": describe_machine(),
        "precision": session.base.precision,
        "seeds": list(range(plan.effort.seeds)),
        "test_openings": openings,
        "counts": {
            "splits": {name: len(part) for name, part in workspace.splits.items()},
            "source": dict(Counter(example.source or "not given" for example in rows)),
            "licence": dict(Counter(example.licence or "not given" for example in rows)),
            "documents": len(workspace.documents),
        },
        "remarks": [{"level": remark.level, "text": remark.text} for remark in workspace.remarks],
        "notes": list(workspace.notes),
        "refused": len(workspace.refusals),
        "overlaps": len(workspace.overlaps),
        "private": {finding.kind: finding.count for finding in workspace.findings},
        "cuts": list(plan.cuts),
        "smallest_difference": smallest,
        "too_few_groups": too_few_groups([example.group for example in workspace.splits["test"]]),
        "figures": figures,
    }


def _weights_digest(folder: Path) -> str:
    """The SHA-256 of a model's one file of weights, of the list of theirs where there are several."""
    files = [sha256_file(file) for file in sorted(folder.glob("*.safetensors"))]
    return files[0] if len(files) == 1 else sha256_text(*files)


def _figure(value: float, provenance: str, error: float | None = None) -> dict[str, Any]:
    return {"value": value, "provenance": provenance, **({"error": error} if error is not None else {})}


def _error(predicted: float, measured: float | None) -> float | None:
    """Relative error of a prediction, once known."""
    return (predicted - measured) / measured if measured else None


def _interval(value: Estimate) -> dict[str, Any]:
    return {"score": value.value, "low": value.low, "high": value.high, "n": value.n}


def _estimate(plain: Mapping[str, Any]) -> Estimate:
    return Estimate(value=plain["score"], low=plain["low"], high=plain["high"], n=plain["n"])


def _without_none(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if value is not None}
