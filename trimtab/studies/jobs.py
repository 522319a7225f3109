"""Divides a study into jobs that other machines can do, and defines the interface of such machines."""

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
from trimtab.retrieval.index import KeepVectors

WORKERS = "workers"  # folder in a study's: the events of workers, until the study is finished


@dataclass(frozen=True, kw_only=True)
class Job:
    """A part of a study that one process does: it builds one run of an arm, or answers the test questions with one.

    `arms`: several where they share what is found on dev, one after the other. `seconds`, `memory_mb`: predicted.
    `after`: the name of the job that has to be done before. `without`: what the arm goes on without if this fails.
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
    """The inputs that all jobs of a study share: the task, the study's folder, and what the user allowed."""

    task: Task
    folder: Path
    allow: tuple[str, ...] = ()
    allow_commands: bool = False
    proposals: Proposals = field(default_factory=Proposals)


class Machines(Protocol):
    """Protocol of the machines that do jobs of a study."""

    @property
    def option(self) -> str:
        """Return the command-line option that names them."""

    def fetch_study(self, task: Task, study: str) -> None:
        """Bring the folder of a study that was begun on another machine, if it is not here and they keep it."""

    def require_ready(self, task: Task, folder: Path) -> None:
        """Raise InputError unless every machine sees `folder` and has what the task needs. Nothing is spent before."""

    def divide_cores(self, jobs: int) -> int:
        """Divide the cores among so many jobs at once. Return the cores of each."""

    def forecast(self, jobs: Sequence[Job], cost: CostTable) -> Sequence[str]:
        """Return in sentences the predicted wall time of jobs and, with the user's price, what the machines cost."""

    def embed(
        self,
        load: Callable[[], Encoder],
        digest: str,
        batches: Iterator[list[str]],
        keep: KeepVectors,
        tell: Callable[[int], None],
    ) -> float:
        """Embed batches of texts with the model that `load` returns; return the seconds of all processes.

        `digest`: of the model. `keep` gets each batch with its vectors and seconds, `tell` the number of texts that are
        done.
        """

    def run(self, context: JobContext, jobs: Sequence[Job], progress: Progress) -> Mapping[str, str]:
        """Do all jobs. Return why arms failed, by name."""

    def describe(self) -> list[dict[str, Any]]:
        """Return the machines, for the manifest."""


@dataclass(frozen=True, kw_only=True)
class RemoteExecution:
    """The machines that do a study's jobs, and what the user allowed them."""

    machines: Machines
    allow: tuple[str, ...] = ()
    allow_commands: bool = False


def runs_locally(task: Task, arm: Arm) -> bool:
    """True if an arm asks an endpoint: its key stays where the study was started, and it needs no machine."""
    return arm.endpoint is not None or (imitates_teacher(arm) and task.teacher.api is not None)


def making_jobs(task: Task, arms: Sequence[Arm], plan: Plan) -> list[Job]:
    """Return the jobs that build these arms, the longest first.

    Arms that share dev scores of the base model, or a teacher's answers, are one job: nothing is measured twice, and
    what is found does not depend on which of them was first.
    """
    planned = {one.arm: one for one in plan.arms}
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        if not runs_locally(task, arm):
            groups.setdefault(_shared(arm, plan) or arm.name, []).append(arm)
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


def _shared(arm: Arm, plan: Plan) -> str:
    """Return a name for what an arm shares with others while it is built; empty for nothing."""
    if imitates_teacher(arm):
        return "the teacher"
    searches = plan.allowance_of(arm.name).search_seconds > 0
    return "the base model" if searches and method_of(arm).uses_base and not is_trained(arm) else ""


def _making_job(group: Sequence[Arm], plan: Plan, planned: Mapping[str, ArmPlan]) -> Job:
    found = [(planned[arm.name], replace(plan.allowance_of(arm.name), seeds=1)) for arm in group if arm.name in planned]
    return Job(
        name=f"make-{group[0].name}-0",
        stage="make",
        arms=tuple(arm.name for arm in group),
        seconds=sum(one.making_seconds(allowance) for one, allowance in found),
        memory_mb=max((one.memory_mb for one, _ in found if one.memory_mb is not None), default=None),
    )


def seed_job(arm: Arm, seed: int, planned: ArmPlan | None, *, after: str | None = None, without: str = "") -> Job:
    """Return the job that builds the run of a later seed."""
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
