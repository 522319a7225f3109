"""Compare results to the bit where two orders of a sum give the same bits, elsewhere to a rounding of bfloat16."""

from __future__ import annotations

import os

import torch
from torch import Tensor

_ROUNDING = 2**-7  # of bfloat16, twice half a step


def same(one: Tensor, other: Tensor) -> bool:
    """True if both hold the same bits (AVX-512 with bf16, no AMX), or on another processor the same values but for
    rounding."""
    one, other = one.detach(), other.detach()
    if _has_bf16_products() and not torch.cpu._is_amx_tile_supported():
        return torch.equal(one, other)
    largest = float(other.abs().max())
    return torch.allclose(one.float(), other.float(), rtol=_ROUNDING, atol=_ROUNDING * largest)


def _has_bf16_products() -> bool:
    """True if this processor has AVX-512's bf16 instructions and no environment variable forbids torch and oneDNN to
    use them."""
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper() in ("ALL", "DEFAULT")
    return allowed and torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.cpu._is_avx512_bf16_supported()
