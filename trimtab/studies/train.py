"""`train`: one arm's weights, kept as a run that `ask` and `eval` find."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.arms.artifacts import TrainedWeights
from trimtab.arms.calibration import calibrate
from trimtab.arms.contexts import context_for
from trimtab.arms.fingerprint import TRAINED_BY, digest_of, fingerprint_of, refuse_changed, rows_depend_on
from trimtab.arms.known_rows import write_rows
from trimtab.arms.recipe import recipe_for
from trimtab.arms.session import Session
from trimtab.arms.store import RunRecord, read_run, write_run
from trimtab.arms.teacher import teachers
from trimtab.arms.trainer import train_weights
from trimtab.arms.workspace import Workspace
from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import folder_named, locked, new_folder
from trimtab.base.grammar import HEAD, REWARD, is_rewarded, is_trained, method_of
from trimtab.base.machine import describe_machine
from trimtab.base.progress import Listener
from trimtab.base.records import Arm
from trimtab.base.results import Exposure
from trimtab.base.show import Shown
from trimtab.base.task import Task, parse_arm
from trimtab.measurement.scorer import ScorerFunction
from trimtab.studies.run_context import Opening, loaded, opened
from trimtab.training.monitor import Health


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainedRun(Shown):
    """A finished run; losses in nats per answer token, `dev_metric` the task's metric on dev, both of the weights that were kept.

    `pair_accuracy`: of the judged answers that are held out for the test, the share that is told right; None where none was learnt from.
    `exposure`: of the canaries, where the task asks for any.
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
        """As it is printed; without canaries no word of exposure."""
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
    """Train an arm's weights and keep them in `.trimtab/runs/ID/`.

    `resume`: the ID of an unfinished run, or "latest" for the newest of this arm. `allow` is that of `study`. `scorer` and `reward` are
    functions `(input, reference, answer) -> 0..1` in place of the task's programs. `listeners` get every event; None shows progress on
    standard error. `track`: tensorboard, wandb, mlflow or trackio, which then gets the figures of training.
    `begin`: a folder with saved weights of this arm (`run/adapter` of a bundle) to go on from, in place of the base's; `only`: ids of the
    rows to train on, all unless given; `begun` is called with the ID of the run before anything is trained. Raises InputError for an arm without weights of its own, for one with a head where `begin` is
    given, and where a run to go on with was begun with others, StoppedError after a signal.
    """
    own = loaded(task)
    chosen = parse_arm(arm, own)
    with opened(
        own,
        [chosen],
        listeners=listeners,
        allow=allow,
        allow_commands=allow_commands,
        scorer=scorer,
        reward=reward,
        rewards=is_rewarded(chosen),
        teachers=teachers(own, [chosen]),
        track=track,
    ) as opening:
        if not is_trained(chosen):
            score = opening.task.command(f"eval {arm}")
            raise InputError(f"arm {arm} has nothing to train", f"score it with: {score}")
        if begin is not None and {HEAD, REWARD} & set(chosen.stages):
            raise InputError(f"arm {arm} has a head, which is trained anew", "leave out begin", field="begin")
        folder = _run_folder(opening.workspace, chosen, seed, resume)
        allowed = "".join(f" --allow {shlex.quote(what)}" for what in allow)
        opening.goes_on_with(f"train {arm} --resume {folder.name}{allowed}{' --allow-commands' * allow_commands}")
        if begun is not None:
            begun(folder.name)
        with locked(folder):
            record, trained = _trained(opening, chosen, folder, seed, begin, only)
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


def _trained(
    opening: Opening, arm: Arm, folder: Path, seed: int, begin: Path | None, only: Collection[str] | None
) -> tuple[RunRecord, TrainedWeights]:
    """Make the weights in the run's folder, going on where a former sitting stopped; its record and what came of it."""
    begun = read_run(folder)
    session = opening.session(begun.precision if begun else None)
    if only is not None:
        train = tuple(row for row in session.workspace.splits["train"] if row.id in only)
        session.workspace = replace(session.workspace, splits={**session.workspace.splits, "train": train})
    record = _record(session, arm, begun.seed if begun else seed)
    if begun is not None:
        refuse_changed(folder, begun.depends, record.depends, opening.task.command(f"train {arm.name}"))
    write_run(folder, record)
    write_rows(folder, opening.workspace.all_splits)
    progress = opening.progress(folder / "metrics.jsonl", arm.name)
    progress.seed = record.seed
    context = context_for(arm, record.chosen)
    trained = train_weights(
        *(session, arm, context, folder, progress),
        seed=record.seed,
        scorer=opening.scorer,
        reward_program=opening.reward_program if is_rewarded(arm) else None,
        begin=begin,
    )
    calibrate(session, arm, context, folder, progress)
    write_run(folder, replace(record, result=trained))
    return record, trained


def _record(session: Session, arm: Arm, seed: int) -> RunRecord:
    """What the weights rest on; the result is filled in when the run is done. Shots and passages are as the arm says, else the usual."""
    base, splits = session.task.base, session.workspace.splits
    staged = method_of(arm).staged
    return RunRecord(
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


def _run_folder(workspace: Workspace, arm: Arm, seed: int, resume: str | None) -> Path:
    """A new run's folder, or that of the one to go on with."""
    home = workspace.folder / "runs"
    if resume is None:
        return new_folder(home, digest_of(rows_depend_on(workspace), repr(arm.identity), str(seed))[:6])
    if resume not in ("", "latest"):
        folder = folder_named(home, resume, "run", workspace.task.command("runs"))
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
