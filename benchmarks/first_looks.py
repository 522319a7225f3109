"""Compares signals of the first dev evaluation by how well they predict the best learning rate: losses, losses at a
temperature, scores; averaged weights.

    python benchmarks/first_looks.py run [--tasks spam,handbook,xquad]   # appends to results/first_looks_runs.jsonl
    python benchmarks/first_looks.py compare                             # → results/first_looks.json

Rows and lengths are those of the expert's table (64 to train, 64 for dev, 200 for test, 100 steps), five rates in
the steps of the search around the usual one, each run to its end as the search trains: constant, falling in the last
fifth. At each of four looks the weights as they are and their mean over the latter half of the steps so far: loss
over dev, the same at the temperature that suits all dev tokens, and the score of dev. At the end the score of test,
which decides nothing.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from best_weights import SHARED, scores
from expert import laid_out

from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.dev_eval import imitates_labels, label_losses
from trimtab.arms.objectives import training_rows
from trimtab.arms.recipe import recipe_for
from trimtab.arms.search.lr_search import LOOKS, STEP
from trimtab.arms.session import Session
from trimtab.arms.trainer import prepare_base
from trimtab.base.files import append_line, read_json_lines, write_json
from trimtab.base.machine import describe_machine
from trimtab.base.task import parse_arm
from trimtab.model.adapters.apply import merged
from trimtab.model.load import Base
from trimtab.training.batch import Batch, TrainingRow, micro_batches, pack_rows
from trimtab.training.loop import LoopSettings, TrainingJob, train_model
from trimtab.training.losses import label_log_probabilities, scored_hidden, sums_by_row
from trimtab.training.monitor import DevEvaluation
from trimtab.training.optim import restore, snapshot
from trimtab.training.sft import SupervisedObjective

HERE = Path(__file__).resolve().parent
RUNS, RESULT = HERE / "results" / "first_looks_runs.jsonl", HERE / "results" / "first_looks.json"
TASKS, STEPS = ("spam", "handbook", "xquad"), (-2, -1, 0, 1, 2)
TEMPERATURES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)


class Averaged(SupervisedObjective):
    """A supervised objective that sums up the weights before every step."""

    def __init__(self, base: Base, rows: Sequence[TrainingRow], *, batch: int) -> None:
        super().__init__(rows, batch=batch, seed=0)
        self.moving = self.parameters(base)
        self.sums = [{name: torch.zeros_like(value, dtype=torch.float32) for name, value in self.moving.items()}]

    def batches(self, step: int) -> list[Batch]:
        last = self.sums[-1]
        if step > 0:
            self.sums.append({name: last[name] + value.detach().float() for name, value in self.moving.items()})
        return super().batches(step)

    def mean(self) -> dict[str, torch.Tensor]:
        """The mean of the weights after each step of the latter half, the present ones among them."""
        now, half = self.sums[-1], self.sums[len(self.sums) // 2]
        count = len(self.sums) - len(self.sums) // 2
        return {
            name: ((now[name] - half[name] + value.detach().float()) / count).to(value.dtype)
            for name, value in self.moving.items()
        }


@torch.no_grad()
def losses_by_temperature(base: Base, rows: Sequence[TrainingRow]) -> list[list[float]]:
    """Nats of each row at each of the temperatures; one divides the last hidden states, as the head is linear."""
    found: dict[int, list[float]] = {}
    for part in micro_batches([(row,) for row in rows]):
        units = [row for unit in part for row in unit]
        batch = pack_rows(units)
        hidden_MD = scored_hidden(base, batch)
        sums = [
            -sums_by_row(label_log_probabilities(base, hidden_MD / heat, batch.labels_M), batch)
            for heat in TEMPERATURES
        ]
        found |= {id(row.encoded): [round(float(one[n]), 4) for one in sums] for n, row in enumerate(units)}
    return [found[id(row.encoded)] for row in rows]


def run(session: Session, folder: Path, step: int) -> dict[str, Any]:
    """One rate to its end."""
    arm, splits = parse_arm("lora", session.task), session.workspace.splits
    plan = recipe_for(session, arm, 0)
    prepare_base(session, plan)
    builder = PromptBuilder(session, Context())
    train_rows, dev_rows = (training_rows(session, Context(), splits[part], 0)[0] for part in ("train", "dev"))
    objective = Averaged(session.base, train_rows, batch=plan.batch)
    rate = plan.stages[-1].learning_rate * STEP**step
    looks: list[dict[str, Any]] = []

    def seen() -> dict[str, Any]:
        found: dict[str, Any] = {"nats": losses_by_temperature(session.base, dev_rows)}
        if imitates_labels(session, "sft"):
            with merged(session.base.model):
                given = session.answer(builder.prompts(splits["dev"]))
            right = [row.references[0] for row in splits["dev"]]
            found["choice"] = [round(one, 4) for one in label_losses(given, right, session.workspace.labels)]
        return found | {"dev": scores(session, builder, splits["dev"])}

    def look() -> DevEvaluation:
        plain, kept = seen(), snapshot(objective.moving)
        restore(objective.moving, objective.mean())
        looks.append({"plain": plain, "mean": seen()})
        restore(objective.moving, kept)
        told = [fmean(one["dev"]) for one in looks[-1].values()]
        print(f"{session.task.task.name} rate x {STEP}^{step}, look {len(looks)}: {told}", flush=True)
        return DevEvaluation(dev_loss=1.0 / len(looks))

    train_model(
        TrainingJob(
            base=session.base,
            objective=objective,
            settings=LoopSettings(
                learning_rate=rate,
                epochs=plan.stages[-1].epochs,
                evaluations=LOOKS,
                patience=LOOKS,
                schedule="constant",
            ),
            folder=folder / f"rate{step}",
            evaluate=look,
        )
    )
    test = round(fmean(scores(session, builder, splits["test"])), 4)
    print(f"{session.task.task.name} rate x {STEP}^{step}: test {test}", flush=True)
    tokens = sum(row.trained_tokens for row in dev_rows)
    return {"rate_steps": step, "rate": rate, "tokens": tokens, "looks": looks, "test": test}


def record(tasks: Sequence[str], source: Path) -> None:
    """Record every run that is missing."""
    done = {(line["task"], line["rate_steps"]) for line in read_json_lines(RUNS)}
    for task in tasks:
        with laid_out(task, source, "none") as (session, folder):
            for step in STEPS:
                if (task, step) not in done:
                    found = run(session, folder, step)
                    append_line(RUNS, {"task": task, **found, "machine": describe_machine()["processor"]})


def signals(look: dict[str, Any], tokens: int) -> dict[str, float]:
    """Return the values by which an evaluation may rank rates, lower is better."""
    sums = [sum(row[n] for row in look["nats"]) / tokens for n in range(len(TEMPERATURES))]
    found = {"loss": sums[0], "loss at a temperature": min(sums), "score": -fmean(look["dev"])}
    return found | ({"loss of the choice": fmean(look["choice"])} if "choice" in look else {})


def compared() -> list[dict[str, Any]]:
    """A row a task, kind of weights, look and signal: which rate it would choose, and what that rate scored on test
    at the end, less the best."""
    by_task: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in read_json_lines(RUNS):
        by_task[line["task"]].append(line)
    table = []
    for task, lines in by_task.items():
        ends = {line["rate_steps"]: line["test"] for line in lines}
        for kind in ("plain", "mean"):
            for look in range(LOOKS):
                ranked: dict[str, dict[int, float]] = defaultdict(dict)
                for line in lines:
                    for name, value in signals(line["looks"][look][kind], line["tokens"]).items():
                        ranked[name][line["rate_steps"]] = value
                for name, values in ranked.items():
                    chosen = min(values, key=lambda step: (values[step], abs(step)))
                    row = {"task": task, "weights": kind, "look": look + 1, "by": name, "chosen": chosen}
                    row |= {"test": ends[chosen], "behind": round(max(ends.values()) - ends[chosen], 4)}
                    table.append(row | {"values": {str(step): round(value, 4) for step, value in values.items()}})
        table.append({"task": task, "ends": ends})
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "compare"))
    parser.add_argument("--tasks", default=",".join(TASKS), help="which of them, with commas")
    parser.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    given = parser.parse_args()
    if given.what == "run":
        record(given.tasks.split(","), given.source)
        return
    table = compared()
    write_json(RESULT, {"table": table})
    for row in table:
        print(*row.values(), sep=" | ")


if __name__ == "__main__":
    main()
