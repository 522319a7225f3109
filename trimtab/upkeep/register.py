"""Creation of versions: the record of an arm and its bundle, which is checked against the measured answers before it
counts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trimtab.arms.bundle import RUN
from trimtab.arms.fingerprint import ROWS, WEIGHTS, digest_of, fingerprint_rows, task_settings
from trimtab.arms.known_rows import ROWS_FILE
from trimtab.arms.store import (
    ANSWERS,
    RUN_FILE,
    RUNS,
    STUDIES,
    Pick,
    SavedArm,
    find_saved,
    picked_arm,
    read_result,
    read_run,
    require_weights,
    required_winner,
    study_of,
    with_measured_rows,
)
from trimtab.arms.workspace import FOLDER, open_workspace
from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import read_own, sha256_file, sha256_text
from trimtab.base.grammar import method_of, shots_of
from trimtab.base.machine import describe_machine
from trimtab.base.progress import Listener
from trimtab.base.records import Answer, Arm
from trimtab.base.results import ArmResult, StudyResult
from trimtab.base.task import Task
from trimtab.measurement.evaluate import save_answers
from trimtab.measurement.figures import score_estimate
from trimtab.studies.export import export
from trimtab.studies.paths import DEPENDS
from trimtab.upkeep.versions import Version, VersionBase, VersionScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A measurement of an arm since it was made: its result, its answers to the questions that hold, and the ids of
    those that do not."""

    result: ArmResult
    answers: Sequence[Answer]
    outdated: tuple[str, ...] = ()


def version_score(answers: Sequence[Answer], task: Task) -> VersionScore | None:
    """Return the score of answers; None without any."""
    if not answers:
        return None
    found = score_estimate(answers, task)
    return VersionScore(value=found.value, low=found.low, high=found.high, n=found.n, metric=task.metric)


def described(task: Task, name: str | None, run: str | None, measured: Measurement | None = None) -> Version:
    """Return a version of an arm without its files: its origins, and its measured figures.

    Raises InputError if it was measured with other documents, or other shots, than it would answer from.
    """
    pick = Pick(name) if name else required_winner(task, "registry register")
    arm = picked_arm(pick, task)
    saved = require_weights(find_saved(task, arm, run or pick.study), arm, task)
    if saved is None:
        make = task.command("study")
        raise MissingError(f"arm {arm.name} was neither measured nor trained, so that it is no version; run: {make}")
    study, manifest, depends = _origin(saved)
    if measured is None:
        _require_as_measured(task, arm, saved, depends)
    return Version(
        number=None,
        task=task.task.name,
        arm=arm.name,
        parent=None,
        created=datetime.now(UTC),
        by="",
        source=saved.id,
        artifact_sha256=None,
        weights_sha256=None,
        index_sha256=None,
        base=_base(task, arm, depends),
        settings=dict(saved.chosen),
        task_sha256=manifest.get("hashes", {}).get("task") or digest_of(task_settings(task)),
        data_sha256=digest_of({row: depends[row] for row in ROWS}) if depends.keys() >= set(ROWS) else None,
        split_sha256=depends.get(ROWS[-1]),
        documents_sha256=depends.get("documents"),
        judgements_sha256=depends.get("judged answers"),
        sources=manifest.get("counts", {}).get("source", {}),
        score=version_score(measured.answers, task) if measured else _score(saved, study),
        outdated=measured.outdated if measured else (),
        verdict=study.verdict.sentence if study else None,
        flips=study.verdict.flips if study else (),
        machine=manifest.get("machine") or describe_machine(),
    )


@contextmanager
def written(
    task: Task,
    draft: Version,
    run: str | None,
    allow: Sequence[str],
    listeners: Sequence[Listener] | None,
    measured: Measurement | None = None,
) -> Iterator[tuple[Path, Version]]:
    """Context manager: yields the folder of an arm's bundle, deleted at the exit, and its version with the hashes of
    the files.

    Raises InputError where the bundle does not answer as the arm did.
    """
    with TemporaryDirectory(prefix="registering-", dir=task.folder / FOLDER) as scratch:
        folder = Path(scratch) / "bundle"
        done = export(
            task, draft.arm, format="bundle", out=folder, run=run or draft.source, allow=allow, listeners=listeners
        )
        if done.failed:
            raise InputError(
                f"the bundle of {draft.arm} does not answer as measured: {done.headline}",
                f"look at the difference with: {task.command(f'export {draft.arm} --format bundle --out FOLDER')}",
                field="arm",
            )
        made_from = _made_from(task, draft.source) / ROWS_FILE
        if made_from.is_file():  # the version says which rows it knew, whatever becomes of the study's folder
            shutil.copyfile(made_from, folder / ROWS_FILE)
        if measured is not None:
            save_answers(folder / ANSWERS, measured.answers)
        weights = sorted((folder / RUN / "adapter").rglob("*"))
        index = sorted(path for path in folder.glob("index*/**/*"))
        yield (
            folder,
            replace(
                draft, weights_sha256=digest_of_files(folder, weights), index_sha256=digest_of_files(folder, index)
            ),
        )


def _made_from(task: Task, source: str) -> Path:
    """Return the folder of the study or run with this ID."""
    home = task.folder / FOLDER
    return next((home / kind / source for kind in (STUDIES, RUNS) if (home / kind / source).is_dir()), home)


def _origin(saved: SavedArm) -> tuple[StudyResult | None, Mapping[str, Any], Mapping[str, str]]:
    """Return the result of the study that measured an arm, its manifest, and its fingerprint; a run that was trained
    alone has no result."""
    if saved.folder.parent.name == RUNS:
        record = read_run(saved.folder)
        return None, {"machine": dict(record.machine)} if record else {}, record.depends if record else {}
    folder = study_of(saved)
    manifest, depends = (read_own(folder / name) if (folder / name).is_file() else {} for name in (RUN_FILE, DEPENDS))
    return read_result(folder), manifest, depends


def _require_as_measured(task: Task, arm: Arm, saved: SavedArm, depends: Mapping[str, str]) -> None:
    """Raise InputError if a version would answer from other documents or shots than it was measured with."""
    parts = {"documents": ("documents",) if arm.retrieves else (), "rows": ROWS if shots_of(arm) else ()}
    if not any(depends.get(name) for names in parts.values() for name in names):
        return
    now = fingerprint_rows(open_workspace(with_measured_rows(task, saved), refuse_leaks=False))
    changed = [what for what, names in parts.items() if any(depends.get(name) != now.get(name) for name in names)]
    if changed:
        raise InputError(
            f"{arm.name} was measured by {saved.id} with other {' and '.join(changed)} than there are now, "
            "so that its score would not be that of the version",
            f"measure it with these: {task.command('refresh')} if it is in production, else {task.command('study')}",
            field="arm",
        )


def _base(task: Task, arm: Arm, depends: Mapping[str, str]) -> VersionBase | None:
    if not method_of(arm).uses_base:
        return None
    return VersionBase(model=task.base.model, revision=task.base.revision, sha256=depends.get(WEIGHTS["base"]))


def _score(saved: SavedArm, study: StudyResult | None) -> VersionScore | None:
    found = saved.result.score if saved.result else None
    if found is None or study is None:
        return None
    return VersionScore(value=found.value, low=found.low, high=found.high, n=found.n, metric=study.metric)


def digest_of_files(folder: Path, paths: Sequence[Path]) -> str | None:
    """Return the SHA-256 over the names and hashes of files; None without files."""
    files = [path for path in paths if path.is_file()]
    named = [part for path in files for part in (path.relative_to(folder).as_posix(), sha256_file(path))]
    return sha256_text(*named) if files else None
