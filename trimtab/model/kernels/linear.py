"""Linear layers for inference by C kernel, in bf16 and fp32: the same bits for a token whatever shares the pass.

Shapes: N tokens, I inputs and O outputs of a layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trimtab.model.kernels.build import call, supports
from trimtab.model.kernels.ops import PAIR

_SUFFIX = {torch.bfloat16: "bf16", torch.float32: "fp32"}
# Rows below which torch may sum in another order than for more (MKL on AVX2: below 12 of a matrix, 4 of a batch).
LEAST_ROWS = 16


class PackedLinear:
    """Linear layers with one input, by their weights in panels `[O / 32, I, 32]`, which the kernel reads in order."""

    def __init__(self, panels: Tensor, outputs: int, bias_O: Tensor | None) -> None:
        self.panels, self.outputs, self.bias_O = panels, outputs, bias_O

    def __call__(self, input: Tensor) -> Tensor:
        """Return `[..., O]` from `[..., I]`."""
        return _linear(input, self.panels, self.outputs, self.bias_O, packed=True)


class UnpackedLinear:
    """Linear layers with one input, by their weight `[O, I]` as it is; the bits are those of `PackedLinear`."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        self.weight_OI, self.bias_O = weight_OI.contiguous(), bias_O

    def __call__(self, input: Tensor) -> Tensor:
        """Return `[..., O]` from `[..., I]`."""
        return _linear(input, self.weight_OI, len(self.weight_OI), self.bias_O, packed=False)


class TorchLinear:
    """Linear layers with one input by torch, where no kernel supports the weight; few rows are padded to LEAST_ROWS."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        self.weight_OI, self.bias_O = weight_OI, bias_O

    def __call__(self, input: Tensor) -> Tensor:
        """Return `[..., O]` from `[..., I]`."""
        flat_NI = input.reshape(-1, input.shape[-1])
        tokens = len(flat_NI)
        if tokens < LEAST_ROWS and input.device.type == "cpu":
            flat_NI = F.pad(flat_NI, (0, 0, 0, LEAST_ROWS - tokens))
        out_NO = F.linear(flat_NI, self.weight_OI, self.bias_O)[:tokens]
        return out_NO.view(*input.shape[:-1], -1)


def supports_linear(weight_OI: Tensor) -> bool:
    """Return True if there is a kernel for products with this weight: bf16 with an even number of inputs, or fp32."""
    suffix = _SUFFIX.get(weight_OI.dtype)
    return suffix is not None and weight_OI.shape[1] % 2 == 0 and supports(f"linear_{suffix}", weight_OI)


def pack(weight_OI: Tensor) -> Tensor:
    """Return a copy of a weight in panels, as `PackedLinear` takes it, where `supports_linear`."""
    outputs, inputs = weight_OI.shape
    panels = weight_OI.new_empty(-(-outputs // PAIR), inputs, PAIR)
    call(f"pack_{_SUFFIX[weight_OI.dtype]}", weight_OI.contiguous(), inputs, outputs, panels)
    return panels


def _linear(input: Tensor, weight: Tensor, outputs: int, bias_O: Tensor | None, *, packed: bool) -> Tensor:
    flat_NI = input.reshape(-1, input.shape[-1]).contiguous()
    out_NO = input.new_empty(len(flat_NI), outputs)
    counts = len(flat_NI), flat_NI.shape[1], outputs
    call(f"linear_{_SUFFIX[weight.dtype]}", flat_NI, weight, packed, bias_O, *counts, out_NO)
    return out_NO.view(*input.shape[:-1], outputs)
