"""Trains one arm with a process on every GPU of a Ray cluster, or on every machine where none has a GPU.

Ray places the processes, all at once or none. Each gets its rank and the address of rank 0, as from torchrun, and runs
`train`. If a process or a machine is lost, those that are left begin again from the last checkpoint.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.arms.trainer import require_shardable
from trimtab.arms.workspace import FOLDER
from trimtab.base.errors import EXIT_INTERRUPTED, InputError, StoppedError, TrimtabError
from trimtab.base.files import write_atomic
from trimtab.base.grammar import learns_from_rewards
from trimtab.base.progress import Listener, Progress
from trimtab.base.task import Task, parse_arm, with_arms
from trimtab.model.process_group import Launch
from trimtab.scale.cluster import Cluster
from trimtab.scale.job_run import ATTEMPTS, NEW_MACHINE_SECONDS, POLL_SECONDS, lost_cluster, outcome_of, stop_tasks
from trimtab.studies.run_context import RunContext, resolve_task, run_context
from trimtab.studies.train import TrainedRun, require_trainable, train


@dataclass(frozen=True, kw_only=True)
class GroupTraining:
    """What all processes of a training are given: the arguments of `train`. `begun`: a file into which rank 0 writes
    the run's ID.
    """

    task: Task
    arm: str
    seed: int
    resume: str | None
    allow: tuple[str, ...]
    allow_commands: bool
    track: str | None
    begun: Path


@dataclass(frozen=True, kw_only=True)
class ProcessPlace:
    """Where a process will run. `node`: Ray's ID of the machine; `port`: one that is free there."""

    node: str
    address: str
    port: int


@dataclass(frozen=True, kw_only=True)
class ProcessOutcome:
    """How a process ended: with the run, or with a problem in one line and the exit code of its kind."""

    run: TrainedRun | None = None
    problem: str = ""
    exit_code: int = 0


def train_on_cluster(
    cluster: Cluster,
    task: str | Path | Task,
    arm: str,
    *,
    seed: int = 0,
    resume: str | None = None,
    allow: Sequence[str] = (),
    allow_commands: bool = False,
    track: str | None = None,
    listeners: Sequence[Listener] | None = None,
) -> TrainedRun:
    """Train an arm's weights with all GPUs of a cluster, or all machines where none has a GPU; arguments and result are
    those of `train`.

    A lost process ends the others; those that Ray can still place go on from the last checkpoint, at most ATTEMPTS
    times. Raises InputError, before anything is spent, for machines that do not see the task's folder, differ in
    versions or lack the model, and for an arm that one process must train; TrimtabError with the first process's
    problem; StoppedError after a signal.
    """
    own = resolve_task(task)
    chosen = parse_arm(arm, own)
    require_trainable(own, chosen)
    home = own.folder / FOLDER
    rewards = learns_from_rewards(chosen)
    with run_context(
        own, [chosen], listeners=listeners, allow=allow, allow_commands=allow_commands, rewards=rewards
    ) as ctx:
        cluster.require_ready(with_arms(own, [arm]), home)
        if len(cluster.offers()) > 1:
            require_shardable(chosen)
        begun = home / f".begun-{uuid.uuid4().hex}"
        training = GroupTraining(
            task=own,
            arm=arm,
            seed=seed,
            resume=resume,
            allow=tuple(allow),
            allow_commands=allow_commands,
            track=track,
            begun=begun,
        )
        try:
            return _Training(cluster, training, ctx).finish()
        finally:
            begun.unlink(missing_ok=True)


class _Training:
    """Starts the processes of one training, and starts them again if one is lost."""

    def __init__(self, cluster: Cluster, training: GroupTraining, ctx: RunContext) -> None:
        self.cluster, self.ray, self.training, self.ctx = cluster, cluster.ray, training, ctx
        self.progress = ctx.progress(arm=training.arm)
        self.events = _RunEvents(training, self.progress)

    def finish(self) -> TrainedRun:
        why = ""
        for _ in range(ATTEMPTS + 1):
            outcomes, lost = self._outcomes()
            if not lost:
                return _run_of(outcomes)
            why = "; ".join(f"rank {rank}: {how}" for rank, how in sorted(lost.items()))
            self.progress.emit("train", note=f"{why}; all begin again, from what was saved", stays=True)
            self.training = replace(self.training, resume=self.events.run or self.training.resume)
        raise TrimtabError(f"{why}, {ATTEMPTS + 1} times; go on with: {self.ctx.again or '--resume'}")

    def _outcomes(self) -> tuple[list[ProcessOutcome], dict[int, str]]:
        """Run all processes to their end. Return their outcomes by rank, and in words how some were lost."""
        from ray.util import remove_placement_group

        group, offers = self._reserved()
        references: list[Any] = []
        try:
            references = self._started(group, offers)
            found: dict[int, Any] = {}
            while len(found) < len(references):
                waiting = [one for rank, one in enumerate(references) if rank not in found]
                ended, _ = self.ray.wait(waiting, num_returns=1, timeout=POLL_SECONDS)
                found |= {references.index(one): outcome_of(self.ray, one) for one in ended}
                self._relay()
        except BaseException as error:
            stop_tasks(self.ray, references)
            self._relay()
            if isinstance(error, ConnectionError | self.ray.exceptions.RaySystemError):
                raise lost_cluster(error) from error
            raise
        finally:
            remove_placement_group(group)
        lost = {rank: one for rank, one in found.items() if isinstance(one, str)}
        return [one for _, one in sorted(found.items()) if not isinstance(one, str)], lost

    def _reserved(self) -> tuple[Any, list[dict[str, float]]]:
        """Return Ray's placement group of all processes, and what each has."""
        from ray.util import placement_group, remove_placement_group

        offers = self.cluster.offers()
        group = placement_group(offers, strategy="PACK") if offers else None
        if group is None or not group.wait(NEW_MACHINE_SECONDS):
            if group is not None:
                remove_placement_group(group)
            problem = f"the cluster has no room for {len(offers)} processes within {NEW_MACHINE_SECONDS:.0f} s"
            raise InputError(problem, "see `ray status`: is it busy?", field="--on")
        return group, offers

    def _started(self, group: Any, offers: Sequence[dict[str, float]]) -> list[Any]:
        """Start a process in every place, those of one machine next to each other; return Ray's references by rank."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        def remote(function: Any, number: int, **more: Any) -> Any:
            there = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number)
            needs = {"num_cpus": offers[number]["CPU"], "num_gpus": offers[number].get("GPU", 0)}
            return self.ray.remote(**needs, max_retries=0, scheduling_strategy=there, **more)(function)

        found = self.ray.get([remote(find_place, number).remote() for number in range(len(offers))])
        order = sorted(range(len(found)), key=lambda number: found[number].node)
        first, nodes = found[order[0]], [found[number].node for number in order]
        launches = [
            Launch(
                rank=rank,
                size=len(order),
                local_rank=0 if "GPU" in offers[number] else nodes[:rank].count(nodes[rank]),  # Ray shows it one GPU
                local_size=nodes.count(nodes[rank]),
                address=first.address,
                port=first.port,
            )
            for rank, number in enumerate(order)
        ]
        return [
            remote(train_member, number, max_calls=1).remote(self.training, launch, offers[number])
            for launch, number in zip(launches, order, strict=True)
        ]

    def _relay(self) -> None:
        self.events.relay_new()
        if self.events.run:
            self.ctx.goes_on_with(f"train {self.training.arm} --resume {self.events.run} {self.cluster.option}")


class _RunEvents:
    """The events that rank 0 writes into the run's folder, passed on once each."""

    def __init__(self, training: GroupTraining, progress: Progress) -> None:
        self._runs, self._begun, self._progress = training.task.folder / FOLDER / "runs", training.begun, progress
        self._read = {file: file.stat().st_size for file in self._runs.glob("*/metrics.jsonl")}
        self.run = ""  # its ID, as soon as it has begun

    def relay_new(self) -> None:
        """Pass on the whole lines that were written since the last call."""
        if not self.run and self._begun.is_file():
            self.run = self._begun.read_text(encoding="utf-8")
        file = self._runs / self.run / "metrics.jsonl"
        if not self.run or not file.is_file():
            return
        with open(file, "rb") as lines:
            lines.seek(self._read.get(file, 0))
            new, newline, _ = lines.read().rpartition(b"\n")
        self._read[file] = self._read.get(file, 0) + len(new + newline)
        for line in new.splitlines():
            self._progress.relay(json.loads(line))


def _run_of(outcomes: Sequence[ProcessOutcome]) -> TrainedRun:
    """Return the run of rank 0. Raises the problem of the process that failed first: others end because of it."""
    problems = [one for one in outcomes if one.problem]
    if problems:
        first = min(problems, key=lambda one: one.exit_code == EXIT_INTERRUPTED)
        if first.exit_code != EXIT_INTERRUPTED:
            raise TrimtabError(first.problem)
        raise StoppedError(first.problem.partition(": trimtab train")[0])  # the command here names the cluster, too
    run = next((one.run for one in outcomes if one.run is not None), None)
    if run is None:
        raise TrimtabError("rank 0 ended without a run; see `ray logs cluster`")
    return run


def find_place() -> ProcessPlace:
    """Return this process's machine, in Ray's words, with a free port of it."""
    import ray

    address = ray.util.get_node_ip_address()
    with socket.socket() as held:
        held.bind((address, 0))
        port = int(held.getsockname()[1])
    return ProcessPlace(node=ray.get_runtime_context().get_node_id(), address=address, port=port)


def train_member(training: GroupTraining, launch: Launch, offer: dict[str, float]) -> ProcessOutcome:
    """Train as one process of a group, with the cores and the GPU of `offer`. Rank 0 returns the run."""
    import torch

    names = {"size": "WORLD_SIZE", "local_size": "LOCAL_WORLD_SIZE", "address": "MASTER_ADDR", "port": "MASTER_PORT"}
    os.environ.update({names.get(name, name.upper()): str(value) for name, value in asdict(launch).items()})
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if "GPU" not in offer:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(int(offer["CPU"]))
    try:
        run = train(
            training.task,
            training.arm,
            seed=training.seed,
            resume=training.resume,
            allow=training.allow,
            allow_commands=training.allow_commands,
            track=training.track,
            listeners=(),
            begun=lambda run: write_atomic(training.begun, run),
        )
    except TrimtabError as error:
        return ProcessOutcome(problem=str(error), exit_code=error.exit_code)
    return ProcessOutcome(run=run if launch.rank == 0 else None)
