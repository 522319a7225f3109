"""IA³ and BitFit: one trained vector per layer that scales (IA³) or shifts (BitFit) its outputs.

Sources: Liu et al. 2022 (arXiv 2205.05638), keys, values and the inner activations of the feed-forward part, each times
a vector initialised to ones; Ben Zaken et al. 2021 (arXiv 2106.10199), the biases. Llama-like models have none: there a
bias is added, initialised to zeros. Shapes: I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trimtab.model.adapters.base import AdapterLayer, frozen_bias

# By the last part of a layer's name; a fused QKV layer is scaled as a whole.
SCALED_OUTPUTS, SCALED_INPUTS = ("k_proj", "v_proj", "qkv_proj"), ("down_proj", "fc2")


class Ia3Linear(AdapterLayer):
    """A layer with trained scales of its outputs, or of its inputs (`scale_input`)."""

    def __init__(self, base: nn.Linear, *, scale_input: bool) -> None:
        super().__init__(base)
        self.scale_input = scale_input
        shape = (1, base.in_features) if scale_input else (base.out_features, 1)  # as in PEFT
        self.stretch = nn.Parameter(torch.ones(shape, device=base.weight.device))

    def saved_for_backward(self, tokens: int) -> int:
        """The scaled tensor before scaling, and for inputs also after."""
        return tokens * (2 * self.base.in_features if self.scale_input else self.base.out_features)

    def forward_adapted(self, input: Tensor) -> Tensor:
        """Return the output, scaled in float32."""
        scale = self.stretch.flatten()
        if self.scale_input:
            out: Tensor = self.base((input * scale).to(input.dtype))
        else:
            out = (self.base(input) * scale).to(input.dtype)
        return out

    def merged_weight(self) -> tuple[Tensor, Tensor | None]:
        """Return the weight with scaled columns or rows; with rows the bias is scaled too."""
        stretch, bias_O = self.stretch.detach(), frozen_bias(self.base)
        if bias_O is not None and not self.scale_input:
            bias_O = bias_O * stretch.flatten()
        return self.base.weight.detach().float() * stretch, bias_O

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return the scales."""
        return {"ia3_l": self.stretch.detach()}


class BitFitLinear(AdapterLayer):
    """A layer with a trained shift of its outputs, added to its bias if it has one."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.shift = nn.Parameter(torch.zeros(1, base.out_features, device=base.weight.device))

    def forward_adapted(self, input: Tensor) -> Tensor:
        """Return the output, shifted in float32."""
        out: Tensor = (self.base(input) + self.shift.flatten()).to(input.dtype)
        return out

    def merged_weight(self) -> tuple[Tensor, Tensor | None]:
        """Return the unchanged weight and the shifted bias."""
        bias_O, shift_O = frozen_bias(self.base), self.shift.detach().flatten()
        return self.base.weight.detach().float(), shift_O if bias_O is None else bias_O + shift_O

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return the shift."""
        return {"beft_bias": self.shift.detach()}


def ia3_targets(layers: Mapping[str, nn.Linear]) -> dict[str, nn.Linear]:
    """Return the layers that IA³ scales."""
    return {
        name: layer for name, layer in layers.items() if name.rpartition(".")[2] in (*SCALED_OUTPUTS, *SCALED_INPUTS)
    }
