"""Decides which training passes use activation checkpointing, that is, recompute their decoder layers in the backward
pass: those whose predicted activations do not fit into the memory that is free when training begins.

Source: Chen et al. 2016 (arXiv 1604.06174). Losses and gradients are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from trimtab.base.machine import memory_use
from trimtab.model import process_group
from trimtab.model.adapters.base import adapter_layers
from trimtab.model.fast.partial_forward import first_trainable_layer
from trimtab.model.fast.train_layers import trains_by_kernels
from trimtab.model.footprint import activation_width, gathered_bytes
from trimtab.model.load import DTYPES, Base
from trimtab.model.prompt_tuning import count_virtual_tokens
from trimtab.model.sharded_parameters import is_sharded
from trimtab.training.parallel import parallel_lanes

SHARE = 0.8  # of the free memory; gradients that are being reduced, logits and fragmentation take the rest
_SAMPLE = 1024  # tokens of the pass from which the bytes per token are computed


def activation_bytes(base: Base, tokens: int, *, checkpointed: bool = False) -> int:
    """Return the predicted bytes that a pass over `tokens` tokens keeps for its backward pass.

    They are computed from the configuration (`activation_width`) for the layers from the first trainable one on, plus
    what adapters save (`AdapterLayer.saved_for_backward`) and, with virtual tokens, copies of keys and values.
    `checkpointed`: every layer keeps only its input, and one layer at a time everything.
    """
    config, virtual = base.model.config, count_virtual_tokens(base.model)
    adapters = adapter_layers(base.model)
    width = activation_width(config, fused=bool(adapters) and trains_by_kernels(base.model))
    width += 4 * config.hidden_size if virtual else 0
    rows = tokens + virtual
    layers = config.num_hidden_layers - first_trainable_layer(base.model)
    numbers = rows * layers * width + sum(layer.saved_for_backward(rows) for layer in adapters.values())
    if checkpointed:
        numbers = numbers // max(1, layers) + rows * layers * config.hidden_size
    return int(numbers * DTYPES[base.precision].itemsize)


@dataclass(frozen=True, kw_only=True)
class ActivationBudget:
    """The memory budget of activations. `bytes`: for one pass; `tokens`: of the longest pass that fits."""

    bytes: int
    tokens: int

    def base_for(self, base: Base, tokens: int) -> Base:
        """Return the base for a pass over `tokens` tokens: with activation checkpointing if the pass does not fit."""
        return replace(base, activation_checkpointing=True) if tokens > self.tokens else base

    def note(self, tokens: int) -> str | None:
        """Return a line that says that passes of `tokens` tokens are checkpointed; None if they fit."""
        if tokens <= self.tokens:
            return None
        fits = f"activations of more than {self.tokens:,} tokens do not fit into the {self.bytes / 1e9:.1f} GB free"
        return f"{fits} for a pass: longer passes compute their layers again (activation checkpointing)"


def activation_budget(base: Base, reserved: int) -> ActivationBudget:
    """Return the budget of activations; in a group the least of all processes, each of which must call this.

    `reserved`: bytes that training will allocate besides. A model whose upper layers read keys of lower layers cannot
    be checkpointed: its budget has no bound.
    """
    group = process_group.size() > 1
    free = _free_bytes(base.device) - reserved - (_gathered_bytes(base) if group else 0)
    most = round(SHARE * max(0, free) / (1 if group else parallel_lanes()))
    if getattr(base.model.config, "num_kv_shared_layers", None):
        return ActivationBudget(bytes=most, tokens=2**62)
    each = activation_bytes(base, _SAMPLE) / _SAMPLE
    budgets = process_group.all_gather([most, int(most / each)])
    return ActivationBudget(bytes=min(one for one, _ in budgets), tokens=min(one for _, one in budgets))


def _free_bytes(device: torch.device) -> int:
    """Return the bytes that this process can still allocate: on its GPU, or its share of the machine's memory."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return memory_use().available // process_group.local_size()


def _gathered_bytes(base: Base) -> int:
    """Return the bytes that a pass of a sharded model takes for gathered weights and gradients."""
    layers = base.model.base_model.layers
    parts = {id(one): one for one in base.model.parameters()}
    in_layers = {id(one): one for one in layers.parameters()}
    layer = sum(one.numel() for one in layers[0].parameters())
    outside = sum(one.numel() for key, one in parts.items() if key not in in_layers)
    trained = any(is_sharded(one) and one.requires_grad for one in parts.values())
    return gathered_bytes(outside, layer, DTYPES[base.precision].itemsize, trained=trained)


def optimizer_bytes(masters: Mapping[str, Any]) -> int:
    """Return the bytes of the gradients and moments of float32 masters, 12 for each parameter."""
    return 12 * sum(int(one.numel()) for one in masters.values())
