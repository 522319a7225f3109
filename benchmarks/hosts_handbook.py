"""The bundled handbook on three hosts that lose power, network and the speed of a disk, against one machine.

Run: python benchmarks/hosts_handbook.py  →  benchmarks/results/hosts_handbook.json, in about 25 minutes on two cores.
Linux, and root: each host has namespaces of its own (tests/helpers/hosts.py). A head without a core starts the study;
two hosts have a core each, and the disk of one does 20 writes a second. The host that trains `lora` loses its power
three steps after a checkpoint; the host that trains it next has no network for 20 s; the host that answers with
`prompt` loses its power, and at last the head does. Another host goes on. Ray's time limits are its own. The same study
then runs on one machine with one thread. Neither is cut by a budget, so that no clock decides what is done.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trimtab.base.files import read_json_lines, sha256_file, write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.measurement.evaluate import load_answers
from trimtab.studies.demo import copy_demo

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))
from hosts import Network, network, why_no_hosts  # noqa: E402
from same_study import compared, files_of, what_was_found, without_times  # noqa: E402
from studies_on_hosts import (  # noqa: E402
    CUT,
    WRITES,
    Jobs,
    restart_ray,
    start_cluster,
    started,
    three_hosts,
    without_network,
    without_power,
)
from study_tasks import folder_of  # noqa: E402
from waiting import until  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "hosts_handbook.json"
BUDGET = "--budget=10h"  # more than is needed
MADE, ANSWERED = "make-lora-0", "answer-prompt-0"
CHECKPOINTS = "arms/lora/run-0/sft/checkpoints"
LOST_STEPS = 3
EXITS = (0, 1)  # of a study that ended: with a choice, or without one


class Faults:
    """What was done to the hosts, and how long after the study began."""

    def __init__(self, net: Network, jobs: Jobs) -> None:
        self.net, self.jobs = net, jobs
        self.began, self.told = time.monotonic(), list[dict[str, Any]]()

    def tell(self, what: str, host: str, **more: Any) -> None:
        self.told.append({"what": what, "host": host, "after_seconds": time.monotonic() - self.began, **more})
        print(self.told[-1], flush=True)

    def cause(self, process: subprocess.Popen[str]) -> None:
        """Let each fault happen in its turn."""
        until(lambda: self._steps_after_checkpoint() >= LOST_STEPS, process)
        self._without_power(MADE, "train", process)
        cut = self.jobs.host_of(MADE, self.net)
        self.tell("network cut", cut.name, job=MADE, seconds=CUT)
        without_network(cut, process)
        until(lambda: self.jobs.workers_at(ANSWERED, "answer"), process)
        self._without_power(ANSWERED, "answer", process)
        self.tell("power cut, study killed", "head")
        self.net["head"].kill()
        process.communicate()

    def _steps_after_checkpoint(self) -> int:
        """The steps that the host in training loses with its power."""
        steps = [event["step"] for event in self.jobs.events_of(MADE) if event["stage"] == "train"]
        kept = [int(file.name.removeprefix("step-")) for file in self.jobs.files(f"{CHECKPOINTS}/step-*")]
        return max(steps) - max(kept) if kept else 0

    def _without_power(self, job: str, stage: str, process: subprocess.Popen[str]) -> None:
        """Cut the power of the host that runs a job, and wait until the job is at this stage again."""
        host, at = self.jobs.host_of(job, self.net), time.monotonic()
        self.tell("power cut", host.name, job=job)
        without_power(self.net, host)
        until(lambda: len(self.jobs.workers_at(job, stage)) == 2, process)
        self.told[-1] |= {
            "again_after_seconds": time.monotonic() - at,
            "again_on": self.jobs.host_of(job, self.net).name,
        }


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began


def on_hosts(task: Path, seconds: dict[str, float]) -> list[dict[str, Any]]:
    """The study with its faults. What was done to the hosts."""
    with network(*three_hosts()) as net:
        start_cluster(net)
        faults = Faults(net, Jobs(task))
        with timed(seconds, "hosts, until the head is killed"), started(net["head"], task, BUDGET) as process:
            faults.cause(process)
        restart_ray(net)
        with timed(seconds, "hosts, resumed"), started(net["quick"], task, "--resume") as process:
            _, told = process.communicate()
    if process.returncode not in EXITS:
        raise RuntimeError(told)
    return faults.told


def on_one_machine(task: Path, seconds: dict[str, float]) -> None:
    command = [sys.executable, "-m", "trimtab", "study", "--task", str(task), "--allow-commands", BUDGET]
    with timed(seconds, "one machine"):
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in EXITS:
        raise RuntimeError(done.stderr)


def compare(own: Path, plain: Path) -> dict[str, Any]:
    """What is the same in the folders of two studies, and what differs."""
    found, right = (json.loads((folder / "study.json").read_text()) for folder in (own, plain))
    verdict = ("status", "arm", "needs", "picked", "robustness")
    result = {
        "verdict": {name: found["verdict"][name] for name in ("status", "arm")},
        "verdict_same": all(found["verdict"][name] == right["verdict"][name] for name in verdict),
        "comparisons_same": compared(found) == what_was_found(compared(right)),
        "figures_same": without_times(found) == what_was_found(right),
        "differing": dict(sorted(Counter(differing(found, right)).items())),  # of a clock, memory, or the study's name
        "weights_same": weights_of(own) == weights_of(plain),
        "files_same": files_of(own, ()) == files_of(plain, ()),
        "answers": {},
    }
    for arm in (one["arm"] for one in right["arms"]):
        answers, others = (load_answers(folder / "arms" / arm / "answers.parquet") for folder in (own, plain))
        pairs = list(zip(answers, others, strict=True))
        result["answers"][arm] = {
            "asked": len(pairs),
            "same": sum(
                (one.item_id, one.seed, one.answer, one.score) == (other.item_id, other.seed, other.answer, other.score)
                for one, other in pairs
            ),
            "probability_differs_by": max(abs((a.probability or 0.0) - (b.probability or 0.0)) for a, b in pairs),
        }
    return result


def differing(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """The places of figures and texts that are not the same in two results."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from differing(one.get(key), other.get(key), f"{name}.{key}".lstrip("."))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for first, second in zip(one, other, strict=True):
            yield from differing(first, second, name)
    elif one != other:
        yield name


def weights_of(folder: Path) -> dict[str, str]:
    """SHA-256 of the trained weights by their place."""
    found = sorted(folder.glob("arms/*/run-*/adapter/*.safetensors"))
    return {str(path.relative_to(folder)): sha256_file(path) for path in found}


def done_twice(task: Path, folder: Path) -> dict[str, Any]:
    """How often a job was begun and lost, and what was done again: steps of training that no checkpoint had."""
    found = [event for event in read_json_lines(folder / "events.jsonl") if "worker" in event]
    begun = Counter(event["worker"].rpartition("-")[0] for event in found if event["stage"] == "begin")
    steps = Counter((event["arm"], event["step"]) for event in found if event["stage"] == "train")
    notes = [event["note"] for event in read_json_lines(folder / "events.jsonl") if event.get("note")]
    return {
        "openings": len((task.parent / ".trimtab" / "openings.jsonl").read_text().splitlines()),
        "begun": dict(sorted(begun.items())),
        "begun_again": [note for note in notes if "begun again" in note],
        "events_told_twice": len(found) - len({json.dumps(event) for event in found}),
        "training_steps": len(steps),
        "training_steps_again": sum(steps.values()) - len(steps),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the two studies here; default a temporary folder")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if reason := why_no_hosts():
        raise SystemExit(reason)
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    load, seconds = os.getloadavg(), dict[str, float]()
    with tempfile.TemporaryDirectory() as temporary:
        home = options.folder or Path(temporary)
        own, plain = (copy_demo("handbook", home / name, cut=True) for name in ("hosts", "one"))
        faults = on_hosts(own, seconds)
        on_one_machine(plain, seconds)
        measured = {
            "machine": describe_machine(),
            "versions": versions(),
            "load": load,
            "hosts": {"head": "no core", "quick": "a core", "slow": f"a core, {WRITES} writes a second"},
            "faults": faults,
            "wall_seconds": seconds,
            "precision": json.loads((folder_of(plain) / "manifest.json").read_text())["precision"],
            **compare(folder_of(own), folder_of(plain)),
            **done_twice(own, folder_of(own)),
        }
    write_json(options.out, measured)
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
