"""Groups of processes that train tiny models, for the tests of training over several processes.

`launched` starts this file, which imports everything once and forks the processes of one group after the other.
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from forked import run as run_forked
from tiny_models import answered, base_of, random_rows

from trimtab.base.errors import InputError, StoppedError
from trimtab.base.machine import MemoryUse
from trimtab.base.progress import Progress
from trimtab.model import process_group
from trimtab.model.adapters.apply import attach, save_adapter
from trimtab.model.classifier import ClassificationHead
from trimtab.model.sharded import shard
from trimtab.model.sharded_parameters import gathered_value
from trimtab.training import activation_memory, loop
from trimtab.training import batch as batches_of
from trimtab.training.classification import ClassificationObjective, label_rows
from trimtab.training.judged_answers import JudgedAnswers
from trimtab.training.loop import LoopSettings, TrainingJob, evaluate_objective, train_model
from trimtab.training.preference import PreferenceObjective
from trimtab.training.reward import SCORE_LABELS, BradleyTerry
from trimtab.training.sft import SupervisedObjective

BATCH, STEPS = 6, 20


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of `size` processes that trains `cases` (method:objective:family) in a folder.

    `until`: the step to stop after. `at`, `hit` and `sends`: the step at which a rank gets a signal. `absent`: ranks
    that are never started. `versions`: what a rank begins with, where it is something else. `join_seconds`: for all to
    arrive; `silent_seconds`: for one to answer. `environment`: further variables. `patience`: seconds after which a
    process counts as hung. `free_bytes`: the machine's free memory, as training sees it.
    """

    folder: str
    size: int
    cases: tuple[str, ...] = ("lora:sft:llama",)
    until: int | None = None
    at: int = 0
    hit: int = 0
    sends: str = ""
    absent: tuple[int, ...] = ()
    versions: dict = field(default_factory=dict)
    join_seconds: float = 60.0
    silent_seconds: float = 60.0
    environment: dict = field(default_factory=dict)
    patience: float = 300.0
    free_bytes: int | None = None


def launched(*groups):
    """Run groups one after the other; for each the exit codes and the last lines of its processes by rank."""
    here = Path(__file__).resolve()
    paths = [str(here.parent), str(here.parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    told = json.dumps([asdict(group) for group in groups])
    done = run_forked([sys.executable, str(here), told], env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def result_of(group, case, rank=0):
    return json.loads((Path(group.folder) / name_of(case) / f"result-{rank}.json").read_text())


def name_of(case):
    return case.replace(":", "-").replace(" ", "-")


def pairs(count, seed):
    rows = random_rows(2 * count, seed)
    prompts = [one.encoded.ids[:2] for one in rows[::2]]
    answers = [one.encoded.ids[2:] for one in rows]
    both = zip(prompts, answers[::2], answers[1::2], strict=True)
    return [(answered(prompt, one), answered(prompt, other)) for prompt, one, other in both]


def objective_over(base, name, count, seed, batch):
    if name in ("sft", "weighted"):
        return SupervisedObjective(random_rows(count, seed, weights=name == "weighted"), batch=batch, seed=0)
    if name == "head":
        head = ClassificationHead(("yes", "no", "perhaps"), base.model.config.hidden_size, seed=0)
        rows = [(one.encoded.ids, number % 3, 1.0) for number, one in enumerate(random_rows(count, seed))]
        return ClassificationObjective(label_rows(rows, 3), head, batch=batch, seed=0)
    if name == "reward":
        head = ClassificationHead(SCORE_LABELS, base.model.config.hidden_size, seed=0)
        rows = [JudgedAnswers(chosen=one, rejected=other) for one, other in pairs(count, seed)]
        return BradleyTerry(rows, head, batch=batch, seed=0)
    judged = [JudgedAnswers(chosen=one, rejected=other) for one, other in pairs(count, seed)]
    return PreferenceObjective(base, judged, name, batch=batch, seed=0)


def train(group, case):
    method, name, family = case.split(":")
    folder = Path(group.folder) / name_of(case)
    base = base_of(family)
    attach(base, method, seed=3, rank=4, layers=1, virtual_tokens=4)
    if process_group.size() > 1:
        shard(base)
    objective = objective_over(base, name, 20, 0, BATCH)
    dev = objective_over(base, name, 7, 9, 7)
    if name in ("head", "reward"):
        dev.head = objective.head
    events = []
    job = TrainingJob(
        base=base,
        objective=Hit(objective, group) if group.sends else objective,
        settings=LoopSettings(learning_rate=3e-3, epochs=STEPS / objective.steps_per_epoch, evaluations=2),
        folder=folder,
        evaluate=lambda: evaluate_objective(base, dev),
        progress=Progress(listeners=[events.append]),
        fingerprint=case,
    )
    result = train_model(job, until=group.until)
    save_adapter(base, folder / "adapter")
    parameters = objective.parameters(base)
    found = {
        "weights": {name: gathered_value(base, value).flatten().tolist() for name, value in parameters.items()},
        "losses": [(one["loss"], one["gradient_norm"]) for one in events if "loss" in one],
        "dev": [[one.dev_loss, *one.rows] for one in result.readings],
        "notes": sum("activation checkpointing" in one.get("note", "") for one in events),
        "steps": result.steps,
        "finished": result.finished,
    }
    (folder / f"result-{process_group.rank()}.json").write_text(json.dumps(found))


class Hit:
    """An objective under which one process gets a signal as it begins a step."""

    def __init__(self, objective, group):
        self.objective, self.group = objective, group
        self.steps_per_epoch, self.parameters, self.loss = (
            objective.steps_per_epoch,
            objective.parameters,
            objective.loss,
        )

    def batches(self, step):
        if (step, process_group.rank()) == (self.group.at, self.group.hit):
            os.kill(os.getpid(), getattr(signal, self.group.sends))
        return self.objective.batches(step)


def process(group, rank, port):
    """One process of a group: what it says in the end, and its exit code."""
    os.environ |= {"WORLD_SIZE": str(group.size), "RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port), **group.environment}
    process_group.JOIN_SECONDS, process_group.COLLECTIVE_SECONDS = group.join_seconds, group.silent_seconds
    if group.free_bytes is not None:
        activation_memory.memory_use = lambda: MemoryUse(group.free_bytes, group.free_bytes)
    begun_with = {"version of Trimtab": group.versions.get(str(rank), "1")}
    try:
        with process_group.joined(process_group.launch_of(os.environ), begun_with):
            for case in group.cases:
                train(group, case)
    except (InputError, StoppedError) as error:
        return f"{type(error).__name__}: {error}", error.exit_code
    return "done", 0


def forked(group, rank, port):
    child = os.fork()
    if not child:
        said, code = "", 9
        try:
            said, code = process(group, rank, port)
        finally:
            (Path(group.folder) / f"said-{rank}").write_text(said or traceback.format_exc())
            os._exit(code)
    return child


def run(group):
    folder = Path(group.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("said-*"):
        left.unlink()
    port = free_port()
    running = {forked(group, rank, port): rank for rank in range(group.size) if rank not in group.absent}
    codes, deadline = {}, time.monotonic() + group.patience
    while running and time.monotonic() < deadline:
        for child in list(running):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                codes[running.pop(child)] = os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    for child, rank in running.items():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        codes[rank] = "hung"
    said = {rank: path.read_text() if (path := folder / f"said-{rank}").is_file() else "" for rank in codes}
    return {str(rank): [codes[rank], said[rank]] for rank in sorted(codes)}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


if __name__ == "__main__":
    torch.set_num_threads(1)  # a forked process has no threads but its own
    batches_of.MICRO_TOKENS, loop.SAVE_SECONDS = 40, 0.0
    print(json.dumps([run(Group(**given)) for given in json.loads(sys.argv[1])]))
