"""Divides a study into jobs for other machines, and defines the interface to such machines (`Machines`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from trimtab.arms.planning.plan import ArmPlan, Plan
from trimtab.arms.search.proposals import Proposals
from trimtab.base.config import CostTable
from trimtab.base.grammar import imitates_teacher, is_trained, method_of
from trimtab.base.progress import Progress
from trimtab.base.records import Arm
from trimtab.base.task import Task
from trimtab.retrieval.embed import Encoder
from trimtab.retrieval.index import SaveVectors

WORKERS = "workers"  # folder in the study's folder for the events of workers, until the study is finished


@dataclass(frozen=True, kw_only=True)
class Job:
    """A part of a study for one process: build one run of an arm (`make`), or answer the test questions with it.

    `arms`: several if they share dev scores or a teacher's answers; they are built one after the other. `seconds`,
    `memory_mb`: predicted. `after`: the name of the job that has to finish first. `without`: what the arm lacks if
    this job fails, in words; empty if the arm then fails.
    """

    name: str
    stage: Literal["make", "answer"]
    arms: tuple[str, ...]
    seed: int = 0
    seconds: float = 0.0
    memory_mb: float | None = None
    after: str | None = None
    without: str = ""


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """The inputs that all jobs of a study share: the task, the study's folder, what the user allowed, and proposals."""

    task: Task
    folder: Path
    allow: tuple[str, ...] = ()
    allow_commands: bool = False
    proposals: Proposals = field(default_factory=Proposals)


class Machines(Protocol):
    """The interface to machines that run jobs of a study."""

    @property
    def option(self) -> str:
        """Return the command-line options that name these machines."""

    def fetch_study(self, task: Task, study: str) -> None:
        """Download the folder of a study that another machine began, unless it is here or no store is used."""

    def require_ready(self, task: Task, folder: Path) -> None:
        """Raise InputError unless every machine can read `folder` and has what the task needs."""

    def divide_cores(self, jobs: int) -> int:
        """Divide the cores among this number of concurrent jobs. Return the cores of each job."""

    def forecast(self, jobs: Sequence[Job], cost: CostTable) -> Sequence[str]:
        """Return sentences with the predicted wall time of jobs and, given a price, the cost of the machines."""

    def embed(
        self,
        load: Callable[[], Encoder],
        digest: str,
        batches: Iterator[list[str]],
        save: SaveVectors,
        on_progress: Callable[[int], None],
    ) -> float:
        """Embed batches of texts with the model that `load` returns; return the seconds of all processes together.

        `digest`: of the model. `save` gets each batch with its vectors and seconds, `on_progress` the number of texts
        that are done.
        """

    def run(self, context: JobContext, jobs: Sequence[Job], progress: Progress) -> Mapping[str, str]:
        """Run all jobs. Return the reason for each arm that failed, by name."""

    def describe(self) -> list[dict[str, Any]]:
        """Return the machines, for the manifest."""


@dataclass(frozen=True, kw_only=True)
class RemoteExecution:
    """The machines that run a study's jobs, and what the user allowed the jobs to use."""

    machines: Machines
    allow: tuple[str, ...] = ()
    allow_commands: bool = False


def runs_locally(task: Task, arm: Arm) -> bool:
    """True if an arm, or its teacher, is an endpoint: its key must not leave the machine that started the study."""
    return arm.endpoint is not None or (imitates_teacher(arm) and task.teacher.api is not None)


def making_jobs(task: Task, arms: Sequence[Arm], plan: Plan) -> list[Job]:
    """Return the jobs that build these arms, the longest first.

    Arms that share dev scores of the base model, or a teacher's answers, are one job, so that nothing is measured
    twice and the scores do not depend on which arm is built first.
    """
    planned = {one.arm: one for one in plan.arms}
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        if not runs_locally(task, arm):
            groups.setdefault(_shared_resource(arm, plan) or arm.name, []).append(arm)
    jobs = []
    for group in groups.values():
        first = _making_job(group, plan, planned)
        jobs.append(first)
        jobs += [
            seed_job(arm, seed, planned.get(arm.name), after=first.name)
            for arm in group
            if is_trained(arm)
            for seed in range(1, plan.allowance_of(arm.name).seeds)
        ]
    return sorted(jobs, key=lambda job: -job.seconds)


def _shared_resource(arm: Arm, plan: Plan) -> str:
    """Return a name for the resource that an arm shares with others while it is built; empty if it shares none."""
    if imitates_teacher(arm):
        return "the teacher"
    searches = plan.allowance_of(arm.name).search_seconds > 0
    return "the base model" if searches and method_of(arm).uses_base and not is_trained(arm) else ""


def _making_job(group: Sequence[Arm], plan: Plan, planned: Mapping[str, ArmPlan]) -> Job:
    """Return the job that builds the first run of each of these arms."""
    found = [(planned[arm.name], replace(plan.allowance_of(arm.name), seeds=1)) for arm in group if arm.name in planned]
    return Job(
        name=f"make-{group[0].name}-0",
        stage="make",
        arms=tuple(arm.name for arm in group),
        seconds=sum(one.making_seconds(allowance) for one, allowance in found),
        memory_mb=max((one.memory_mb for one, _ in found if one.memory_mb is not None), default=None),
    )


def seed_job(arm: Arm, seed: int, planned: ArmPlan | None, *, after: str | None = None, without: str = "") -> Job:
    """Return the job that builds an arm's run with a further seed."""
    return Job(
        name=f"make-{arm.name}-{seed}",
        stage="make",
        arms=(arm.name,),
        seed=seed,
        seconds=sum(stage.seconds() for stage in planned.stages) if planned else 0.0,
        memory_mb=planned.memory_mb if planned else None,
        after=after,
        without=without,
    )


def answering_jobs(task: Task, arms: Sequence[Arm], runs: Mapping[str, int], plan: Plan) -> list[Job]:
    """Return the jobs that answer the test questions with every run of these arms, the longest first. `runs`: the
    number of runs by the name of an arm.
    """
    planned = {one.arm: one for one in plan.arms}
    jobs = [
        Job(
            name=f"answer-{arm.name}-{seed}",
            stage="answer",
            arms=(arm.name,),
            seed=seed,
            seconds=planned[arm.name].answer_seconds if arm.name in planned else 0.0,
            memory_mb=planned[arm.name].memory_mb if arm.name in planned else None,
        )
        for arm in arms
        if not runs_locally(task, arm)
        for seed in range(runs.get(arm.name, 0))
    ]
    return sorted(jobs, key=lambda job: -job.seconds)
