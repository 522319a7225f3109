"""QLoRA: LoRA over frozen weights quantised to 4 bits; needs bitsandbytes, on CUDA or a CPU.

Source: Dettmers et al. 2023 (arXiv 2305.14314), NF4 with double quantisation.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.model.adapters.lora import LoraLinear

# Arguments of transformers' BitsAndBytesConfig to load the base with, for PEFT to attach the adapter.
SETTINGS = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}

# On import it recommends kernels from the hub, which are not used here: weights are dequantised.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def require_bitsandbytes() -> None:
    """Raise InputError if bitsandbytes is not installed."""
    if not find_spec("bitsandbytes"):
        raise InputError(
            "qlora quantises weights to 4 bits and needs bitsandbytes, which is not installed",
            "take lora, or run: pip install 'trimtab[qlora]'",
            field="arm.weights",
        )


class QloraLinear(LoraLinear):
    """LoRA over a weight that is stored in 4 bits and dequantised for each product.

    The pretrained weight stays in host memory until the layer is released, so on a CPU no memory is saved.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__(base, rank, alpha, generator)
        import bitsandbytes.functional as functional

        self._functional: Any = functional
        published = base.weight.data
        self._packed, self._state = self._functional.quantize_4bit(
            published, quant_type=SETTINGS["bnb_4bit_quant_type"], compress_statistics=True
        )
        self._device, self._published = published.device, published.cpu()
        base.weight.data = published.new_empty(0)

    def frozen_weight(self) -> Tensor:
        """Return the dequantised weight."""
        weight_OI: Tensor = self._functional.dequantize_4bit(self._packed, self._state)
        return weight_OI

    def release(self) -> nn.Linear:
        """Return the layer with its pretrained weight, back on the device."""
        base = super().release()
        base.weight.data = self._published.to(self._device)
        return base
