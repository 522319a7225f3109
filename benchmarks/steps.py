"""One step of the engine: with transformers' decoder layers and with ours (decision 53), both by weights laid out for the processor.

Run: python benchmarks/steps.py  →  benchmarks/results/steps.json, in about three minutes; alone on the machine.
So many sequences that begin alike for 30 tokens get one more token each, 20 to 100 behind their prompts; A B B A, medians, milliseconds.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from unittest.mock import patch

from trimtab.answering.engine import Engine, Request
from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.model import fused
from trimtab.model.catalog import resolve
from trimtab.model.laid_out import laid_out
from trimtab.model.load import Base, load_base

RESULT = Path(__file__).resolve().parent / "results" / "steps.json"
MODEL = "smollm2-135m-q4"
SEQUENCES, PROMPT, SKIPPED, STEPS = (1, 4, 16, 64), 30, 20, 80
WAYS = {"transformers": (), "ours": fused.FAMILIES}


def milliseconds(base: Base, families: tuple[str, ...], sequences: int) -> list[float]:
    """Of each step."""
    with patch.object(fused, "FAMILIES", families), laid_out(base):
        engine = Engine(base, frozenset(), slots=sequences)
        for number in range(sequences):
            ids = (*range(100, 100 + PROMPT - 1), 1000 + number)
            engine.submit(Request(id=str(number), ids=ids, max_new=SKIPPED + STEPS + 5))
        seconds = []
        for _ in range(SKIPPED + STEPS):
            began = time.perf_counter()
            engine.step()
            seconds.append(time.perf_counter() - began)
    return [1e3 * one for one in seconds[SKIPPED:]]


def main() -> None:
    base = load_base(resolve(MODEL))
    table = []
    for sequences in SEQUENCES:
        told: dict[str, list[float]] = {name: [] for name in WAYS}
        for name in (*WAYS, *reversed(WAYS)):
            told[name] += milliseconds(base, WAYS[name], sequences)
        table.append({"sequences": sequences} | {name: round(median(all_), 2) for name, all_ in told.items()})
        print(table[-1], flush=True)
    write_json(RESULT, {"table": table, "machine": describe_machine(), "versions": versions()})


if __name__ == "__main__":
    main()
