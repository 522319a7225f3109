"""One step of the engine: with transformers' decoder layers, with ours in torch and by kernels.

All by weights laid out: for the processor's library, or for our kernels.

Run: python benchmarks/steps.py  →  benchmarks/results/steps.json, in about a minute; alone on the machine. So many
sequences that begin alike for 30 tokens get one more token each, 20 to 100 behind their prompts: a step of each way
in turn, over the same weights; medians, milliseconds, and the medians of the ratios to transformers' layers. Results
of each kind of processor are kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from operator import truediv
from pathlib import Path
from statistics import median
from unittest.mock import patch

from processor import kind

from trimtab.base.files import read_json, write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.inference import engine
from trimtab.inference.engine import Engine, Request
from trimtab.model import attention
from trimtab.model.catalog import resolve
from trimtab.model.fast import inference_layers as fused
from trimtab.model.fast import packed_weights as laid_out
from trimtab.model.fast.patch import accelerate
from trimtab.model.kernels import ops as operations
from trimtab.model.load import Base, load_base
from trimtab.model.share_weights import share_weights

RESULT = Path(__file__).resolve().parent / "results" / "steps.json"
MODEL = "smollm2-135m-q4"
SEQUENCES, PROMPT, SKIPPED, STEPS = (1, 4, 16, 64), 30, 20, 80
WAYS = {"transformers": (), "torch": fused.FAMILIES, "kernels": fused.FAMILIES}


@contextmanager
def by(way: str) -> Iterator[None]:
    """Context manager: switch our kernels off, unless `way` is theirs."""
    with ExitStack() as stack:
        if way != "kernels":
            for room in (operations, attention):
                stack.enter_context(patch.object(room, "supports", lambda *_: False))
        yield


def begun(base: Base, sequences: int) -> Engine:
    """An engine with so many sequences on their way."""
    made = Engine(base, frozenset(), slots=sequences)
    for number in range(sequences):
        ids = (*range(100, 100 + PROMPT - 1), 1000 + number)
        made.submit(Request(id=str(number), ids=ids, max_new=SKIPPED + STEPS + 5))
    return made


def main() -> None:
    first = accelerate(load_base(resolve(MODEL)))
    # weights that are shared would be laid out once, for the first that asks
    bases = dict(zip(WAYS, (first, share_weights(first), accelerate(load_base(resolve(MODEL)))), strict=True))
    table = []
    with ExitStack() as stack:
        stack.enter_context(patch.object(engine, "draft_length", lambda _: 0))  # one token a step
        for name, families in WAYS.items():
            panels = laid_out.can_pack if name == "kernels" else lambda _: False
            with patch.object(fused, "FAMILIES", families), patch.object(laid_out, "can_pack", panels):
                stack.enter_context(laid_out.packed(bases[name]))
        for sequences in SEQUENCES:
            engines = {name: begun(base, sequences) for name, base in bases.items()}
            for name, made in engines.items():
                with by(name):
                    for _ in range(SKIPPED):
                        made.step()
            told: dict[str, list[float]] = {name: [] for name in WAYS}
            for number in range(STEPS):
                for name in WAYS if number % 2 else reversed(WAYS):
                    with by(name):
                        began = time.perf_counter()
                        engines[name].step()
                        told[name].append(1e3 * (time.perf_counter() - began))
            row = {name: round(median(all_), 2) for name, all_ in told.items()}
            ratios = {name: median(map(truediv, told["transformers"], told[name])) for name in WAYS}
            table.append({"sequences": sequences} | row | {"ratios": {name: round(r, 2) for name, r in ratios.items()}})
            print(table[-1], flush=True)
    known = read_json(RESULT) if RESULT.exists() else {}
    write_json(RESULT, known | {kind(): {"table": table, "machine": describe_machine(), "versions": versions()}})


if __name__ == "__main__":
    main()
