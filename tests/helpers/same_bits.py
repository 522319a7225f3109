"""Whether two results are the same: to the bit where that was seen (AVX-512 with bf16, no AMX), elsewhere to a rounding of bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDING = 2**-7  # of bfloat16, twice half a step


def same(one: Tensor, other: Tensor) -> bool:
    """Bits where they were seen to be the same, else values."""
    if torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported():
        return torch.equal(one, other)
    largest = float(other.abs().max())
    return torch.allclose(one.float(), other.float(), rtol=_ROUNDING, atol=_ROUNDING * largest)
