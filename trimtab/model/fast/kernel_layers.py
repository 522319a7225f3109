"""Decoder layers for inference in C kernels: one call for all layers of a pass over a cache.

Shapes: N tokens of the flat row, H query heads, K key/value heads, D head size or width of the model.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trimtab.model.attention import AttentionConfig
from trimtab.model.kernels.build import address, call
from trimtab.model.kernels.cached_attention import KernelAttention
from trimtab.model.kernels.linear import PackedLinear


class _Linear(ctypes.Structure):
    _fields_ = (("panels", ctypes.c_void_p), ("bias", ctypes.c_void_p))


class _Layer(ctypes.Structure):
    """The struct `layer` of `kernels/decoder.c`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("norm", "between", "query_norm", "key_norm")),
        *((name, _Linear) for name in ("in", "out", "gate", "up", "down")),
        *((name, ctypes.c_int64) for name in ("width", "heads", "shared", "size", "wide")),
        *((f"{name}epsilon", ctypes.c_float) for name in ("", "between_", "query_", "key_")),
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
        self.heads, self.size, self.config = [*heads, heads[1]], size, config
        width, wide = products[0].panels.shape[1], products[-1].panels.shape[1]
        self.struct = _Layer(
            *(None if norm is None else address(norm.weight) for norm in norms),
            *(_Linear(address(one.panels), address(one.bias_O)) for one in products),
            *(width, *heads, size, wide),
            *(0.0 if norm is None else norm.variance_epsilon for norm in norms),
        )


class KernelDecoderStack:
    """All decoder layers of a model, run by one kernel call."""

    def __init__(self, layers: Sequence[KernelDecoderLayer]) -> None:
        self._alive, self.size = layers, layers[0].size
        self.configs = [layer.config for layer in layers]
        heads, self.shared, _ = layers[0].heads
        self.groups = heads // self.shared
        self._structs = (_Layer * len(layers))(*(layer.struct for layer in layers))

    def __call__(self, hidden_ND: Tensor, angles: Sequence[Tensor], attention: KernelAttention) -> Tensor:
        """Return the last layer's output; keys and values of the new tokens are in their slots afterwards."""
        out_ND = torch.empty_like(hidden_ND)
        layers, job = (self._structs, len(self._structs)), ctypes.addressof(attention.job)
        call("decoder_layers", *layers, hidden_ND, *angles, len(hidden_ND), job, attention.caches, out_ND)
        return out_ND
