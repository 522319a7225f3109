"""`compare`: two studies side by side: changes between them, both verdicts, and every arm's paired difference."""

from __future__ import annotations

import tomllib
from pathlib import Path

from trimtab.base.files import read_own, write_atomic
from trimtab.base.results import Changed, StudyComparison
from trimtab.base.show import flattened
from trimtab.base.task import TASK_FILE, Task
from trimtab.studies.open_study import OpenedStudy, open_study

SHORTEST = 12  # shown characters of a hash
RESTS_ON = {
    "hashes.data": "data",
    "hashes.documents": "documents",
    "hashes.base": "base model",
    "hashes.embedding": "embedding",
    "precision": "precision",
    "machine.processor": "processor",
    "counts.splits.train": "training rows",
    "counts.splits.dev": "dev rows",
    "counts.splits.test": "test rows",
    "test_openings": "openings of the test questions",
}
"""Of the manifest: what a study rests on beside its task file, and its name here."""


def compare(
    first: str | Path, second: str | Path, *, task: str | Path | Task = TASK_FILE, page: str | Path | None = None
) -> StudyComparison:
    """Compare two finished studies, each an ID, "latest" or a folder.

    `page`: write the comparison to this HTML file. Raises MissingError if a study is absent, InputError if their
    metrics differ.
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
        from trimtab.reports.compared import render_comparison

        write_atomic(Path(page), render_comparison(found))
    return found


def _changes(one: OpenedStudy, other: OpenedStudy) -> list[Changed]:
    """Return the differences of the task files, key by key, and of the manifests."""
    stated = [
        {
            name: str(value)
            for name, value in flattened("", tomllib.loads((study.folder / "task.toml").read_text("utf-8")))
        }
        for study in (one, other)
    ]
    rests = [_manifest_facts(study.folder) for study in (one, other)]
    return [
        Changed(what=what, first=first.get(what, ""), second=second.get(what, ""))
        for first, second in (stated, rests)
        for what in dict.fromkeys([*first, *second])
        if first.get(what) != second.get(what)
    ]


def _manifest_facts(folder: Path) -> dict[str, str]:
    """Return the manifest's entries on data, model and machine, with shortened hashes."""
    file = folder / "manifest.json"
    values = dict(flattened("", read_own(file))) if file.is_file() else {}
    return {
        name: str(values[key])[:SHORTEST] if key.startswith("hashes.") else str(values[key])
        for key, name in RESTS_ON.items()
        if key in values
    }
