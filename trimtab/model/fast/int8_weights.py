"""Int8 weights for inference on a CPU: int8 matmul for few tokens, the same rounded weights in the base's dtype for
more; faster decoding, more memory.

Each row of a weight is integers from -127 to 127 and one scale (symmetric, the largest at 127). For few rows of
input the 8-bit product is used; for many, bf16 products over the same rounded weights are faster, so both are kept.
Shapes: N tokens of the flat row, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.model.fast.inference_layers import inference_forwards, stacked_bias, stacked_weight
from trimtab.model.fast.packed_weights import is_packable, projection_by
from trimtab.model.kernels.torch_private import int8_matmul, works
from trimtab.model.load import Base

# Rows up to which the product with whole numbers is faster than the usual one, and than one by weights laid out
# (docs/log.md, 2026-11-26, weights of 8 bits).
FEW, FEWER = 8, 2
LARGEST = 127
LEAST_SCALE = 1e-12  # of a row of zeros


class Int8Projection:
    """The product of linear layers with one input by their rounded weights; the layers stay as they are."""

    def __init__(self, *layers: nn.Linear) -> None:
        published_OI = stacked_weight(layers)
        weight_OI, dtype = published_OI.float(), published_OI.dtype
        self.scale_O = (weight_OI.abs().amax(1) / LARGEST).clamp_(min=LEAST_SCALE).to(dtype)
        scale_O1 = self.scale_O.float()[:, None]
        self.whole_OI = (weight_OI / scale_O1).round_().clamp_(-LARGEST, LARGEST).to(torch.int8)
        self.bias_O = stacked_bias(layers)
        rounded_OI = (self.whole_OI * scale_O1).to(dtype)
        few = FEWER if is_packable(rounded_OI) else FEW
        self._few, self._many = few if works(int8_matmul) else 0, projection_by(rounded_OI, self.bias_O)

    def __call__(self, input: Tensor) -> Tensor:
        """`input` is `[..., I]`, the result `[..., O]`."""
        flat_NI = input.reshape(-1, input.shape[-1])
        if len(flat_NI) > self._few:
            return self._many(input)
        out_NO = int8_matmul(flat_NI, self.whole_OI, self.scale_O)
        if self.bias_O is not None:
            out_NO += self.bias_O
        return out_NO.view(*input.shape[:-1], -1)


@contextmanager
def int8_forwards(base: Base) -> Iterator[None]:
    """Context manager: every linear layer of the model and its head run in 8 bits, merged adapters included.

    Raises InputError on a device without an 8-bit product.
    """
    if base.device.type != "cpu":
        raise InputError(f"8 bits on {base.device.type}", "leave it out: it is for processors", field="--eight-bit")
    with inference_forwards(base.model, Int8Projection):
        yield
