"""rsLoRA: LoRA scaled by alpha / sqrt(rank) instead of alpha / rank, so that high ranks still learn.

Source: Kalajdzievski 2023 (arXiv 2312.03732), y = W x + (alpha / sqrt(r)) B A x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from trimtab.model.adapters.base import AdapterInit, LayerMaker, MethodDefaults, PeftFormat
from trimtab.model.adapters.lora import LORA_PARTS, LowRankLayer, lora_config, lora_sizes, lora_tensors, new_factors
from trimtab.model.adapters.saved_adapter import SavedAdapter

ALPHA = 16.0  # as in its paper; at rank 64 the same scale as LoRA's


@final
class RsloraLinear(LowRankLayer):
    """LoRA with trained factors in float32 and a scale of alpha over the root of the rank."""

    defaults = MethodDefaults(rank=64, learning_rate=4e-4, by_width=True)
    saved_as = PeftFormat(peft_type="LORA", parts=LORA_PARTS, flags=frozenset({"use_rslora"}))

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__(base, alpha / math.sqrt(rank))
        self.alpha = alpha
        self.lora_a, self.lora_b = new_factors(base, rank, generator)

    @classmethod
    def maker(cls, init: AdapterInit) -> LayerMaker:
        """Return the maker of layers with ALPHA, whatever the rank."""
        return lambda _, layer: cls(layer, init.rank, ALPHA, init.generator)

    @classmethod
    def maker_as_saved(cls, saved: SavedAdapter) -> LayerMaker:
        """Return the maker of layers of the saved rank and alpha."""
        rank, alpha = lora_sizes(saved)
        return lambda _, layer: cls(layer, rank, alpha)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the trained factors."""
        return self.lora_a, self.lora_b

    def peft_config(self, names: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """Return rank and alpha."""
        return lora_config(len(self.lora_a), self.alpha, "use_rslora")

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return both factors."""
        return lora_tensors(*self.factors())
