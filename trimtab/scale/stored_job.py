"""Runs a job of a study whose files are in an object store: downloads them, and uploads what the job writes."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from trimtab.arms.workspace import FOLDER
from trimtab.base.errors import MissingError, RemoteError, TrimtabError
from trimtab.base.files import cache_root
from trimtab.base.task import Task
from trimtab.scale.study_files import files_for_jobs, finished_files
from trimtab.scale.study_store import ChangedError, StoredFolder, StudyStore, folder_stamps
from trimtab.scale.tasks import JobOutcome, node_file, run_job_in_ray
from trimtab.studies.jobs import Job, JobContext

PUSH_SECONDS = 5.0  # between two uploads of a job's files
FIRST_SECONDS = 1.0  # before the first upload, which tells what node runs the job
STORE_SECONDS = 120.0  # to wait at the end of a job for a store that cannot be reached
STALE_SECONDS = 7 * 24 * 3600.0  # after which a machine deletes its copy of a study's inputs
_TRANSIENT = (ChangedError, MissingError, RemoteError, OSError)  # errors after which the next attempt may succeed


def run_stored_job(context: JobContext, job: Job, worker: str, *, store: str, cores: int, gpu: bool) -> JobOutcome:
    """Run a job as `run_job` does, with files from the store at an address, and upload its results there.

    The job goes on from what an earlier process of it uploaded.
    """
    home = cache_root() / "studies" / context.folder.name
    folder = home / worker
    try:
        _remove_stale(home.parent)
        files = StudyStore(store)
        inputs = files.pull(_inputs_key(context.folder.name), folder, cache=home / "files")
        if inputs is None:
            raise MissingError(f"{store}: the study {context.folder.name} is gone; go on with --resume")
        key = _latest_key(files, context, job)
        previous = files.pull(key, folder) if key else None
        own = replace(
            context,
            task=context.task.model_copy(update={"file": folder / context.task.file.name}),
            folder=folder / FOLDER / "studies" / context.folder.name,
        )
        with PeriodicUpload(files, _worker_key(context, job, worker), folder, own.folder, inputs, previous):
            return run_job_in_ray(own, job, worker, cores=cores, gpu=gpu)
    except TrimtabError as error:
        return JobOutcome(study_error=str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _inputs_key(study: str) -> str:
    return f"{study}/inputs"


def _job_key(context: JobContext, job: Job) -> str:
    return f"{context.folder.name}/jobs/{job.name}"


def _worker_key(context: JobContext, job: Job, worker: str) -> str:
    return f"{_job_key(context, job)}/{worker}"


def _latest_key(store: StudyStore, context: JobContext, job: Job) -> str | None:
    """Return the key of the newest upload by an earlier process of a job; None without one."""
    keys = [_worker_key(context, job, worker) for worker in store.names(_job_key(context, job))]
    numbers = {key: folder.number for key in keys if (folder := store.read(key)) is not None}
    return max(numbers, key=lambda key: numbers[key], default=None)


def _remove_stale(home: Path) -> None:
    """Delete the copies of studies that no job has used for STALE_SECONDS."""
    for folder in home.glob("*/"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


class PeriodicUpload:
    """Context manager: uploads what a job changes in the study's folder, every PUSH_SECONDS and at the end."""

    def __init__(
        self,
        store: StudyStore,
        key: str,
        home: Path,
        study: Path,
        inputs: StoredFolder,
        previous: StoredFolder | None,
    ) -> None:
        """`key`: the folder in the store. `home`: the task's folder; `study`: the study's folder in it. `inputs`,
        `previous`: the files that were downloaded before the job.
        """
        self._store, self._key, self._home, self._study = store, key, home, study
        self._inputs: Mapping[str, str] = inputs.files
        self._number = previous.number if previous else 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._push_periodically, daemon=True)

    def __enter__(self) -> PeriodicUpload:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        until = time.monotonic() + STORE_SECONDS
        while not self._push():
            if time.monotonic() > until:
                raise RemoteError(f"{self._store.address}: cannot be reached; go on with --resume once it can")
            time.sleep(1.0)

    def _push_periodically(self) -> None:
        pause = FIRST_SECONDS
        while not self._ended.wait(pause):
            self._push()
            pause = PUSH_SECONDS

    def _push(self) -> bool:
        """Upload the folder as it is now; return False if it changed meanwhile, or if the store cannot be reached."""
        try:
            paths = finished_files(self._study)
            before = folder_stamps(path for path in paths if path.suffix != ".jsonl")
            self._store.push(
                self._key,
                self._home,
                paths,
                exclude=self._inputs,
                number=self._number,
                is_unchanged=lambda: (
                    folder_stamps(p for p in finished_files(self._study) if p.suffix != ".jsonl") == before
                ),
            )
        except _TRANSIENT:
            return False
        return True


class StoredStudy:
    """The files of a study in an object store, for the machine that started the study."""

    def __init__(self, address: str, context: JobContext) -> None:
        self._store, self._context = StudyStore(address), context
        self._home = context.task.folder

    def upload(self) -> None:
        """Upload the files that jobs read."""
        files = files_for_jobs(self._context.task, self._context.folder)
        self._store.push(_inputs_key(self._context.folder.name), self._home, files)

    def pull_events(self, job: Job, worker: str) -> None:
        """Download the events and the node file of a running job, if the store can be reached."""
        stem = node_file(self._context.folder, job, worker).with_suffix("").relative_to(self._home).as_posix()
        with suppress(*_TRANSIENT):
            key = _worker_key(self._context, job, worker)
            self._store.pull(key, self._home, wanted=lambda path: path.startswith(f"{stem}."))

    def collect(self, job: Job, worker: str) -> None:
        """Download the results of a job, and upload them for all other jobs."""
        study = f"{self._context.folder.relative_to(self._home).as_posix()}/"
        key = _worker_key(self._context, job, worker)
        self._store.pull(key, self._home, wanted=lambda path: path.startswith(study))
        self.upload()
        self._store.remove(_job_key(self._context, job))


def fetch_study(address: str, task: Task, study: str) -> None:
    """Download a study from a store into the task's folder, without the task's data; files that exist there stay."""

    def is_missing(name: str) -> bool:
        return name.startswith(f"{FOLDER}/") and not (task.folder / name).exists()

    StudyStore(address).pull(_inputs_key(study), task.folder, wanted=is_missing)
