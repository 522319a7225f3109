"""Tokens a second of a training over 1, 2 and 4 processes on one CPU, with the same cores in all.

Run: python benchmarks/sharded_speed.py  →  benchmarks/results/sharded_speed.json, in about nine minutes on two cores.
SmolLM2-135M in float32, LoRA of rank 16 and all weights, steps of 8 drawn rows of 256 tokens. "one process" is training
as it is; "one process, plain torch" the same without our kernels, which several processes do without. Processes share
the cores: each has cores / processes threads, one at least (4 processes on 2 cores stand in each other's way). Each
run is a group of processes of its own, all ways in order and then in reverse; the first step is not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from shared import machine

from trimtab.base.files import write_json
from trimtab.base.machine import cores, versions
from trimtab.base.progress import Progress
from trimtab.base.records import Encoded
from trimtab.model import process_group
from trimtab.model.adapters.apply import attach
from trimtab.model.catalog import resolve
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import load_base
from trimtab.model.sharded import shard
from trimtab.training.batch import TrainingRow
from trimtab.training.loop import LoopSettings, TrainingJob, train_model
from trimtab.training.sft import SupervisedObjective

RESULT = Path(__file__).resolve().parent / "results" / "sharded_speed.json"
MODEL, ROWS, LENGTH, STEPS, COLD = "smollm2-135m-q4", 8, 256, 3, 1
WAYS = ("one process", "one process, plain torch", "2 processes", "4 processes")
METHODS = ("lora", "full")


def rows() -> list[TrainingRow]:
    """Rows of random tokens, without common prefixes; each predicts its last 64."""
    draw = random.Random(0)
    trained = (False,) * (LENGTH - 64) + (True,) * 64
    ids = (tuple(draw.randrange(100, 40_000) for _ in range(LENGTH)) for _ in range(ROWS * STEPS))
    return [TrainingRow(encoded=Encoded(ids=one, trained=trained)) for one in ids]


def measure(method: str, folder: Path, steps: int, *, plain: bool) -> dict[str, float]:
    """Tokens a second of this process, or of the group that it belongs to, without the first step."""
    with process_group.joined(process_group.launch_of(os.environ), {}):
        base = load_base(resolve(MODEL), "fp32", "cpu")
        if process_group.size() == 1 and not plain:
            accelerate(base)
        attach(base, method, 0, rank=16)
        if process_group.size() > 1:
            shard(base)
        ends: list[float] = []
        job = TrainingJob(
            base=base,
            objective=SupervisedObjective(rows(), batch=ROWS, seed=0, cache_activations=False),
            settings=LoopSettings(learning_rate=1e-4, epochs=(COLD + steps) / STEPS),
            folder=folder,
            progress=Progress(listeners=[lambda event: ends.append(time.perf_counter()) if "loss" in event else None]),
        )
        train_model(job)
    seconds = ends[COLD + steps - 1] - ends[COLD - 1]
    return {"tokens_per_second": steps * ROWS * LENGTH / seconds, "seconds": seconds}


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def run(method: str, way: str, steps: int) -> dict[str, float]:
    """Measure in processes of their own."""
    size = int(way.partition(" ")[0]) if way[0].isdigit() else 1
    command = [sys.executable, __file__, "--measure", method, "--steps", str(steps)]
    command += ["--plain"] * way.endswith("plain torch")
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // size))}
    group = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with tempfile.TemporaryDirectory() as folder:
        command += ["--folder", folder]
        started = [
            subprocess.Popen(command, env={**os.environ, **threads, **group, "RANK": str(rank)}, stdout=subprocess.PIPE)
            for rank in range(size)
        ]
        told = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{method}, {way}: a process failed")
    found: dict[str, float] = json.loads(told[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS - COLD, help="timed steps of a run, at most 2")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.folder, given.steps, plain=given.plain)))
        return
    found: dict[str, Any] = {"cores": cores(), "rows": ROWS, "length": LENGTH, "steps": given.steps, "works": []}
    for method in METHODS:
        ways = [way for way in WAYS if method == "lora" or way != "4 processes"]
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for way in (*ways, *reversed(ways)):
            runs[way].append(run(method, way, given.steps))
            print(method, way, json.dumps(runs[way][-1]), flush=True)
        speeds = {way: median(one["tokens_per_second"] for one in runs[way]) for way in ways}
        shares = {way: speed / speeds[ways[0]] for way, speed in speeds.items()}
        found["works"].append({"method": method, "tokens_per_second": speeds, "of_one_process": shares, "runs": runs})
    write_json(given.out, {**found, "torch": torch.__version__, "machine": machine(), "versions": versions()})


if __name__ == "__main__":
    main()
