"""Training and answering beside programs that keep the machine busy.

Run: python benchmarks/busy_machine.py [training answering]  →  benchmarks/results/busy_machine.json (processors and
works that are there stay), in about ten minutes each on two cores, alone on the machine; A B B A.

- training: steps of LoRA, rank 16, on SmolLM2-135M in bf16, 8 GSM8K rows a step, with the passes of a step side by side
  against one after another on all threads, beside none, one and three programs that count. Each run is a process of
  its own. Tokens a second, and the largest resident memory of a run.
- answering: one prompt, then 16 at once, on all threads against as many as find a free core, beside programs that count
  all the time, half of it, or all of it at a lower priority. New tokens a second; the answers are the same.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from shared import BUSY, SHARED, busy_programs, gsm8k_objective, kind, machine, training_speed

from trimtab.base.files import write_json
from trimtab.base.machine import versions
from trimtab.inference.engine import Engine, Request
from trimtab.model import threads
from trimtab.model.adapters.apply import add_lora
from trimtab.model.catalog import resolve
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import Base, load_base
from trimtab.training import parallel

RESULT = Path(__file__).resolve().parent / "results" / "busy_machine.json"
OTHERS, PASSES = (0, 1, 3), ("side by side", "one after another", "one after another", "side by side")
HALF = (
    "import time\nwhile True:\n end = time.perf_counter() + .01\n while time.perf_counter() < end: pass\n"
    " time.sleep(.01)"
)
LOWER = f"import os\nos.nice(10)\n{BUSY}"
BESIDE = {
    "nothing": (BUSY, 0),
    "one, half of the time": (HALF, 1),
    "one": (BUSY, 1),
    "three": (BUSY, 3),
    "two at a lower priority": (LOWER, 2),
}
SIZES, PROMPT, NEW = {"one stream": 1, "16 at once": 16}, 60, 32
THREADS = ("all threads", "free cores", "free cores", "all threads")


def small_model() -> Base:
    return accelerate(load_base(resolve("smollm2-135m-q4"), "bf16"))


def measure_training(way: str, source: Path, steps: int) -> dict[str, float]:
    """Return the speed and memory of training in this process."""
    if way == "one after another":
        parallel.MAX_LANES = 1
    base = small_model()
    add_lora(base, 16, 32.0, seed=0)
    objective = gsm8k_objective(base, source, batch=8)
    training_speed(base, objective, 1)
    return {
        "tokens_per_second": training_speed(base, objective, steps),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "lanes": parallel.parallel_lanes(),
    }


def trained_beside(others: int, way: str, source: Path) -> dict[str, float]:
    """Measure training in a process of its own, while `others` programs run."""
    with busy_programs(others):
        steps = "2" if others else "4"
        command = [sys.executable, __file__, "--source", str(source), "--way", way, "--steps", steps]
        figures: dict[str, float] = json.loads(subprocess.check_output(command, text=True))
        return figures


def training(source: Path) -> dict[str, Any]:
    """Return training's figures, filed by this processor."""
    rows: list[dict[str, Any]] = []
    for others in OTHERS:
        runs = [(way, trained_beside(others, way, source)) for way in PASSES]
        speed = {way: median(run["tokens_per_second"] for name, run in runs if name == way) for way in PASSES[:2]}
        ratio = speed["side by side"] / speed["one after another"]
        rows.append({"others": others, "tokens_per_second": speed, "ratio": ratio, "runs": runs})
        print(json.dumps(rows[-1]), flush=True)
    return {kind(): {"runs": rows, "machine": machine(), "versions": versions()}}


@contextmanager
def all_threads() -> Iterator[None]:
    """Context manager: torch uses all threads, whatever other programs do."""
    with patch.object(threads, "threads_for_cores", lambda count, *_: count):
        yield


def answering_speed(base: Base, count: int, way: str) -> tuple[float, list[tuple[int, ...]]]:
    """Return the new tokens a second of so many prompts answered together, and the answers."""
    draw = random.Random(1)
    words = base.model.config.vocab_size
    requests = [
        Request(id=str(number), ids=tuple(draw.randrange(100, words) for _ in range(PROMPT)), max_new=NEW)
        for number in range(count)
    ]
    began = time.perf_counter()
    if way == "all threads":
        with all_threads():
            answers = Engine(base, frozenset()).generate(requests)
    else:
        answers = Engine(base, frozenset()).generate(requests)
    return count * NEW / (time.perf_counter() - began), [answer.ids for answer in answers]


def answering() -> dict[str, Any]:
    """Return answering's figures."""
    base = small_model()
    answering_speed(base, 2, THREADS[0])  # the first, cold one is not counted
    rows = []
    for beside, (program, count) in BESIDE.items():
        with busy_programs(count, program):
            for what, size in SIZES.items():
                runs = [(way, *answering_speed(base, size, way)) for way in THREADS]
                speed = {way: median(speed for name, speed, _ in runs if name == way) for way in THREADS[:2]}
                rows.append(
                    {
                        "beside": beside,
                        "what": what,
                        "tokens_per_second": {way: round(value, 2) for way, value in speed.items()},
                        "runs": [(way, round(value, 2)) for way, value, _ in runs],
                        "same_answers": all(answers == runs[0][2] for _, _, answers in runs),
                    }
                )
                print(rows[-1], flush=True)
    return {"rows": rows, "machine": machine(), "versions": versions()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", default=["training", "answering"], help="training, answering or both")
    parser.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measure_training(given.way, given.source, given.steps)))
        return
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {"training": {}}
    if "training" in given.works:
        result["training"] |= training(given.source)
    if "answering" in given.works:
        result["answering"] = answering()
    write_json(RESULT, result)


if __name__ == "__main__":
    main()
