"""Answering beside other programs: on all threads, and on as many as find a free core.

Run: python benchmarks/free_cores.py  →  benchmarks/results/free_cores.json, in about ten minutes on two cores, alone
on the machine. SmolLM2-135M answers one prompt, then 16 at once, beside programs that count all the time, half of
it, or all of it at a lower priority; new tokens a second, medians of A B B A. The answers are the same.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from unittest.mock import patch

from processor import machine
from waiting import BUSY, busy_programs

from trimtab.base.files import write_json
from trimtab.base.machine import versions
from trimtab.inference.engine import Engine, Request
from trimtab.model import threads
from trimtab.model.catalog import resolve
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import Base, load_base

RESULT = Path(__file__).resolve().parent / "results" / "free_cores.json"
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
ORDER = ("all threads", "free cores", "free cores", "all threads")


@contextmanager
def all_threads() -> Iterator[None]:
    """Context manager: torch uses all threads, whatever other programs do."""
    with patch.object(threads, "threads_for_cores", lambda count, *_: count):
        yield


def rate(base: Base, count: int, way: str) -> tuple[float, list[tuple[int, ...]]]:
    """New tokens a second of so many prompts answered together, and the answers."""
    draw = random.Random(1)
    words = base.model.config.vocab_size
    asked = [
        Request(id=str(number), ids=tuple(draw.randrange(100, words) for _ in range(PROMPT)), max_new=NEW)
        for number in range(count)
    ]
    began = time.perf_counter()
    if way == "all threads":
        with all_threads():
            told = Engine(base, frozenset()).generate(asked)
    else:
        told = Engine(base, frozenset()).generate(asked)
    return count * NEW / (time.perf_counter() - began), [one.ids for one in told]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    base = accelerate(load_base(resolve("smollm2-135m-q4"), "bf16"))
    rate(base, 2, ORDER[0])  # the first, cold one is not counted
    rows = []
    for beside, (program, count) in BESIDE.items():
        with busy_programs(count, program):
            for what, size in SIZES.items():
                runs = [(way, *rate(base, size, way)) for way in ORDER]
                rows.append(
                    {
                        "beside": beside,
                        "what": what,
                        "tokens_per_second": {
                            way: round(median(speed for name, speed, _ in runs if name == way), 2) for way in ORDER[:2]
                        },
                        "runs": [(way, round(speed, 2)) for way, speed, _ in runs],
                        "same_answers": all(answers == runs[0][2] for _, _, answers in runs),
                    }
                )
                print(rows[-1], flush=True)
    write_json(RESULT, {"rows": rows, "machine": machine(), "versions": versions()})


if __name__ == "__main__":
    main()
