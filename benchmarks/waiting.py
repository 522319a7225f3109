"""Training and answering beside other programs: how long threads that wait at a barrier spin.

Run: python benchmarks/waiting.py  →  benchmarks/results/waiting.json, in about ten minutes on two cores. Each run is
a process of its own that lets SmolLM2-135M give one stream of answers, then trains it with LoRA r=16 for a few
steps, beside none, one or three programs that do nothing but count; tokens a second. Spins are libgomp's
GOMP_SPINCOUNT; "default" is its own, 300,000.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from best_weights import SHARED
from processor import machine
from trees import gsm8k, rate

from trimtab.base.files import write_json
from trimtab.data.prompts import ChatEncoder
from trimtab.inference.engine import Engine, Request
from trimtab.model.adapters.apply import add_lora
from trimtab.model.catalog import resolve
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import load_base
from trimtab.training.sft import SupervisedObjective, answer_rows

RESULT = Path(__file__).resolve().parent / "results" / "waiting.json"
OTHERS, ORDER = (0, 1, 3), ("default", "10000", "1000", "1000", "10000", "default")
BUSY, NEW = "while True: pass", 24


def measure(source: Path, steps: int) -> dict[str, float]:
    """Tokens a second of this process: one stream of answers, and training."""
    base = accelerate(load_base(resolve("smollm2-135m-q4"), "bf16"))
    engine, prompt = Engine(base, frozenset()), Request(id="one", ids=tuple(range(100, 200)), max_new=NEW)
    engine.generate([prompt])  # the first, cold one is not counted
    began = time.perf_counter()
    for _ in range(steps):
        engine.generate([prompt])
    answering = NEW * steps / (time.perf_counter() - began)
    add_lora(base, 16, 32.0, seed=0)
    encoder = ChatEncoder(base.tokenizer)
    rows = answer_rows((encoder.conversation(asked, answer), 1.0) for asked, answer in gsm8k(source))
    objective = SupervisedObjective(rows, batch=8, seed=0)
    rate(base, objective, 1)
    return {"answering": answering, "training": rate(base, objective, steps)}


def beside(others: int, spins: str, source: Path) -> dict[str, float]:
    """Measure in a process of its own, while `others` programs run."""
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment["GOMP_SPINCOUNT"] = "300000" if spins == "default" else spins
    with busy_programs(others):
        command = [sys.executable, __file__, "--source", str(source), "--steps", "1" if others else "3"]
        found: dict[str, float] = json.loads(subprocess.check_output(command, env=environment, text=True))
        return found


@contextmanager
def busy_programs(count: int, program: str = BUSY) -> Iterator[None]:
    """Context manager: `count` programs run beside, by default each keeping a core busy."""
    busy = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(count)]
    try:
        yield
    finally:
        for one in busy:
            one.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.steps:
        print(json.dumps(measure(given.source, given.steps)))
        return
    found = []
    for others in OTHERS:
        runs = [(spins, beside(others, spins, given.source)) for spins in ORDER]
        middle = {
            spins: {
                work: median(one[work] for name, one in runs if name == spins) for work in ("answering", "training")
            }
            for spins in dict.fromkeys(ORDER)
        }
        found.append({"others": others, "tokens_per_second": middle, "runs": runs})
        print(json.dumps(found[-1]), flush=True)
    write_json(RESULT, {"runs": found, "machine": machine()})


if __name__ == "__main__":
    main()
