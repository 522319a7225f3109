"""KV caches: the slots of running sequences and of label scoring, shared prefixes, and segments to copy into slots.

Shapes: N tokens of the flat row, K key/value heads, P tokens of a prefix, T tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.base.common_prefix import common_prefix_length
from trimtab.base.errors import InputError
from trimtab.model.kernels.cached_attention import padded_places, supports_cache
from trimtab.model.kernels.ops import BLOCK
from trimtab.model.load import Base
from trimtab.model.prompt_tuning import prefix_shape, virtual_tokens_of

SLOT_BLOCK = 8  # slots are allocated in multiples of this


class KVCache:
    """KV cache with a slot for each of `count` sequences; the first `len(lengths)` are in use, so that a step uses one
    view.

    By layer: values `[slots, K, T, D]`, keys transposed in blocks of X places, `[slots, K, T / X, D, X]`: of 64 for the
    attention kernel (`is_blocked`), else a single one, as torch's products read them. `count` is the target: storage
    follows when it has to be reallocated, then as small as `count` and the longest sequence in use allow.
    """

    def __init__(self, lengths: Sequence[int] = ()) -> None:
        self.count = len(lengths)
        self.lengths = list(lengths)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._rows = self._capacity = 0
        self.is_blocked = False

    def reserve(self, longest: int) -> None:
        """Make room for as many sequences as `lengths` has, of up to `longest` tokens."""
        if len(self.lengths) <= self._rows and longest <= self._capacity:
            return
        self._rows, self._capacity = slots_for(max(self.count, len(self.lengths))), padded_places(longest)
        growing_dim, capacity = (2, self._capacity // BLOCK) if self.is_blocked else (4, self._capacity)
        for layer in range(len(self.keys)):  # layer by layer, so that old and new storage never coexist whole
            self.keys[layer] = _resized(self.keys[layer], self._rows, growing_dim, capacity)
            self.values[layer] = _resized(self.values[layer], self._rows, 2, self._capacity)

    def add_layer(self, layer: int, key_KTD: Tensor, value_KTD: Tensor) -> None:
        """Allocate a layer's storage for keys and values of these heads and sizes, unless it is there.

        Raises InputError for heads that the kernel does not support behind layers that it does.
        """
        if layer == len(self.keys):
            heads, _, size = key_KTD.shape
            is_supported = key_KTD.shape == value_KTD.shape and supports_cache(key_KTD)
            if layer == 0:
                self.is_blocked = is_supported
            elif self.is_blocked and not is_supported:
                problem = (
                    f"heads of {size} numbers in layer {layer}, which the attention kernel of layer 0 does not take"
                )
                raise InputError(problem, "set TRIMTAB_KERNELS=0", field="base.model")
            block = BLOCK if self.is_blocked else self._capacity
            self.keys.append(key_KTD.new_zeros(self._rows, heads, self._capacity // block, size, block))
            self.values.append(value_KTD.new_zeros(self._rows, heads, self._capacity, value_KTD.shape[2]))

    def write(self, layer: int, slot: int, start: int, key_KTD: Tensor, value_KTD: Tensor) -> None:
        """Write a prompt's keys and values into a slot, from its token `start` on."""
        self.add_layer(layer, key_KTD, value_KTD)
        keys, at, end = self.keys[layer], start, start + key_KTD.shape[1]
        while at < end:
            number, inside = divmod(at, keys.shape[4])
            until = min(end, at - inside + keys.shape[4])
            own_KDX = key_KTD[:, at - start : until - start].transpose(1, 2)
            keys[slot, :, number, :, inside : inside + until - at] = own_KDX
            at = until
        self.values[layer][slot, :, start:end] = value_KTD

    def part(self, layer: int, slot: int, places: slice) -> tuple[Tensor, Tensor]:
        """Return the keys and values of a slot at these places, `[K, T, D]`."""
        keys_KBDX = self.keys[layer][slot]
        block = keys_KBDX.shape[3]
        first = places.start // block
        key_KTD = keys_KBDX[:, first : -(-places.stop // block)].transpose(2, 3).flatten(1, 2)
        return key_KTD[:, places.start - first * block : places.stop - first * block], self.values[layer][
            slot, :, places
        ]

    def copy(self, slot: int, places: slice) -> tuple[list[Tensor], list[Tensor]]:
        """Return a copy of the keys and values of a slot at these places, `[K, T, D]` by layer."""
        parts = [self.part(layer, slot, places) for layer in range(len(self.keys))]
        return [key_KTD.clone() for key_KTD, _ in parts], [value_KTD.clone() for _, value_KTD in parts]

    def append(self, layer: int, slots_N: Tensor, at_N: Tensor, key_KND: Tensor, value_KND: Tensor) -> None:
        """Write each token's keys and values into its slot, at its place."""
        block = self.keys[layer].shape[4]
        self.keys[layer][slots_N, :, at_N // block, :, at_N % block] = key_KND.transpose(0, 1)
        self.values[layer][slots_N, :, at_N] = value_KND.transpose(0, 1)

    def truncate(self, tokens: Sequence[int]) -> None:
        """Drop the given number of last tokens from each of the first slots."""
        for slot, last in enumerate(tokens):
            self.lengths[slot] -= last

    def release(self, slot: int, last: int) -> None:
        """End a sequence: the one in slot `last` moves into its slot, and the one after that into `last`."""
        self._move(last, slot)
        self._move(len(self.lengths) - 1, last)
        self.lengths.pop()

    def _move(self, old: int, new: int) -> None:
        if old != new:
            length = self.lengths[new] = self.lengths[old]
            for keys, values in zip(self.keys, self.values, strict=True):
                blocks = -(-length // keys.shape[4])
                keys[new, :, :blocks] = keys[old, :, :blocks]
                values[new, :, :length] = values[old, :, :length]


def slots_for(sequences: int) -> int:
    """Return how many slots are allocated for `sequences` sequences: multiples of 8, so that storage is reused between
    batches.
    """
    return sequences if sequences < SLOT_BLOCK else -(-sequences // SLOT_BLOCK) * SLOT_BLOCK


class Prefix:
    """Tokens that several prompts begin with, and their keys and values in the only slot of a cache."""

    def __init__(self, ids: tuple[int, ...], cache: KVCache) -> None:
        self.ids, self.cache = ids, cache

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, length: int) -> Prefix:
        """Return its first `length` tokens, without copying."""
        return Prefix(self.ids[:length], self.cache)

    def segment(self) -> KVSegment:
        """Return a copy of its keys and values, for a slot."""
        return KVSegment(self.ids, *self.cache.copy(0, slice(0, len(self))))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixRef:
    """The first `length` tokens of a prefix, which a sequence continues."""

    prefix: Prefix
    length: int

    @property
    def copied(self) -> int:
        """Number of its tokens that each sequence has in its own slot: none if the attention kernel reads the prefix
        where it is."""
        return 0 if self.prefix.cache.is_blocked else self.length


@dataclass(frozen=True, slots=True)
class KVSegment:
    """Keys and values `[K, T, D]`, by layer, of the last T tokens of `ids`.

    With a `cache_salt`, only requests with the same salt may use it, and only prompts that share more than the first
    `prompt_length` of `ids`.
    """

    ids: tuple[int, ...]
    keys: list[Tensor]
    values: list[Tensor]
    cache_salt: str = ""
    prompt_length: int = 0

    def __len__(self) -> int:
        return self.keys[0].shape[1]

    @property
    def start(self) -> int:
        """Place of its first token."""
        return len(self.ids) - len(self)

    def cut(self, start: int, end: int) -> KVSegment:
        """Return the segment at these places, without copying."""
        own = slice(start - self.start, end - self.start)
        keys, values = ([side[:, own] for side in sides] for sides in (self.keys, self.values))
        return KVSegment(self.ids[:end], keys, values)


def shared_length(prompts: Sequence[tuple[int, ...]]) -> int:
    """Return how many tokens several prompts share, each keeping its last one to predict from; 0 for a single
    prompt.
    """
    if len(prompts) < 2:
        return 0
    common = common_prefix_length(min(prompts), max(prompts))  # all others are between these two in sorted order
    return min(common, min(map(len, prompts)) - 1)


def virtual_prefix_of(base: Base) -> Prefix | None:
    """Return the prefix of the model's virtual tokens, None if there are none."""
    virtual = virtual_tokens_of(base.model)
    if virtual is None:
        return None
    cache = KVCache([len(virtual)])
    cache.reserve(len(virtual))
    for layer, (key_KPD, value_KPD) in enumerate(virtual.keys_and_values(base.model)):
        cache.write(layer, 0, 0, key_KPD, value_KPD)
    return Prefix(virtual.ids, cache)


def reads_prefixes_in_place(base: Base) -> bool:
    """Return True if attention reads a shared prefix where it is; else each sequence has a copy in its slot."""
    size = prefix_shape(base.model.config)[2]
    return supports_cache(torch.empty(0, size, dtype=base.model.dtype, device=base.device))


def with_virtual_ids(base: Base, ids: Sequence[int]) -> tuple[int, ...]:
    """Return a prompt's ids after the ids that stand for the model's virtual tokens."""
    virtual = virtual_tokens_of(base.model)
    return (*virtual.ids, *ids) if virtual else tuple(ids)


def small_tensor(
    values: Sequence[int] | Sequence[float], device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """Return a tensor of a few numbers, copied without waiting for the device."""
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)


def _resized(store: Tensor, rows: int, growing_dim: int, capacity: int) -> Tensor:
    """Return the contents, as far as they fit, in `rows` slots with `capacity` along `growing_dim`."""
    shape = [rows, *store.shape[1:]]
    shape[growing_dim] = capacity
    new = store.new_zeros(shape)
    kept = tuple(slice(min(old, now)) for old, now in zip(store.shape, shape, strict=True))
    new[kept] = store[kept]
    return new
