"""Does a job of a study whose files are in an object store: in a folder of its own, which it keeps in the store."""

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
from trimtab.scale.study_files import files_for_jobs, whole_files
from trimtab.scale.study_store import ChangedError, StoredFolder, StudyStore, folder_stamps
from trimtab.scale.tasks import JobOutcome, do_job_of_node, node_file
from trimtab.studies.jobs import Job, JobContext

PUSH_SECONDS = 5.0  # between two moments at which a job keeps its folder in the store
FIRST_SECONDS = 1.0  # before it does so first: the node that does the job is in the folder
STORE_SECONDS = 120.0  # for a store that cannot be reached
FORGOTTEN_SECONDS = 7 * 24 * 3600.0  # after which a machine deletes what a study left there
_PASSING = (ChangedError, MissingError, RemoteError, OSError)  # the next time goes better


def do_stored_job(context: JobContext, job: Job, worker: str, *, store: str, cores: int, gpu: bool) -> JobOutcome:
    """Do a job as `do_job` does, with the study's files from the store at an address, and its results there.

    What an earlier process of this job kept in the store is gone on with.
    """
    home = cache_root() / "studies" / context.folder.name
    folder = home / worker
    try:
        _remove_forgotten(home.parent)
        there = StudyStore(store)
        inputs = there.pull(_inputs(context.folder.name), folder, cache=home / "files")
        if inputs is None:
            raise MissingError(f"{store}: the study {context.folder.name} is gone; go on with --resume")
        former = _latest_former(there, context, job)
        found = there.pull(former, folder) if former else None
        own = replace(
            context,
            task=context.task.model_copy(update={"file": folder / context.task.file.name}),
            folder=folder / FOLDER / "studies" / context.folder.name,
        )
        with KeptInStore(there, _of_worker(context, job, worker), folder, own.folder, inputs, found):
            return do_job_of_node(own, job, worker, cores=cores, gpu=gpu)
    except TrimtabError as error:
        return JobOutcome(stop=str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _inputs(study: str) -> str:
    return f"{study}/inputs"


def _of_job(context: JobContext, job: Job) -> str:
    return f"{context.folder.name}/jobs/{job.name}"


def _of_worker(context: JobContext, job: Job, worker: str) -> str:
    return f"{_of_job(context, job)}/{worker}"


def _latest_former(store: StudyStore, context: JobContext, job: Job) -> str | None:
    """Return the name of what the earlier processes of a job kept last."""
    names = [_of_worker(context, job, worker) for worker in store.names(_of_job(context, job))]
    found = {name: kept.number for name in names if (kept := store.read(name)) is not None}
    return max(found, key=lambda name: found[name], default=None)


def _remove_forgotten(home: Path) -> None:
    """Delete what studies of long ago left on this machine."""
    for folder in home.glob("*/"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > FORGOTTEN_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


class KeptInStore:
    """Context manager: what a job changes in the study's folder is kept in the store, all along and at the end."""

    def __init__(
        self,
        store: StudyStore,
        name: str,
        home: Path,
        study: Path,
        inputs: StoredFolder,
        former: StoredFolder | None,
    ) -> None:
        """`home`: the task's folder, `study`: the study's in it. `inputs`, `former`: what was there before the job."""
        self._store, self._name, self._home, self._study = store, name, home, study
        self._before: Mapping[str, str] = inputs.files
        self._number = former.number if former else 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._push_often, daemon=True)

    def __enter__(self) -> KeptInStore:
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

    def _push_often(self) -> None:
        pause = FIRST_SECONDS
        while not self._ended.wait(pause):
            self._push()
            pause = PUSH_SECONDS

    def _push(self) -> bool:
        """Keep the folder as it is at one moment; False if it changed meanwhile, or the store cannot be reached."""
        try:
            paths = whole_files(self._study)
            before = folder_stamps(path for path in paths if path.suffix != ".jsonl")
            self._store.push(
                self._name,
                self._home,
                paths,
                but=self._before,
                number=self._number,
                still=lambda: folder_stamps(p for p in whole_files(self._study) if p.suffix != ".jsonl") == before,
            )
        except _PASSING:
            return False
        return True


class StoredStudy:
    """A study's files in an object store, as the machine that leads it sees them."""

    def __init__(self, address: str, context: JobContext) -> None:
        self._store, self._context = StudyStore(address), context
        self._home = context.task.folder

    def send(self) -> None:
        """Keep everything in the store that jobs need."""
        files = files_for_jobs(self._context.task, self._context.folder)
        self._store.push(_inputs(self._context.folder.name), self._home, files)

    def look(self, job: Job, worker: str) -> None:
        """Bring the events of a job that runs, and on which node it does, if the store can be reached."""
        about = node_file(self._context.folder, job, worker).with_suffix("")
        begins = about.relative_to(self._home).as_posix()
        with suppress(*_PASSING):
            name = _of_worker(self._context, job, worker)
            self._store.pull(name, self._home, wanted=lambda path: path.startswith(f"{begins}."))

    def collect(self, job: Job, worker: str) -> None:
        """Bring what a job made of the study, and keep it in the store for all other jobs."""
        study = f"{self._context.folder.relative_to(self._home).as_posix()}/"
        name = _of_worker(self._context, job, worker)
        self._store.pull(name, self._home, wanted=lambda path: path.startswith(study))
        self.send()
        self._store.remove(_of_job(self._context, job))


def fetch_study(address: str, task: Task, study: str) -> None:
    """Bring what a store has of a study beside the data of the task's folder; files that are there stay."""

    def lacks(name: str) -> bool:
        return name.startswith(f"{FOLDER}/") and not (task.folder / name).exists()

    StudyStore(address).pull(_inputs(study), task.folder, wanted=lacks)
