"""Predicts what machines do with the jobs of a study: how many at once, and when the last one ends."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.studies.elsewhere import Job


@dataclass(frozen=True, kw_only=True)
class Room:
    """What one machine offers. `gpus`: None if the jobs need none. `memory_mb`: None if unknown."""

    cores: int
    gpus: int | None = None
    memory_mb: float | None = None

    def slots(self, cores: int, memory_mb: float | None = None) -> int:
        """Return how many jobs of so many cores and so much memory it takes at once."""
        limits = [self.cores // cores]
        if self.gpus is not None:
            limits.append(self.gpus)
        if self.memory_mb is not None and memory_mb:
            limits.append(max(1, int(self.memory_mb // memory_mb)))  # a prediction alone makes no machine useless
        return min(limits)


def cores_each(rooms: Sequence[Room], jobs: int) -> int:
    """Return the most cores that each of so many jobs can have while as many of them run at once as with one core."""
    at_once = min(jobs, sum(room.slots(1) for room in rooms))
    most = max((room.cores for room in rooms), default=1)
    fitting = (cores for cores in range(most, 0, -1) if sum(room.slots(cores) for room in rooms) >= at_once)
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
