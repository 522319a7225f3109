"""LoHa: the weight update is the elementwise product of two rank-R matrices, so its rank can reach R².

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

from trimtab.base.errors import InputError
from trimtab.model.adapters.base import AdapterInit, LayerMaker, MethodDefaults, PeftFormat
from trimtab.model.adapters.lora import LowRankLayer
from trimtab.model.adapters.saved_adapter import SavedAdapter

MAX_RANK = 64  # factors of 4,096 columns: far more take more memory than the model
_PARTS = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_OUTER_STD, _INNER_STD = 0.1, 1.0  # standard deviations of a new B₁, and of a new A₁ and A₂; B₂ is zeros


@final
class LohaLinear(LowRankLayer):
    """The elementwise product of two trained low-rank matrices, in float32."""

    defaults = MethodDefaults(rank=8, learning_rate=2e-4, by_width=True)
    saved_as = PeftFormat(peft_type="LOHA", parts=_PARTS)

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__(base)
        self.alpha, self.scale, device = alpha, alpha / rank, base.weight.device

        def drawn(rows: int, columns: int, std: float) -> nn.Parameter:
            return nn.Parameter((torch.randn(rows, columns, generator=generator) * std).to(device))

        self.outer_1 = drawn(base.out_features, rank, _OUTER_STD)
        self.inner_1 = drawn(rank, base.in_features, _INNER_STD)
        self.outer_2 = nn.Parameter(torch.zeros(base.out_features, rank, device=device))
        self.inner_2 = drawn(rank, base.in_features, _INNER_STD)

    @classmethod
    def maker(cls, init: AdapterInit) -> LayerMaker:
        """Return the maker of layers whose alpha is the rank; raises InputError above MAX_RANK."""
        if init.rank > MAX_RANK:
            raise InputError(
                f"rank = {init.rank}, and the square of it is computed with",
                f"set at most {MAX_RANK}",
                field="arm.rank",
            )
        return lambda _, layer: cls(layer, init.rank, float(init.rank), init.generator)

    @classmethod
    def maker_as_saved(cls, saved: SavedAdapter) -> LayerMaker:
        """Return the maker of layers of the saved rank and alpha; raises InputError above MAX_RANK."""
        rank, alpha = saved.rank(".hada_w1_b"), saved.alpha("alpha")
        if rank > MAX_RANK:
            raise saved.error(f"r is {rank}, and at most {MAX_RANK} is supported")
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
