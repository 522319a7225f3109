"""Decoder layers for inference in C kernels: one call before attention and one after it, or one call for all layers of
a decode step.

Shapes: N tokens of the flat row, H query heads, K key/value heads, D head size or width of the model, B sequences, T
positions of a slot.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trimtab.model.attention import AttentionConfig
from trimtab.model.kernels.build import address, call
from trimtab.model.kernels.matmul import PackedLinear


class DecodeSlots(NamedTuple):
    """The cache slots by layer and positions `at_B` of new tokens that see only their own sequence, as `attend_decode`
    takes them."""

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    at_B: Tensor


class _Linear(ctypes.Structure):
    _fields_ = (("panels", ctypes.c_void_p), ("bias", ctypes.c_void_p))


class _Layer(ctypes.Structure):
    """The struct `layer` of `kernels/decoder.c`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("norm", "between", "query_norm", "key_norm")),
        *((name, _Linear) for name in ("in", "out", "gate", "up", "down")),
        *((name, ctypes.c_int64) for name in ("width", "heads", "shared", "size", "wide", "window")),
        *((f"{name}epsilon", ctypes.c_float) for name in ("", "between_", "query_", "key_")),
        ("scale", ctypes.c_float),
    )


class KernelDecoderLayer:
    """A decoder layer whose projections are all PackedLinear.

    `products`: queries, keys and values together, attention output, and the MLP's gate, up and down. `norms`: of the
    input, before the MLP, and of queries and keys, which may be None. `heads`: H and K.
    """

    def __init__(
        self,
        products: Sequence[PackedLinear],
        norms: Sequence[Any],
        heads: Sequence[int],
        size: int,
        config: AttentionConfig,
    ) -> None:
        self._alive = products, norms  # the struct holds their addresses
        self.heads, self.size = [*heads, heads[1]], size
        width, wide = products[0].panels.shape[1], products[-1].panels.shape[1]
        self.struct = _Layer(
            *(None if norm is None else address(norm.weight) for norm in norms),
            *(_Linear(address(one.panels), address(one.bias_O)) for one in products),
            *(width, *heads, size, wide, config.window or 0),
            *(0.0 if norm is None else norm.variance_epsilon for norm in norms),
            config.scale,
        )

    def enter(self, hidden_ND: Tensor, angles: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return queries, keys and values, `[H, N, D]`, rotated to their positions by `angles`, cos and sin `[N,
        D]`."""
        all_NHD = hidden_ND.new_empty(len(hidden_ND), sum(self.heads), self.size)
        call("enter_layer", ctypes.addressof(self.struct), hidden_ND, *angles, len(hidden_ND), all_NHD)
        return torch.split(all_NHD.transpose(0, 1), self.heads)

    def leave(self, hidden_ND: Tensor, attended_NHD: Tensor) -> Tensor:
        """Return the layer's output from its input and the attention's output."""
        out_ND = torch.empty_like(hidden_ND)
        attended_NHD = attended_NHD.contiguous()
        call("leave_layer", ctypes.addressof(self.struct), hidden_ND, attended_NHD, len(hidden_ND), out_ND)
        return out_ND


class KernelDecoderStack:
    """All decoder layers of a model, run by one kernel call."""

    def __init__(self, layers: Sequence[KernelDecoderLayer]) -> None:
        self._alive, self.size = layers, layers[0].size
        self._structs = (_Layer * len(layers))(*(one.struct for one in layers))

    def __call__(self, hidden_ND: Tensor, angles: Sequence[Tensor], slots: DecodeSlots) -> Tensor:
        """Return the last layer's output; keys and values of the new tokens are in their slots afterwards."""
        out_ND, room = torch.empty_like(hidden_ND), slots.values[0].shape[2]
        stores = ((ctypes.c_void_p * len(self._structs))(*map(address, side)) for side in (slots.keys, slots.values))
        counts = len(slots.at_B), room
        layers = self._structs, len(self._structs)
        call("go_through_layers", *layers, hidden_ND, *angles, len(hidden_ND), *stores, slots.at_B, *counts, out_ND)
        return out_ND
