"""A Ray cluster as the machines of a study: `open_cluster` connects, checks what every machine has, and does jobs.

Ray decides where and when a job runs. Jobs leave their results in the study's folder, which all machines see.
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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trimtab.arms.workspace import FOLDER
from trimtab.base.cgroups import cores
from trimtab.base.config import CostTable
from trimtab.base.display import duration_in_words
from trimtab.base.errors import InputError, PackageError
from trimtab.base.files import write_atomic
from trimtab.base.grammar import method_of
from trimtab.base.machine import versions
from trimtab.base.progress import STOP_SIGNALS, Progress
from trimtab.base.sanitize import one_line, visible
from trimtab.base.task import Task
from trimtab.model.devices import gpu_count
from trimtab.retrieval.embed import Encoder
from trimtab.retrieval.index import KeepVectors
from trimtab.scale.embedding import EmbeddingPool
from trimtab.scale.job_run import ATTEMPTS, NEW_MACHINE_SECONDS, JobRun, last_line, lost_cluster
from trimtab.scale.stored_job import do_stored_job, fetch_study
from trimtab.scale.study_files import require_inside
from trimtab.scale.study_store import StudyStore
from trimtab.scale.tasks import MachineReport, do_job_of_node, inspect_machine
from trimtab.studies.jobs import Job, JobContext
from trimtab.studies.schedule import (
    WORTH_SECONDS,
    MachineCapacity,
    cores_each,
    end_times,
    waits_in_words,
    wall_times,
)

LOCAL = "local"
CONNECT_SECONDS = 5.0  # for an address to answer
LOOK_SECONDS = 300.0  # for a machine to tell what it has: it imports the libraries first
STORE_BYTES = 80 << 20  # Ray's least: no result goes through its object store


@contextmanager
def open_cluster(address: str, store: str | None = None) -> Iterator[Cluster]:
    """Context manager: yields the machines of a Ray cluster, for `study(machines=…)`.

    `address`: `local` for processes on this machine, `auto` for the cluster that this machine belongs to (or that
    RAY_ADDRESS names), or `ray://HOST:PORT`. `store`: the address of an object store (`s3://BUCKET/FOLDER`) through
    which a study's files go where machines share no folder. Raises PackageError without Ray, and InputError for an
    address where nothing listens, a cluster of another version of Ray or Python, or what is no address of a store.
    """
    ray = _import_ray()
    if store is not None:
        StudyStore(store)
    _require_listener(address)
    former = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        _connect(ray, address)
        _restore(former)  # Ray ends the process at SIGTERM
        yield Cluster(ray, address, store)
    finally:
        with suppress(Exception):
            ray.shutdown()
        _restore(former)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    os.environ.setdefault("RAY_worker_niceness", "0")  # of processes here; Ray's own 15 yields to any other program
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
    """Raise InputError for an address of another form, or where nothing listens."""
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
        raise InputError(f"{named!r} is no address", "use local, auto, or ray://HOST:PORT", field="--on")
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"nothing answers at {named} ({one_line(error)})",
            "start Ray there (`ray start --head`), or correct the address",
            field="--on",
        ) from None


def _connect(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "CRITICAL"}
    here = {"num_cpus": cores(), "include_dashboard": False, "object_store_memory": STORE_BYTES}
    try:
        ray.init(address=address, **quiet, **(here if address == LOCAL else {}))
    except ConnectionError as error:
        remedy = "start Ray on this machine (`ray start --head`), or name its address: --on ray://HOST:PORT"
        if address.startswith("ray://"):
            remedy = "check that this is the client port; where the cluster asks for a token, set RAY_AUTH_MODE=token"
        elif "Failed to connect" in str(error):  # there is one, for others
            remedy = (
                "let this machine join it (`ray start --address=…`) with the cluster's token, or use ray://HOST:PORT"
            )
        raise InputError(f"no Ray cluster was found ({last_line(error)})", remedy, field="--on") from None
    except ImportError as error:  # of what the client alone needs
        raise PackageError(error.name or "grpcio", "ray", "a ray:// address") from None
    except RuntimeError as error:
        problem, remedy = f"Ray cannot be used ({one_line(error)})", "see `ray logs cluster`"
        if "ersion" in str(error):
            problem = f"the cluster has another version of Ray or Python ({visible(' '.join(str(error).split()))})"
            remedy = "install the same versions on all machines"
        raise InputError(problem, remedy, field="--on") from None


class Cluster:
    """The machines of a connected Ray cluster. `ray`: the module, connected."""

    def __init__(self, ray: Any, address: str, store: str | None = None) -> None:
        self.ray, self.address, self.store = ray, address, store
        self.gpu = False  # True: jobs that run the base model get a GPU each, as the plan is timed on one here
        self._reports: dict[str, MachineReport] = {}  # by the name of a machine
        self._cores = 1  # of each job

    @property
    def option(self) -> str:
        """Return the command-line options that name these machines."""
        return f"--on {self.address}" + (f" --store {shlex.quote(self.store)}" if self.store else "")

    # ---- before anything is spent

    def require_ready(self, task: Task, folder: Path) -> None:
        """Raise InputError unless every machine sees `folder`, or the store, and has the versions and models of this
        one. Raises an error of the store if this machine cannot use it.
        """
        self.gpu = any(method_of(arm).uses_base for arm in task.arms) and gpu_count() > 0
        if self.store:
            require_inside(task)
        folder.mkdir(parents=True, exist_ok=True)
        nodes = self._nodes()
        with self._token(task, folder, secrets.token_hex(16)) as ask:
            asked = {name: ask(node) for name, node in nodes.items()}
            seen = {name: self._report(name, reference) for name, reference in asked.items()}
            self._reports = {name: report for name, report in seen.items() if report is not None}
        for name, report in self._reports.items():
            _require_fit(name, report, folder, self.store, gpu=self._needs_gpu_of(nodes[name]))
        if not self._capacities():
            lacks = "has a GPU, as this one has, on which the plan is timed" if self.gpu else "offers a core"
            remedy = "add one, or start the study elsewhere"
            raise InputError(f"no machine of the cluster {lacks}", remedy, field="--on")

    def _nodes(self) -> dict[str, Mapping[str, Any]]:
        """Return the machines that are up and offer a core, by host name, which several nodes of one host extend."""
        found = [node for node in self.ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        hosts = Counter(node["NodeManagerHostname"] for node in found)
        return {
            node["NodeManagerHostname"]
            + (f"/{node['NodeID'][:8]}" if hosts[node["NodeManagerHostname"]] > 1 else ""): node
            for node in found
        }

    @contextmanager
    def _token(self, task: Task, folder: Path, words: str) -> Iterator[Callable[[Mapping[str, Any]], Any]]:
        """Context manager: writes words where all machines should see them; yields a function that asks a machine what
        it has, and returns Ray's reference to its `MachineReport`.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        store, name = StudyStore(self.store) if self.store else None, f".seen-{uuid.uuid4().hex}"
        token = name if store else str(folder / name)

        def ask(node: Mapping[str, Any]) -> Any:
            options: dict[str, Any] = {"num_cpus": 1, "max_retries": 0}
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            if self._needs_gpu_of(node):
                options |= {"num_gpus": 1, "max_calls": 1}
            return self.ray.remote(**options)(inspect_machine).remote(task, token, words, self.store)

        try:
            if store:
                store.write_text(name, words)
            else:
                write_atomic(folder / name, words)
            yield ask
        finally:
            if store:
                store.remove(name)
            (folder / name).unlink(missing_ok=True)

    def _needs_gpu_of(self, node: Mapping[str, Any]) -> bool:
        """True if jobs will use a GPU of this node."""
        return self.gpu and node["Resources"].get("GPU", 0) >= 1

    def _report(self, name: str, reference: Any) -> MachineReport | None:
        """Return what a machine has, None if it is gone. Raises InputError if it does not tell."""
        try:
            report: MachineReport = self.ray.get(reference, timeout=LOOK_SECONDS)
        except self.ray.exceptions.GetTimeoutError:
            problem = f"machine {name} did not answer within {LOOK_SECONDS:.0f} s"
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
        """Return what each machine offers to jobs; those without a GPU are left out where one is needed."""
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
        """Bring the folder of a study that was begun on another machine from the store, if it is not here."""
        if self.store and not (task.folder / FOLDER / "studies" / study).exists():
            fetch_study(self.store, task, study)

    # ---- what is foretold

    def divide_cores(self, jobs: int) -> int:
        """Divide the cores of the machines among so many jobs at once. Return the cores of each."""
        self._cores = cores_each(self._capacities(), jobs)
        return self._cores

    def forecast(self, jobs: Sequence[Job], cost: CostTable) -> Sequence[str]:
        """Return in sentences the predicted wall time of jobs and, with the user's price, what the machines cost: here
        and, for what takes long to build, on other numbers of such machines, and what waits for what.
        """
        machines = self._capacities()
        memory = max((job.memory_mb or 0.0 for job in jobs), default=0.0)
        slots = self._slots(memory)
        wall = max(end_times(jobs, slots).values(), default=0.0)
        whole = sum(job.seconds for job in jobs)
        what = "building" if jobs[0].stage == "make" else "answering the test questions:"
        count = f"{len(jobs)} run{'s' * (len(jobs) > 1)} of arms"
        where = f"{len(machines)} machine{'s' * (len(machines) > 1)}"
        share = f"{min(slots, len(jobs))} at once with {self._cores} core{'s' * (self._cores > 1)} each"
        times = f"about {duration_in_words(wall)} (one after another {duration_in_words(whole)})"
        hour = cost.machine_hour.price if cost.machine_hour else None
        price = "" if hour is None else f", {_amount(len(machines) * wall / 3600 * hour, cost)}"
        sentences = [f"{what} {count} on {where}, {share}: {times}{price}"]
        if jobs[0].stage == "make" and whole >= WORTH_SECONDS:
            sentences += self._elsewhere(jobs, machines, cost, hour)
        return sentences

    def _elsewhere(
        self, jobs: Sequence[Job], machines: Sequence[MachineCapacity], cost: CostTable, hour: float | None
    ) -> Iterator[str]:
        """Yield what building takes on other numbers of machines like these, and what waits for what."""
        others = [
            f"{one.machines}: about {duration_in_words(one.seconds)}"
            + (f", {_amount(one.cost, cost)}" if one.cost is not None else "")
            for one in wall_times([jobs], machines, self._cores, hour_price=hour)
            if one.machines != len(machines)
        ]
        if others:
            yield f"on other numbers of such machines: {'; '.join(others)}"
        yield "; ".join(waits_in_words(jobs))

    def describe(self) -> list[dict[str, Any]]:
        """Return the machines, for the manifest: their names, processors, cores and memory, and the cores of a job."""
        return [{"name": name, **report.machine, "cores_each": self._cores} for name, report in self._reports.items()]

    # ---- the work

    def run(self, context: JobContext, jobs: Sequence[Job], progress: Progress) -> Mapping[str, str]:
        """Do all jobs. Return why arms failed, by name. Events of the workers are passed on as they come.

        A job whose process or machine is lost is begun again, three times at most; it goes on from its last
        checkpoint. Raises TrimtabError if no job can go on, or no machine is left.
        """
        return JobRun(self, self.ray, context, jobs, progress).finish()

    def embed(
        self,
        load: Callable[[], Encoder],
        digest: str,
        batches: Iterator[list[str]],
        keep: KeepVectors,
        tell: Callable[[int], None],
    ) -> float:
        """Embed batches of texts, as many at once as jobs would run; return the seconds of all processes.

        `load`: returns the embedding model on any machine, `digest` identifies it. `keep` gets each batch with its
        vectors and seconds, `tell` the number of texts that are done. Raises TrimtabError if a machine lacks the model,
        or the cluster is lost.
        """
        pool = EmbeddingPool(
            self.ray,
            load,
            digest,
            cores=self._cores,
            slots=self._slots,
            attempts=ATTEMPTS,
            patience=NEW_MACHINE_SECONDS,
        )
        try:
            return pool.embed(batches, keep, tell)
        except (ConnectionError, self.ray.exceptions.RaySystemError) as error:
            raise lost_cluster(error) from error

    def _slots(self, memory_mb: float = 0.0) -> int:
        return sum(machine.slots(self._cores, memory_mb) for machine in self._capacities())

    def submit(self, context: JobContext, job: Job, worker: str) -> Any:
        """Give a job to Ray. Return Ray's reference to its outcome."""
        options: dict[str, Any] = {"num_cpus": self._cores, "max_retries": 0, "scheduling_strategy": "SPREAD"}
        machines = self._capacities()
        if job.memory_mb and any(machine.memory_mb for machine in machines):
            # more than the largest machine has would never be scheduled
            options["memory"] = int(min(job.memory_mb, max(machine.memory_mb or 0.0 for machine in machines)) * 1e6)
        gpu = self.gpu and any(method_of(arm).uses_base for arm in context.task.arms if arm.name in job.arms)
        if gpu:
            options |= {"num_gpus": 1, "max_calls": 1}  # only the end of its process frees a GPU's memory
        given = context, job, worker
        if self.store:
            do = self.ray.remote(**options)(do_stored_job)
            return do.remote(*given, store=self.store, cores=self._cores, gpu=gpu)
        return self.ray.remote(**options)(do_job_of_node).remote(*given, cores=self._cores, gpu=gpu)

    def offers(self) -> list[dict[str, float]]:
        """Return what Ray gives to each process of one training: a GPU with its share of its machine's cores, or all
        cores of a machine where no machine has a GPU.
        """
        found = [node["Resources"] for node in self._nodes().values()]
        by_gpu = [
            {"CPU": float(max(1, int(one["CPU"]) // int(one["GPU"]))), "GPU": 1.0}
            for one in found
            for _ in range(int(one.get("GPU", 0)))
        ]
        return by_gpu or [{"CPU": float(int(one["CPU"]))} for one in found]

    def lost_nodes(self) -> set[str]:
        """Return Ray's names of the nodes that are lost."""
        return {node["NodeID"] for node in self.ray.nodes() if not node["Alive"]}

    def has_room(self) -> bool:
        """True if a machine is up that takes a job."""
        return any(machine.slots(self._cores) for machine in self._capacities())


def _amount(value: float, cost: CostTable) -> str:
    return f"{value:.2g} {cost.currency}"


def _require_fit(name: str, report: MachineReport, folder: Path, store: str | None, *, gpu: bool) -> None:
    """Raise InputError if a machine lacks what a study needs."""
    if report.unseen is not None and store:
        problem = f"machine {name} cannot use the store ({report.unseen})"
        raise InputError(problem, "set there what this machine uses it with", field="--store")
    if report.unseen is not None:
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
