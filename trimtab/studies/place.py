"""Where a study lies: a new folder, or that of one to go on with, and what it depends on."""

from __future__ import annotations

import json
from pathlib import Path

from trimtab.arms.fingerprint import Depends, digest_of, fingerprint_of, refuse_changed, rows_depend_on, settings_of
from trimtab.arms.known_rows import write_rows
from trimtab.arms.session import Session
from trimtab.arms.workspace import FOLDER, Workspace
from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import folder_named, new_folder, read_object, write_atomic, write_json
from trimtab.base.task import Task

DEPENDS, PLAN = "depends.json", "plan.json"
SAMPLED = "size of the sample"  # in `depends.json`, where a sample was asked for
SELECTED = "study.arms"  # in `depends.json`, where they were chosen on the command line


def new_study(workspace: Workspace, home: Path, selected: Depends) -> Path:
    """A new study's folder."""
    short = digest_of({**rows_depend_on(workspace), **settings_of(workspace.task), **selected})[:6]
    folder = new_folder(home, short)
    write_atomic(home / "latest", folder.name)
    return folder


def to_go_on_with(task: Task, resume: str) -> Path:
    """The folder of the study to go on with."""
    home = task.folder / FOLDER / "studies"
    if resume not in ("", "latest"):
        return folder_named(home, resume, "study", task.command("runs"))
    pointer = home / "latest"
    if not pointer.is_file():
        raise MissingError(f"{home}: no study to go on with; start one with: {task.command('study')}")
    latest = pointer.read_text(encoding="utf-8", errors="replace").strip()
    return folder_named(home, latest, "study", task.command("runs"))


def begun(folder: Path) -> bool:
    """Whether anything of an arm is kept."""
    return any(path.is_file() for path in (folder / "arms").rglob("*"))


def selection(folder: Path) -> list[str] | None:
    """The arms that were chosen on the command line when a study was begun."""
    file = folder / DEPENDS
    chosen = read_object(file).get(SELECTED) if file.is_file() else None
    return None if chosen is None else [str(name) for name in json.loads(chosen)]


def kept_rows(folder: Path) -> int | None:
    """How many rows were asked for when a study was begun; None for all."""
    file = folder / DEPENDS
    chosen = read_object(file).get(SAMPLED) if file.is_file() else None
    return None if chosen is None else int(chosen)


def dependencies(session: Session, folder: Path, selected: Depends, *, resumed: bool) -> Depends:
    """What the study depends on, kept in its folder; raises InputError where one to go on with was begun with anything else."""
    file, now = folder / DEPENDS, {**fingerprint_of(session, session.task.arms), **selected}
    anew = session.task.command("study")
    if file.is_file():
        refuse_changed(folder, read_object(file), now, anew)
    elif resumed and (folder / PLAN).exists():
        raise InputError("was begun by an older version of Trimtab", f"start a new study with: {anew}", file=folder)
    write_rows(folder, session.workspace.all_splits)
    write_json(file, now)
    return now
