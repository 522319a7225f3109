"""`compare`: two studies beside each other: what changed between them, both verdicts, and every arm's paired difference."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.base.files import read_json, write_atomic
from trimtab.base.results import Changed, StudyComparison
from trimtab.base.task import TASK_FILE, Task
from trimtab.studies.open_study import OpenedStudy, open_study

# Of the manifest: what a study rests on beside its task file.
RESTS_ON = {
    "data": ("hashes", "data"),
    "documents": ("hashes", "documents"),
    "base model": ("hashes", "base"),
    "embedding": ("hashes", "embedding"),
    "precision": ("precision",),
    "processor": ("machine", "processor"),
    "rows": ("counts", "splits"),
    "looks at the test questions": ("test_openings",),
}


def compare(
    first: str | Path, second: str | Path, *, task: str | Path | Task = TASK_FILE, page: str | Path | None = None
) -> StudyComparison:
    """Compare two finished studies, each an ID, "latest" or a folder.

    `page`: an HTML file to write it to. Raises MissingError where a study is not there, InputError where they have different metrics.
    """
    one, other = open_study(first, task=task), open_study(second, task=task)
    found = StudyComparison(
        first=one.id,
        second=other.id,
        metric=one.result.metric,
        first_verdict=one.headline,
        second_verdict=other.headline,
        changes=tuple(_changes(one, other)),
        arms=tuple(one.compare(other)),
        page=None if page is None else str(page),
    )
    if page is not None:
        from trimtab.reports.compared import render

        write_atomic(Path(page), render(found))
    return found


def _changes(one: OpenedStudy, other: OpenedStudy) -> list[Changed]:
    stated = [_flat(tomllib.loads((study.folder / "task.toml").read_text("utf-8"))) for study in (one, other)]
    rests = [_rests_on(study.folder) for study in (one, other)]
    return [
        Changed(what=what, first=first.get(what, ""), second=second.get(what, ""))
        for first, second in (stated, rests)
        for what in dict.fromkeys([*first, *second])
        if first.get(what) != second.get(what)
    ]


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """The keys of a task file as they are written, `study.arms`, with their values as text."""
    found: dict[str, str] = {}
    for key, value in table.items():
        name = f"{before}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: json.dumps(value, default=str)}
    return found


def _rests_on(folder: Path) -> dict[str, str]:
    file, found = folder / "manifest.json", {}
    manifest: Any = read_json(file) if file.is_file() else {}
    for name, path in RESTS_ON.items():
        value = manifest
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found[name] = value[:12] if path[0] == "hashes" else json.dumps(value)
    return found
