"""Compares a method's usual settings with other rates, lengths and batches, on bundled and public tasks.

    python benchmarks/usual.py run [--tasks spam,handbook] [--methods lora,dora]   # appends to results/usual_runs.jsonl
    python benchmarks/usual.py compare                                             # → results/usual.json

The rows are those of the expert's table (64 to train, 64 for dev, 200 for test), and arms are made as `trimtab
train` makes them, with the settings of a task file. What a run is called follows from its rate beside the usual one
of today, so that runs stay where a usual rate moves. Every run is trained to its end; what dev says of the weights
that were kept, what test questions score, and seconds of the processor.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from expert import TRAIN, laid_out, scores
from shared import SHARED, TASKS

from trimtab.arms.artifacts import Allowance
from trimtab.arms.recipe import LEAST_STEPS, recipe_for
from trimtab.arms.run import ArmRunner
from trimtab.arms.session import Session
from trimtab.base.files import append_line, read_json_lines, write_json
from trimtab.base.machine import describe_machine
from trimtab.base.progress import Progress
from trimtab.base.task import parse_arm
from trimtab.model.adapters.registry import defaults_of

HERE = Path(__file__).resolve().parent
RUNS, RESULT = HERE / "results" / "usual_runs.jsonl", HERE / "results" / "usual.json"
STEP = 2.5  # between two rates of a search
HIDDEN = 576  # of the small base, which usual rates follow
TRIED = (
    "lora",
    "rslora",
    "dora",
    "pissa",
    "vera",
    "ia3",
    "bitfit",
    "oft",
    "loha",
    "soft-prompt",
    "prefix",
    "freeze",
    "full",
)
SHORT, LONG = "three epochs", "100 steps"  # usual until the second was measured, and since


def variations(method: str, rate: float) -> dict[str, dict[str, float]]:
    """Settings by name: 100 steps of the optimizer, these at other rates; of `lora` also three epochs, and other
    batches."""

    def steps(batch: int) -> float:
        return LEAST_STEPS * batch / TRAIN

    found: dict[str, dict[str, float]] = {
        LONG: {"epochs": steps(8)},
        f"{LONG}, rate / {STEP}": {"epochs": steps(8), "learning_rate": rate / STEP},
        f"{LONG}, rate x {STEP}": {"epochs": steps(8), "learning_rate": rate * STEP},
    }
    if method == "lora":
        found[SHORT] = {"epochs": 3.0}
        # as many rows as 100 steps of 8 have
        found["50 steps of 16"] = {"epochs": steps(8), "batch": 16}
        found["200 steps of 4"] = {"epochs": steps(8), "batch": 4}
    return found


def run(session: Session, folder: Path, method: str, name: str, settings: Mapping[str, float]) -> dict[str, Any]:
    """One arm, made and asked."""
    arm = replace(parse_arm(method, session.task), settings=dict(settings))
    began = time.process_time()
    made = ArmRunner(session, None, Progress()).make(arm, folder / f"{method} {name}".replace("/", "by"), Allowance())
    taken = time.process_time() - began
    trained = made.trained[0]
    assert trained.best
    return {
        "settings": {**settings, "learning_rate": recipe_for(session, arm, 0).stages[-1].learning_rate},
        "dev_loss": trained.best.dev_loss,
        "dev_metric": trained.best.dev_metric,
        "kept_at_step": trained.best.step,
        "steps": trained.steps,
        "test": mean(scores(session, made.folders[0] / "adapter", session.workspace.splits["test"])),
        "processor_seconds": round(taken, 1),
    }


def record(tasks: list[str], methods: list[str], source: Path, runs: Path) -> None:
    """Record every run that is missing in the file `runs`."""
    done = {(line["task"], line["method"], named(line)) for line in read_json_lines(runs)}
    for task in tasks:
        with laid_out(task, source, "none") as (session, folder):
            for method in methods:
                rate = recipe_for(session, parse_arm(method, session.task), 0).stages[-1].learning_rate
                for name, settings in variations(method, rate).items():
                    if (task, method, name) in done:
                        continue
                    line = {"task": task, "method": method, "what": name}
                    line |= run(session, folder, method, name, settings)
                    append_line(runs, line | {"machine": describe_machine()["processor"]})
                    print(*line.values(), sep=" | ", flush=True)


def named(line: Mapping[str, Any]) -> str:
    """Return the present name of a run: as it was, with its rate beside the usual one."""
    usual = defaults_of(line["method"]).rate(HIDDEN)
    steps = round(math.log(line["settings"]["learning_rate"] / usual, STEP))
    if not steps:
        return str(line["what"].partition(", rate")[0])
    return f"{LONG}, rate {'x' if steps > 0 else '/'} {STEP ** abs(steps):g}"


def compared() -> list[dict[str, Any]]:
    """A row a task and method: dev loss and test score of each setting, and how far the usual settings are from the
    best by dev."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for line in read_json_lines(RUNS):
        found[line["task"], line["method"]].append(line)
    table = []
    for (task, method), lines in found.items():
        by_name = {named(line): line for line in lines}
        best = min(lines, key=lambda line: math.inf if line["dev_loss"] is None else line["dev_loss"])
        table.append(
            {
                "task": task,
                "method": method,
                "runs": {
                    name: {key: line[key] for key in ("dev_loss", "test", "steps", "processor_seconds")}
                    for name, line in by_name.items()
                },
                "best_by_dev": named(best),
                "usual_minus_best": round(by_name[LONG]["test"] - best["test"], 4),
            }
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "compare"))
    parser.add_argument("--tasks", default=",".join(TASKS), help="which of them, with commas")
    parser.add_argument("--methods", default=",".join(TRIED), help="which of them, with commas")
    parser.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    parser.add_argument("--runs", type=Path, default=RUNS, help="the file that runs are appended to")
    given = parser.parse_args()
    if given.what == "run":
        record(given.tasks.split(","), given.methods.split(","), given.source, given.runs)
        return
    table = compared()
    write_json(RESULT, {"rows_train_dev_test": [64, 64, 200], "machine": describe_machine(), "table": table})
    for row in table:
        print(row["task"], row["method"], row["best_by_dev"], row["usual_minus_best"])


if __name__ == "__main__":
    main()
