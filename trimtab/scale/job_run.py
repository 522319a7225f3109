"""Runs the jobs of a study on a cluster: begins those again whose process is lost, and passes their events on."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.base.errors import TrimtabError
from trimtab.base.files import read_json_lines
from trimtab.base.progress import Progress
from trimtab.base.sanitize import visible
from trimtab.scale.stored_job import StoredStudy
from trimtab.scale.tasks import node_file
from trimtab.studies.jobs import WORKERS, Job, JobContext
from trimtab.studies.record import EVENTS

if TYPE_CHECKING:
    from trimtab.scale.cluster import Cluster

STOP_SECONDS = 20.0  # for running jobs to save a checkpoint
POLL_SECONDS = 0.5
EVENTS_SECONDS = 2.0  # between two looks for events in a store
NEW_MACHINE_SECONDS = 60.0  # to wait for a machine if the last one was lost
ATTEMPTS = 3  # how often a job is begun again
MACHINE_LOST = "its machine was lost"
LETTERS = 300  # of an error of Ray's


class JobRun:
    """Runs the jobs of one call of `Cluster.run`, and begins those again whose process is lost."""

    def __init__(
        self, cluster: Cluster, ray: Any, context: JobContext, jobs: Sequence[Job], progress: Progress
    ) -> None:
        self.cluster, self.ray, self.context, self.progress = cluster, ray, context, progress
        self.waiting, self.unfinished = list(jobs), {job.name for job in jobs}
        self.running: dict[Any, tuple[Job, str]] = {}  # a job and its worker
        self.stored = StoredStudy(cluster.store, context) if cluster.store else None
        self.looked = 0.0  # when the events of running jobs were last brought from the store
        self.lost: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self.events = WorkerEvents(context.folder, progress)
        self.stranded = 0.0  # seconds without a machine

    def finish(self) -> Mapping[str, str]:
        """Do all jobs, as `Cluster.run` says. Return why arms failed, by name."""
        try:
            if self.stored:
                self.stored.send()
            while self.waiting or self.running:
                self._submit_ready()
                self._collect()
                self._look()
                self.events.relay_new()
        except TrimtabError:
            self._stop()
            raise
        except BaseException as error:
            self._stop()
            if isinstance(error, ConnectionError | self.ray.exceptions.RaySystemError):
                raise lost_cluster(error) from error
            raise
        return self.failures

    def _look(self) -> None:
        """Bring the events of running jobs from the store, now and then."""
        if self.stored and time.monotonic() - self.looked > EVENTS_SECONDS:
            for job, worker in self.running.values():
                self.stored.look(job, worker)
            self.looked = time.monotonic()

    def _submit_ready(self) -> None:
        for job in [job for job in self.waiting if job.after not in self.unfinished]:
            self.waiting.remove(job)
            if set(job.arms) <= self.failures.keys():  # the run before it failed
                self.unfinished.discard(job.name)
                continue
            worker = f"{job.name}-{uuid.uuid4().hex[:8]}"
            self.running[self.cluster.submit(self.context, job, worker)] = job, worker

    def _collect(self) -> None:
        """Wait a moment for jobs that end, and take note of how they ended."""
        if not self.running:
            return
        ended, _ = self.ray.wait(list(self.running), num_returns=1, timeout=POLL_SECONDS)
        for reference in ended:
            (job, worker), outcome = self.running.pop(reference), outcome_of(self.ray, reference)
            if isinstance(outcome, str):
                self._begin_again(job, outcome)
                continue
            if self.stored:
                self.stored.collect(job, worker)
            if outcome.stop is not None:
                raise TrimtabError(outcome.stop)
            self.failures |= outcome.failures
            self.unfinished.discard(job.name)
        self._give_up_lost()
        self.stranded = 0.0 if ended or self.cluster.has_room() else self.stranded + POLL_SECONDS
        if self.stranded > NEW_MACHINE_SECONDS:
            raise TrimtabError("no machine of the cluster is left; finished work is kept, go on with --resume")

    def _give_up_lost(self) -> None:
        """Begin the jobs of lost nodes again. Ray itself waits minutes for the answer of a machine without power, whose
        connections nobody closed.
        """
        lost = self.cluster.lost_nodes()
        for reference, (job, worker) in list(self.running.items()) if lost else ():
            with suppress(OSError):  # not there before the job begins
                if node_file(self.context.folder, job, worker).read_text(encoding="utf-8") in lost:
                    del self.running[reference]
                    self._begin_again(job, MACHINE_LOST)

    def _begin_again(self, job: Job, why: str) -> None:
        self.lost[job.name] += 1
        names = ", ".join(job.arms)
        if self.lost[job.name] <= ATTEMPTS:
            note = f"arm {names}: {why}; begun again, from what it saved"
            self.progress.emit("plan", note=note, stays=True)
            self.waiting.append(job)
            return
        text = f"{why}, {self.lost[job.name]} times; --resume tries this arm again"
        self.progress.emit("failed", note=f"arm {names} failed: {text}", stays=True)
        self.failures |= dict.fromkeys(job.arms, text)
        self.unfinished.discard(job.name)

    def _stop(self) -> None:
        """Have running jobs save a checkpoint and end, and bring what they left in the store."""
        stop_tasks(self.ray, list(self.running))
        if self.stored:
            with suppress(Exception):  # a store that is lost has nothing to bring
                for job, worker in self.running.values():
                    self.stored.collect(job, worker)
        self.events.relay_new()


def outcome_of(ray: Any, reference: Any) -> Any:
    """Return what a task that ended returned, or in words, a string, how its process was lost."""
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


def stop_tasks(ray: Any, references: Sequence[Any]) -> None:
    """Have running tasks save a checkpoint and end."""
    with suppress(Exception):  # a cluster that is lost has nothing to stop
        for reference in references:
            ray.cancel(reference)
        ray.wait(list(references), num_returns=max(1, len(references)), timeout=STOP_SECONDS)


def lost_cluster(error: BaseException) -> TrimtabError:
    """Return the error for a cluster that does not answer any more."""
    return TrimtabError(f"the cluster was lost ({last_line(error)}); go on with --resume")


class WorkerEvents:
    """The events of workers, each of which writes a file of its own, passed on to a study's progress once each."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder, self._progress = folder / WORKERS, progress
        known = read_json_lines(folder / EVENTS)
        self._passed = Counter(event["worker"] for event in known if isinstance(event, dict) and "worker" in event)
        self._sizes: dict[Path, int] = {}

    def relay_new(self) -> None:
        """Pass on what was written since the last call, in the order of its time."""
        new = []
        for file in sorted(self._folder.glob("*/*.jsonl")):
            size = file.stat().st_size
            if self._sizes.get(file) == size:
                continue
            self._sizes[file] = size
            events = [event for event in read_json_lines(file) if event.get("worker") == file.stem]
            new += events[self._passed[file.stem] :]
            self._passed[file.stem] = max(self._passed[file.stem], len(events))
        for event in sorted(new, key=lambda event: str(event["time"])):
            self._progress.relay(event)


def last_line(error: BaseException) -> str:
    """Return the last line of an error's text, where Ray puts the cause below a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return visible(lines[-1][:LETTERS]) if lines else type(error).__name__
