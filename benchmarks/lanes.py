"""Passes of a step side by side against one after another on all threads: training steps of LoRA, beside no, one and
three busy programs.

Run: python benchmarks/lanes.py  →  benchmarks/results/lanes.json (processors that are there stay), in about ten
minutes on two cores. SmolLM2-135M in bf16, rank 16, 8 GSM8K rows a step. Each run is a process of its own, in the
order A B B A; the busy programs do nothing but count, as many as are named. Tokens a second, and the largest
resident memory of a run.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from best_weights import SHARED
from processor import kind, machine
from trees import gsm8k, rate
from waiting import busy_programs

from trimtab.base.files import write_json
from trimtab.base.machine import versions
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters.apply import add_lora
from trimtab.model.catalog import resolve
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import load_base
from trimtab.training import parallel as lanes
from trimtab.training.sft import SupervisedObjective, answer_rows

RESULT = Path(__file__).resolve().parent / "results" / "lanes.json"
OTHERS, ORDER = (0, 1, 3), ("side by side", "one after another", "one after another", "side by side")


def measure(way: str, source: Path, steps: int) -> dict[str, float]:
    """Speed and memory of this process."""
    if way == "one after another":
        lanes.MAX_LANES = 1
    base = accelerate(load_base(resolve("smollm2-135m-q4"), "bf16"))
    add_lora(base, 16, 32.0, seed=0)
    encoder = ChatEncoder(base.tokenizer)
    rows = answer_rows((encoder.conversation(asked, answer), 1.0) for asked, answer in gsm8k(source))
    objective = SupervisedObjective(rows, batch=8, seed=0)
    rate(base, objective, 1)
    speed = rate(base, objective, steps)
    return {
        "tokens_per_second": speed,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "lanes": lanes.parallel_lanes(),
    }


def beside(others: int, way: str, source: Path) -> dict[str, float]:
    """Measure in a process of its own, while `others` programs run."""
    with busy_programs(others):
        steps = "2" if others else "4"
        command = [sys.executable, __file__, "--source", str(source), "--way", way, "--steps", steps]
        found: dict[str, float] = json.loads(subprocess.check_output(command, text=True))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measure(given.way, given.source, given.steps)))
        return
    found: list[dict[str, Any]] = []
    for others in OTHERS:
        runs = [(way, beside(others, way, given.source)) for way in ORDER]
        speed = {way: median(one["tokens_per_second"] for name, one in runs if name == way) for way in ORDER[:2]}
        ratio = speed["side by side"] / speed["one after another"]
        found.append({"others": others, "tokens_per_second": speed, "ratio": ratio, "runs": runs})
        print(json.dumps(found[-1]), flush=True)
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    write_json(RESULT, {**known, kind(): {"runs": found, "machine": machine(), "versions": versions()}})


if __name__ == "__main__":
    main()
