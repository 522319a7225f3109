"""Every method of training at its usual settings: speed, memory against what was foretold, and how far dev loss falls in a few steps.

Run: python benchmarks/methods.py  →  benchmarks/results/methods.json
Each method runs in a process of its own, on the rows of the bundled spam example with the real small model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from trimtab import load_task
from trimtab.arms.contexts import Context
from trimtab.arms.session import open_session
from trimtab.arms.weights import prepare, recipe, training_rows
from trimtab.arms.workspace import open_workspace
from trimtab.base.files import write_json
from trimtab.base.grammar import METHODS, named
from trimtab.base.machine import MemoryPeak, describe_machine, versions
from trimtab.model.adapters import trainable
from trimtab.training.loop import LoopSettings, TrainingJob, held_out, train
from trimtab.training.predict import memory_mb
from trimtab.training.sft import Supervised

RESULT = Path(__file__).resolve().parent / "results" / "methods.json"
ROWS, DEV_ROWS, BATCH = 240, 64, 8
LEFT_OUT = ("qlora",)  # needs CUDA


def measured(method: str, times: float) -> dict[str, Any]:
    """One method at `times` its usual rate: one epoch over the same rows."""
    arm = named(method)
    if arm is None:
        raise SystemExit(f"{method} is no method")
    with tempfile.TemporaryDirectory() as scratch, as_file(files("trimtab.demos") / "spam") as source:
        task = load_task(Path(shutil.copytree(source, Path(scratch) / "spam")) / "demo.toml")
        session = open_session(open_workspace(task))
        rows, dev = (
            training_rows(session, Context(), session.part(split, count), 0)[0]
            for split, count in (("train", ROWS), ("dev", DEV_ROWS))
        )
        plan = recipe(arm, len(rows), 0)
        prepare(session, plan)
        before = held_out(session.base, Supervised(dev, batch=BATCH, seed=0)).dev_loss
        foretold = memory_mb(session.base)
        job = TrainingJob(
            base=session.base,
            objective=Supervised(rows, batch=BATCH, seed=0),
            settings=LoopSettings(learning_rate=times * plan.stages[0].learning_rate, epochs=1.0),
            folder=Path(scratch) / "run",
        )
        began = time.perf_counter()
        with MemoryPeak() as memory:
            done = train(job)
        seconds = time.perf_counter() - began
        return {
            "learning_rate": job.settings.learning_rate,
            "moving_numbers": sum(value.numel() for value in trainable(session.base.model).values()),
            "steps": done.steps,
            "tokens_per_second": round(done.tokens / seconds, 1),
            "predicted_mb": round(foretold),
            "measured_mb": round(memory.megabytes),
            "dev_loss_before": round(before, 4),
            "dev_loss_after": round(held_out(session.base, Supervised(dev, batch=BATCH, seed=0)).dev_loss, 4),
            "precision": session.precision,
        }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--method", help="measure this one in this process, and print the figures")
    options.add_argument("--times", type=float, default=1.0, help="of the usual learning rate")
    options.add_argument("--out", type=Path, default=RESULT)
    chosen = options.parse_args()
    if chosen.method:
        print(json.dumps(measured(chosen.method, chosen.times)))
        return
    found = {}
    for method in (name for name, row in METHODS.items() if row.staged and name not in LEFT_OUT):
        own = [sys.executable, __file__, "--method", method, "--times", str(chosen.times)]
        found[method] = json.loads(subprocess.run(own, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(method, found[method], flush=True)
    write_json(chosen.out, {"machine": describe_machine(), "versions": versions(), "methods": found})


if __name__ == "__main__":
    main()
