"""The last six layers trained with what enters them kept, against passes from the beginning: the same rows, steps
and model, in one process.

Run: python benchmarks/frozen.py  →  benchmarks/results/frozen.json, in some minutes on two cores. Three epochs over
rows of GSM8K with SmolLM2-135M in bf16 in the order A B B A, each from the weights as published; tokens are those of
the rows. Steps of the optimizer are left out, which both sides have alike. Memory is the highest of a run beyond
what the process held before it. Seconds of the processor stand beside those of the clock: where other programs run,
they say more.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import psutil
from best_weights import SHARED
from processor import machine
from trees import gsm8k

from trimtab.base.files import write_json
from trimtab.base.machine import MemoryPeak, release_memory
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters.apply import trainable_parameters, unfreeze
from trimtab.model.catalog import resolve
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import load_base
from trimtab.training.sft import SupervisedObjective, answer_rows

RESULT = Path(__file__).resolve().parent / "results" / "frozen.json"
EPOCHS, LAYERS, BATCH = 3, 6, 8
ORDER = ("kept", "read every time", "read every time", "kept")


def epochs(base: Any, objective: SupervisedObjective) -> list[tuple[float, float]]:
    """Seconds of each epoch by the clock, and of the processor."""
    seconds = []
    for epoch in range(EPOCHS):
        began, working = time.perf_counter(), time.process_time()
        for step in range(objective.steps_per_epoch):
            for batch in objective.batches(epoch * objective.steps_per_epoch + step):
                objective.loss(base, batch).value.backward()  # type: ignore[no-untyped-call]
            for parameter in trainable_parameters(base.model).values():
                parameter.grad = None
        seconds.append((time.perf_counter() - began, time.process_time() - working))
    return seconds


def measured(base: Any, rows: list[Any], side: str) -> dict[str, Any]:
    """One run of one side: tokens a second over all epochs and in each, and the memory that it took."""
    release_memory()
    held = psutil.Process().memory_info().rss / 1e6
    with MemoryPeak() as memory:
        seconds = epochs(base, SupervisedObjective(rows, batch=BATCH, seed=0, cache_activations=side == "kept"))
    tokens = sum(len(row.encoded.ids) for row in rows)
    return {
        "side": side,
        "tokens_per_second": EPOCHS * tokens / sum(clock for clock, _ in seconds),
        "tokens_per_processor_second": EPOCHS * tokens / sum(worked for _, worked in seconds),
        "by_epoch": [
            {"tokens_per_second": tokens / clock, "tokens_per_processor_second": tokens / worked}
            for clock, worked in seconds
        ],
        "memory_mb": memory.megabytes - held,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--note", default="", help="what else stands in the result, such as what ran beside it")
    given = parser.parse_args()
    base = accelerate(load_base(resolve("smollm2-135m-q4"), "bf16"))
    unfreeze(base, "freeze", LAYERS)
    encoder = ChatEncoder(base.tokenizer)
    rows = answer_rows(
        (encoder.conversation(asked, answer), 1.0) for asked, answer in gsm8k(given.source)[: given.rows]
    )
    measured(base, rows[: 2 * BATCH], "kept")  # shapes that were not seen yet
    runs = []
    for side in ORDER:
        runs.append(measured(base, rows, side))
        print(side, [[round(one) for one in epoch.values()] for epoch in runs[-1]["by_epoch"]], flush=True)
    sides = {
        name: {
            figure: statistics.median(one[figure] for one in runs if one["side"] == name)
            for figure in ("tokens_per_second", "tokens_per_processor_second", "memory_mb")
        }
        for name in set(ORDER)
    }
    kept, every = sides["kept"], sides["read every time"]
    ratio = {figure: kept[figure] / every[figure] for figure in kept}
    print("ratio", {figure: round(value, 2) for figure, value in ratio.items()}, sides)
    work = {"rows": len(rows), "epochs": EPOCHS, "layers": LAYERS, "batch": BATCH, "note": given.note}
    write_json(RESULT, {"ratio": ratio, "sides": sides, "runs": runs, "work": work, "machine": machine()})


if __name__ == "__main__":
    main()
