"""A simulator of the schedule of a study: jobs go to the first free worker, and workers share the cores.

`python benchmarks/cluster.py` measures one, two and four workers and compares. What the simulator is given is measured
with one worker on one core alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LEAST = 1e-9  # seconds of a job that count as none


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """What a stage of a study took with one worker: seconds until its first job began, and of each job."""

    start: float
    jobs: tuple[float, ...]

    @property
    def seconds(self) -> float:
        return self.start + sum(self.jobs)


def simulate(stage: StageTimes, workers: int, cores: int) -> float:
    """Return the second at which the last job of a stage ends. Each worker spends `start` before its first job; those
    that compute at the same time share the cores evenly.
    """
    waiting = list(stage.jobs)
    running = [stage.start + waiting.pop(0) for _ in range(min(workers, len(waiting)))]
    now = 0.0
    while running:
        rate = min(1.0, cores / len(running))
        passed = min(running)
        now += passed / rate
        left = [one - passed for one in running]
        running = [one for one in left if one > LEAST]
        running += [waiting.pop(0) for _ in range(min(len(left) - len(running), len(waiting)))]
    return now


def mean_stage(stages: Sequence[StageTimes]) -> StageTimes:
    """Return the mean of several runs of the same jobs."""
    count = len(stages)
    jobs = zip(*(one.jobs for one in stages), strict=True)
    return StageTimes(start=sum(one.start for one in stages) / count, jobs=tuple(sum(each) / count for each in jobs))


def checked(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Return for each number of workers what the model foretells from the runs of one worker, and what was measured:
    seconds of building the arms, and of the whole command, of which the rest is that of one worker.
    """
    one = measured["runs"]["1"]
    stages = {name: mean_stage([StageTimes(**run[name]) for run in one]) for name in ("building", "answering")}
    beside = sum(run["whole"] - sum(StageTimes(**run[name]).seconds for name in stages) for run in one) / len(one)
    found = []
    for workers, runs in measured["runs"].items():
        cores = min(int(workers), measured["cores"])
        model = {name: simulate(stage, int(workers), cores) for name, stage in stages.items()}
        foretold = {"building": model["building"], "whole": beside + sum(model.values())}
        for what, seconds in foretold.items():
            actual = sum(run["seconds"][what] for run in runs) / len(runs)
            found.append(
                {
                    "workers": int(workers),
                    "cores": cores,
                    "what": what,
                    "model_seconds": seconds,
                    "measured_seconds": actual,
                    "error": seconds / actual - 1,
                }
            )
    return found
