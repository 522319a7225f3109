"""Records of a study besides its result and arms: the openings of its test set, and the manifest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from trimtab.arms.fingerprint import FILES, ROWS, WEIGHTS, Fingerprint, digest_of, files_of, task_settings
from trimtab.arms.planning.plan import Plan
from trimtab.arms.session import Session
from trimtab.arms.workspace import Workspace
from trimtab.base.codec import to_plain
from trimtab.base.config import CostTable
from trimtab.base.errors import InputError
from trimtab.base.files import append_own, cut_off_line, read_own_lines, sha256_text
from trimtab.base.machine import describe_machine, versions
from trimtab.base.results import ArmResult, StudyResult, Usage
from trimtab.base.show import flattened
from trimtab.base.task import Task
from trimtab.decision.pairs import comparisons_among
from trimtab.measurement.clusters import too_few_groups
from trimtab.measurement.mix import effective_items
from trimtab.measurement.power import Variation, smallest_difference
from trimtab.model.device_record import check_summary

OPENINGS, EVENTS = "openings.jsonl", "events.jsonl"
EXPORTED = "export-"  # prefix of an export's entries
SHARED = 0.2  # share of common test questions from which an earlier opening counts


def count_opening(workspace: Workspace, study: str) -> int:
    """Record that a study opens this test set, once per study. Return which opening of its questions that is.

    The first, plus one for each earlier study that opened at least a fifth of them: a test set that grows is not
    fresh.
    """
    file = workspace.folder / OPENINGS
    looks = _studies_opening(file, _test_items(workspace), study)
    if study in looks:
        return looks.index(study) + 1
    if any(entry["study"] == study for entry in _entries(file, study)):  # a repeated export
        return len(looks) + 1
    plan = frozen_plan(workspace.task)
    opening = {"study": study, "items": _test_items(workspace), "plan": plan, "plan_sha256": plan_hash(plan)}
    append_own(file, opening)
    return len(looks) + 1


def _entries(openings: Path, study: str = "") -> Iterator[Any]:
    """Yield the entries of the record of openings. Raises InputError if its last line is cut off, as an opening would
    be counted less, unless it is the line of `study`, which writes it again.
    """
    yield from read_own_lines(openings, "study", "items")
    cut = cut_off_line(openings)
    if cut is not None and not (study and cut[1].startswith(json.dumps({"study": study}, ensure_ascii=False)[:-1])):
        problem = "is cut off, so an opening of the test set would not be counted"
        remedy = "resume the study that it names with --resume, which writes it again, or complete it from a copy"
        raise InputError(problem, remedy, file=openings, line=cut[0])


def frozen_plan(task: Task) -> dict[str, Any]:
    """Return the settings that decide a study besides its answers, by task-file key: recorded before the test set is
    opened.
    """
    stated = {
        "task": {"metric": task.metric},
        "target": task.target.model_dump(mode="json"),
        "cost": task.cost.model_dump(mode="json"),
        "study": {"arms": [arm.name for arm in task.arms]},
        "data": {"split": task.data.split.model_dump(mode="json"), "mix": dict(task.data.mix)},
    }
    return dict(flattened("", stated))


def plan_hash(plan: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a frozen plan as JSON with sorted keys: published before a study, it binds whoever states
    the plan.
    """
    return sha256_text(json.dumps(plan, sort_keys=True, ensure_ascii=False))


def changed_since(folder: Path) -> list[str]:
    """Return the entries of a study's frozen plan that changed since the first opening of its questions; empty for that
    opening itself.
    """
    openings = [entry for entry in _entries(folder.parents[1] / OPENINGS) if "plan" in entry]
    own = next((entry for entry in openings if entry["study"] == folder.name), None)
    if own is None:
        return []
    first = next(entry for entry in openings if _overlaps(entry, own["items"]))
    before, now = first["plan"], own["plan"]
    edited = any(plan_hash(entry["plan"]) != entry["plan_sha256"] for entry in (first, own))
    return [
        *(["the record of the plan itself, which no longer has its hash"] if edited else []),
        *(
            f"{name} {before.get(name, 'not stated')} → {now.get(name, 'not stated')}"
            for name in dict.fromkeys([*before, *now])
            if before.get(name) != now.get(name)
        ),
    ]


def studies_that_opened(workspace: Workspace) -> list[str]:
    """Return the studies that opened at least a fifth of the test questions, in order.

    An export asks them too but reports no score, so nobody can select by it.
    """
    return _studies_opening(workspace.folder / OPENINGS, _test_items(workspace))


def look_number(openings: Path, items: Sequence[str], study: str, since: str = "") -> int:
    """Return which opening of these questions a study's is: the first, plus one for each other study that opened at
    least a fifth of them; of those behind the study `since`, if it is among them.
    """
    if not items:
        return 1
    looks = _studies_opening(openings, items)
    later = looks[looks.index(since) + 1 :] if since in looks else looks
    return 1 + len({*later} - {study})


def _studies_opening(openings: Path, items: Sequence[str], study: str = "") -> list[str]:
    """Return the studies that opened at least a fifth of these questions, in order; `study`: as for `_entries`."""
    entries = _entries(openings, study)
    looks = (one for one in entries if "retired" not in one and not one["study"].startswith(EXPORTED))
    return list(dict.fromkeys(entry["study"] for entry in looks if _overlaps(entry, items)))


def retire(workspace: Workspace, items: Sequence[str]) -> None:
    """Record that test questions become training rows, as requested by `trimtab test --fresh`."""
    append_own(workspace.folder / OPENINGS, {"study": "fresh", "items": [], "retired": list(items)})


def retired_items(workspace: Workspace) -> set[str]:
    """Return the questions that were retired from the test set."""
    return {item for entry in _entries(workspace.folder / OPENINGS) for item in entry.get("retired", ())}


def opened_items(workspace: Workspace) -> set[str]:
    """Return every question that a study was tested on."""
    return {item for entry in _entries(workspace.folder / OPENINGS) for item in entry["items"]}


def _test_items(workspace: Workspace) -> list[str]:
    return [example.id for example in workspace.splits["test"]]


def _overlaps(entry: Mapping[str, Any], items: Sequence[str]) -> bool:
    """True if an opening contained a fifth of these items."""
    return len(set(items) & set(entry["items"])) >= SHARED * len(items)


def seconds_in(events: Path, arm: str) -> float:
    """Return the seconds that an arm took in all processes: each from its event `begin` to its last event.

    Processes of several machines (`worker`) may have worked on it at the same time.
    """
    spans: dict[str | None, list[tuple[float, float]]] = {}  # of each worker, from each `begin` to the last event
    for event in read_own_lines(events, "arm", "stage", "time"):
        if event["arm"] != arm:
            continue
        at, own = datetime.fromisoformat(event["time"]).timestamp(), spans.setdefault(event.get("worker"), [])
        if event["stage"] == "begin":
            own.append((at, at))
        elif own:
            own[-1] = (own[-1][0], at)
    return sum(max(0.0, last - began) for own in spans.values() for began, last in own)


def manifest(
    session: Session,
    depends: Fingerprint,
    plan: Plan,
    openings: int,
    found: StudyResult,
    measured: Mapping[str, float],
    variation: Variation,
    usages: Mapping[str, Usage],
    machines: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return everything that the figures depend on, each figure marked measured, predicted, assumed or yours.

    `machines`: those that built the arms and answered; empty if this one did, which timed the arms in any case.
    """
    workspace, task, results = session.workspace, session.task, found.arms
    indexes = session.retriever.opened_indexes
    test = workspace.splits["test"]
    groups = [example.group for example in test]
    comparisons = comparisons_among(sum(arm.status == "done" for arm in results))
    items = effective_items([example.slice for example in test], task.data.mix)
    smallest = smallest_difference(items, variation, comparisons, groups)
    origins = Counter((row.source, row.licence) for part in workspace.splits.values() for row in part)
    return {
        "hashes": {
            "data": digest_of({name: depends[name] for name in ROWS}),
            "documents": depends["documents"],
            "task": digest_of(task_settings(task)),
            "plan": plan_hash(frozen_plan(task)),
            **{name: depends[words] for name, words in WEIGHTS.items() if words in depends},
        },
        "files": {name: files_of(depends[words]) for name, words in FILES.items() if words in depends},
        "versions": versions(),
        "machine": describe_machine(),
        "machines": list(machines),
        "device_check": check_summary(),
        "precision": session.precision,
        "seeds": list(range(max((arm.seeds for arm in results if arm.status == "done"), default=plan.allowance.seeds))),
        "arms": [arm.name for arm in task.arms],
        "test_openings": openings,
        "labels": list(workspace.labels) if task.task.kind == "classify" else [],
        "counts": {
            "splits": {name: len(part) for name, part in workspace.splits.items()},
            "source": _counts_of((source, count) for (source, _), count in origins.items()),
            "licence": _counts_of((licence, count) for (_, licence), count in origins.items()),
            "documents": len(workspace.documents),
        },
        "remarks": [{"level": remark.level, "text": remark.text} for remark in workspace.remarks],
        "notes": [*workspace.notes, *(one.recall.sentence for one in indexes.values() if one.recall)],
        "indexes": {
            str(words): {"passages": len(one.passages), "recall": to_plain(one.recall) if one.recall else None}
            for words, one in indexes.items()
        },
        "refused": sum(not refusal.is_file for refusal in workspace.refusals),
        "overlaps": len(workspace.overlaps),
        "private": {finding.kind: finding.count for finding in workspace.findings},
        "cuts": list(plan.cuts),
        "smallest_difference": smallest,
        "smallest_difference_from": variation.source,
        "too_few_groups": too_few_groups(groups),
        "figures": {
            "smallest_difference": _figure(smallest, "predicted"),
            **_planned(plan, results, measured),
            **_measured(results, measured, usages),
            **_user_figures(task.cost),
        },
    }


def _counts_of(counted: Iterable[tuple[str | None, int]]) -> dict[str, int]:
    """Return how many rows name each source, or licence."""
    found: Counter[str] = Counter()
    for name, count in counted:
        found[name or "not given"] += count
    return dict(found)


def _planned(plan: Plan, results: Sequence[ArmResult], measured: Mapping[str, float]) -> dict[str, Any]:
    """Return the predicted seconds and memory of each arm, with their errors if known.

    If dev stopped an arm early, its seconds are predicted for the steps that were made, and `whole` for all.
    """
    figures: dict[str, Any] = {}
    for arm in plan.arms:
        result = next((one for one in results if one.arm == arm.arm), None)
        seeds = result.seeds if result and result.status == "done" else 1
        allowance = plan.allowance_of(arm.arm)
        allowance = replace(allowance, seeds=max(seeds, allowance.seeds))
        trained = _share_trained(result)
        seconds = arm.seconds(allowance, trained=trained)
        figures[f"{arm.arm}.seconds"] = _figure(seconds, "predicted", error=_error(seconds, measured.get(arm.arm)))
        if trained < 1:
            figures[f"{arm.arm}.seconds"]["whole"] = arm.seconds(allowance)
        if arm.memory_mb is not None:
            peak = result.peak_memory_mb if result else None
            figures[f"{arm.arm}.memory_mb"] = _figure(arm.memory_mb, "predicted", error=_error(arm.memory_mb, peak))
    return figures


def _share_trained(result: ArmResult | None) -> float:
    """Return the share of an arm's planned steps that were made: below 1 after early stopping."""
    extras = result.extras if result else {}
    return min(1.0, extras["steps"] / extras["planned_steps"]) if extras.get("planned_steps") else 1.0


def _measured(
    results: Sequence[ArmResult], measured: Mapping[str, float], usages: Mapping[str, Usage]
) -> dict[str, Any]:
    """Return scores, and the seconds in all processes, of indexing and of selecting."""
    figures = {
        f"{result.arm}.score": _figure(result.score.value, "measured") for result in results if result.score is not None
    }
    figures |= {f"{name}.measured_seconds": _figure(seconds, "measured") for name, seconds in measured.items()}
    for name, usage in usages.items():
        once = {"index_seconds": usage.index_seconds, "choose_seconds": usage.choose_seconds}
        figures |= {f"{name}.{what}": _figure(seconds, "measured") for what, seconds in once.items() if seconds}
    return figures


def _user_figures(cost: CostTable) -> dict[str, Any]:
    """Return the user's prices, and the volume that is assumed if none is stated."""
    whose = "yours" if "questions_per_month" in cost.model_fields_set else "assumed"
    figures = {"questions_per_month": _figure(cost.questions_per_month, whose)}
    if cost.machine_hour:
        figures["machine_hour"] = _figure(cost.machine_hour.price, "yours")
    return figures


def _figure(value: float, provenance: str, error: float | None = None) -> dict[str, Any]:
    return {"value": value, "provenance": provenance, **({"error": error} if error is not None else {})}


def _error(predicted: float, measured: float | None) -> float | None:
    """Return the relative error of a prediction, None if unknown."""
    return (predicted - measured) / measured if measured else None
