"""Predicts how many jobs of a study run at once on given machines, and when each job ends."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.studies.jobs import Job


@dataclass(frozen=True, kw_only=True)
class MachineCapacity:
    """The cores, GPUs and memory that one machine offers to jobs. `gpus`: None if the jobs need none. `memory_mb`: None
    if unknown.
    """

    cores: int
    gpus: int | None = None
    memory_mb: float | None = None

    def slots(self, cores: int, memory_mb: float | None = None) -> int:
        """Return how many jobs run on it at once, each with `cores` cores and `memory_mb` of memory."""
        limits = [self.cores // cores]
        if self.gpus is not None:
            limits.append(self.gpus)
        if self.memory_mb is not None and memory_mb:
            limits.append(max(1, int(self.memory_mb // memory_mb)))  # a prediction alone makes no machine useless
        return min(limits)


def cores_each(machines: Sequence[MachineCapacity], jobs: int) -> int:
    """Return the largest number of cores per job at which as many jobs run at once as with one core per job."""
    at_once = min(jobs, sum(machine.slots(1) for machine in machines))
    most = max((machine.cores for machine in machines), default=1)
    fitting = (cores for cores in range(most, 0, -1) if sum(machine.slots(cores) for machine in machines) >= at_once)
    return next(fitting, 1)


def end_times(jobs: Sequence[Job], slots: int) -> dict[str, float]:
    """Return the second at which each job ends, by name, if they begin in this order, each as soon as one of `slots`
    is free and the job before it (`after`) is done: a list schedule (Graham 1966, "Bounds for certain multiprocessing
    anomalies").
    """
    free, ends, waiting = [0.0] * max(1, slots), dict[str, float](), list(jobs)
    names = {job.name for job in jobs}
    while waiting:
        at = heapq.heappop(free)
        ready = [job for job in waiting if job.after not in names or ends.get(job.after or "", at + 1) <= at]
        if ready:
            waiting.remove(ready[0])
            ends[ready[0].name] = at + ready[0].seconds
            heapq.heappush(free, ends[ready[0].name])
        else:  # all wait for jobs that run: the slot stays free until the first of these ends
            heapq.heappush(free, min(end for end in ends.values() if end > at))
    return ends
