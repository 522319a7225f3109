"""Runs the jobs of a study on a cluster: submits them, retries those whose process is lost, and relays their events."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trimtab.base.errors import TrimtabError
from trimtab.base.files import read_own_lines
from trimtab.base.progress import Progress
from trimtab.base.sanitize import visible
from trimtab.scale.stored_job import StoredStudy
from trimtab.scale.tasks import node_file
from trimtab.studies.jobs import WORKERS, Job, JobContext
from trimtab.studies.record import EVENTS

STOP_SECONDS = 20.0  # to wait until cancelled jobs have saved a checkpoint
POLL_SECONDS = 0.5
EVENTS_SECONDS = 2.0  # between two downloads of events from a store
NEW_MACHINE_SECONDS = 60.0  # to wait for a machine while there is none
ATTEMPTS = 3  # how often a job is retried
MACHINE_LOST = "its machine was lost"
MESSAGE_LENGTH = 300  # characters of one of Ray's errors that are shown


class JobRunner:
    """The runner of one list of jobs, for `Cluster.run`: it submits jobs, collects outcomes and retries lost jobs.

    `submit` gives a job to a worker of this name and returns Ray's reference to the outcome; `can_run_jobs`: is a
    machine up; `lost_nodes`: Ray's IDs. `store`: the address of the study's files, None on a shared disk.
    """

    def __init__(
        self,
        ray: Any,
        *,
        submit: Callable[[JobContext, Job, str], Any],
        can_run_jobs: Callable[[], bool],
        lost_nodes: Callable[[], set[str]],
        store: str | None,
        context: JobContext,
        jobs: Sequence[Job],
        progress: Progress,
    ) -> None:
        self.ray, self.context, self.progress = ray, context, progress
        self.submit, self.can_run_jobs, self.lost_nodes = submit, can_run_jobs, lost_nodes
        self.waiting, self.unfinished = list(jobs), {job.name for job in jobs}
        self.running: dict[Any, tuple[Job, str]] = {}  # job and worker name, by Ray's reference to the outcome
        self.stored = StoredStudy(store, context) if store else None
        self.events_pulled_at = 0.0  # when the events of running jobs were last downloaded from the store
        self.losses: Counter[str] = Counter()  # by job
        self.failures: dict[str, str] = {}
        self.failed_searches: set[str] = set()  # jobs of a search that failed, or were lost too often
        self.events = WorkerEvents(context.folder, progress)
        self.seconds_without_machine = 0.0

    def finish(self) -> Mapping[str, str]:
        """Run all jobs, as `Cluster.run` says. Return the reason for each arm that failed, by name."""
        try:
            if self.stored:
                self.stored.upload()
            while self.waiting or self.running:
                self._submit_ready()
                self._collect()
                self._pull_events()
                self.events.relay_new()
        except TrimtabError:
            self._cancel()
            raise
        except BaseException as error:
            self._cancel()
            if isinstance(error, ConnectionError | self.ray.exceptions.RaySystemError):
                raise cluster_lost_error(error) from error
            raise
        return self.failures

    def _pull_events(self) -> None:
        """Download the events of running jobs from the store, at most every EVENTS_SECONDS."""
        if self.stored and time.monotonic() - self.events_pulled_at > EVENTS_SECONDS:
            for job, worker in self.running.values():
                self.stored.pull_events(job, worker)
            self.events_pulled_at = time.monotonic()

    def _submit_ready(self) -> None:
        """Submit the jobs that wait for no other job."""
        for job in [job for job in self.waiting if self.unfinished.isdisjoint(job.after)]:
            self.waiting.remove(job)
            run_failed = set(job.arms) <= self.failures.keys()
            # the first run now chooses passages itself, and perhaps others than a trial would
            choice_failed = job.is_search and not self.failed_searches.isdisjoint(job.after)
            if run_failed or choice_failed:
                self.unfinished.discard(job.name)
                continue
            worker = f"{job.name}-{uuid.uuid4().hex[:8]}"
            self.running[self.submit(self.context, job, worker)] = job, worker

    def _collect(self) -> None:
        """Wait a moment for jobs to end, and record the outcomes of those that did."""
        if not self.running:
            return
        ended, _ = self.ray.wait(list(self.running), num_returns=1, timeout=POLL_SECONDS)
        for reference in ended:
            (job, worker), outcome = self.running.pop(reference), task_outcome(self.ray, reference)
            if isinstance(outcome, str):
                self._retry(job, outcome)
                continue
            if self.stored:
                self.stored.collect(job, worker)
            if outcome.study_error is not None:
                raise TrimtabError(outcome.study_error)
            if not job.is_search:
                self.failures |= outcome.failures
            elif outcome.failures:  # the arm goes on without it
                self.failed_searches.add(job.name)
            self.unfinished.discard(job.name)
        self._retry_on_lost_nodes()
        without = self.seconds_without_machine + POLL_SECONDS
        self.seconds_without_machine = 0.0 if ended or self.can_run_jobs() else without
        if self.seconds_without_machine > NEW_MACHINE_SECONDS:
            raise TrimtabError("no machine of the cluster is left; finished work is kept, go on with --resume")

    def _retry_on_lost_nodes(self) -> None:
        """Retry the jobs of lost nodes. Ray itself waits minutes for the result from a machine that lost its power, as
        nobody closed its connections.
        """
        lost = self.lost_nodes()
        for reference, (job, worker) in list(self.running.items()) if lost else ():
            with suppress(OSError):  # the file is missing until the job begins
                if node_file(self.context.folder, job, worker).read_text(encoding="utf-8") in lost:
                    del self.running[reference]
                    self._retry(job, MACHINE_LOST)

    def _retry(self, job: Job, why: str) -> None:
        """Queue a lost job again, or fail its arms if it was lost more than ATTEMPTS times."""
        self.losses[job.name] += 1
        names = ", ".join(job.arms)
        if self.losses[job.name] <= ATTEMPTS:
            note = f"arm {names}: {why}; begun again, from what it saved"
            self.progress.emit("plan", note=note, stays=True)
            self.waiting.append(job)
            return
        self.unfinished.discard(job.name)
        if job.is_search:
            self.failed_searches.add(job.name)
            note = f"arm {names} goes on without {job.without}: {why}, {self.losses[job.name]} times"
            self.progress.emit("failed", note=note, stays=True)
            return
        text = f"{why}, {self.losses[job.name]} times; --resume tries this arm again"
        self.progress.emit("failed", note=f"arm {names} failed: {text}", stays=True)
        self.failures |= dict.fromkeys(job.arms, text)

    def _cancel(self) -> None:
        """Cancel running jobs, which save a checkpoint first, and download their results from the store."""
        cancel_tasks(self.ray, list(self.running))
        if self.stored:
            with suppress(Exception):  # the store may be out of reach
                for job, worker in self.running.values():
                    self.stored.collect(job, worker)
        self.events.relay_new()


def task_outcome(ray: Any, reference: Any) -> Any:
    """Return the result of a Ray task that ended; or, as a string, how its process was lost."""
    errors = ray.exceptions
    try:
        return ray.get(reference)
    except errors.RayTaskError:
        raise
    except errors.OutOfMemoryError:
        return "its machine ran out of memory"
    except errors.NodeDiedError:
        return MACHINE_LOST
    except errors.RaySystemError:
        raise
    except errors.RayError as error:
        return f"its process was lost ({type(error).__name__})"


def cancel_tasks(ray: Any, references: Sequence[Any]) -> None:
    """Cancel running tasks, and wait until they have saved a checkpoint and ended, STOP_SECONDS at most."""
    with suppress(Exception):  # the cluster may be lost
        for reference in references:
            ray.cancel(reference)
        ray.wait(list(references), num_returns=max(1, len(references)), timeout=STOP_SECONDS)


def cluster_lost_error(error: BaseException) -> TrimtabError:
    """Return the error for a cluster that has stopped answering."""
    return TrimtabError(f"the cluster was lost ({last_line(error)}); go on with --resume")


class WorkerEvents:
    """A relay to a study's progress of the events in the workers' files, one file per worker; each event once."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder, self._progress = folder / WORKERS, progress
        known = read_own_lines(folder / EVENTS)
        self._relayed = Counter(event["worker"] for event in known if "worker" in event)
        self._sizes: dict[Path, int] = {}

    def relay_new(self) -> None:
        """Relay the events that were written since the last call, in order of time."""
        new = []
        for file in sorted(self._folder.glob("*/*.jsonl")):
            size = file.stat().st_size
            if self._sizes.get(file) == size:
                continue
            self._sizes[file] = size
            events = [event for event in read_own_lines(file) if event.get("worker") == file.stem]
            new += events[self._relayed[file.stem] :]
            self._relayed[file.stem] = max(self._relayed[file.stem], len(events))
        for event in sorted(new, key=lambda event: str(event["time"])):
            self._progress.relay(event)


def last_line(error: BaseException) -> str:
    """Return the last line of an error's text, where Ray puts the cause below a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return visible(lines[-1][:MESSAGE_LENGTH]) if lines else type(error).__name__
