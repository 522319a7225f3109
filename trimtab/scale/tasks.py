"""Holds the tasks that Ray runs on other machines: report what the machine has, and run one job of a study."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trimtab.arms.fingerprint import uses_embedding
from trimtab.arms.planning.plan import load_plan
from trimtab.arms.search.context_search import SEARCHES
from trimtab.arms.search.reflection import may_reflect, open_reflector
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
from trimtab.studies.jobs import WORKERS, Job, JobContext, first_run_job
from trimtab.studies.paths import PLAN, require_same_dependencies
from trimtab.studies.planning import with_test_questions
from trimtab.studies.run_context import RunContext, run_context

LOCK_SECONDS = 120.0  # to wait for the lock of a process that Ray counts as lost, and that may still run
INDEX_SECONDS = 3600.0  # to wait for another job that builds the index


@dataclass(frozen=True, kw_only=True)
class MachineReport:
    """A machine's report on itself: the versions of its libraries, and its hardware.

    `storage_error`: why it cannot read the study's folder or store, None if it can. `gpus`: the number that PyTorch
    can use. `missing_model`: the error for the first model of the task that is not in its cache, None if all are.
    """

    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    storage_error: str | None = None
    gpus: int = 0
    missing_model: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobOutcome:
    """The outcome of a job. `failures`: the reason for each arm that failed, by name. `study_error`: an error in one
    line that stops the whole study.
    """

    failures: Mapping[str, str] = field(default_factory=dict)
    study_error: str | None = None


def inspect_machine(task: Task, probe: str, content: str, store: str | None = None) -> MachineReport:
    """Return this machine's report. `probe`: a file in the study's folder, or a name in the store at the address
    `store`, that must have this content.
    """
    return MachineReport(
        versions=versions(),
        machine=describe_machine(),
        storage_error=_storage_error(probe, content, store),
        gpus=gpu_count(),
        missing_model=_missing_model(task),
    )


def _storage_error(probe: str, content: str, store: str | None) -> str | None:
    """Return in one line why this machine cannot read the probe; None if it can."""
    try:
        found = StudyStore(store).read_text(probe) if store else Path(probe).read_text(encoding="utf-8")
    except (TrimtabError, OSError) as error:
        return one_line(error)
    return None if found == content else "another file is there"


def _missing_model(task: Task) -> str | None:
    """Return the error, in one line, for the first model of the task's arms that is not on this machine; None if all
    are.
    """
    from trimtab.model.catalog import resolve

    wanted = [(task.base.model, task.base.revision)] * any(method_of(arm).uses_base for arm in task.arms)
    wanted += [(task.base.embedding, None)] * any(map(uses_embedding, task.arms))
    if task.base.reranker and any(arm.retrieves for arm in task.arms):
        wanted.append((task.base.reranker, None))
    if task.teacher.model and (any(map(imitates_teacher, task.arms)) or may_reflect(task, task.arms)):
        wanted.append((task.teacher.model, task.teacher.revision))
    for name, revision in wanted:
        try:
            resolve(name, revision, near=task.folder)
        except TrimtabError as error:
            return str(error)
    return None


def run_job_in_ray(context: JobContext, job: Job, worker: str, *, cores: int, gpu: bool) -> JobOutcome:
    """Run a job by `run_job` in a Ray worker, after writing the ID of this worker's node into `node_file`."""
    import ray

    file = node_file(context.folder, job, worker)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(ray.get_runtime_context().get_node_id(), encoding="utf-8")
    return run_job(context, job, worker, cores=cores, gpu=gpu)


def node_file(folder: Path, job: Job, worker: str) -> Path:
    """Return the path of the file, in a study's folder, with Ray's ID of the node on which a job runs."""
    return folder / WORKERS / job.name / f"{worker}.node"


def run_job(context: JobContext, job: Job, worker: str, *, cores: int, gpu: bool) -> JobOutcome:
    """Run a job of a study with `cores` threads, and write its results into the study's folder.

    `worker`: the name of this process in events. `gpu`: False to leave the GPUs of this machine unused. Work that an
    earlier process finished is not repeated; training goes on from its last checkpoint.
    """
    import torch

    if not gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # CUDA reads it when a GPU is first used
    torch.set_num_threads(cores)
    try:
        with (
            locked(context.folder / WORKERS / job.name, LOCK_SECONDS),
            run_context(
                context.task,
                context.task.arms,
                listeners=(),
                allow=context.allow,
                allow_commands=context.allow_commands,
                rewards=any(map(learns_from_rewards, context.task.arms)),
                asked=teachers(context.task, context.task.arms),
            ) as ctx,
        ):
            return JobOutcome(failures=_run_arms(ctx, context, job, worker))
    except TrimtabError as error:
        return JobOutcome(study_error=str(error))


def _run_arms(ctx: RunContext, context: JobContext, job: Job, worker: str) -> Mapping[str, str]:
    """Try a rate, build or answer with the runs of a job. Return the reason for each arm that failed, by name."""
    plan = load_plan(context.folder / PLAN)
    if plan is None:
        raise InputError("is missing", "go on with --resume where the study was started", file=context.folder / PLAN)
    session = ctx.session(plan.precision)
    depends = require_same_dependencies(session, context.folder)
    session.retriever.patience = INDEX_SECONDS
    if plan.test_rows is not None:
        session.workspace = with_test_questions(session.workspace, plan.test_rows)
    arms = [arm for arm in context.task.arms if arm.name in job.arms]
    workers = context.folder / WORKERS
    progress = replace(ctx.progress(workers / job.name / f"{worker}.jsonl"), worker=worker)
    # dev scores of the base model go to the study's common file, which one job alone writes; what is looked up for the
    # passages of a trained arm is common to the jobs of its search
    own = workers / first_run_job(job.arms[0]) if any(map(is_trained, arms)) else context.folder
    own.mkdir(parents=True, exist_ok=True)
    if context.task.reflecting_endpoint is None:  # an endpoint's key stays where the study began, and so do its arms
        session.reflector = open_reflector(session, progress, own)
    work = ArmWork(ctx, session, context.folder, depends, progress, own / SEARCHES)
    for arm in arms:
        if job.stage == "choose":
            work.choose_passages(arm, plan, without=job.without)
        elif job.stage == "trial":
            work.train_trial(arm, plan, job.step, without=job.without)
        elif job.stage == "make":
            work.build_run(arm, plan, job.seed, without=job.without)
        else:
            work.answer_run(arm, plan, job.seed)
    return work.failures
