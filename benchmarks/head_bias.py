"""Compares classification heads with and without a bias, on the base as it is and trained with LoRA.

Run: python benchmarks/head_bias.py  →  benchmarks/results/head_bias.json transformers' sequence classifiers have no
bias, so ours has none. Both kinds start from the same weights and see the same rows in the same order.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trimtab.arms.contexts import Context
from trimtab.arms.objectives import head_rows
from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.files import read_object, write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.base.task import load_task
from trimtab.inference.last_hidden import last_hidden_states
from trimtab.model.adapters.apply import add_lora
from trimtab.model.classifier import ClassificationHead
from trimtab.training.batch import TrainingRow, step_rows, steps_per_epoch
from trimtab.training.classification import ClassificationObjective
from trimtab.training.optim import Optimizer, learning_rate_at

RESULT = Path(__file__).resolve().parent / "results" / "head_bias.json"
BATCH, RANK, RATE = 8, 16, 5e-4  # the usual ones of lora-head
FROZEN_EPOCHS, FROZEN_SEEDS, FROZEN_RATES = 20, 3, (1e-3, 1e-2)


class WithBias(ClassificationHead):
    """A classification head with a bias that starts at 0."""

    def __init__(self, labels: Sequence[str], hidden_size: int, *, seed: int = 0) -> None:
        super().__init__(labels, hidden_size, seed=seed)
        self.bias = nn.Parameter(torch.zeros(len(self.labels)))

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden) + self.bias


KINDS: dict[str, type[ClassificationHead]] = {"without": ClassificationHead, "with": WithBias}


def accuracy(head: ClassificationHead, hidden: Tensor, labels: Tensor) -> float:
    """Share of prompts whose likeliest label is theirs."""
    with torch.no_grad():
        return float((head(hidden.clone()).argmax(-1) == labels).float().mean())


def told(rows: Sequence[TrainingRow]) -> tuple[list[tuple[int, ...]], Tensor]:
    """Prompts as ids, and the numbers of their labels."""
    return [row.encoded.ids for row in rows], torch.tensor([row.targets[0][1] for row in rows])


def frozen(session: Session, train: Sequence[TrainingRow], test: Sequence[TrainingRow]) -> dict[str, Any]:
    """Heads on the hidden states of the base as it is, by learning rate."""
    session.fresh_base()
    (ids, labels_P), (test_ids, test_P) = told(train), told(test)
    hidden_PD, test_PD = (last_hidden_states(session.base, prompts).float().clone() for prompts in (ids, test_ids))
    steps = FROZEN_EPOCHS * steps_per_epoch(len(train), BATCH)

    def one(head: ClassificationHead, rate: float, seed: int) -> float:
        optimizer = Optimizer(dict(head.named_parameters()))
        for step in range(steps):
            rows = step_rows(len(train), BATCH, step, seed)
            optimizer.backward(nn.functional.cross_entropy(head(hidden_PD[rows]), labels_P[rows]), 0)
            optimizer.clip_gradients()
            optimizer.step(learning_rate_at(step, steps, rate))
        return accuracy(head, test_PD, test_P)

    labels, size = session.workspace.labels, hidden_PD.shape[1]
    return {
        f"{rate:g}": summary(
            {
                kind: [one(made(labels, size, seed=seed), rate, seed) for seed in range(FROZEN_SEEDS)]
                for kind, made in KINDS.items()
            }
        )
        for rate in FROZEN_RATES
    }


def lora(
    session: Session, train: Sequence[TrainingRow], test: Sequence[TrainingRow], seeds: int
) -> dict[str, list[float]]:
    """Test accuracy after one epoch of LoRA and head together."""
    test_ids, test_P = told(test)
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for seed in range(seeds):
        for kind in KINDS if seed % 2 == 0 else reversed(KINDS):
            base = session.fresh_base()
            add_lora(base, RANK, 2 * RANK, seed)
            head = KINDS[kind](session.workspace.labels, base.model.config.hidden_size, seed=seed)
            objective = ClassificationObjective(train, head, batch=BATCH, seed=seed)
            optimizer = Optimizer(objective.parameters(base))
            for step in range(objective.steps_per_epoch):
                for place, batch in enumerate(objective.batches(step)):
                    optimizer.backward(objective.loss(base, batch).value, place)
                optimizer.clip_gradients()
                optimizer.step(learning_rate_at(step, objective.steps_per_epoch, RATE))
            found[kind].append(accuracy(head, last_hidden_states(base, test_ids), test_P))
            print(kind, seed, found[kind][-1], flush=True)
    return found


def summary(found: dict[str, list[float]]) -> dict[str, Any]:
    differences = np.subtract(found["without"], found["with"])
    return {
        "accuracy": {kind: [round(value, 4) for value in values] for kind, values in found.items()},
        "difference": round(float(differences.mean()), 4),
        "standard_error": round(float(differences.std(ddof=1) / len(differences) ** 0.5), 4),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--task", type=Path, help="a task file of kind classify; default: the bundled spam example")
    options.add_argument(
        "--rows", type=int, default=400, help="training rows of LoRA; heads on the base as it is get all"
    )
    options.add_argument("--seeds", type=int, default=2, help="of LoRA; 0 leaves it out")
    options.add_argument("--out", type=Path, default=RESULT)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch, as_file(files("trimtab.demos") / "spam") as source:
        place = Path(shutil.copytree(chosen.task.parent if chosen.task else source, Path(scratch) / "task"))
        session = open_session(open_workspace(load_task(place / (chosen.task.name if chosen.task else "trimtab.toml"))))
        splits = session.workspace.splits
        parts = (splits["train"], session.workspace.subset("train", chosen.rows), splits["test"])
        every, some, test = (head_rows(session, Context(), part, 0)[0] for part in parts)
        result = {
            "what": f"accuracy on test of classification heads without a bias and with one: {session.task.task.name}, "
            f"{session.task.base.model}",
            "machine": describe_machine(),
            "versions": versions(),
            "labels": len(session.workspace.labels),
            "questions": len(test),
            "base_as_it_is": {"rows": len(every), "by_learning_rate": frozen(session, every, test)},
        }
        if chosen.seeds:
            result["lora"] = {"rows": len(some), **summary(lora(session, some, test, chosen.seeds))}
    known = read_object(chosen.out) if chosen.out.is_file() else {}
    write_json(chosen.out, {**known, session.task.task.name: result})
    print(result)


if __name__ == "__main__":
    main()
