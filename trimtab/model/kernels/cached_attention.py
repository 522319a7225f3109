"""Attention over cached keys and values by C kernel (`attention.c`), in bf16 and fp32: the same bits for a token
whatever shares the pass and wherever its earlier tokens are cached.

Shapes: N tokens of the flat row, S sequences, H query heads, K key/value heads, D head size, T places of a slot or
prefix, A further places.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from trimtab.model.kernels.build import address, call, supports
from trimtab.model.kernels.ops import BLOCK, PAIR, head_strides

KERNEL = "attend_cached"


class LayerCache(NamedTuple):
    """Keys `[slots, K, T / 64, D, 64]` and values `[slots, K, T, D]` of one layer, and those of the prefixes.

    `prefixes`: the same tensors of each sequence's prefix without the first dimension, None for a sequence without one.
    """

    keys: Tensor
    values: Tensor
    prefixes: Sequence[tuple[Tensor, Tensor] | None] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedTokens:
    """The tokens of one pass: which sequence each belongs to, where it is cached, and what it attends to.

    `counts`, `slots`: adjacent tokens of each sequence, and its slot; `ends`: places of the slot in use after the pass.
    A token attends to its sequence's prefix, of which `prefix_lengths` tokens are not in the slot, to the first
    `seen_N` places of its slot, and, as a node of a tree, to the places of its `depths_N` ancestors `ancestors_NA`, the
    last of which is itself. Its key and value are written at `places_N` first. Tensors are int64 on the CPU.
    """

    counts: Sequence[int]
    slots: Sequence[int]
    ends: Sequence[int]
    prefix_lengths: Sequence[int]
    places_N: Tensor
    seen_N: Tensor
    ancestors_NA: Tensor | None = None
    depths_N: Tensor | None = None


class _Job(ctypes.Structure):
    """The struct `attention_job` of `attention.h`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("query", "key", "value")),
        *((f"{side}_{by}", ctypes.c_int64) for side in ("query", "key", "value") for by in ("head", "token")),
        ("out", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("wide", "sequences", "groups")),
        *((name, ctypes.c_void_p) for name in ("starts", "slots", "places", "seen", "ancestors", "depths")),
        ("deepest", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("prefix_lengths", "prefix_rooms")),
        ("cap", ctypes.c_float),
    )


class _Cache(ctypes.Structure):
    """The struct `layer_cache` of `attention.h`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values", "prefix_keys", "prefix_values")),
        *((name, ctypes.c_int64) for name in ("room", "shared", "size", "window")),
        ("scale", ctypes.c_float),
    )


class KernelAttention:
    """The kernel's view of one pass: `job` and, for each layer, `caches`; holds what they point to.

    `layers`: the caches of the layers in question. `scales`, `windows`: theirs, a window of None sees everything.
    """

    def __init__(
        self,
        tokens: CachedTokens,
        layers: Sequence[LayerCache],
        *,
        groups: int,
        scales: Sequence[float],
        windows: Sequence[int | None],
        cap: float | None = None,
    ) -> None:
        lengths, first = tokens.prefix_lengths, layers[0]
        has_prefixes = any(lengths)
        rooms = [0 if pair is None else pair[1].shape[1] for pair in first.prefixes]
        starts_S1, slots_S = torch.tensor([0, *accumulate(tokens.counts)]), torch.tensor(tokens.slots)
        lengths_S, rooms_S = torch.tensor(lengths), torch.tensor(rooms)
        self._alive: list[object] = [tokens, layers, starts_S1, slots_S, lengths_S, rooms_S]
        ancestors = tokens.ancestors_NA
        self.job = _Job(
            wide=first.keys.dtype == torch.float32,
            sequences=len(tokens.slots),
            groups=groups,
            starts=address(starts_S1),
            slots=address(slots_S),
            places=address(tokens.places_N),
            seen=address(tokens.seen_N),
            ancestors=address(ancestors),
            depths=address(tokens.depths_N),
            deepest=0 if ancestors is None else ancestors.shape[1],
            prefix_lengths=address(lengths_S) if has_prefixes else None,
            prefix_rooms=address(rooms_S) if has_prefixes else None,
            cap=cap or 0.0,
        )
        caches = []
        for layer, scale, window in zip(layers, scales, windows, strict=True):
            sides = [self._addresses(layer, side) if has_prefixes else None for side in (0, 1)]
            _, shared, room, size = layer.values.shape
            counts = room, shared, size, window or 0
            caches.append(_Cache(address(layer.keys), address(layer.values), *map(address, sides), *counts, scale))
        self.caches = (_Cache * len(caches))(*caches)

    def _addresses(self, layer: LayerCache, side: int) -> Tensor:
        addresses = torch.tensor([0 if pair is None else pair[side].data_ptr() for pair in layer.prefixes])
        self._alive.append(addresses)
        return addresses

    def attend(self, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor) -> Tensor:
        """Write keys and values into their slots of the first of the layers; return the attention `out_NHD`."""
        heads, tokens, size = query_HND.shape
        out_NHD = query_HND.new_empty(tokens, heads, size)
        (query, *query_strides), (key, *key_strides), (value, *value_strides) = (
            head_strides(side) for side in (query_HND, key_KND, value_KND)
        )
        job = self.job
        job.query, job.key, job.value, job.out = (side.data_ptr() for side in (query, key, value, out_NHD))  # type: ignore[union-attr]
        job.query_head, job.query_token = query_strides
        job.key_head, job.key_token = key_strides
        job.value_head, job.value_token = value_strides
        call(KERNEL, ctypes.addressof(job), ctypes.addressof(self.caches))
        return out_NHD


def supports_cache(key: Tensor) -> bool:
    """Return True if the kernel supports keys and values of this dtype, device and head size."""
    return key.shape[-1] % PAIR == 0 and supports(KERNEL, key)


def padded_places(tokens: int) -> int:
    """Return how many places a cache of `tokens` tokens has: a multiple of the kernel's block."""
    return -(-tokens // BLOCK) * BLOCK
