"""Measures the share of this machine's own rate of matrix products that a training step reaches: LoRA and all weights,
SmolLM2-135M on GSM8K rows.

Run: python benchmarks/gemm_share.py [--threads 2]  →  benchmarks/results/gemm_share.json (processors that are there
stay); alone on the machine. The machine's rate is that of torch's bf16 products, the best of several square sizes;
beside it that of the model's own shapes, as many rows at a time as a pass may have. Measured in turn with the steps
(A B A B A B A), medians of each: a neighbour of the machine may have taken half of one. Counted of a step is what no
way of training does without: of the layers' weights 4 operations a token with LoRA (forward, and back to the input)
and 6 with all of them, of the head as many at answer positions alone, the last layer's MLP there alone too, of
attention the causal half; nothing that is computed a second time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from best_weights import SHARED
from processor import kind, machine

from trimtab.base.files import write_json
from trimtab.base.machine import versions
from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters.apply import add_lora, unfreeze
from trimtab.model.catalog import resolve
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import Base, load_base
from trimtab.training.batch import MICRO_TOKENS, Batch, TrainingRow, step_rows
from trimtab.training.loop import LoopSettings, TrainingJob, train_model
from trimtab.training.sft import SupervisedObjective, answer_rows

RESULT = Path(__file__).resolve().parent / "results" / "gemm_share.json"
SIZES, TIMES = (512, 1024, 2048), 6
BATCH, WARMUP, STEPS, RANK, ROUNDS = 8, 2, 6, 16, 3
PER_WEIGHT = {"lora": 4, "full": 6}  # operations a token


def seconds_of(work: Callable[[], object]) -> float:
    """The fastest of several runs, after one that is not counted."""
    taken = []
    for _ in range(TIMES + 1):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def product_rates(shapes: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Operations a second of bf16 products: square ones of the size that is fastest, and those of a layer's weights."""
    square = []
    for size in SIZES:
        left, right = (torch.randn(size, size, dtype=torch.bfloat16) for _ in range(2))
        square.append(2 * size**3 / seconds_of(lambda left=left, right=right: torch.mm(left, right)))
    pairs = [
        (torch.randn(MICRO_TOKENS, i, dtype=torch.bfloat16), torch.randn(o, i, dtype=torch.bfloat16)) for o, i in shapes
    ]
    taken = seconds_of(lambda: [F.linear(left, right) for left, right in pairs])
    return max(square), sum(2 * MICRO_TOKENS * o * i for o, i in shapes) / taken


class Timed(SupervisedObjective):
    """The objective, noting when each step begins and how many tokens its passes have."""

    def __init__(self, rows: Sequence[TrainingRow], *, batch: int) -> None:
        super().__init__(rows, batch=batch, seed=0, cache_activations=False)
        self.begins: list[float] = []
        self.read: list[int] = []

    def batches(self, step: int) -> list[Batch]:
        self.begins.append(time.perf_counter())
        found = super().batches(step)
        self.read.append(sum(len(batch.ids_N) for batch in found))
        return found


def measure(way: str, base: Base, rows: Sequence[TrainingRow], weights: int) -> tuple[float, float]:
    """Operations and seconds of the steps after the warm-up."""
    objective, config = Timed(rows, batch=BATCH), base.model.config
    last = WARMUP + STEPS
    settings = LoopSettings(learning_rate=1e-4, epochs=(last + 1) / objective.steps_per_epoch)
    with tempfile.TemporaryDirectory() as scratch:
        train_model(TrainingJob(base=base, objective=objective, settings=settings, folder=Path(scratch)))
    seen = [rows[number] for step in range(WARMUP, last) for number in step_rows(len(rows), BATCH, step, 0)]
    answers = sum(row.trained_tokens for row in seen)
    tokens = sum(objective.read[WARMUP:last])
    last_mlp = 3 * config.hidden_size * config.intermediate_size * (tokens - answers)  # asked for by nobody
    counted = PER_WEIGHT[way] * (weights * tokens - last_mlp + config.vocab_size * config.hidden_size * answers)
    squares = sum(len(row.encoded.ids) ** 2 for row in seen)
    counted += (
        6 * config.num_hidden_layers * config.hidden_size * squares
    )  # two products, half of each, twice as much back
    return float(counted), objective.begins[last] - objective.begins[WARMUP]


def share(way: str, source: Path) -> dict[str, float]:
    """One way of training between the products, in turn."""
    base = accelerate(load_base(resolve("smollm2-135m-q4"), "bf16"))
    layers = [
        tuple(value.shape) for name, value in base.model.named_parameters() if ".layers." in name and value.dim() > 1
    ]
    shapes = layers[: len(layers) // base.model.config.num_hidden_layers]
    weights = sum(o * i for o, i in layers)
    if way == "lora":
        add_lora(base, RANK, 2.0 * RANK, seed=0)
    else:
        unfreeze(base, "full")
    encoder = ChatEncoder(base.tokenizer)
    lines = (source / "gsm8k.train-1500.jsonl").read_text(encoding="utf-8").splitlines()[:400]
    said = [json.loads(line) for line in lines]
    rows = answer_rows(
        (encoder.conversation([Message(role="user", content=row["question"])], row["answer"]), 1.0) for row in said
    )
    rates, steps = [product_rates(shapes)], []
    for _ in range(ROUNDS):
        steps.append(measure(way, base, rows, weights))
        rates.append(product_rates(shapes))
    square, own = (statistics.median(several) for several in zip(*rates, strict=True))
    reached = statistics.median(counted / seconds for counted, seconds in steps)
    return {
        "share_of_square_products": round(reached / square, 3),
        "share_of_the_models_products": round(reached / own, 3),
        "gigaoperations": round(reached / 1e9),
        "square_gigaoperations": [round(rate[0] / 1e9) for rate in rates],
        "models_gigaoperations": [round(rate[1] / 1e9) for rate in rates],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    former = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    found = {way: share(way, given.source) for way in PER_WEIGHT}
    write_json(RESULT, {**former, kind(): {"ways": found, "machine": machine(), "versions": versions()}})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
