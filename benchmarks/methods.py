"""Every method of training at its usual settings: memory against what was foretold, and how far dev loss falls in a
few steps.

Run: python benchmarks/methods.py  →  benchmarks/results/methods.json
All run one after another in one process, on rows of the bundled spam example with the real small model.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from trimtab import load_task
from trimtab.arms.contexts import Context
from trimtab.arms.objectives import training_rows
from trimtab.arms.recipe import recipe
from trimtab.arms.session import Session, open_session
from trimtab.arms.trainer import prepare_base
from trimtab.arms.workspace import open_workspace
from trimtab.base.files import read_json, write_json
from trimtab.base.grammar import METHODS, arm_from_name
from trimtab.base.machine import MemoryPeak, describe_machine, release_memory, versions
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.training.estimates import memory_mb
from trimtab.training.loop import LoopSettings, TrainingJob, evaluate_objective, train_model
from trimtab.training.sft import SupervisedObjective

RESULT = Path(__file__).resolve().parent / "results" / "methods.json"
ROWS, DEV_ROWS, BATCH, PRECISION = 64, 24, 8, "bf16"


def measured(session: Session, method: str, times: float) -> dict[str, Any]:
    """One method at `times` its usual rate: one epoch over the same rows."""
    arm = arm_from_name(method)
    if arm is None:
        raise SystemExit(f"{method} is no method")
    rows, dev = (
        training_rows(session, Context(), session.workspace.subset(split, count), 0)[0]
        for split, count in (("train", ROWS), ("dev", DEV_ROWS))
    )
    plan = recipe(arm, len(rows), 0, hidden=session.base.model.config.hidden_size)
    prepare_base(session, plan)
    release_memory()
    asked = SupervisedObjective(dev, batch=DEV_ROWS, seed=0)
    before, foretold = evaluate_objective(session.base, asked).dev_loss, memory_mb(session.base)
    with tempfile.TemporaryDirectory() as scratch, MemoryPeak() as memory:
        job = TrainingJob(
            base=session.base,
            objective=SupervisedObjective(rows, batch=BATCH, seed=0),
            settings=LoopSettings(learning_rate=times * plan.stages[0].learning_rate, epochs=1.0),
            folder=Path(scratch),
        )
        done = train_model(job)
    return {
        "learning_rate": job.settings.learning_rate,
        "moving_numbers": sum(value.numel() for value in trainable_parameters(session.base.model).values()),
        "steps": done.steps,
        "predicted_mb": round(foretold),
        "measured_mb": round(memory.megabytes),
        "dev_loss_before": round(before, 4),
        "dev_loss_after": round(evaluate_objective(session.base, asked).dev_loss, 4),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--methods", help="these alone, separated by commas; the others stay in the result")
    options.add_argument("--times", type=float, default=1.0, help="of the usual learning rate")
    options.add_argument("--out", type=Path, default=RESULT)
    chosen = options.parse_args()
    usual = [name for name, row in METHODS.items() if row.staged]
    found = {}
    with tempfile.TemporaryDirectory() as scratch, as_file(files("trimtab.demos") / "spam") as source:
        task = load_task(Path(shutil.copytree(source, Path(scratch) / "spam")) / "demo.toml")
        session = open_session(open_workspace(task), PRECISION)
        for method in chosen.methods.split(",") if chosen.methods else usual:
            found[method] = measured(session, method, chosen.times)
            print(method, found[method], flush=True)
    what = f"one epoch over {ROWS} rows of the spam demo, batch {BATCH}, smollm2-135m-q4 in {PRECISION}, one process"
    told = {"what": what, "machine": describe_machine(), "versions": versions(), "times_usual_rate": chosen.times}
    before = read_json(chosen.out)["methods"] if chosen.methods and chosen.out.is_file() else {}
    write_json(chosen.out, {**told, "methods": {**before, **found}})


if __name__ == "__main__":
    main()
