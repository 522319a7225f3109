"""rsLoRA: LoRA scaled by alpha / sqrt(rank) instead of alpha / rank, so that high ranks still learn.

Source: Kalajdzievski 2023 (arXiv 2312.03732), y = W x + (alpha / sqrt(r)) B A x.
"""

from __future__ import annotations

from typing import final

from trimtab.model.adapters.base import MethodDefaults, PeftFormat
from trimtab.model.adapters.lora import LORA_PARTS, LoraVariant, LowRankLayer


@final
class RsloraLinear(LoraVariant, LowRankLayer):
    """LoRA with a scale of alpha over the root of the rank. Alpha is its paper's: at rank 64 the scale is LoRA's."""

    defaults = MethodDefaults(rank=64, learning_rate=4e-4, by_width=True)
    saved_as = PeftFormat(peft_type="LORA", parts=LORA_PARTS, flags=frozenset({"use_rslora"}))
    new_alpha, root_scaled = 16.0, True
