"""VeRA: one frozen random pair of matrices for all layers; each layer trains two scaling vectors.

Source: Kopiczko et al. 2023 (arXiv 2310.11454), y = W x + b ⊙ B (d ⊙ A x), with b = 0 and d = 0.1 at the start. Smaller
layers use the first rows and columns. Shapes: I inputs, O outputs, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from trimtab.model.adapters.base import AdapterInit, LayerMaker, MethodDefaults, PeftFormat
from trimtab.model.adapters.lora import LowRankLayer
from trimtab.model.adapters.saved_adapter import SavedAdapter

D_INITIAL = 0.1
_PARTS, _SHARED = ("vera_lambda_b", "vera_lambda_d"), ("vera_A", "vera_B")


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


@final
class VeraLinear(LowRankLayer):
    """Scales the shared pair by `lambda_d` (rank) and `lambda_b` (outputs, zero at the start)."""

    defaults = MethodDefaults(rank=256, learning_rate=2e-2)
    saved_as = PeftFormat(peft_type="VERA", parts=_PARTS, shared=_SHARED)

    def __init__(self, base: nn.Linear, vera_a: Tensor, vera_b: Tensor) -> None:
        super().__init__(base)
        self.vera_a, self.vera_b = vera_a, vera_b  # shared by all layers, so not buffers
        self.shared_tensors = dict(zip(_SHARED, (vera_a, vera_b), strict=True))
        self.lambda_d = nn.Parameter(torch.full((vera_a.shape[0],), D_INITIAL, device=base.weight.device))
        self.lambda_b = nn.Parameter(torch.zeros(base.out_features, device=base.weight.device))

    @classmethod
    def maker(cls, init: AdapterInit) -> LayerMaker:
        """Return the maker of layers with one newly drawn pair."""
        shared = shared_projections(init.layers.values(), init.rank, init.generator)
        return lambda _, layer: cls(layer, *shared)

    @classmethod
    def maker_as_saved(cls, saved: SavedAdapter) -> LayerMaker:
        """Return the maker of layers with one pair of the saved sizes."""
        first, second = (f"base_model.{name}" for name in _SHARED)
        saved.rank(first)
        vera_a, vera_b = (torch.zeros(saved.tensors[name].shape, device=saved.device) for name in (first, second))
        return lambda _, layer: cls(layer, vera_a, vera_b)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the pair as this layer scales it."""
        a_RI, b_OR = self.vera_a[:, : self.base.in_features], self.vera_b[: self.base.out_features]
        return self.lambda_d[:, None] * a_RI, self.lambda_b[:, None] * b_OR

    def peft_config(self, names: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """Return the rank, and that the pair is in the folder."""
        own = {"r": int(self.vera_a.shape[0]), "vera_dropout": 0.0, "d_initial": D_INITIAL, "bias": "none"}
        return {**own, "projection_prng_key": 0, "save_projection": True}

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return both vectors."""
        return dict(zip(_PARTS, (self.lambda_b.detach(), self.lambda_d.detach()), strict=True))
