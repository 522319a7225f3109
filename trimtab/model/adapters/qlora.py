"""QLoRA: LoRA over frozen weights quantised to 4 bits; needs bitsandbytes, on CUDA or a CPU.

Source: Dettmers et al. 2023 (arXiv 2305.14314), NF4 with double quantisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, final

import torch
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.model.adapters.base import AdapterInit, LayerMaker, MethodDefaults, PeftFormat
from trimtab.model.adapters.lora import (
    ALPHA_PER_RANK,
    LORA_PARTS,
    LowRankLayer,
    lora_config,
    lora_sizes,
    lora_tensors,
    new_factors,
)
from trimtab.model.adapters.saved_adapter import SavedAdapter

QUANTIZED_FILE = "quantization.json"
# Arguments of transformers' BitsAndBytesConfig to load the base with, for PEFT to attach the adapter.
SETTINGS = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


def require_bitsandbytes() -> None:
    """Raise InputError if bitsandbytes is not installed."""
    if not find_spec("bitsandbytes"):
        raise InputError(
            "qlora quantises weights to 4 bits and needs bitsandbytes, which is not installed",
            "take lora, or run: pip install 'trimtab[qlora]'",
            field="arm.weights",
        )


@final
class QloraLinear(LowRankLayer):
    """LoRA over a weight that is stored in 4 bits and dequantised for each product.

    The pretrained weight stays in host memory until the layer is released, so on a CPU no memory is saved.
    """

    defaults = MethodDefaults(rank=16, learning_rate=5e-4, by_width=True)
    saved_as = PeftFormat(peft_type="LORA", parts=LORA_PARTS, files={QUANTIZED_FILE: SETTINGS})

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__(base, alpha / rank)
        self.alpha = alpha
        self.lora_a, self.lora_b = new_factors(base, rank, generator)
        import bitsandbytes.functional

        functional: Any = bitsandbytes.functional
        packed, state = functional.quantize_4bit(
            base.weight.data, quant_type=SETTINGS["bnb_4bit_quant_type"], compress_statistics=True
        )
        self.pack_frozen_weight(lambda: functional.dequantize_4bit(packed, state))

    @classmethod
    def maker(cls, init: AdapterInit) -> LayerMaker:
        """Return the maker of layers with LoRA's alpha; raises InputError without bitsandbytes."""
        require_bitsandbytes()
        return lambda _, layer: cls(layer, init.rank, float(ALPHA_PER_RANK * init.rank), init.generator)

    @classmethod
    def maker_as_saved(cls, saved: SavedAdapter) -> LayerMaker:
        """Return the maker of layers of the saved rank and alpha; raises InputError without bitsandbytes."""
        rank, alpha = lora_sizes(saved)
        require_bitsandbytes()
        return lambda _, layer: cls(layer, rank, alpha)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the trained factors."""
        return self.lora_a, self.lora_b

    def peft_config(self, names: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """Return rank and alpha."""
        return lora_config(len(self.lora_a), self.alpha)

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return both factors."""
        return lora_tensors(*self.factors())
