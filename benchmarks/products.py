"""The products of one pass of SmolLM2-135M's layers over a few rows: in bf16, laid out for the processor beforehand,
together, and in 8 bits.

Run: python benchmarks/products.py  →  benchmarks/results/products.json, in about two minutes; alone on the machine.
Random weights of the model's shapes, 30 layers, so that they do not stay in the processor's cache; medians,
milliseconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.model.fast.inference_layers import Projection
from trimtab.model.fast.int8_weights import Int8Projection
from trimtab.model.fast.packed_weights import packed_projection, packed_weight
from trimtab.model.kernels.torch_private import int8_matmul

RESULT = Path(__file__).resolve().parent / "results" / "products.json"
SHAPES = ((576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536))
LAYERS, ROWS, TIMES = 30, (1, 2, 4, 16, 64), 15


def milliseconds(work: Callable[[], object]) -> float:
    """The median of several runs, after one that is not counted."""
    seconds = []
    for _ in range(TIMES + 1):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return round(1e3 * statistics.median(seconds[1:]), 2)


@torch.inference_mode()
def main() -> None:
    layers = [[nn.Linear(i, o, bias=False, dtype=torch.bfloat16) for o, i in SHAPES] for _ in range(LAYERS)]
    apart = [[one] for layer in layers for one in layer]
    three = [part for q, k, v, *rest in layers for part in ([q, k, v], *([one] for one in rest))]
    five = [part for q, k, v, o, gate, up, down in layers for part in ([q, k, v], [o], [gate, up], [down])]
    ways = {
        "bf16": [layer.forward for (layer,) in apart],
        "laid out": [_laid_out(part) for part in apart],
        "laid out, query key value as one": [_laid_out(part) for part in three],
        "laid out, gate and up as one too": [_laid_out(part) for part in five],
        "8 bits, query key value as one": [_whole(part) for part in three],
    }
    table = []
    for rows in ROWS:
        inputs = {i: torch.randn(rows, i, dtype=torch.bfloat16) for i in (576, 1536)}
        row: dict[str, float] = {"rows": rows}
        for name, products in ways.items():
            parts = {len(apart): apart, len(three): three, len(five): five}[len(products)]
            given = [inputs[part[0].in_features] for part in parts]
            row[name] = milliseconds(lambda: [product(input) for product, input in zip(products, given, strict=True)])  # noqa: B023
        table.append(row)
        print(row, flush=True)
    write_json(RESULT, {"table": table, "machine": describe_machine(), "versions": versions()})


def _laid_out(layers: Sequence[nn.Linear]) -> Projection:
    return packed_projection(packed_weight(*layers), None)


def _whole(layers: Sequence[nn.Linear]) -> Projection:
    made = Int8Projection(*layers)
    return lambda input: int8_matmul(input, made.whole_OI, made.scale_O)


if __name__ == "__main__":
    main()
