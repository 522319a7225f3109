"""Divides a study into jobs for other machines, and defines the interface to such machines (`Machines`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from trimtab.arms.artifacts import Allowance
from trimtab.arms.planning.plan import ArmPlan, Plan
from trimtab.arms.search.context_search import RATES, WORDS
from trimtab.arms.search.lr_search import first_steps
from trimtab.arms.search.reflection import reflecting_endpoint
from trimtab.base.config import CostTable
from trimtab.base.grammar import HEAD, imitates_teacher, is_trained, method_of
from trimtab.base.progress import Progress
from trimtab.base.records import Arm
from trimtab.base.task import Task
from trimtab.retrieval.embed import Encoder
from trimtab.retrieval.index import SaveVectors

LEAST_TRIAL_SECONDS = 30.0  # a shorter trial is not worth a process of its own, which first loads the model
WORKERS = "workers"  # folder in the study's folder for the events of workers, until the study is finished


@dataclass(frozen=True, kw_only=True)
class Job:
    """A part of a study for one process: choose the passages in an arm's prompts (`choose`), try one learning rate of
    its search (`trial`), build one run of it (`make`), or answer the test questions with it (`answer`).

    `arms`: several if they share dev scores or a teacher's answers; they are built one after the other. `step`: of the
    rate on the ladder (`rate_at`). `seconds`, `memory_mb`: predicted. `after`: the names of the jobs that have to
    finish first. `without`: what the arm lacks if this job fails, in words; empty if the arm then fails.
    """

    name: str
    stage: Literal["choose", "trial", "make", "answer"]
    arms: tuple[str, ...]
    seed: int = 0
    step: int = 0
    seconds: float = 0.0
    memory_mb: float | None = None
    after: tuple[str, ...] = ()
    without: str = ""

    @property
    def is_search(self) -> bool:
        """True for a part of an arm's search. Its first run goes on with the result, or searches itself without one."""
        return self.stage in ("choose", "trial")


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """The inputs that all jobs of a study share: the task, the study's folder, and what the user allowed."""

    task: Task
    folder: Path
    allow: tuple[str, ...] = ()
    allow_commands: bool = False


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
    """True if an arm, its teacher, or the model that rewrites its instruction is an endpoint, whose key must not leave
    the machine that started the study."""
    if imitates_teacher(arm):
        return task.teacher.api is not None
    return arm.endpoint is not None or reflecting_endpoint(task, [arm]) is not None


def making_jobs(task: Task, arms: Sequence[Arm], plan: Plan) -> list[Job]:
    """Return the jobs that build these arms, those first from which the longest chain of jobs begins.

    Arms that share dev scores of the base model, or a teacher's answers, are one job, so that nothing is measured
    twice and the scores do not depend on which arm is built first.
    """
    planned = {one.arm: one for one in plan.arms}
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        if not runs_locally(task, arm):
            groups.setdefault(_shared_resource(arm, plan) or arm.name, []).append(arm)
    jobs: list[Job] = []
    for group in groups.values():
        first, ahead = _making_job(group, plan, planned), list[Job]()
        if len(group) == 1 and group[0].name in planned:
            ahead = _search_jobs(group[0], planned[group[0].name], plan.allowance_of(group[0].name))
        spared = sum(job.seconds for job in ahead)
        first = replace(first, seconds=max(0.0, first.seconds - spared), after=tuple(job.name for job in ahead))
        seeds = [
            seed_job(arm, seed, planned.get(arm.name), after=(first.name,))
            for arm in group
            if is_trained(arm)
            for seed in range(1, plan.allowance_of(arm.name).seeds)
        ]
        jobs += [*ahead, first, *seeds]
    chains = _chain_seconds(jobs)
    return sorted(jobs, key=lambda job: -chains[job.name])


def _chain_seconds(jobs: Sequence[Job]) -> Mapping[str, float]:
    """Return the seconds of each job and of the longest chain of jobs that wait for it, by name. Each job stands after
    those that it waits for.
    """
    found: dict[str, float] = {}
    for job in reversed(jobs):
        found[job.name] = job.seconds + max((found[one.name] for one in jobs if job.name in one.after), default=0.0)
    return found


def _search_jobs(arm: Arm, planned: ArmPlan, allowance: Allowance) -> list[Job]:
    """Return a job for each rate of the ladder that an arm's search has time for, up to its first dev evaluation, after
    one that chooses the passages in its prompts, if there is a choice; none where trials are short.
    """
    tried = next((trial for trial in planned.trials if trial.what == RATES), None)
    if tried is None or arm.stages[:1] not in (("sft",), (HEAD,)):
        return []
    choosing = sum(trial.seconds for trial in planned.trials if trial.what in WORDS.values())
    seconds, left = tried.seconds / tried.count, max(0.0, allowance.search_seconds - choosing)
    share = left / sum(one != "docs" for one in arm.stages)
    # all rates but the last, which is beyond the edge; the usual one is tried as a part of its training
    count = min(tried.count - 1, 1 + int(share // seconds)) if seconds >= LEAST_TRIAL_SECONDS else 0
    if count < 2:
        return []
    common = partial(Job, arms=(arm.name,), memory_mb=planned.memory_mb)
    choose = common(name=f"choose-{arm.name}", stage="choose", seconds=choosing, without="an early choice of passages")
    ahead = [choose] if choosing else []
    trial = partial(common, stage="trial", seconds=seconds, after=tuple(one.name for one in ahead), without="a trial")
    return [*ahead, *(trial(name=f"try-{arm.name}-{n}", step=step) for n, step in enumerate(first_steps(count)))]


def _shared_resource(arm: Arm, plan: Plan) -> str:
    """Return a name for the resource that an arm shares with others while it is built; empty if it shares none."""
    if imitates_teacher(arm):
        return "the teacher"
    searches = plan.allowance_of(arm.name).search_seconds > 0
    return "the base model" if searches and method_of(arm).uses_base and not is_trained(arm) else ""


def first_run_job(arm: str) -> str:
    """Return the name of the job that builds the first run of an arm."""
    return f"make-{arm}-0"


def _making_job(group: Sequence[Arm], plan: Plan, planned: Mapping[str, ArmPlan]) -> Job:
    """Return the job that builds the first run of each of these arms."""
    found = [(planned[arm.name], replace(plan.allowance_of(arm.name), seeds=1)) for arm in group if arm.name in planned]
    return Job(
        name=first_run_job(group[0].name),
        stage="make",
        arms=tuple(arm.name for arm in group),
        seconds=sum(one.making_seconds(allowance) for one, allowance in found),
        memory_mb=max((one.memory_mb for one, _ in found if one.memory_mb is not None), default=None),
    )


def seed_job(arm: Arm, seed: int, planned: ArmPlan | None, *, after: tuple[str, ...] = (), without: str = "") -> Job:
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
