"""VeRA: one frozen random pair of matrices for all layers; each layer trains two scaling vectors.

Source: Kopiczko et al. 2023 (arXiv 2310.11454), y = W x + b ⊙ B (d ⊙ A x), with b = 0 and d = 0.1 at the start. Smaller
layers use the first rows and columns. Shapes: I inputs, O outputs, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trimtab.model.adapters.lora import LowRankLayer

D_INITIAL = 0.1


def shared_projections(
    layers: Iterable[nn.Linear], rank: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return A `[R, I]` and B `[O, R]` of the largest layer's sizes, with Kaiming initialisation."""
    sizes = [(layer.in_features, layer.out_features, layer.weight.device) for layer in layers]
    inputs, outputs, device = max(size[0] for size in sizes), max(size[1] for size in sizes), sizes[0][2]
    pair = []
    for rows, columns in ((rank, inputs), (outputs, rank)):
        bound = math.sqrt(6 / columns)
        pair.append(torch.empty(rows, columns).uniform_(-bound, bound, generator=generator).to(device))
    return pair[0], pair[1]


class VeraLinear(LowRankLayer):
    """Scales the shared pair by `lambda_d` (rank) and `lambda_b` (outputs, zero at the start)."""

    def __init__(self, base: nn.Linear, vera_a: Tensor, vera_b: Tensor) -> None:
        super().__init__(base)
        self.vera_a, self.vera_b = vera_a, vera_b  # shared by all layers, so not buffers
        self.lambda_d = nn.Parameter(torch.full((vera_a.shape[0],), D_INITIAL, device=base.weight.device))
        self.lambda_b = nn.Parameter(torch.zeros(base.out_features, device=base.weight.device))

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the pair as this layer scales it."""
        a_RI, b_OR = self.vera_a[:, : self.base.in_features], self.vera_b[: self.base.out_features]
        return self.lambda_d[:, None] * a_RI, self.lambda_b[:, None] * b_OR

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return both vectors."""
        return {"vera_lambda_b": self.lambda_b.detach(), "vera_lambda_d": self.lambda_d.detach()}
