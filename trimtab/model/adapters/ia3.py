"""IA³: trains one scaling vector per key, value and down projection.

Source: Liu et al. 2022 (arXiv 2205.05638), keys, values and the inner activations of the feed-forward part, each times
a vector initialised to ones. Shapes: I inputs, O outputs.
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

# By the last part of a layer's name; a fused QKV layer is scaled as a whole.
SCALED_OUTPUTS, SCALED_INPUTS = ("k_proj", "v_proj", "qkv_proj"), ("down_proj", "fc2")


@final
class Ia3Linear(AdapterLayer):
    """A layer with trained scales of its outputs, or of its inputs (`scale_input`)."""

    defaults = MethodDefaults(learning_rate=1e-2)
    saved_as = PeftFormat(peft_type="IA3", parts=("ia3_l",))
    targets = (*SCALED_OUTPUTS, *SCALED_INPUTS)

    def __init__(self, base: nn.Linear, *, scale_input: bool) -> None:
        super().__init__(base)
        self.scale_input = scale_input
        shape = (1, base.in_features) if scale_input else (base.out_features, 1)  # as in PEFT
        self.stretch = nn.Parameter(torch.ones(shape, device=base.weight.device))

    @classmethod
    def maker(cls, init: AdapterInit) -> LayerMaker:  # noqa: ARG003
        """Return the maker of layers that scale what the paper scales."""
        return lambda name, layer: cls(layer, scale_input=name.rpartition(".")[2] in SCALED_INPUTS)

    @classmethod
    def maker_as_saved(cls, saved: SavedAdapter) -> LayerMaker:  # noqa: ARG003
        """Return the maker of layers that scale what the paper scales."""
        return lambda name, layer: cls(layer, scale_input=name.rpartition(".")[2] in SCALED_INPUTS)

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

    def peft_config(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the names of the layers with scaled inputs."""
        return {"feedforward_modules": [name for name in names if name in SCALED_INPUTS]}

    def peft_tensors(self) -> dict[str, Tensor]:
        """Return the scales."""
        return {"ia3_l": self.stretch.detach()}
