"""Pads neighbouring short sequences to one length, so that `model/attention.py` computes them in one batch.

Shapes: K key/value heads, M heads · tokens, C sequences · heads · places, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trimtab.model.kernels.ops import apply_function

MAX_PADDED_LENGTH = 64  # longest sequence that is padded
MAX_PADDING_RATIO = 1.5  # most places per token


def padded_groups(lengths: Sequence[int], chains: Sequence[tuple[int, ...]]) -> list[range]:
    """Group neighbouring short sequences with the same parents, as long as padding does not exceed
    MAX_PADDING_RATIO.
    """
    groups: list[range] = []
    tokens = longest = 0
    for number, (length, chain) in enumerate(zip(lengths, chains, strict=True)):
        group = groups[-1] if groups else range(0)
        tokens, longest = tokens + length, max(longest, length)
        fits = longest <= MAX_PADDED_LENGTH and (len(group) + 1) * longest <= MAX_PADDING_RATIO * tokens
        if group and chain == chains[group.start] and fits:
            groups[-1] = range(group.start, number + 1)
        else:
            groups.append(range(number, number + 1))
            tokens = longest = length
    return groups


class PaddedLayout:
    """Index of several sequences padded to the longest, in order of sequence, head and place."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths, self.longest = lengths, max(lengths)
        self._index_cache: dict[tuple[int, torch.device], tuple[Tensor, Tensor, Tensor]] = {}

    def pad(self, side_KMD: Tensor, heads: int) -> Tensor:
        """Pad `[K, heads · tokens, D]` to `[K, sequences · heads · longest, D]`; padding holds arbitrary tokens."""
        places_C, tokens_M, _ = self._indices(heads, side_KMD.device)
        out_KCD: Tensor = apply_function(_Permute, side_KMD, places_C, tokens_M, None)
        return out_KCD

    def unpad(self, side_KCD: Tensor, heads: int) -> Tensor:
        """Undo `pad`."""
        places_C, tokens_M, is_token_C = self._indices(heads, side_KCD.device)
        out_KMD: Tensor = apply_function(_Permute, side_KCD, tokens_M, places_C, is_token_C)
        return out_KMD

    def _indices(self, heads: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return the token of each place, the place of each token, and which places hold one, as `[C, 1]`."""
        if (heads, device) not in self._index_cache:
            lengths_S = torch.tensor(self.lengths)
            starts_S = lengths_S.cumsum(0) - lengths_S
            place_L = torch.arange(self.longest)
            is_token_SHL = (place_L < lengths_S[:, None, None]).expand(-1, heads, -1)
            first_H = torch.arange(heads)[:, None] * int(lengths_S.sum())
            tokens_SHL = first_H + starts_S[:, None, None] + place_L
            places_C = torch.where(is_token_SHL, tokens_SHL, 0).flatten()
            tokens_M = is_token_SHL.flatten().nonzero()[:, 0]
            tokens_M = tokens_M[places_C[tokens_M].argsort()]
            is_token_C = is_token_SHL.reshape(-1, 1)
            self._index_cache[heads, device] = places_C.to(device), tokens_M.to(device), is_token_C.to(device)
        return self._index_cache[heads, device]


class _Permute(torch.autograd.Function):
    """Move tokens `[K, M, D]` to other places, and their gradients back; no two places share a token, so nothing is
    summed.
    """

    @staticmethod
    def forward(ctx: Any, side_KMD: Tensor, index_C: Tensor, inverse_M: Tensor, is_token_M: Tensor | None) -> Tensor:
        ctx.inverse_M, ctx.is_token_M = inverse_M, is_token_M
        return side_KMD.index_select(1, index_C)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_KMD = grads[0].index_select(1, ctx.inverse_M)
        return (grad_KMD if ctx.is_token_M is None else grad_KMD.mul_(ctx.is_token_M)), None, None, None
