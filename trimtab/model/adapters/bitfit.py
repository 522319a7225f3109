"""BitFit: trains one bias vector per linear layer.

Source: Ben Zaken et al. 2021 (arXiv 2106.10199), the biases. Llama-like models have none: there a bias is added,
initialised to zeros. Shapes: O outputs.
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
from trimtab.model.adapters.saved_adapter import SavedAdapter


@final
class BitFitLinear(AdapterLayer):
    """A layer with a trained shift of its outputs, added to its bias if it has one."""

    defaults = MethodDefaults(learning_rate=3e-3)
    saved_as = PeftFormat(peft_type="BEFT", parts=("beft_bias",))

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.shift = nn.Parameter(torch.zeros(1, base.out_features, device=base.weight.device))

    @classmethod
    def maker(cls, init: AdapterInit) -> LayerMaker:  # noqa: ARG003
        """Return the maker of layers with a shift of zeros."""
        return lambda _, layer: cls(layer)

    @classmethod
    def maker_as_saved(cls, saved: SavedAdapter) -> LayerMaker:  # noqa: ARG003
        """Return the maker of layers with a shift of zeros."""
        return lambda _, layer: cls(layer)

    def saved_for_backward(self, tokens: int) -> int:  # noqa: ARG002
        """Nothing."""
        return 0

    def forward_adapted(self, input: Tensor) -> Tensor:
        """Return the output, shifted in float32."""
        out: Tensor = (self.base(input) + self.shift.flatten()).to(input.dtype)
        return out

    def merged_weight(self) -> tuple[Tensor, Tensor | None]:
        """Return the unchanged weight and the shifted bias."""
        bias_O, shift_O = frozen_bias(self.base), self.shift.detach().flatten()
        return self.base.weight.detach().float(), shift_O if bias_O is None else bias_O + shift_O

    def peft_config(self, names: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """Return no option: there are none."""
        return {}

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return the shift."""
        return {"beft_bias": self.shift.detach()}
