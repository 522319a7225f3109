"""Small models of the families whose layers have kernels, random weights and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.model.attention import ATTENTION
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import Base

KERNEL_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},  # biases in the attention
    "qwen3": {},  # norms over each head
    "mistral": {"sliding_window": 6},
}


def model_of(family: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        **{
            **{"vocab_size": 96, "hidden_size": 96, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 64},
            **{"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.1},
            **KERNEL_FAMILIES[family],
        },
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):  # made as ones and zeros, they would hide that they are left out
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
    return model.to(dtype).eval()


def accelerated(model: Any) -> Any:
    """Put the faster forwards on a model; the same model."""
    return accelerate(Base(model=model, tokenizer=None, precision="bf16", folder=Path())).model
