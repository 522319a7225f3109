"""Runs in a process on another machine: reports what the machine has, and does one job of a study."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trimtab.arms.fingerprint import uses_embedding
from trimtab.arms.planning.plan import load_plan
from trimtab.arms.search.context_search import SEARCHES
from trimtab.arms.teacher import teachers
from trimtab.base.errors import InputError, TrimtabError
from trimtab.base.files import locked
from trimtab.base.grammar import imitates_teacher, is_trained, learns_from_rewards, method_of
from trimtab.base.machine import describe_machine, versions
from trimtab.base.sanitize import one_line
from trimtab.base.task import Task
from trimtab.model.devices import gpu_count
from trimtab.scale.study_store import StudyStore
from trimtab.studies.arm_work import ArmWork
from trimtab.studies.jobs import WORKERS, Job, JobContext
from trimtab.studies.paths import PLAN, require_same_dependencies
from trimtab.studies.planning import with_test_questions
from trimtab.studies.run_context import RunContext, run_context

PATIENCE = 120.0  # seconds to wait for a process that was lost, and may not know it yet
INDEXING = 3600.0  # seconds to wait for another job that builds the index


@dataclass(frozen=True, kw_only=True)
class MachineReport:
    """A machine's report on itself: the versions of its libraries, its hardware, why it does not see the study's folder
    or store (None if it does), the number of GPUs that the task's process could use, and the error of the first model
    that is not in its cache.
    """

    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    unseen: str | None = None
    gpus: int = 0
    missing_model: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobOutcome:
    """How a job ended. `failures`: the reason of each arm that failed, by name. `stop`: a reason that stops the whole
    study, in one line.
    """

    failures: Mapping[str, str] = field(default_factory=dict)
    stop: str | None = None


def inspect_machine(task: Task, token: str, words: str, store: str | None = None) -> MachineReport:
    """Return this machine's report. `token`: a file in the study's folder, or a name in the store at an address, which
    must hold `words`.
    """
    return MachineReport(
        versions=versions(),
        machine=describe_machine(),
        unseen=_unseen(token, words, store),
        gpus=gpu_count(),
        missing_model=_missing_model(task),
    )


def _unseen(token: str, words: str, store: str | None) -> str | None:
    """Return in one line why this machine does not read `words`; None if it does."""
    try:
        found = StudyStore(store).read_text(token) if store else Path(token).read_text(encoding="utf-8")
    except (TrimtabError, OSError) as error:
        return one_line(error)
    return None if found == words else "another file is there"


def _missing_model(task: Task) -> str | None:
    """Return in one line which of the models that the task's arms use is not on this machine."""
    from trimtab.model.catalog import resolve

    wanted = [(task.base.model, task.base.revision)] * any(method_of(arm).uses_base for arm in task.arms)
    wanted += [(task.base.embedding, None)] * any(map(uses_embedding, task.arms))
    if task.base.reranker and any(arm.retrieves for arm in task.arms):
        wanted.append((task.base.reranker, None))
    if task.teacher.model and any(map(imitates_teacher, task.arms)):
        wanted.append((task.teacher.model, task.teacher.revision))
    for name, revision in wanted:
        try:
            resolve(name, revision, near=task.folder)
        except TrimtabError as error:
            return str(error)
    return None


def do_job_of_node(context: JobContext, job: Job, worker: str, *, cores: int, gpu: bool) -> JobOutcome:
    """Do a job as `do_job` does, in a process of Ray's. What runs it is told first: the study's `node_file`."""
    import ray

    file = node_file(context.folder, job, worker)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(ray.get_runtime_context().get_node_id(), encoding="utf-8")
    return do_job(context, job, worker, cores=cores, gpu=gpu)


def node_file(folder: Path, job: Job, worker: str) -> Path:
    """Return the file of a study's folder with Ray's name of the node that does a job."""
    return folder / WORKERS / job.name / f"{worker}.node"


def do_job(context: JobContext, job: Job, worker: str, *, cores: int, gpu: bool) -> JobOutcome:
    """Do a job of a study with `cores` threads, and keep what it made in the study's folder. `worker`: its name in
    events. `gpu`: False if a GPU of this machine is not to be used.

    What is done already is recognised, and what was begun goes on from its last checkpoint.
    """
    import torch

    if not gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # read when a GPU is first asked for
    torch.set_num_threads(cores)
    try:
        with (
            locked(context.folder / WORKERS / job.name, PATIENCE),
            run_context(
                context.task,
                context.task.arms,
                listeners=(),
                allow=context.allow,
                allow_commands=context.allow_commands,
                rewards=any(map(learns_from_rewards, context.task.arms)),
                teachers=teachers(context.task, context.task.arms),
            ) as ctx,
        ):
            return JobOutcome(failures=_done(ctx, context, job, worker))
    except TrimtabError as error:
        return JobOutcome(stop=str(error))


def _done(ctx: RunContext, context: JobContext, job: Job, worker: str) -> Mapping[str, str]:
    """Do a job. Return why arms failed, by name."""
    plan = load_plan(context.folder / PLAN)
    if plan is None:
        raise InputError("is missing", "go on with --resume where the study was started", file=context.folder / PLAN)
    session = ctx.session(plan.precision)
    depends = require_same_dependencies(session, context.folder)
    session.proposals, session.retriever.patience = context.proposals, INDEXING
    if plan.test_rows is not None:
        session.workspace = with_test_questions(session.workspace, plan.test_rows)
    arms = [arm for arm in context.task.arms if arm.name in job.arms]
    own = context.folder / WORKERS / job.name
    progress = replace(ctx.progress(own / f"{worker}.jsonl"), worker=worker)
    # the base model's dev scores are those of one job, which alone writes them
    searches = own / SEARCHES if any(map(is_trained, arms)) else context.folder / SEARCHES
    work = ArmWork(ctx, session, context.folder, depends, progress, searches)
    for arm in arms:
        if job.stage == "make":
            work.build_run(arm, plan, job.seed, without=job.without)
        else:
            work.answer_run(arm, plan, job.seed)
    return work.failures
