"""DoRA: a low-rank change of the weight's direction, and a trained magnitude per output.

Source: Liu et al. 2024 (arXiv 2402.09353), W' = m (W + s B A) / ||W + s B A||, the norm of each row taken as a constant
in the backward pass (its section 4.3). Shapes: I inputs, O outputs, R rank.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trimtab.model.adapters.base import frozen_bias
from trimtab.model.adapters.lora import LoraLinear


class DoraLinear(LoraLinear):
    """LoRA with a trained magnitude, initialised to the norm of each row of the weight."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__(base, rank, alpha, generator)
        self.register_buffer("squares_O", self.frozen_weight().float().square().sum(1), persistent=False)
        self.squares_O: Tensor
        self.magnitude = nn.Parameter(self.squares_O.sqrt())

    def saved_for_backward(self, tokens: int) -> int:
        """As for LoRA, plus every output before scaling."""
        return super().saved_for_backward(tokens) + tokens * self.base.out_features

    def forward_adapted(self, input: Tensor) -> Tensor:
        """Return the output of the changed weight, scaled to the trained magnitude."""
        output = self.linear(input, None)
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
        adapted_OI = self.frozen_weight().float() + self.delta()
        scale_O1 = (self.magnitude.detach() / adapted_OI.norm(dim=1))[:, None]
        return adapted_OI * scale_O1, frozen_bias(self.base)

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return LoRA's factors and the magnitude."""
        return {**super().peft_tensors(), "lora_magnitude_vector": self.magnitude.detach()}
