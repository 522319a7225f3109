"""Weights in 8 bits for answering: half the bytes that one new token has to read, for a rounding whose cost is measured before it is used.

Each row of a weight is whole numbers from -127 to 127 and one scale (symmetric, the largest of the row at 127). Few rows of
input are multiplied with these; for many the processor's product over the same rounded weights is faster, so both are kept. Shapes: N tokens
of the flat row, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.model.adapted import Adapted
from trimtab.model.load import Base

FEW = 8  # rows up to which the product with whole numbers is faster; measured, decision 48
LARGEST = 127
LEAST_SCALE = 1e-12  # of a row of zeros


class EightBitLinear(nn.Module):
    """A linear layer with its weight rounded; what it was made of is left as it is."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight_OI = layer.weight.detach().float()
        self.scale_O = (weight_OI.abs().amax(1) / LARGEST).clamp_(min=LEAST_SCALE).to(layer.weight.dtype)
        scale_O1 = self.scale_O.float()[:, None]
        self.whole_OI = (weight_OI / scale_O1).round_().clamp_(-LARGEST, LARGEST).to(torch.int8)
        self.rounded_OI = (self.whole_OI * scale_O1).to(layer.weight.dtype)
        self.bias = layer.bias

    def forward(self, input: Tensor) -> Tensor:
        """`input` is `[..., I]`, the result `[..., O]`."""
        flat_NI = input.reshape(-1, input.shape[-1])
        if len(flat_NI) > FEW:
            return F.linear(input, self.rounded_OI, self.bias)
        out_NO = torch._weight_int8pack_mm(flat_NI, self.whole_OI, self.scale_O)
        if self.bias is not None:
            out_NO += self.bias
        return out_NO.view(*input.shape[:-1], -1)


@contextmanager
def eight_bits(base: Base) -> Iterator[None]:
    """Inside, every linear layer of the model and its head answer in 8 bits, with whatever is merged into them.

    Raises InputError on a device that has no product for it.
    """
    if base.device.type != "cpu":
        raise InputError(f"8 bits on {base.device.type}", "leave it out: it is for processors", field="--eight-bit")
    model: Any = base.model
    head = model.get_output_embeddings()
    places = [
        (name, module, module.base if isinstance(module, Adapted) else module)
        for name, module in model.named_modules()
        if isinstance(module, Adapted | nn.Linear) and module is not head and not name.endswith(".base")
    ]
    try:
        for name, _, layer in places:
            _put(model, name, EightBitLinear(layer))
        model.set_output_embeddings(EightBitLinear(head))
        yield
    finally:
        for name, module, _ in places:
            _put(model, name, module)
        model.set_output_embeddings(head)


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
