"""The products of one pass of SmolLM2-135M's layers over a few rows: in bf16, laid out for the processor beforehand, and in 8 bits (decision 48).

Run: python benchmarks/products.py  →  benchmarks/results/products.json, in about a minute; alone on the machine.
Random weights of the model's shapes, 30 layers, so that they do not stay in the processor's cache; medians, milliseconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.model.eight_bit import EightBitLinear

RESULT = Path(__file__).resolve().parent / "results" / "products.json"
SHAPES = ((576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536))
LAYERS, ROWS, TIMES = 30, (1, 4, 16, 64), 15


def milliseconds(work: Callable[[], None]) -> float:
    """The median of several runs, after one that is not counted."""
    seconds = []
    for _ in range(TIMES + 1):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return round(1e3 * statistics.median(seconds[1:]), 2)


@torch.inference_mode()
def main() -> None:
    layers = [nn.Linear(i, o, bias=False, dtype=torch.bfloat16) for _ in range(LAYERS) for o, i in SHAPES]
    small = [EightBitLinear(layer) for layer in layers]
    laid_out = [torch.ops.mkldnn._reorder_linear_weight(layer.weight, 1) for layer in layers]
    table = []
    for rows in ROWS:
        inputs = {i: torch.randn(rows, i, dtype=torch.bfloat16) for i in (576, 1536)}
        given = [inputs[layer.in_features] for layer in layers]

        def usual(given: list[torch.Tensor] = given) -> None:
            for input, layer in zip(given, layers, strict=True):
                F.linear(input, layer.weight)

        def beforehand(given: list[torch.Tensor] = given) -> None:
            for input, weight in zip(given, laid_out, strict=True):
                torch.ops.mkldnn._linear_pointwise(input, weight, None, "none", [], "")

        def whole(given: list[torch.Tensor] = given) -> None:
            for input, layer in zip(given, small, strict=True):
                torch._weight_int8pack_mm(input, layer.whole_OI, layer.scale_O)

        ways = {"bf16": usual, "laid out beforehand": beforehand, "8 bits": whole}
        table.append({"rows": rows, **{name: milliseconds(way) for name, way in ways.items()}})
        print(table[-1], flush=True)
    write_json(RESULT, {"table": table, "machine": describe_machine(), "versions": versions()})


if __name__ == "__main__":
    main()
