"""One step of the engine: with transformers' decoder layers and with ours (decision 53), both by weights laid out for the processor.

Run: python benchmarks/steps.py  →  benchmarks/results/steps.json, in about a minute; alone on the machine.
So many sequences that begin alike for 30 tokens get one more token each, 20 to 100 behind their prompts: a step of one and a step of the
other in turn, over the same weights; medians, milliseconds, and the median of the ratios.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
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
from trimtab.model.twin import twin

RESULT = Path(__file__).resolve().parent / "results" / "steps.json"
MODEL = "smollm2-135m-q4"
SEQUENCES, PROMPT, SKIPPED, STEPS = (1, 4, 16, 64), 30, 20, 80
WAYS = {"transformers": (), "ours": fused.FAMILIES}


def begun(base: Base, sequences: int) -> Engine:
    """An engine with so many sequences on their way."""
    engine = Engine(base, frozenset(), slots=sequences)
    for number in range(sequences):
        ids = (*range(100, 100 + PROMPT - 1), 1000 + number)
        engine.submit(Request(id=str(number), ids=ids, max_new=SKIPPED + STEPS + 5))
    for _ in range(SKIPPED):
        engine.step()
    return engine


def main() -> None:
    first = load_base(resolve(MODEL))
    bases = dict(zip(WAYS, (first, twin(first)), strict=True))
    table = []
    with ExitStack() as stack:
        for name, families in WAYS.items():
            with patch.object(fused, "FAMILIES", families):
                stack.enter_context(laid_out(bases[name]))
        for sequences in SEQUENCES:
            engines = {name: begun(base, sequences) for name, base in bases.items()}
            told: dict[str, list[float]] = {name: [] for name in WAYS}
            for number in range(STEPS):
                for name in WAYS if number % 2 else reversed(WAYS):
                    began = time.perf_counter()
                    engines[name].step()
                    told[name].append(1e3 * (time.perf_counter() - began))
            row = {name: round(median(all_), 2) for name, all_ in told.items()}
            ratio = median(one / other for one, other in zip(*told.values(), strict=True))
            table.append({"sequences": sequences} | row | {"times_as_fast": round(ratio, 2)})
            print(table[-1], flush=True)
    write_json(RESULT, {"table": table, "machine": describe_machine(), "versions": versions()})


if __name__ == "__main__":
    main()
