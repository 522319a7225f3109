"""DoRA: a low-rank change of the weight's direction, and a trained magnitude per output.

Source: Liu et al. 2024 (arXiv 2402.09353), W' = m (W + s B A) / ||W + s B A||, the norm of each row taken as a constant
in the backward pass (its section 4.3). Shapes: I inputs, O outputs, R rank.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from trimtab.model.adapters.base import MethodDefaults, PeftFormat, frozen_bias
from trimtab.model.adapters.lora import LORA_PARTS, LoraVariant, low_rank_forward, low_rank_saved


@final
class DoraLinear(LoraVariant):
    """LoRA with a trained magnitude, initialised to the norm of each row of the weight."""

    defaults = MethodDefaults(rank=16, learning_rate=4e-4, by_width=True)
    saved_as = PeftFormat(peft_type="LORA", parts=(*LORA_PARTS, "lora_magnitude_vector"), flags=frozenset({"use_dora"}))

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__(base, rank, alpha, generator)
        self.register_buffer("squares_O", self.frozen_weight().float().square().sum(1), persistent=False)
        self.squares_O: Tensor
        self.magnitude = nn.Parameter(self.squares_O.sqrt())

    def saved_for_backward(self, tokens: int) -> int:
        """Return what LoRA keeps for the backward pass, plus every output before scaling."""
        return low_rank_saved(self.base, tokens, len(self.lora_a)) + tokens * self.base.out_features

    def forward_adapted(self, input: Tensor) -> Tensor:
        """Return the output of the changed weight, scaled to the trained magnitude."""
        output = low_rank_forward(input, self.frozen_weight, None, self.scale, self.lora_a, self.lora_b)
        out = (output * (self.magnitude / self.row_norms())).to(input.dtype)
        return out if self.base.bias is None else out + self.base.bias

    @torch.no_grad()
    def row_norms(self) -> Tensor:
        """Return the norm of each row of W + s B A, `[O]`, without building that matrix: |w|² + 2 s b A w + s² b A Aᵀ
        b.
        """
        a_RI, b_OR = self.lora_a, self.lora_b * self.scale
        frozen_OI = self.frozen_weight()
        product_OR = (frozen_OI @ a_RI.to(frozen_OI.dtype).T).float()
        return (self.squares_O + (b_OR * (2 * product_OR + b_OR @ (a_RI @ a_RI.T))).sum(1)).clamp(min=1e-12).sqrt()

    def merged_weight(self) -> tuple[Tensor, Tensor | None]:
        """Return the changed weight with rows of the trained magnitude, and the unchanged bias."""
        delta_OI = (self.lora_b.detach() @ self.lora_a.detach()) * self.scale
        adapted_OI = self.frozen_weight().float() + delta_OI
        scale_O1 = (self.magnitude.detach() / adapted_OI.norm(dim=1))[:, None]
        return adapted_OI * scale_O1, frozen_bias(self.base)
