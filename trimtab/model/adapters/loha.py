"""LoHa: the change of a weight is the elementwise product of two low-rank matrices, whose rank is up to R².

Sources: Hyeon-Woo et al. 2021 (FedPara, arXiv 2108.06098); initialised as in Yeh et al. 2023 (LyCORIS, arXiv
2309.14859). The elementwise product of (B₁ A₁) and (B₂ A₂) is B A, where the R² columns of B are the products of a
column of B₁ and one of B₂, and the rows of A those of a row of A₁ and one of A₂: so it is computed as LoRA is. Shapes:
I inputs, O outputs, R rank, S = R².
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from trimtab.model.adapters.base import AdapterInit, LayerMaker, MethodDefaults, PeftFormat
from trimtab.model.adapters.lora import LowRankLayer
from trimtab.model.adapters.saved import SavedAdapter

_PARTS = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_OUTER_STD, _INNER_STD = 0.1, 1.0  # standard deviations of a new B₁, and of a new A₁ and A₂; B₂ is zeros


@final
class LohaLinear(LowRankLayer):
    """The elementwise product of two trained low-rank matrices, in float32."""

    defaults = MethodDefaults(rank=8, learning_rate=2e-4, by_width=True)
    saved_as = PeftFormat(peft_type="LOHA", parts=_PARTS)

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__(base, alpha / rank)
        self.alpha, device = alpha, base.weight.device
        shapes = {"outer": (base.out_features, rank), "inner": (rank, base.in_features)}
        outer_OR, inner_RI, second_RI = (
            torch.randn(shapes[side], generator=generator) * std
            for side, std in (("outer", _OUTER_STD), ("inner", _INNER_STD), ("inner", _INNER_STD))
        )
        self.outer_1, self.inner_1 = nn.Parameter(outer_OR.to(device)), nn.Parameter(inner_RI.to(device))
        self.outer_2 = nn.Parameter(torch.zeros(shapes["outer"], device=device))
        self.inner_2 = nn.Parameter(second_RI.to(device))

    @classmethod
    def maker(cls, init: AdapterInit) -> LayerMaker:
        """Return the maker of layers whose alpha is the rank."""
        return lambda _, layer: cls(layer, init.rank, float(init.rank), init.generator)

    @classmethod
    def maker_as_saved(cls, saved: SavedAdapter) -> LayerMaker:
        """Return the maker of layers of the saved rank and alpha."""
        rank, alpha = saved.rank(".hada_w1_b"), saved.alpha("alpha")
        return lambda _, layer: cls(layer, rank, alpha)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A `[S, I]` and B `[O, S]` of the elementwise product."""
        a_SI = (self.inner_1[:, None] * self.inner_2[None]).flatten(0, 1)
        return a_SI, (self.outer_1[:, :, None] * self.outer_2[:, None]).flatten(1)

    def peft_config(self, names: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """Return rank and alpha."""
        return {"r": len(self.inner_1), "alpha": self.alpha, "rank_dropout": 0.0, "module_dropout": 0.0}

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return both pairs of factors."""
        values = (self.outer_1, self.inner_1, self.outer_2, self.inner_2)
        return dict(zip(_PARTS, (value.detach() for value in values), strict=True))
