"""Connects to a Ray cluster (`open_cluster`), checks its machines, and runs the jobs of a study on them (`Cluster`).

Ray decides where and when a job runs. Jobs write their results into the study's folder, which all machines see, or
into an object store.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trimtab.arms.workspace import FOLDER
from trimtab.base.config import CostTable
from trimtab.base.display import duration_in_words
from trimtab.base.errors import InputError, PackageError
from trimtab.base.files import write_atomic
from trimtab.base.grammar import method_of
from trimtab.base.machine import cores, versions
from trimtab.base.progress import STOP_SIGNALS, Progress
from trimtab.base.sanitize import one_line, visible
from trimtab.base.task import Task
from trimtab.model.devices import gpu_count
from trimtab.retrieval.embed import Encoder
from trimtab.retrieval.index import SaveVectors
from trimtab.scale.embedding import EmbeddingPool
from trimtab.scale.job_run import ATTEMPTS, NEW_MACHINE_SECONDS, JobRunner, cluster_lost_error, last_line
from trimtab.scale.local_cluster import private_ray, require_loopback
from trimtab.scale.stored_job import fetch_study, run_stored_job
from trimtab.scale.study_files import require_inside
from trimtab.scale.study_store import StudyStore
from trimtab.scale.tasks import MachineReport, inspect_machine, run_job_in_ray
from trimtab.studies.jobs import Job, JobContext
from trimtab.studies.schedule import (
    LONG_STUDY_SECONDS,
    MachineCapacity,
    cores_each,
    describe_waits,
    end_times,
    wall_times,
)

LOCAL = "local"
CONNECT_SECONDS = 5.0  # timeout of a connection to an address
INSPECT_SECONDS = 300.0  # timeout of `inspect_machine`: a machine imports the libraries first
OBJECT_STORE_BYTES = 80 << 20  # the least that Ray accepts, as no large result goes through its object store


@contextmanager
def open_cluster(
    address: str, store: str | None = None, node_labels: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """Context manager: connects to a Ray cluster and yields its machines, for `study(machines=…)`.

    `address`: `local` for processes on this machine, which no other user reaches; `auto` for the cluster that this
    machine belongs to (or that RAY_ADDRESS names); or `ray://HOST:PORT`. `store`: the address of an object store
    (`s3://BUCKET/FOLDER`), through which machines without a shared folder exchange a study's files. `node_labels`:
    only machines with all these labels in Ray are used. Raises PackageError if Ray is not installed, and InputError if
    nothing listens at the address, if the cluster has another version of Ray or Python, or if `store` is not an address
    of an object store.
    """
    ray = _import_ray()
    if store is not None:
        StudyStore(store)
    _require_listener(address)
    former = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with ExitStack() as stack:
        local = stack.enter_context(private_ray(ray)) if address == LOCAL else {}
        try:
            _connect(ray, address, local)
            _restore(former)  # Ray ends the process at SIGTERM
            yield Cluster(ray, address, store, node_labels)
        finally:
            with suppress(Exception):
                ray.shutdown()
            _restore(former)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's default of 15 lets any other program go first
    try:
        import ray
    except ImportError:
        raise PackageError("ray", "ray", "a study on other machines") from None
    return ray


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _require_listener(address: str) -> None:
    """Raise InputError for an address that is not local, auto or ray://HOST:PORT, or where nothing listens."""
    if address == LOCAL:
        return
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    if not named or named == "auto":
        return
    parts = urlsplit(named if "://" in named else f"//{named}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme not in ("ray", "") or (address != "auto" and parts.scheme != "ray"):
        raise InputError(
            f"{named!r} is not an address of a cluster", "use local, auto, or ray://HOST:PORT", field="--on"
        )
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"nothing answers at {named} ({one_line(error)})",
            "start Ray there (`ray start --head`), or correct the address",
            field="--on",
        ) from None


def _connect(ray: Any, address: str, local: Mapping[str, Any]) -> None:
    """Connect to the cluster, or start it; `local`: further arguments of a Ray of this machine."""
    quiet = {"log_to_driver": False, "logging_level": "CRITICAL"}
    here = {"num_cpus": cores(), "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(address=address, **quiet, **({**here, **local} if address == LOCAL else {}))
        if address == LOCAL:
            require_loopback(ray)
    except ConnectionError as error:
        remedy = "start Ray on this machine (`ray start --head`), or name its address: --on ray://HOST:PORT"
        if address.startswith("ray://"):
            remedy = "check that this is the client port; where the cluster asks for a token, set RAY_AUTH_MODE=token"
        elif "Failed to connect" in str(error):  # a cluster runs here, but refuses this process
            remedy = (
                "let this machine join it (`ray start --address=…`) with the cluster's token, or use ray://HOST:PORT"
            )
        raise InputError(f"no Ray cluster was found ({last_line(error)})", remedy, field="--on") from None
    except ImportError as error:  # of a package that only the client needs
        raise PackageError(error.name or "grpcio", "ray", "a ray:// address") from None
    except RuntimeError as error:
        problem, remedy = f"Ray cannot be used ({one_line(error)})", "see `ray logs cluster`"
        if "ersion" in str(error):
            problem = f"the cluster has another version of Ray or Python ({visible(' '.join(str(error).split()))})"
            remedy = "install the same versions on all machines"
        raise InputError(problem, remedy, field="--on") from None


class Cluster:
    """The machines of a Ray cluster that have all the `node_labels`. `ray`: Ray's module, connected to the cluster."""

    def __init__(
        self, ray: Any, address: str, store: str | None = None, node_labels: Mapping[str, str] | None = None
    ) -> None:
        self.ray, self.address, self.store = ray, address, store
        self.node_labels = dict(node_labels or {})
        self.gpu = False  # True: each job that runs the base model gets a GPU, as this machine times the plan on one
        self._reports: dict[str, MachineReport] = {}  # by machine name
        self._cores = 1  # of each job

    @property
    def option(self) -> str:
        """Return the command-line options that name these machines."""
        labels = [("--node-label", f"{key}={value}") for key, value in self.node_labels.items()]
        store = [("--store", self.store)] if self.store else []
        return shlex.join(word for pair in [("--on", self.address), *labels, *store] for word in pair)

    # ---- checks before a study

    def require_ready(self, task: Task, folder: Path) -> None:
        """Raise InputError unless every machine can read `folder`, or the store, and has this machine's versions and
        the task's models. Raises RemoteError or MissingError if this machine itself cannot use the store.
        """
        self.gpu = any(method_of(arm).uses_base for arm in task.arms) and gpu_count() > 0
        if self.store:
            require_inside(task)
        folder.mkdir(parents=True, exist_ok=True)
        nodes = self._nodes()
        with self._probe(task, folder, secrets.token_hex(16)) as inspect:
            references = {name: inspect(node) for name, node in nodes.items()}
            found = {name: self._report(name, reference) for name, reference in references.items()}
            self._reports = {name: report for name, report in found.items() if report is not None}
        for name, report in self._reports.items():
            _require_usable(name, report, folder, self.store, gpu=self._needs_gpu_of(nodes[name]))
        if not self._capacities():
            lacks = "has a GPU, as this one has, on which the plan is timed" if self.gpu else "offers a core"
            labels = " and ".join(f"{key}={value}" for key, value in self.node_labels.items())
            which = f" with the label {labels}" if labels else ""
            remedy = "start one with them (`ray start --labels`), or correct --node-label"
            remedy = remedy if labels else "add one, or start the study elsewhere"
            raise InputError(f"no machine of the cluster{which} {lacks}", remedy, field="--on")

    def _nodes(self) -> dict[str, Mapping[str, Any]]:
        """Return the nodes that are up, offer a core and have the labels, by host name; several nodes of one host get
        their ID added.
        """
        found = [
            node
            for node in self.ray.nodes()
            if node["Alive"]
            and node["Resources"].get("CPU", 0) >= 1
            and self.node_labels.items() <= node["Labels"].items()
        ]
        hosts = Counter(node["NodeManagerHostname"] for node in found)
        return {
            node["NodeManagerHostname"]
            + (f"/{node['NodeID'][:8]}" if hosts[node["NodeManagerHostname"]] > 1 else ""): node
            for node in found
        }

    @contextmanager
    def _probe(self, task: Task, folder: Path, content: str) -> Iterator[Callable[[Mapping[str, Any]], Any]]:
        """Context manager: writes a probe file that every machine should be able to read, and yields a function that
        starts `inspect_machine` on a node and returns Ray's reference to its `MachineReport`.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        store, name = StudyStore(self.store) if self.store else None, f".seen-{uuid.uuid4().hex}"
        probe = name if store else str(folder / name)

        def inspect(node: Mapping[str, Any]) -> Any:
            options: dict[str, Any] = {"num_cpus": 1, "max_retries": 0}
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            if self._needs_gpu_of(node):
                options |= {"num_gpus": 1, "max_calls": 1}
            return self.ray.remote(**options)(inspect_machine).remote(task, probe, content, self.store)

        try:
            if store:
                store.write_text(name, content)
            else:
                write_atomic(folder / name, content)
            yield inspect
        finally:
            if store:
                store.remove(name)
            (folder / name).unlink(missing_ok=True)

    def _needs_gpu_of(self, node: Mapping[str, Any]) -> bool:
        """True if jobs will use a GPU of this node."""
        return self.gpu and node["Resources"].get("GPU", 0) >= 1

    def _report(self, name: str, reference: Any) -> MachineReport | None:
        """Wait for a machine's report and return it; None if the machine is gone. Raises InputError if none comes."""
        try:
            report: MachineReport = self.ray.get(reference, timeout=INSPECT_SECONDS)
        except self.ray.exceptions.GetTimeoutError:
            problem = f"machine {name} did not answer within {INSPECT_SECONDS:.0f} s"
            raise InputError(problem, "see `ray status`: is it busy, or gone?", field="--on") from None
        except (self.ray.exceptions.TaskUnschedulableError, self.ray.exceptions.NodeDiedError):
            return None
        except self.ray.exceptions.RayError as error:
            problem, remedy = f"machine {name}: {last_line(error)}", "see `ray status`"
            if "No module named" in str(error):
                problem = f"machine {name} cannot run Trimtab ({last_line(error)})"
                remedy = f"install trimtab=={versions()['trimtab']} there"
            raise InputError(problem, remedy, field="--on") from None
        return report

    def _capacities(self) -> list[MachineCapacity]:
        """Return the capacity of each machine; machines without a GPU are left out if jobs need one."""
        offered = [node["Resources"] for node in self._nodes().values()]
        return [
            MachineCapacity(
                cores=int(one["CPU"]),
                gpus=int(one.get("GPU", 0)) if self.gpu else None,
                memory_mb=one["memory"] / 1e6 if "memory" in one else None,
            )
            for one in offered
            if not self.gpu or one.get("GPU", 0) >= 1
        ]

    def fetch_study(self, task: Task, study: str) -> None:
        """Download the folder of a study that another machine began from the store, unless it is on this machine."""
        if self.store and not (task.folder / FOLDER / "studies" / study).exists():
            fetch_study(self.store, task, study)

    # ---- predictions

    def divide_cores(self, jobs: int) -> int:
        """Divide the cores of the machines among this number of concurrent jobs. Return the cores of each job."""
        self._cores = cores_each(self._capacities(), jobs)
        return self._cores

    def forecast(self, jobs: Sequence[Job], cost: CostTable) -> Sequence[str]:
        """Return sentences with the predicted wall time of jobs and, given a price, the cost of the machines.

        For a long build they also give both for other numbers of such machines, and which jobs wait for others.
        """
        machines = self._capacities()
        memory = max((job.memory_mb or 0.0 for job in jobs), default=0.0)
        slots = self._slots(memory)
        wall = max(end_times(jobs, slots).values(), default=0.0)
        whole = sum(job.seconds for job in jobs)
        builds, trials = jobs[0].stage != "answer", sum(job.stage == "trial" for job in jobs)
        what = "building" if builds else "answering the test questions:"
        runs = sum(not job.is_search for job in jobs)
        count = f"{trials} learning rates and " * (trials > 0) + f"{runs} run{'s' * (runs > 1)} of arms"
        where = f"{len(machines)} machine{'s' * (len(machines) > 1)}"
        share = f"{min(slots, len(jobs))} at once with {self._cores} core{'s' * (self._cores > 1)} each"
        times = f"about {duration_in_words(wall)} (one after another {duration_in_words(whole)})"
        hour = cost.machine_hour.price if cost.machine_hour else None
        price = "" if hour is None else f", {_amount(len(machines) * wall / 3600 * hour, cost)}"
        sentences = [f"{what} {count} on {where}, {share}: {times}{price}"]
        if builds and whole >= LONG_STUDY_SECONDS:
            sentences += self._forecast_other_sizes(jobs, machines, cost, hour)
        return sentences

    def _forecast_other_sizes(
        self, jobs: Sequence[Job], machines: Sequence[MachineCapacity], cost: CostTable, hour: float | None
    ) -> Iterator[str]:
        """Yield sentences: the wall time of building on other numbers of such machines, and which jobs wait."""
        others = [
            f"{one.machines}: about {duration_in_words(one.seconds)}"
            + (f", {_amount(one.cost, cost)}" if one.cost is not None else "")
            for one in wall_times([jobs], machines, self._cores, hour_price=hour)
            if one.machines != len(machines)
        ]
        if others:
            yield f"on other numbers of such machines: {'; '.join(others)}"
        yield "; ".join(describe_waits(jobs))

    def describe(self) -> list[dict[str, Any]]:
        """Return for the manifest each machine's name, processor, cores and memory, and the cores of a job."""
        return [{"name": name, **report.machine, "cores_each": self._cores} for name, report in self._reports.items()]

    # ---- running jobs

    def run(self, context: JobContext, jobs: Sequence[Job], progress: Progress) -> Mapping[str, str]:
        """Run all jobs, and relay their events to `progress`. Return the reason for each arm that failed, by name.

        If a job's process or machine is lost, the job is retried from its last checkpoint, ATTEMPTS times at most.
        Raises TrimtabError if a job reports an error that stops the study, or if no machine is left.
        """
        return JobRunner(
            self.ray,
            submit=self.submit,
            can_run_jobs=self.can_run_jobs,
            lost_nodes=self.lost_nodes,
            store=self.store,
            context=context,
            jobs=jobs,
            progress=progress,
        ).finish()

    def embed(
        self,
        load: Callable[[], Encoder],
        digest: str,
        batches: Iterator[list[str]],
        save: SaveVectors,
        on_progress: Callable[[int], None],
    ) -> float:
        """Embed batches of texts, as many at once as jobs would run; return the seconds of all processes together.

        `load` returns the embedding model on any machine; `digest` identifies the model. `save` gets each batch with
        its vectors and seconds, `on_progress` the number of texts that are done. Raises TrimtabError if a machine lacks
        the model, or if the cluster is lost.
        """
        pool = EmbeddingPool(
            self.ray,
            load,
            digest,
            cores=self._cores,
            slots=self._slots,
            node_labels=self.node_labels,
            attempts=ATTEMPTS,
            machine_timeout=NEW_MACHINE_SECONDS,
        )
        try:
            return pool.embed(batches, save, on_progress)
        except (ConnectionError, self.ray.exceptions.RaySystemError) as error:
            raise cluster_lost_error(error) from error

    def _slots(self, memory_mb: float = 0.0) -> int:
        return sum(machine.slots(self._cores, memory_mb) for machine in self._capacities())

    def submit(self, context: JobContext, job: Job, worker: str) -> Any:
        """Submit a job to Ray. Return Ray's reference to its `JobOutcome`."""
        options: dict[str, Any] = {"num_cpus": self._cores, "max_retries": 0, "scheduling_strategy": "SPREAD"}
        options["label_selector"] = self.node_labels
        machines = self._capacities()
        if job.memory_mb and any(machine.memory_mb for machine in machines):
            # Ray would never schedule a job that asks for more memory than the largest machine has
            options["memory"] = int(min(job.memory_mb, max(machine.memory_mb or 0.0 for machine in machines)) * 1e6)
        gpu = self.gpu and any(method_of(arm).uses_base for arm in context.task.arms if arm.name in job.arms)
        if gpu:
            options |= {"num_gpus": 1, "max_calls": 1}  # a process frees its GPU memory only when it ends
        arguments = context, job, worker
        if self.store:
            run = self.ray.remote(**options)(run_stored_job)
            return run.remote(*arguments, store=self.store, cores=self._cores, gpu=gpu)
        return self.ray.remote(**options)(run_job_in_ray).remote(*arguments, cores=self._cores, gpu=gpu)

    def training_bundles(self) -> list[dict[str, float]]:
        """Return the resources of each process of a training, as bundles of a Ray placement group: one GPU with its
        share of the machine's cores, or all cores of a machine if no machine has a GPU.
        """
        found = [node["Resources"] for node in self._nodes().values()]
        by_gpu = [
            {"CPU": float(max(1, int(one["CPU"]) // int(one["GPU"]))), "GPU": 1.0}
            for one in found
            for _ in range(int(one.get("GPU", 0)))
        ]
        return by_gpu or [{"CPU": float(int(one["CPU"]))} for one in found]

    def lost_nodes(self) -> set[str]:
        """Return Ray's IDs of the nodes that are lost."""
        return {node["NodeID"] for node in self.ray.nodes() if not node["Alive"]}

    def can_run_jobs(self) -> bool:
        """True if a machine is up that has the cores, and the GPU, of a job."""
        return any(machine.slots(self._cores) for machine in self._capacities())


def _amount(value: float, cost: CostTable) -> str:
    return f"{value:.2g} {cost.currency}"


def _require_usable(name: str, report: MachineReport, folder: Path, store: str | None, *, gpu: bool) -> None:
    """Raise InputError if a machine cannot run jobs: it cannot read the folder or store, has other versions, no GPU
    that PyTorch finds, or lacks a model.
    """
    if report.storage_error is not None and store:
        problem = f"machine {name} cannot use the store ({report.storage_error})"
        raise InputError(problem, "set there the credentials and endpoint that this machine has", field="--store")
    if report.storage_error is not None:
        raise InputError(
            f"machine {name} does not see {folder}",
            "put the task's folder where all machines have it under the same path, or name a store with --store",
            field="--on",
        )
    own = versions()
    other = next((what for what in own if report.versions.get(what) != own[what]), None)
    if other is not None:
        raise InputError(
            f"machine {name} has {other} {report.versions.get(other, 'not at all')}, this one {own[other]}",
            "install the same versions on all machines",
            field="--on",
        )
    if gpu and not report.gpus:
        raise InputError(
            f"machine {name} offers a GPU to Ray, and PyTorch finds none there",
            "install the GPU's driver and a PyTorch for it, or start Ray there with --num-gpus=0",
            field="--on",
        )
    if report.missing_model is not None:
        raise InputError(f"machine {name}: {report.missing_model}", "do it on that machine", field="--on")
