"""Measures the memory of prepared products, and the time that keeping fewer of them costs.

Run: python benchmarks/product_cache.py  →  benchmarks/results/product_cache.json, in about ten minutes on one core.
oneDNN keeps the code that it made for each shape of a product, and torch what led to it (1,024 of each by default).
Each run is a process of its own: SmolLM2-135M gives 96 answers of 4 to 64 tokens to prompts of 20 to 200, as a
server would, then LoRA r=16 is trained for some steps of 8 GSM8K rows, and of 32 rows of 12 to 60 tokens. Tokens a
second of the processor of both, on one thread, so that other work counts little, and the memory that the process
then holds beyond what it held with the model loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import psutil
from best_weights import SHARED
from trees import gsm8k

from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine, release_memory, versions
from trimtab.base.records import Encoded
from trimtab.data.prompts import ChatEncoder
from trimtab.inference.engine import Engine, Request
from trimtab.model.adapters.apply import add_lora
from trimtab.model.catalog import resolve
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import Base, load_base
from trimtab.training.sft import SupervisedObjective, answer_rows

RESULT = Path(__file__).resolve().parent / "results" / "product_cache.json"
NAMES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
ORDER = ("1024", "256", "128", "64", "32", "32", "64", "128", "256", "1024")


def held() -> float:
    """MB of this process once freed memory is given back."""
    release_memory()
    return float(psutil.Process().memory_info().rss) / 1e6


def rate(base: Base, objective: SupervisedObjective, steps: int) -> float:
    """Tokens of the rows in a second of the processor."""
    tokens, began = 0, time.process_time()
    for step in range(steps):
        for batch in objective.batches(step):
            objective.loss(base, batch).value.backward()  # type: ignore[no-untyped-call]
            tokens += batch.row_tokens
    return tokens / (time.process_time() - began)


def measure(source: Path, steps: int) -> dict[str, float]:
    """Tokens a second of this process while it answers and while it trains, and the MB that stay."""
    base, draw = accelerate(load_base(resolve("smollm2-135m-q4"), "bf16")), random.Random(0)
    asked = [
        Request(id=str(i), ids=tuple(range(100, 100 + draw.randint(20, 200))), max_new=draw.randint(4, 64))
        for i in range(96)
    ]
    engine = Engine(base, frozenset())
    engine.generate(asked[:1])  # the first, cold one is not counted
    before, began = held(), time.process_time()
    engine.generate(asked)
    answering = sum(one.max_new for one in asked) / (time.process_time() - began)
    answered = held() - before
    add_lora(base, 16, 32.0, seed=0)
    encoder = ChatEncoder(base.tokenizer)
    rows = answer_rows((encoder.conversation(prompt, answer), 1.0) for prompt, answer in gsm8k(source))
    training = rate(base, SupervisedObjective(rows, batch=8, seed=0), steps)
    lengths = [draw.randint(12, 60) for _ in range(96)]
    short = [
        Encoded(ids=tuple(draw.choices(range(1000, 40000), k=n)), trained=(False,) * (n - 4) + (True,) * 4)
        for n in lengths
    ]
    many = rate(base, SupervisedObjective(answer_rows((one, 1.0) for one in short), batch=32, seed=0), steps // 2)
    return {
        "answering": answering,
        "training": training,
        "training_short_rows": many,
        "mb_after_answers": answered,
        "mb_after_training": held() - before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    parser.add_argument("--steps", type=int, default=12, help="training steps of a run")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(measure(given.source, given.steps)))
        return
    runs: dict[str, list[dict[str, float]]] = {}
    for capacity in ORDER:
        command = [sys.executable, __file__, "--inside", "--source", str(given.source), "--steps", str(given.steps)]
        done = subprocess.run(
            command,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | dict.fromkeys(NAMES, capacity),
            check=True,
            capture_output=True,
            text=True,
        )
        runs.setdefault(capacity, []).append(json.loads(done.stdout.splitlines()[-1]))
        print(capacity, runs[capacity][-1], flush=True)
    medians = {
        capacity: {key: round(median(run[key] for run in of), 1) for key in of[0]} for capacity, of in runs.items()
    }
    write_json(given.out, {"medians": medians, "runs": runs, "machine": describe_machine(), "versions": versions()})


if __name__ == "__main__":
    main()
