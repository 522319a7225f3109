"""Predicts how many jobs of a study run at once on given machines, when each job ends, and what the machines cost."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

from trimtab.base.display import duration_in_words
from trimtab.studies.jobs import Job

MACHINE_COUNTS = (1, 2, 4, 8)  # numbers of machines for which the wall time is predicted
LONG_STUDY_SECONDS = 600.0  # wall time from which predictions for other numbers of machines are shown
NO_GAIN_SHARE = 0.95  # share of the wall time on fewer machines from which more machines are no gain


@dataclass(frozen=True, kw_only=True)
class MachineCapacity:
    """The cores, GPUs and memory that one machine offers to jobs.

    `gpus`: None if the jobs need none. `memory_mb`: None if unknown.
    """

    cores: int
    gpus: int | None = None
    memory_mb: float | None = None

    def slots(self, cores: int, memory_mb: float | None = None) -> int:
        """Return how many jobs fit on the machine at once, each with `cores` cores and `memory_mb` of memory."""
        limits = [self.cores // cores]
        if self.gpus is not None:
            limits.append(self.gpus)
        if self.memory_mb is not None and memory_mb:
            limits.append(max(1, int(self.memory_mb // memory_mb)))  # one job runs even if more memory is predicted
        return min(limits)


def cores_each(machines: Sequence[MachineCapacity], jobs: int) -> int:
    """Return the most cores per job that do not reduce the number of jobs that run at once."""
    at_once = min(jobs, sum(machine.slots(1) for machine in machines))
    most = max((machine.cores for machine in machines), default=1)
    fitting = (cores for cores in range(most, 0, -1) if sum(machine.slots(cores) for machine in machines) >= at_once)
    return next(fitting, 1)


def end_times(jobs: Sequence[Job], slots: int) -> dict[str, float]:
    """Return the second at which each job ends, by name, under list scheduling (Graham 1966, "Bounds for certain
    multiprocessing anomalies"): jobs begin in this order, each when one of `slots` is free and its `after` are done.
    """
    free, ends, waiting = [0.0] * max(1, slots), dict[str, float](), list(jobs)
    names = {job.name for job in jobs}
    while waiting:
        at = heapq.heappop(free)
        ready = [job for job in waiting if all(ends.get(one, math.inf) <= at for one in names.intersection(job.after))]
        if ready:
            waiting.remove(ready[0])
            ends[ready[0].name] = at + ready[0].seconds
            heapq.heappush(free, ends[ready[0].name])
        else:  # every job waits for a running one: the slot stays free until the next end of a job
            heapq.heappush(free, min(end for end in ends.values() if end > at))
    return ends


@dataclass(frozen=True, slots=True, kw_only=True)
class WallTime:
    """The predicted wall time of a study on a number of machines.

    `cost`: the price of these machines for that time, in the task's currency; None if the task gives no price.
    """

    machines: int
    seconds: float
    cost: float | None = None


def wall_times(
    stages: Sequence[Sequence[Job]],
    kinds: Sequence[MachineCapacity],
    cores: int,
    *,
    alone: float = 0.0,
    hour_price: float | None = None,
) -> tuple[WallTime, ...]:
    """Return the predicted wall time on 1, 2, 4 and 8 machines of these kinds in turn, up to the number from which
    more are no gain.

    `stages`: lists of jobs; a stage begins when the one before it is done. `cores`: the cores for which the seconds of
    the jobs were predicted; fewer cores are taken to lengthen a job in proportion, more cores not to shorten it.
    `alone`: seconds of work on a single machine after all jobs.
    """
    found: list[WallTime] = []
    for number in MACHINE_COUNTS:
        machines = list(islice(cycle(kinds), number))
        runs = (sum(not job.is_search for job in jobs) for jobs in stages)
        each = cores_each(machines, max(runs, default=1))
        seconds = alone + sum(_wall_time(jobs, machines, each, cores) for jobs in stages)
        if found and seconds >= NO_GAIN_SHARE * found[-1].seconds:
            break
        cost = None if hour_price is None else number * seconds / 3600 * hour_price
        found.append(WallTime(machines=number, seconds=seconds, cost=cost))
    return tuple(found)


def _wall_time(jobs: Sequence[Job], machines: Sequence[MachineCapacity], each: int, cores: int) -> float:
    """Return the seconds until the last of the jobs ends, with `each` cores per job."""
    longer = max(1.0, cores / each) if all(machine.gpus is None for machine in machines) else 1.0
    memory = max((job.memory_mb or 0.0 for job in jobs), default=0.0)
    slots = sum(machine.slots(each, memory) for machine in machines)
    return max(end_times([replace(job, seconds=longer * job.seconds) for job in jobs], slots).values(), default=0.0)


def describe_waits(jobs: Sequence[Job]) -> Iterator[str]:
    """Yield sentences: which jobs wait for others while arms are built, and the least wall time on any number of
    machines.
    """
    for job in jobs:
        if len(job.arms) > 1:
            yield f"{', '.join(job.arms)} are built one after another, as they share what they find"
    for job in jobs:
        trials = sum(other.stage == "trial" and other.name in job.after for other in jobs)
        if trials:
            yield f"{trials} learning rates of {job.arms[0]} are tried at once, before its first run"
        later = 0 if job.is_search else sum(job.name in other.after for other in jobs)
        if later:
            yield f"{later} more seed{'s' * (later > 1)} of {job.arms[0]} wait{'s' * (later == 1)} for its first run"
    ends = end_times(jobs, len(jobs))
    longest = max(jobs, key=lambda job: ends[job.name])
    yield f"no number of machines builds {longest.arms[0]} in less than {duration_in_words(ends[longest.name])}"
