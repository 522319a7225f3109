"""Training over trees of prefixes against rows laid end to end: the same rows, steps and model, in one process.

Run: python benchmarks/trees.py  →  benchmarks/results/trees.json, in about two minutes on two cores. Forward and
backward passes of SmolLM2-135M with LoRA r=16 in the order A B B A; tokens are those of the rows, shared or not.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from best_weights import SHARED
from processor import machine

from trimtab.base.files import write_json
from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters.apply import add_lora, trainable_parameters
from trimtab.model.catalog import resolve
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import load_base
from trimtab.training import batch as batches
from trimtab.training.batch import MIN_SHARED_TOKENS, Batch
from trimtab.training.parallel import map_microbatches
from trimtab.training.sft import SupervisedObjective, answer_rows

RESULT = Path(__file__).resolve().parent / "results" / "trees.json"
ROWS, STEPS, NEVER = 200, 6, 10**9
ORDER = ("tree", "end to end", "end to end", "tree")
INSTRUCTION = "You sort messages of a bank's customers. Answer with the topic of the message, as a short name."


def banking77(source: Path) -> list[tuple[list[Message], str]]:
    """Messages behind one instruction."""
    with open(source / "banking77.train.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    system = Message(role="system", content=INSTRUCTION)
    chosen = random.Random(0).sample(rows, ROWS)
    return [([system, Message(role="user", content=row["text"])], row["category"]) for row in chosen]


def gsm8k(source: Path) -> list[tuple[list[Message], str]]:
    """Questions that share nothing but what the template puts before each."""
    lines = (source / "gsm8k.train-1500.jsonl").read_text(encoding="utf-8").splitlines()[:ROWS]
    rows = map(json.loads, lines)
    return [([Message(role="user", content=row["question"])], row["answer"]) for row in rows]


def rate(base: Any, objective: SupervisedObjective, steps: int) -> float:
    """Tokens of the rows a second, passes side by side as the loop has them."""
    moving = list(trainable_parameters(base.model).values())

    def passed(batch: Batch) -> int:
        torch.autograd.grad(objective.loss(base, batch).value, moving, allow_unused=True)
        return batch.row_tokens

    began = time.perf_counter()
    tokens = sum(tokens for step in range(steps) for tokens in map_microbatches(passed, objective.batches(step)))
    return tokens / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    given = parser.parse_args()
    base = accelerate(load_base(resolve("smollm2-135m-q4"), "bf16"))
    add_lora(base, 16, 32.0, seed=0)
    encoder = ChatEncoder(base.tokenizer)
    found: dict[str, Any] = {}
    for name, source, size in (("banking77", banking77, 16), ("gsm8k", gsm8k, 8)):
        rows = answer_rows((encoder.conversation(asked, answer), 1.0) for asked, answer in source(given.source))
        objective = SupervisedObjective(rows, batch=size, seed=0)
        runs: list[tuple[str, float]] = []
        for side in ORDER:
            batches.MIN_SHARED_TOKENS = MIN_SHARED_TOKENS if side == "tree" else NEVER
            rate(base, objective, 1)  # shapes that were not seen yet
            runs.append((side, rate(base, objective, STEPS)))
        median = {side: statistics.median(value for one, value in runs if one == side) for side in set(ORDER)}
        found[name] = {"ratio": median["tree"] / median["end to end"], "tokens_per_second": median, "runs": runs}
        print(name, round(found[name]["ratio"], 2), {side: round(value) for side, value in median.items()}, flush=True)
    write_json(RESULT, {"work": found, "machine": machine()})


if __name__ == "__main__":
    main()
