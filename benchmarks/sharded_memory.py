"""Memory of one process that trains with others: the formula of docs/how-to/many-gpus.md beside what is allocated.

Weights and what the optimizer keeps are counted on the meta device: the real code divides a model of the real size
among as many processes, of which this script is one, and no number is computed. What a layer keeps for its backward
pass is counted in real passes of one layer of the real size on the CPU, without and with activation checkpointing.
Writes results/sharded_memory.json.

    python benchmarks/sharded_memory.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import LlamaConfig, LlamaForCausalLM

from trimtab.model import process_group
from trimtab.model.adapters.apply import attach, trainable_parameters
from trimtab.model.attention import ATTENTION, PackedSequences
from trimtab.model.fast.partial_forward import run_checkpointed
from trimtab.model.footprint import gathered_bytes
from trimtab.model.load import Base
from trimtab.model.sharded import shard
from trimtab.model.sharded_parameters import local_shard
from trimtab.training.activation_memory import activation_bytes
from trimtab.training.optim import Optimizer

RESULT = Path(__file__).resolve().parent / "results" / "sharded_memory.json"
TOKENS, RANK = (1024, 4096, 8192), 16
SIZES = {
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
}
RECIPES = (("8B", "full", 8), ("8B", "full", 16), ("8B", "lora", 8), ("70B", "lora", 8), ("70B", "lora", 16))


def config_of(size: str, **more: Any) -> LlamaConfig:
    """The sizes of Llama 3 models."""
    common = {"vocab_size": 128256, "num_key_value_heads": 8, "attn_implementation": ATTENTION}
    return LlamaConfig(**{**common, **SIZES[size], **more})


def base_with(size: str, method: str, device: str, **more: Any) -> Base:
    with torch.device(device):
        model = LlamaForCausalLM(config_of(size, **more)).to(torch.bfloat16).eval().requires_grad_(False)
    base = Base(model=model, tokenizer=None, precision="bf16", folder=Path())
    attach(base, method, 0, rank=RANK)
    return base


def counts(size: str, method: str) -> dict[str, int]:
    """Parameters: of the model, of one layer, outside of the layers, and trained beside the model."""
    base = base_with(size, method, "meta")
    beside = 0 if method == "full" else sum(one.numel() for one in trainable_parameters(base.model).values())
    total = sum(one.numel() for one in base.model.parameters()) - beside
    layers = base.model.base_model.layers
    layer = sum(one.numel() for name, one in layers[0].named_parameters() if "lora_" not in name)
    return {"model": total, "layer": layer, "outside": total - layer * len(layers), "beside": beside}


def formula(found: dict[str, int], method: str, processes: int) -> dict[str, float]:
    """Bytes of one process, in GB."""
    kept = 16 * found["model"] if method == "full" else 2 * found["model"]
    sizes = found["outside"], found["layer"], 2
    gathered = gathered_bytes(*sizes, trained=False)
    parts = {
        "weights_and_optimizer": kept / processes + 16 * found["beside"],
        "gathered": gathered,
        "gradients_of_one_group": gathered_bytes(*sizes, trained=method == "full") - gathered,
    }
    return {name: round(value / 1e9, 2) for name, value in parts.items()}


def allocated(size: str, method: str, processes: int) -> float:
    """GB that the parameters of one process and its optimizer take, on the meta device."""
    launch = process_group.Launch(rank=0, size=processes, local_rank=0, address="", port=0)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=processes)
    process_group._member = process_group._Member(launch=launch, store=None)
    try:
        base = base_with(size, method, "meta")
        shard(base)
        optimizer = Optimizer(trainable_parameters(base.model))
        frozen = [one for one in base.model.parameters() if not one.requires_grad]
        trained = sum(one.nbytes for one in optimizer.masters.values())
        for one in optimizer.masters.values():
            one.grad = torch.empty_like(one)
        gradients = sum(one.grad.nbytes for one in optimizer.masters.values() if one.grad is not None)
        moments = 2 * trained  # AdamW's two, of the masters' shape and type
        return round((sum(local_shard(one).nbytes for one in frozen) + trained + gradients + moments) / 1e9, 2)
    finally:
        process_group._member = None
        dist.destroy_process_group()


def kept_by_a_layer(size: str, method: str) -> list[dict[str, float]]:
    """MB that a layer keeps of a pass for its backward pass, by tokens: by formula and in a real pass, without and with
    activation checkpointing, which computes all of it again for one layer at a time.
    """
    base = base_with(size, method, "cpu", num_hidden_layers=1, vocab_size=32)
    layer, found = base.model.base_model.layers[0], []
    for tokens in TOKENS:
        whole, inputs = (
            measured_mb(base, tokens, forward) for forward in (layer.forward, partial(run_checkpointed, layer.forward))
        )
        formula = activation_bytes(base, tokens)
        kept = activation_bytes(base, tokens, checkpointed=True) - formula
        both = {"formula_mb": formula, "formula_checkpointed_mb": kept}
        rounded = {name: round(value / 1e6, 1) for name, value in both.items()}
        found.append({"tokens": tokens, **rounded, "measured_mb": whole, "measured_checkpointed_mb": inputs})
    return found


def measured_mb(base: Base, tokens: int, forward: Callable[..., Any]) -> float:
    """MB that autograd keeps of a layer's pass, weights aside."""
    layout = PackedSequences([tokens])
    weights = {one.untyped_storage().data_ptr() for one in base.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hidden = torch.randn(1, tokens, base.model.config.hidden_size, dtype=torch.bfloat16, requires_grad=True)
    angles = base.model.base_model.rotary_emb(hidden, layout.positions_N[None])
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one):
        out = forward(hidden, position_embeddings=angles, layout=layout)
    del out
    return round(sum(kept.values()) / 1e6, 1)


def main() -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {"rank": RANK, "torch": torch.__version__, "recipes": [], "layers": []}
    for size, method, processes in RECIPES:
        numbers = counts(size, method)
        parts = formula(numbers, method, processes)
        row = {"model": size, "method": method, "processes": processes, "parameters": numbers, "formula_gb": parts}
        found["recipes"].append({**row, "allocated_gb": allocated(size, method, processes)})
        print(json.dumps(found["recipes"][-1]), flush=True)
    for size, method in (("8B", "full"), ("8B", "lora"), ("70B", "lora")):
        for row in kept_by_a_layer(size, method):
            found["layers"].append({"model": size, "method": method, **row})
            print(json.dumps(found["layers"][-1]), flush=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
