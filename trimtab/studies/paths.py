"""Study folders: creating a new one, finding one to resume, and the fingerprint in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trimtab.arms.fingerprint import (
    Fingerprint,
    digest_of,
    fingerprint_of,
    fingerprint_rows,
    require_unchanged,
    task_settings,
)
from trimtab.arms.known_rows import write_known_rows
from trimtab.arms.session import Session
from trimtab.arms.workspace import FOLDER, Workspace
from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import existing_folder, new_folder, read_own, write_atomic, write_own
from trimtab.base.task import Task

DEPENDS, PLAN = "depends.json", "plan.json"
SAMPLED = "size of the sample"  # key in `depends.json` of a requested sample
SELECTED = "study.arms"  # key in `depends.json` of arms selected on the command line


def new_study(workspace: Workspace, home: Path, selected: Fingerprint) -> Path:
    """Create and return the folder of a new study."""
    short = digest_of({**fingerprint_rows(workspace), **task_settings(workspace.task), **selected})[:6]
    folder = new_folder(home, short)
    write_atomic(home / "latest", folder.name)
    return folder


def folder_to_resume(task: Task, resume: str) -> Path:
    """Return the folder of the study to resume."""
    home = task.folder / FOLDER / "studies"
    if resume not in ("", "latest"):
        return existing_folder(home, resume, "study", task.command("runs"))
    pointer = home / "latest"
    if not pointer.is_file():
        raise MissingError(f"{home}: no study yet; start one with: {task.command('study')}")
    latest = pointer.read_text(encoding="utf-8", errors="replace").strip()
    return existing_folder(home, latest, "study", task.command("runs"))


def has_begun(folder: Path) -> bool:
    """True if anything of an arm is saved."""
    return any(path.is_file() for path in (folder / "arms").rglob("*"))


def selection(folder: Path) -> list[str] | None:
    """Return the arms that were selected on the command line when a study was begun; None for all."""
    chosen = _begun_with(folder, SELECTED)
    return None if chosen is None else [str(name) for name in json.loads(chosen)]


def requested_rows(folder: Path) -> int | None:
    """Return the number of rows that were requested when a study was begun; None for all."""
    chosen = _begun_with(folder, SAMPLED)
    return None if chosen is None else int(chosen)


def _begun_with(folder: Path, key: str) -> Any:
    file = folder / DEPENDS
    return read_own(file).get(key) if file.is_file() else None


def require_same_dependencies(session: Session, folder: Path) -> Fingerprint:
    """Return the fingerprint in a study's folder. Raises InputError if this machine would go by another."""
    kept = read_own(folder / DEPENDS)
    selected = {name: kept[name] for name in (SELECTED, SAMPLED) if name in kept}
    now = {**fingerprint_of(session, session.task.arms), **selected}
    require_unchanged(folder, kept, now, session.task.command("study"))
    return kept


def dependencies(session: Session, folder: Path, selected: Fingerprint, *, resumed: bool) -> Fingerprint:
    """Return the study's fingerprint, saved in its folder. Raises InputError if a resumed study was begun with
    another.
    """
    file, now = folder / DEPENDS, {**fingerprint_of(session, session.task.arms), **selected}
    anew = session.task.command("study")
    if file.is_file():
        require_unchanged(folder, read_own(file), now, anew)
    elif resumed and (folder / PLAN).exists():
        raise InputError(
            "is gone, so nothing tells what the study depends on", f"start a new one with: {anew}", file=file
        )
    write_known_rows(folder, session.workspace.all_splits)
    write_own(file, now)
    return now
