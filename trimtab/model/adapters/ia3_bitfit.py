"""Changes of one vector a layer: what it says is stretched (IA³), or shifted (BitFit).

Sources: Liu et al. 2022 (arXiv 2205.05638), keys, values and the inner activations of the feed-forward part, each times a vector
that begins as ones; Ben Zaken et al. 2021 (arXiv 2106.10199), the biases. Llama-like models have none: there a bias begins as zeros,
which equals training one where a layer has it. Shapes: I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trimtab.model.adapters.base import AdapterLayer, frozen_bias

# By the last part of a layer's name; where queries, keys and values are one layer, all of it is stretched.
SCALED_OUTPUTS, SCALED_INPUTS = ("k_proj", "v_proj", "qkv_proj"), ("down_proj", "fc2")


class Ia3Linear(AdapterLayer):
    """A layer whose outputs are stretched, or whose inputs are (`scale_input`)."""

    def __init__(self, base: nn.Linear, *, scale_input: bool) -> None:
        super().__init__(base)
        self.scale_input = scale_input
        shape = (1, base.in_features) if scale_input else (base.out_features, 1)  # as PEFT has them
        self.stretch = nn.Parameter(torch.ones(shape, device=base.weight.device))

    def saved_for_backward(self, tokens: int) -> int:
        """What is stretched, once before and, of an input, once after it."""
        return tokens * (2 * self.base.in_features if self.scale_input else self.base.out_features)

    def forward_adapted(self, input: Tensor) -> Tensor:
        """The layer, stretched in float32."""
        scale = self.stretch.flatten()
        if self.scale_input:
            out: Tensor = self.base((input * scale).to(input.dtype))
        else:
            out = (self.base(input) * scale).to(input.dtype)
        return out

    def merged_weight(self) -> tuple[Tensor, Tensor | None]:
        """The weight's columns or rows stretched; with its rows the bias too."""
        stretch, bias_O = self.stretch.detach(), frozen_bias(self.base)
        if bias_O is not None and not self.scale_input:
            bias_O = bias_O * stretch.flatten()
        return self.base.weight.detach().float() * stretch, bias_O

    def peft_tensors(self) -> dict[str, Tensor]:
        """The vector."""
        return {"ia3_l": self.stretch.detach()}


class BitFitLinear(AdapterLayer):
    """A layer with a trained shift of its outputs, beside the bias that it has or has not."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.shift = nn.Parameter(torch.zeros(1, base.out_features, device=base.weight.device))

    def forward_adapted(self, input: Tensor) -> Tensor:
        """The layer, shifted in float32."""
        out: Tensor = (self.base(input) + self.shift.flatten()).to(input.dtype)
        return out

    def merged_weight(self) -> tuple[Tensor, Tensor | None]:
        """The weight as it is, and the bias shifted."""
        bias_O, shift_O = frozen_bias(self.base), self.shift.detach().flatten()
        return self.base.weight.detach().float(), shift_O if bias_O is None else bias_O + shift_O

    def peft_tensors(self) -> dict[str, Tensor]:
        """The shift."""
        return {"beft_bias": self.shift.detach()}


def ia3_targets(layers: Mapping[str, nn.Linear]) -> dict[str, nn.Linear]:
    """The layers that IA³ stretches."""
    return {
        name: layer for name, layer in layers.items() if name.rpartition(".")[2] in (*SCALED_OUTPUTS, *SCALED_INPUTS)
    }
