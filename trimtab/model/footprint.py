"""Computes the sizes of KV cache and activations from a model's configuration."""

from __future__ import annotations

import math
from typing import Any

GAPS = 1.1
"""More memory than answers are made of, seen over the bundled studies: freed blocks are kept, and of another size are
no use."""


def answering_bytes(config: Any, size: int, slots: int, tokens: int, reading: int) -> int:
    """Bytes that a batch of `slots` sequences of `tokens` keeps and that one pass over `reading` tokens takes,
    numbers of `size` bytes.

    `config`: a transformers configuration, or whatever has the same fields. The room of a slot grows by 64 tokens.
    Of a pass, one layer lives at a time: about 4 intermediate and 8 hidden vectors a token, then the logits of every
    slot, beside their float32 copy.
    """
    heads = config.num_attention_heads
    width = (getattr(config, "num_key_value_heads", None) or heads) * (
        getattr(config, "head_dim", None) or config.hidden_size // heads
    )
    kept = slots * math.ceil(tokens / 64) * 64 * config.num_hidden_layers * 2 * width * size
    layer = 4 * _intermediate(config) + 8 * config.hidden_size
    return int(kept + reading * layer * size + slots * config.vocab_size * (size + 4))


def activation_width(config: Any, *, fused: bool) -> int:
    """Numbers that a layer keeps of a token for the backward pass: about 10 hidden and 5 intermediate vectors.

    6 and 3 where kernels take whole layers with LoRA (`fused`), which make norms and gated products again.
    """
    hidden, intermediate = (6, 3) if fused else (10, 5)
    return int(hidden * config.hidden_size + intermediate * _intermediate(config))


def gathered_bytes(outside: int, layer: int, size: int, *, trained: bool) -> int:
    """Return the bytes that a pass of a sharded model (FSDP) takes beyond this process's own shard.

    The parameters outside of the layers and those of two layers are gathered (the next layer is prefetched). If they
    are `trained`, the gradients of one FSDP group are being reduced besides, in the model's precision and in float32.
    `outside`, `layer`: numbers of parameters; `size`: bytes of each.
    """
    return size * (outside + 2 * layer) + (size + 4) * max(outside, layer) * trained


def _intermediate(config: Any) -> int:
    return int(getattr(config, "intermediate_size", 4 * config.hidden_size))
