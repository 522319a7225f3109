"""PiSSA: LoRA from the weight's principal singular vectors; the weight stays whole; saved as LoRA of twice the rank.

Source: Meng et al. 2024 (arXiv 2404.02948), W = (W - B₀ A₀) + B A with B₀ A₀ the best rank-r approximation, found as in
Halko et al. 2011 (arXiv 0909.4061). The change is computed as (B - B₀) A + B₀ (A - A₀): exactly zero at the start, and
a small change stays exact in bfloat16, where B A - B₀ A₀ would be the difference of two large numbers. Shapes: I
inputs, O outputs, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.model.adapters.base import AdapterInit, LayerMaker, MethodDefaults
from trimtab.model.adapters.lora import LoraLinear, LowRankLayer, lora_config, lora_tensors, new_factors
from trimtab.model.adapters.saved_adapter import SavedAdapter

_OVERSAMPLING, _POWER_ITERATIONS = 8, 4  # of the randomised SVD: directions beyond the rank, and products with W Wᵀ


@final
class PissaLinear(LowRankLayer):
    """Trains A and B from the principal directions on; saved as plain LoRA of twice the rank over the pretrained
    weight.

    Raises InputError if the layer has fewer directions than `rank`.
    """

    defaults = MethodDefaults(rank=16, learning_rate=8e-5, by_width=True)
    saved_as = LoraLinear.saved_as

    def __init__(self, base: nn.Linear, rank: int, generator: torch.Generator) -> None:
        if rank > min(base.in_features, base.out_features):
            raise InputError(
                f"rank = {rank}, but a layer has {min(base.in_features, base.out_features)} directions",
                "lower it",
                field="arm.rank",
            )
        super().__init__(base)
        self.lora_a, self.lora_b = new_factors(base, rank, generator)
        a_RI, b_OR = principal_factors(self.frozen_weight().float(), rank, generator)
        with torch.no_grad():
            self.lora_a.copy_(a_RI)
            self.lora_b.copy_(b_OR)
        self.register_buffer("start_a", a_RI.to(base.weight.device), persistent=False)
        self.register_buffer("start_b", b_OR.to(base.weight.device), persistent=False)
        self.start_a: Tensor
        self.start_b: Tensor

    @classmethod
    def maker(cls, init: AdapterInit) -> LayerMaker:
        """Return the maker of layers whose factors are found in their weights."""
        return lambda _, layer: cls(layer, init.rank, init.generator)

    @classmethod
    def maker_as_saved(cls, saved: SavedAdapter) -> LayerMaker:
        """Return the maker of LoRA layers, which it is saved as."""
        return LoraLinear.maker_as_saved(saved)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the change as a product of twice the rank."""
        a_RI, b_OR = self.lora_a, self.lora_b
        return torch.cat([a_RI, a_RI - self.start_a]), torch.cat([b_OR - self.start_b, self.start_b], dim=1)

    def peft_config(self, names: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """Return twice the rank, and as much alpha."""
        rank = 2 * len(self.lora_a)
        return lora_config(rank, float(rank))

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return both factors of the change, as copies."""
        return lora_tensors(*self.factors())


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
