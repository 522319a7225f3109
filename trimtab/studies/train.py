"""`train`: trains one arm's weights and saves them as a run for `ask` and `eval`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from trimtab.arms.calibration import calibrate
from trimtab.arms.contexts import context_for
from trimtab.arms.fingerprint import (
    TRAINED_BY,
    digest_of,
    fingerprint_of,
    fingerprint_rows,
    require_unchanged,
    task_settings,
)
from trimtab.arms.known_rows import write_known_rows
from trimtab.arms.recipe import recipe_for
from trimtab.arms.session import Session
from trimtab.arms.store import RunRecord, read_run, write_run
from trimtab.arms.teacher import teachers
from trimtab.arms.trainer import require_shardable, train_weights
from trimtab.arms.workspace import Workspace
from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import existing_folder, locked, new_folder
from trimtab.base.grammar import HEAD, REWARD, is_trained, learns_from_rewards, method_of
from trimtab.base.machine import describe_machine, versions
from trimtab.base.progress import Listener, Progress
from trimtab.base.records import Arm
from trimtab.base.results import Exposure
from trimtab.base.show import Shown
from trimtab.base.task import Task, parse_arm
from trimtab.measurement.scorer import ScorerFunction
from trimtab.model import process_group
from trimtab.studies.run_context import RunContext, resolve_task, run_context
from trimtab.training.monitor import Health


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainedRun(Shown):
    """A finished run. Losses in nats per answer token; `dev_metric` the task's metric on dev; both of the weights that
    were kept.

    `pair_accuracy`: the share of held-out test pairs that are ranked right; None unless preferences were learnt.
    `exposure`: of the memorisation canaries, if the task has any.
    """

    id: str
    arm: str
    seed: int
    folder: Path
    steps: int
    seconds: float
    tokens: int
    health: Health
    dev_loss: float | None
    dev_metric: float | None
    pair_accuracy: float | None
    exposure: Exposure | None = None

    def shaped(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Return the printed form, without exposure if there are no memorisation canaries."""
        if self.exposure is None:
            del plain["exposure"]
        return plain


def train(
    task: str | Path | Task,
    arm: str,
    *,
    seed: int = 0,
    resume: str | None = None,
    allow: Sequence[str] = (),
    allow_commands: bool = False,
    scorer: ScorerFunction | None = None,
    reward: ScorerFunction | None = None,
    listeners: Sequence[Listener] | None = None,
    track: str | None = None,
    begin: Path | None = None,
    only: Collection[str] | None = None,
    begun: Callable[[str], None] | None = None,
) -> TrainedRun:
    """Train an arm's weights and save them in `.trimtab/runs/ID/`.

    `resume`: the ID of an unfinished run, or "latest" for the newest of this arm. `allow` is that of `study`. `scorer`
    and `reward`: functions `(input, reference, answer) -> 0..1` instead of the task's programs. `listeners` get every
    event; None shows progress on standard error. `track`: tensorboard, wandb, mlflow or trackio, which gets the
    training figures. `begin`: a folder with saved weights of this arm (`run/adapter` of a bundle) to continue from,
    instead of the base model's. `only`: ids of the rows to train on, default all. `begun`: called with the ID of the
    run before training.

    Under `torchrun` all processes call it alike and train together; the first one shows progress and writes, and goes
    on alone when the weights are trained.

    Raises InputError for an arm without weights of its own, for one with a head if `begin` is given, for resuming a run
    begun with other inputs, and for processes that begin with different inputs or an arm that one process must train;
    StoppedError after a signal, or if another process fails.
    """
    own = resolve_task(task)
    chosen = parse_arm(arm, own)
    launch = process_group.launch_of(os.environ)
    if launch is not None:
        require_shardable(chosen)
    first = launch is None or launch.rank == 0
    with (
        run_context(
            own,
            [chosen],
            listeners=listeners if first else (),
            allow=allow,
            allow_commands=allow_commands,
            scorer=scorer,
            reward=reward,
            rewards=learns_from_rewards(chosen),
            asked=teachers(own, [chosen]),
            track=track if first else None,
        ) as ctx,
        ExitStack() as held,
    ):
        require_trainable(own, chosen, begin)
        with process_group.joined(launch, _begun_with(own, chosen, seed, resume)):
            folder = _common_folder(ctx, chosen, seed, resume)
            allowed = "".join(f" --allow {shlex.quote(what)}" for what in allow)
            ctx.goes_on_with(f"train {arm} --resume {folder.name}{allowed}{' --allow-commands' * allow_commands}")
            if first:
                held.enter_context(locked(folder))
                if begun is not None:
                    begun(folder.name)
            saved = read_run(folder)
            session = ctx.session(saved.precision if saved else None)
            if only is not None:
                rows = tuple(row for row in session.workspace.splits["train"] if row.id in only)
                session.workspace = session.workspace.with_training_rows(rows)
            record = _begin_record(session, chosen, folder, saved.seed if saved else seed, saved)
            context = context_for(chosen, record.chosen)
            progress = ctx.progress(folder / "metrics.jsonl" if first else None, chosen.name)
            progress.seed = record.seed
            if chosen.retrieves:
                process_group.main_process_first(partial(session.retriever.index_of, context.words))
            trained = train_weights(
                *(session, chosen, context, folder, progress),
                seed=record.seed,
                scorer=ctx.scorer,
                reward_program=ctx.reward_program if learns_from_rewards(chosen) else None,
                begin=begin,
            )
        if launch is not None:
            session.release_base()  # it was divided; what follows needs the whole
        if first:
            write_known_rows(folder, ctx.workspace.all_splits)
            if launch is None or _can_calibrate(session, progress):
                calibrate(session, chosen, context, folder, progress)
            write_run(folder, replace(record, result=trained))
    return TrainedRun(
        id=folder.name,
        arm=chosen.name,
        seed=record.seed,
        folder=folder,
        steps=trained.steps,
        seconds=trained.seconds,
        tokens=trained.tokens,
        health=trained.health,
        dev_loss=trained.best.dev_loss if trained.best else None,
        dev_metric=trained.best.dev_metric if trained.best else None,
        pair_accuracy=trained.pair_accuracy[0] if trained.pair_accuracy else None,
        exposure=trained.exposure,
    )


def require_trainable(task: Task, arm: Arm, begin: Path | None = None) -> None:
    """Raise InputError for an arm without weights to train, or with a head if it is to begin with weights (`begin`)."""
    if not is_trained(arm):
        score = task.command(f"eval {arm.name}")
        raise InputError(f"arm {arm.name} has nothing to train", f"score it with: {score}")
    if begin is not None and {HEAD, REWARD} & set(arm.stages):
        raise InputError(f"arm {arm.name} has a head, which is trained from scratch", "leave out begin", field="begin")


def _begun_with(task: Task, arm: Arm, seed: int, resume: str | None) -> dict[str, str]:
    """Return what the processes of a group must have in common before they read anything."""
    own = {f"version of {name}": value for name, value in versions().items()}
    return {**own, **task_settings(task), "arm": repr(arm.identity), "seed": str(seed), "--resume": str(resume)}


def _common_folder(ctx: RunContext, arm: Arm, seed: int, resume: str | None) -> Path:
    """Return the folder of the run, which the first process of a group makes; raises InputError on one that does not
    see it.
    """
    workspace = process_group.main_process_first(lambda: ctx.workspace)
    path = process_group.broadcast(lambda: str(_run_folder(workspace, arm, seed, resume).resolve()))
    folder = Path(path)
    if not folder.is_dir():
        problem = f"rank 0 keeps the run there, and rank {process_group.rank()} does not see it"
        raise InputError(problem, "put the task into a folder that all machines share, at the same path", file=folder)
    return folder


def _can_calibrate(session: Session, progress: Progress) -> bool:
    """True if the whole base model fits into this process, which alone goes on after a group has trained; says so
    otherwise.
    """
    if session.task.task.kind != "classify" or session.base_fits():
        return True
    progress.emit("choose", note="labels stay uncalibrated: the base model is too large for one process", stays=True)
    return False


def _begin_record(session: Session, arm: Arm, folder: Path, seed: int, saved: RunRecord | None) -> RunRecord:
    """Write the record of what the weights depend on; the result is added when the run is finished. Shots and passages
    are the arm's own or the defaults. Raises InputError if it differs from what the resumed run was begun with, or from
    what another process of the group begins with.
    """
    base, splits = session.task.base, session.workspace.splits
    staged = method_of(arm).staged
    record = RunRecord(
        arm=arm,
        seed=seed,
        chosen=context_for(arm).chosen(),
        depends={**fingerprint_of(session, [arm], TRAINED_BY), f"arm {arm.name}": repr(arm.identity)},
        model=base.model,
        revision=base.revision,
        embedding=base.embedding,
        recipe=recipe_for(session, arm, seed) if staged else None,
        precision=session.base.precision if staged else None,
        machine=describe_machine(),
        counts={name: len(part) for name, part in splits.items()},
    )
    if saved is not None:
        require_unchanged(folder, saved.depends, record.depends, session.task.command(f"train {arm.name}"))
    process_group.require_same(record.depends)
    if process_group.is_main_process():
        write_run(folder, record)
    return record


def _run_folder(workspace: Workspace, arm: Arm, seed: int, resume: str | None) -> Path:
    """Return the folder of a new run, or of the one to resume."""
    home = workspace.folder / "runs"
    if resume is None:
        return new_folder(home, digest_of(fingerprint_rows(workspace), repr(arm.identity), str(seed))[:6])
    if resume not in ("", "latest"):
        folder = existing_folder(home, resume, "run", workspace.task.command("runs"))
        begun = read_run(folder)
        own = begun.arm.name if begun else arm.name
        if own != arm.name:
            again = workspace.task.command(f"train {own} --resume {resume}")
            raise InputError(f"is a run of arm {own}", f"go on with: {again}", file=folder)
        return folder
    for folder in sorted(home.glob("*"), reverse=True):
        begun = read_run(folder)
        if begun is not None and begun.arm.name == arm.name:
            return folder
    start = workspace.task.command(f"train {arm.name}")
    raise MissingError(f"{home}: no run of {arm.name} to go on with; start one with: {start}")
