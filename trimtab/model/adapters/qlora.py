"""QLoRA: LoRA over frozen weights quantised to 4 bits; needs bitsandbytes, on CUDA or a CPU.

Source: Dettmers et al. 2023 (arXiv 2305.14314), NF4 with double quantisation.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, final

import torch
from torch import nn

from trimtab.base.errors import InputError
from trimtab.model.adapters.base import MethodDefaults, PeftFormat
from trimtab.model.adapters.lora import LORA_PARTS, LoraVariant, LowRankLayer

QUANTIZED_FILE = "quantization.json"
# Arguments of transformers' BitsAndBytesConfig to load the base with, for PEFT to attach the adapter.
SETTINGS = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


@final
class QloraLinear(LoraVariant, LowRankLayer):
    """LoRA over a weight that is stored in 4 bits and dequantised for each product.

    The pretrained weight stays in host memory until the layer is unwrapped, so on a CPU no memory is saved. Raises
    InputError without bitsandbytes.
    """

    defaults = MethodDefaults(rank=16, learning_rate=5e-4, by_width=True)
    saved_as = PeftFormat(peft_type="LORA", parts=LORA_PARTS, files={QUANTIZED_FILE: SETTINGS})

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        if not find_spec("bitsandbytes"):
            raise InputError(
                "qlora quantises weights to 4 bits and needs bitsandbytes, which is not installed",
                "take lora, or run: pip install 'trimtab[qlora]'",
                field="arm.weights",
            )
        super().__init__(base, rank, alpha, generator)
        import bitsandbytes.functional

        functional: Any = bitsandbytes.functional
        packed, state = functional.quantize_4bit(
            base.weight.data, quant_type=SETTINGS["bnb_4bit_quant_type"], compress_statistics=True
        )
        self.pack_frozen_weight(lambda: functional.dequantize_4bit(packed, state))
