"""Causal attention over packed sequences that may continue shared prefixes: one C kernel, forward and backward.

Shapes: N tokens of the flat row, H query heads, K key/value heads, D head size, S sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from trimtab.model.kernels.build import call
from trimtab.model.kernels.ops import apply_function, head_strides, supports_heads


class VarlenAttention:
    """Describes sequences laid end to end to the kernel: where each starts, its parent, and which ones begin a tree."""

    def __init__(self, lengths: Sequence[int], chains: Sequence[tuple[int, ...]]) -> None:
        """`chains`: the ancestors of each sequence, the root first."""
        roots = [number for number, chain in enumerate(chains) if not chain]
        last = list(accumulate((number if not chain else 0 for number, chain in enumerate(chains)), max))
        if any(chain and chain[0] != root for chain, root in zip(chains, last, strict=True)):
            roots = [0]  # trees that lie within one another are worked on as one
        self.starts = torch.tensor([0, *accumulate(lengths)])
        self.parents = torch.tensor([chain[-1] if chain else -1 for chain in chains])
        self.roots = torch.tensor([*roots, len(lengths)])

    def supports(self, *sides_HND: Tensor) -> bool:
        """Return True if there is a kernel for these queries, keys and values."""
        return supports_heads("attend_causal", *sides_HND)

    def attend(self, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, scale: float) -> Tensor:
        """Return causal attention over a sequence's ancestors and its own tokens up to each token, as `out_NHD`."""
        out_NHD: Tensor = apply_function(_Attention, query_HND, key_KND, value_KND, self, scale)
        return out_NHD

    @property
    def kernel_args(self) -> tuple[Tensor | int, ...]:
        """Return the arguments that describe the sequences to a kernel."""
        return self.starts, self.parents, self.roots, len(self.roots) - 1


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, sequences: VarlenAttention, scale: float
    ) -> Tensor:
        heads, tokens, size = query_HND.shape
        shared = key_KND.shape[0]
        out_NHD, log_sum_NH = query_HND.new_empty(tokens, heads, size), torch.empty(tokens, heads)
        arguments = *sequences.kernel_args, shared, heads // shared, size
        none = (None,) * 4  # no gradient is asked for
        call(
            "attend_causal", *head_strides(query_HND, key_KND, value_KND), *arguments, scale, out_NHD, log_sum_NH, *none
        )
        ctx.save_for_backward(query_HND, key_KND, value_KND, out_NHD, log_sum_NH)
        ctx.arguments, ctx.scale = arguments, scale
        return out_NHD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *sides, out_NHD, log_sum_NH = ctx.saved_tensors
        back = [torch.empty_like(side.transpose(0, 1), memory_format=torch.contiguous_format) for side in sides]
        grad_NHD = grads[0].contiguous()
        call("attend_causal", *head_strides(*sides), *ctx.arguments, ctx.scale, out_NHD, log_sum_NH, grad_NHD, *back)
        return *(side.transpose(0, 1) for side in back), None, None
