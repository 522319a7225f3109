"""DoRA: a low-rank change of the weight's direction, and a trained magnitude per output.

Source: Liu et al. 2024 (arXiv 2402.09353), W' = m (W + s B A) / ||W + s B A||, the norm of each row taken as a constant
in the backward pass (its section 4.3). Shapes: I inputs, O outputs, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from trimtab.model.adapters.base import (
    AdapterInit,
    AdapterLayer,
    LayerMaker,
    MethodDefaults,
    PeftFormat,
    frozen_bias,
)
from trimtab.model.adapters.lora import (
    ALPHA_PER_RANK,
    LORA_PARTS,
    lora_config,
    lora_sizes,
    lora_tensors,
    low_rank_forward,
    low_rank_saved,
    new_factors,
)
from trimtab.model.adapters.saved_adapter import SavedAdapter

_MAGNITUDE = "lora_magnitude_vector"


@final
class DoraLinear(AdapterLayer):
    """LoRA with a trained magnitude, initialised to the norm of each row of the weight."""

    defaults = MethodDefaults(rank=16, learning_rate=4e-4, by_width=True)
    saved_as = PeftFormat(peft_type="LORA", parts=(*LORA_PARTS, _MAGNITUDE), flags=frozenset({"use_dora"}))

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__(base)
        self.alpha, self.scale = alpha, alpha / rank
        self.lora_a, self.lora_b = new_factors(base, rank, generator)
        self.register_buffer("squares_O", self.frozen_weight().float().square().sum(1), persistent=False)
        self.squares_O: Tensor
        self.magnitude = nn.Parameter(self.squares_O.sqrt())

    @classmethod
    def maker(cls, init: AdapterInit) -> LayerMaker:
        """Return the maker of layers with LoRA's alpha."""
        return lambda _, layer: cls(layer, init.rank, float(ALPHA_PER_RANK * init.rank), init.generator)

    @classmethod
    def maker_as_saved(cls, saved: SavedAdapter) -> LayerMaker:
        """Return the maker of layers of the saved rank and alpha."""
        rank, alpha = lora_sizes(saved)
        return lambda _, layer: cls(layer, rank, alpha)

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

    def peft_config(self, names: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """Return rank and alpha."""
        return lora_config(len(self.lora_a), self.alpha, "use_dora")

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return LoRA's factors and the magnitude."""
        return {**lora_tensors(self.lora_a, self.lora_b), _MAGNITUDE: self.magnitude.detach()}
