"""Compares the peak memory that a plan predicts for arms of the base model with the measured one.

Run: python benchmarks/memory_of_arms.py  →  benchmarks/results/memory_of_arms.json Each arm is a study of its own in
a process of its own, on the demo's handbook with the real small model; the last studies all of them in one process.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from trimtab import load_task, study
from trimtab.arms import workspace
from trimtab.base.files import read_json, write_json
from trimtab.base.machine import describe_machine, versions

RESULT = Path(__file__).resolve().parent / "results" / "memory_of_arms.json"
ARMS = ("prompt", "few-shot", "rag")
FEW_DEV, FEW_ALONE = (
    0.02,
    4,
)  # share of dev, and questions asked alone: neither holds more memory than a batch of test questions


def measured(arms: Sequence[str]) -> dict[str, Any]:
    """The predicted and the measured peak of each arm, in MB, from the manifest of a study of these arms."""
    with tempfile.TemporaryDirectory() as scratch, as_file(files("trimtab.demos") / "handbook") as source:
        task = load_task(Path(shutil.copytree(source, Path(scratch) / "handbook")) / "demo.toml")
        table = task.study.model_copy(update={"arms": tuple(arms), "budget": None})
        split = task.data.split.model_copy(update={"dev": FEW_DEV})
        data = task.data.model_copy(update={"split": split})
        workspace.MIN_LATENCIES = FEW_ALONE
        result = study(task.model_copy(update={"study": table, "data": data}), listeners=[])
        figures = read_json(Path(result.report).parent / "manifest.json")["figures"]
    found = {}
    for arm in result.arms:
        foretold = figures[f"{arm.arm}.memory_mb"]
        found[arm.arm] = {
            "predicted_mb": round(foretold["value"]),
            "measured_mb": round(arm.peak_memory_mb or 0.0),
            "error": round(foretold["error"], 3),
        }
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--arms", help="measure these, separated by commas, in this process, and print the figures")
    options.add_argument("--out", type=Path, default=RESULT)
    chosen = options.parse_args()
    if chosen.arms:
        print(json.dumps(measured(chosen.arms.split(","))))
        return
    runs = {}
    for arms in (*ARMS, ",".join(ARMS)):
        done = subprocess.run([sys.executable, __file__, "--arms", arms], check=True, capture_output=True, text=True)
        runs[arms] = json.loads(done.stdout.splitlines()[-1])
        print(arms, runs[arms], flush=True)
    errors = [abs(arm["error"]) for run in runs.values() for arm in run.values()]
    write_json(
        chosen.out,
        {
            "what": "peak resident memory of base-model arms, foretold by the plan and measured; the handbook demo, "
            "smollm2-135m-q4",
            "machine": describe_machine(),
            "versions": versions(),
            "runs": runs,
            "largest_error": max(errors),
        },
    )


if __name__ == "__main__":
    main()
