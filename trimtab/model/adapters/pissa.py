"""PiSSA: LoRA initialised with the weight's principal singular vectors.

Source: Meng et al. 2024 (arXiv 2404.02948), W = (W - B₀ A₀) + B A with B₀ A₀ the best rank-r approximation, found as in
Halko et al. 2011 (arXiv 0909.4061). The change is computed as (B - B₀) A + B₀ (A - A₀): exactly zero at the start, and
a small change stays exact in bfloat16, where B A - B₀ A₀ would be the difference of two large numbers. Shapes: I
inputs, O outputs, R rank.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.model.adapters.lora import LoraLinear

_OVERSAMPLING, _POWER_ITERATIONS = 8, 4  # of the randomised SVD: directions beyond the rank, and products with W Wᵀ


class PissaLinear(LoraLinear):
    """Trains A and B from the principal directions on; saved as plain LoRA of twice the rank over the pretrained
    weight.

    Raises InputError if the layer has fewer directions than `rank`.
    """

    def __init__(self, base: nn.Linear, rank: int, generator: torch.Generator) -> None:
        if rank > min(base.in_features, base.out_features):
            raise InputError(
                f"rank = {rank}, but a layer has {min(base.in_features, base.out_features)} directions",
                "lower it",
                field="arm.rank",
            )
        super().__init__(base, rank, float(rank), generator)
        a_RI, b_OR = principal_factors(self.frozen_weight().float(), rank, generator)
        with torch.no_grad():
            self.lora_a.copy_(a_RI)
            self.lora_b.copy_(b_OR)
        self.register_buffer("start_a", a_RI.to(base.weight.device), persistent=False)
        self.register_buffer("start_b", b_OR.to(base.weight.device), persistent=False)
        self.start_a: Tensor
        self.start_b: Tensor

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the change as a product of twice the rank."""
        a_RI, b_OR = self.lora_a, self.lora_b
        return torch.cat([a_RI, a_RI - self.start_a]), torch.cat([b_OR - self.start_b, self.start_b], dim=1)

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return both factors of the change, as copies."""
        a_RI, b_OR = self.factors()
        return {"lora_A.weight": a_RI.detach(), "lora_B.weight": b_OR.detach()}


def principal_factors(weight_OI: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return A `[R, I]` and B `[O, R]` of the best rank-R approximation B A of a weight; both carry the roots of the
    singular values.
    """
    width = min(rank + _OVERSAMPLING, *weight_OI.shape)
    random_IW = torch.randn(weight_OI.shape[1], width, generator=generator).to(weight_OI.device)
    basis_OW = torch.linalg.qr(weight_OI @ random_IW).Q
    for _ in range(_POWER_ITERATIONS):
        basis_OW = torch.linalg.qr(weight_OI @ (weight_OI.T @ basis_OW)).Q
    left_WW, values_W, right_WI = torch.linalg.svd(basis_OW.T @ weight_OI, full_matrices=False)
    roots_R = values_W[:rank].sqrt()
    return roots_R[:, None] * right_WI[:rank], (basis_OW @ left_WW[:, :rank]) * roots_R
