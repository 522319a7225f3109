"""Trains one arm with a process on every GPU of a Ray cluster, or on every machine where none has a GPU.

Ray places the processes, all at once or none. Each gets its rank and the address of rank 0, as from torchrun, and runs
`train`. If a process or a machine is lost, all processes are started again, from the last checkpoint, on what is left.
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
from trimtab.scale.job_run import (
    ATTEMPTS,
    NEW_MACHINE_SECONDS,
    POLL_SECONDS,
    cancel_tasks,
    cluster_lost_error,
    task_outcome,
)
from trimtab.studies.run_context import RunContext, resolve_task, run_context
from trimtab.studies.train import TrainedRun, require_trainable, train


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """The arguments of `train` that every process of a training gets. `run_id_file`: a file into which rank 0 writes
    the ID of the run when it begins.
    """

    task: Task
    arm: str
    seed: int
    resume: str | None
    allow: tuple[str, ...]
    allow_commands: bool
    track: str | None
    run_id_file: Path


@dataclass(frozen=True, kw_only=True)
class ProcessAddress:
    """The machine on which a process will run: Ray's ID of the node, its IP address, and a free port there."""

    node: str
    address: str
    port: int


@dataclass(frozen=True, kw_only=True)
class ProcessOutcome:
    """The outcome of a process: the run (of rank 0), or an error in one line and its exit code."""

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
    """Train an arm's weights with all GPUs of a cluster, or all machines if none has a GPU; arguments and result are
    those of `train`.

    If a process is lost, the others end, and as many as Ray can place go on from the last checkpoint, ATTEMPTS times at
    most. Raises InputError, before training, for machines that cannot read the task's folder, differ in versions or
    lack the model, and for an arm that one process must train; TrimtabError with the error of the process that failed
    first; StoppedError after a signal.
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
        if len(cluster.training_bundles()) > 1:
            require_shardable(chosen)
        run_id_file = home / f".begun-{uuid.uuid4().hex}"
        arguments = TrainArguments(
            task=own,
            arm=arm,
            seed=seed,
            resume=resume,
            allow=tuple(allow),
            allow_commands=allow_commands,
            track=track,
            run_id_file=run_id_file,
        )
        try:
            return _GroupTraining(cluster, arguments, ctx).finish()
        finally:
            run_id_file.unlink(missing_ok=True)


class _GroupTraining:
    """One training by a group of processes: starts them, and starts them again if one is lost."""

    def __init__(self, cluster: Cluster, arguments: TrainArguments, ctx: RunContext) -> None:
        self.cluster, self.ray, self.arguments, self.ctx = cluster, cluster.ray, arguments, ctx
        self.progress = ctx.progress(arm=arguments.arm)
        self.events = _RunEvents(arguments, self.progress)

    def finish(self) -> TrainedRun:
        """Train to the end, and return the run of rank 0."""
        why = ""
        for _ in range(ATTEMPTS + 1):
            outcomes, lost = self._run_group()
            if not lost:
                return _run_of_rank_0(outcomes)
            why = "; ".join(f"rank {rank}: {how}" for rank, how in sorted(lost.items()))
            self.progress.emit("train", note=f"{why}; all begin again, from what was saved", stays=True)
            self.arguments = replace(self.arguments, resume=self.events.run or self.arguments.resume)
        raise TrimtabError(f"{why}, {ATTEMPTS + 1} times; go on with: {self.ctx.again or '--resume'}")

    def _run_group(self) -> tuple[list[ProcessOutcome], dict[int, str]]:
        """Run all processes once. Return their outcomes by rank, and for each rank that was lost how it was lost."""
        from ray.util import remove_placement_group

        group, bundles = self._reserve()
        references: list[Any] = []
        try:
            references = self._start(group, bundles)
            found: dict[int, Any] = {}
            while len(found) < len(references):
                waiting = [one for rank, one in enumerate(references) if rank not in found]
                ended, _ = self.ray.wait(waiting, num_returns=1, timeout=POLL_SECONDS)
                found |= {references.index(one): task_outcome(self.ray, one) for one in ended}
                self._relay()
        except BaseException as error:
            cancel_tasks(self.ray, references)
            self._relay()
            if isinstance(error, ConnectionError | self.ray.exceptions.RaySystemError):
                raise cluster_lost_error(error) from error
            raise
        finally:
            remove_placement_group(group)
        lost = {rank: one for rank, one in found.items() if isinstance(one, str)}
        return [one for _, one in sorted(found.items()) if not isinstance(one, str)], lost

    def _reserve(self) -> tuple[Any, list[dict[str, float]]]:
        """Reserve room for all processes. Return Ray's placement group, and the resources of each of its bundles."""
        from ray.util import placement_group, remove_placement_group

        bundles = self.cluster.training_bundles()
        labels = [self.cluster.node_labels] * len(bundles)
        group = placement_group(bundles, strategy="PACK", bundle_label_selector=labels) if bundles else None
        if group is None or not group.wait(NEW_MACHINE_SECONDS):
            if group is not None:
                remove_placement_group(group)
            problem = f"the cluster has no room for {len(bundles)} processes within {NEW_MACHINE_SECONDS:.0f} s"
            raise InputError(problem, "see `ray status`: is it busy?", field="--on")
        return group, bundles

    def _start(self, group: Any, bundles: Sequence[dict[str, float]]) -> list[Any]:
        """Start a process in every bundle, with consecutive ranks on one machine; return Ray's references by rank."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        def remote(function: Any, number: int, **more: Any) -> Any:
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number)
            needs = {"num_cpus": bundles[number]["CPU"], "num_gpus": bundles[number].get("GPU", 0)}
            return self.ray.remote(**needs, max_retries=0, scheduling_strategy=strategy, **more)(function)

        found = self.ray.get([remote(find_address, number).remote() for number in range(len(bundles))])
        order = sorted(range(len(found)), key=lambda number: found[number].node)
        first, nodes = found[order[0]], [found[number].node for number in order]
        launches = [
            Launch(
                rank=rank,
                size=len(order),
                local_rank=0 if "GPU" in bundles[number] else nodes[:rank].count(nodes[rank]),  # it sees one GPU
                local_size=nodes.count(nodes[rank]),
                address=first.address,
                port=first.port,
            )
            for rank, number in enumerate(order)
        ]
        return [
            remote(train_as_rank, number, max_calls=1).remote(self.arguments, launch, bundles[number])
            for launch, number in zip(launches, order, strict=True)
        ]

    def _relay(self) -> None:
        """Relay new events, and keep the command that resumes the run up to date."""
        self.events.relay_new()
        if self.events.run:
            self.ctx.goes_on_with(f"train {self.arguments.arm} --resume {self.events.run} {self.cluster.option}")


class _RunEvents:
    """A relay of the events that rank 0 writes into the run's folder; each event once."""

    def __init__(self, arguments: TrainArguments, progress: Progress) -> None:
        self._runs, self._progress = arguments.task.folder / FOLDER / "runs", progress
        self._run_id_file = arguments.run_id_file
        self._read = {file: file.stat().st_size for file in self._runs.glob("*/metrics.jsonl")}
        self.run = ""  # the ID of the run, once it has begun

    def relay_new(self) -> None:
        """Relay the complete lines that were written since the last call."""
        if not self.run and self._run_id_file.is_file():
            self.run = self._run_id_file.read_text(encoding="utf-8")
        file = self._runs / self.run / "metrics.jsonl"
        if not self.run or not file.is_file():
            return
        with open(file, "rb") as lines:
            lines.seek(self._read.get(file, 0))
            new, newline, _ = lines.read().rpartition(b"\n")
        self._read[file] = self._read.get(file, 0) + len(new + newline)
        for line in new.splitlines():
            event = json.loads(line)
            del event["form"]  # of the file; the study's own file gets it anew
            self._progress.relay(event)


def _run_of_rank_0(outcomes: Sequence[ProcessOutcome]) -> TrainedRun:
    """Return the run of rank 0. Raises TrimtabError with the error of the process that failed first, which ended the
    others; StoppedError if all were interrupted.
    """
    problems = [one for one in outcomes if one.problem]
    if problems:
        first = min(problems, key=lambda one: one.exit_code == EXIT_INTERRUPTED)
        if first.exit_code != EXIT_INTERRUPTED:
            raise TrimtabError(first.problem)
        raise StoppedError(first.problem.partition(": trimtab train")[0])  # the caller's command names the cluster, too
    run = next((one.run for one in outcomes if one.run is not None), None)
    if run is None:
        raise TrimtabError("rank 0 ended without a run; see `ray logs cluster`")
    return run


def find_address() -> ProcessAddress:
    """Return the address of the machine on which this process runs, with a free port."""
    import ray

    address = ray.util.get_node_ip_address()
    with socket.socket() as listener:
        listener.bind((address, 0))
        port = int(listener.getsockname()[1])
    return ProcessAddress(node=ray.get_runtime_context().get_node_id(), address=address, port=port)


def train_as_rank(arguments: TrainArguments, launch: Launch, bundle: dict[str, float]) -> ProcessOutcome:
    """Train as one process of a group, with the cores and the GPU of its bundle. Rank 0 returns the run."""
    import torch

    names = {"size": "WORLD_SIZE", "local_size": "LOCAL_WORLD_SIZE", "address": "MASTER_ADDR", "port": "MASTER_PORT"}
    os.environ.update({names.get(name, name.upper()): str(value) for name, value in asdict(launch).items()})
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if "GPU" not in bundle:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(int(bundle["CPU"]))
    try:
        run = train(
            arguments.task,
            arguments.arm,
            seed=arguments.seed,
            resume=arguments.resume,
            allow=arguments.allow,
            allow_commands=arguments.allow_commands,
            track=arguments.track,
            listeners=(),
            begun=lambda run: write_atomic(arguments.run_id_file, run),
        )
    except TrimtabError as error:
        return ProcessOutcome(problem=str(error), exit_code=error.exit_code)
    return ProcessOutcome(run=run if launch.rank == 0 else None)
