"""Lists the files that jobs read, for machines without the task's folder: task file, data, programs and the study."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trimtab.arms.workspace import FOLDER
from trimtab.base.errors import InputError
from trimtab.base.files import is_dataset_id, split_sheet
from trimtab.base.task import Task
from trimtab.data import documents, readers
from trimtab.data.sources import resolve_pattern


def files_for_jobs(task: Task, study: Path) -> list[Path]:
    """Return the files below the task's folder that jobs of a study read."""
    inside = [task.file, *_data_files(task), *_program_files(task), *_state_files(task)]
    return list(dict.fromkeys([*inside, *finished_files(study)]))


def require_inside(task: Task) -> None:
    """Raise InputError for data that lie outside the task's folder."""
    for file in _data_files(task):
        if ".." in Path(os.path.relpath(file, task.folder)).parts:
            remedy = "move it there, so that other machines get it"
            raise InputError("lies outside the task's folder", remedy, file=file, field="--store")


def finished_files(folder: Path) -> list[Path]:
    """Return the files below a folder, without hidden ones: locks, and files that are being written."""
    found = (path for path in folder.rglob("*") if not any(part[0] == "." for part in path.relative_to(folder).parts))
    return sorted(path for path in found if path.is_file())


def _data_files(task: Task) -> Iterator[Path]:
    data, suffixes = task.data, (*documents.SUFFIXES, *readers.row_suffixes())
    schema = (task.task.format,) if task.task.format.endswith(".json") else ()
    for pattern in (*data.examples, *data.test, *data.documents, *data.preferences, *schema):
        if is_dataset_id(pattern) and not (task.folder / pattern).exists():
            continue  # each machine has data sets in its cache
        for path, _ in resolve_pattern(task.folder, pattern, suffixes, "data"):
            yield split_sheet(path)[0]


def _program_files(task: Task) -> Iterator[Path]:
    """Yield the files in the task's folder that the commands of the task file name."""
    reward = task.reward.program.argv if task.reward.program else ()
    for word in (*task.task.scorer, *reward):
        if not Path(word).is_absolute() and ".." not in Path(word).parts and (task.folder / word).is_file():
            yield task.folder / word


def _state_files(task: Task) -> Iterator[Path]:
    """Yield the split ledger, the indexes, and the run of the reward model."""
    home = task.folder / FOLDER
    if (home / "splits.parquet").is_file():
        yield home / "splits.parquet"
    for index in () if task.retrieval.store else sorted(home.glob("index*")):
        yield from finished_files(index)
    if task.reward.model is not None:
        yield from finished_files(home / "runs" / task.reward.model.run)
