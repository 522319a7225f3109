"""KV caches in a layout of their own: shared prefixes, running sequences, label scoring; and attention over prefixes.

Shapes: N tokens of the flat row, M of them that follow one prefix, B sequences, H query heads, K key/value heads, R = H
/ K · M query rows for each of them, P tokens of a prefix, T own tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.base.common_prefix import common_prefix_length
from trimtab.model.attention import (
    AttentionConfig,
    causal_attention,
    causal_part_attention,
    partial_attention,
    repeat_heads,
    unmasked_attention,
    visibility_mask,
)
from trimtab.model.fast.kernel_layers import DecodeSlots
from trimtab.model.kernels.ops import BLOCK, supports_heads
from trimtab.model.load import Base
from trimtab.model.prompt_tuning import virtual_tokens_of
from trimtab.model.threads import limit_to_free_cores

FLASH_MAX_TOKENS = 64  # longest prompt for which the flash kernel is faster than matrix products
SLOT_BLOCK = 8  # slots are allocated in multiples of this
MAX_COPIED_LENGTH = 128  # longest prefix that is copied into each slot: attending to it separately takes longer


class Prefix:
    """Keys and values `[K, P, D]`, by layer, of tokens that several prompts begin with.

    `after`: an earlier prefix that this one continues.
    """

    def __init__(self, ids: tuple[int, ...], after: Prefix | None = None) -> None:
        self.ids, self._after = ids, after
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, length: int) -> Prefix:
        """Return its first `length` tokens, without copying."""
        part = Prefix(self.ids[:length])
        part.keys = [key_KPD[:, :length] for key_KPD in self.keys]
        part.values = [value_KPD[:, :length] for value_KPD in self.values]
        return part

    def attend(
        self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, config: AttentionConfig
    ) -> Tensor:
        """The layout that computes the prefix itself: causal, recording keys and values."""
        if self._after:
            key_KND = torch.cat([self._after.keys[layer], key_KND], dim=1)
            value_KND = torch.cat([self._after.values[layer], value_KND], dim=1)
        self.keys.append(key_KND.contiguous())
        self.values.append(value_KND.contiguous())
        return causal_attention(query_HND, key_KND, value_KND, config).transpose(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixRef:
    """The first `length` tokens of a prefix, which a sequence continues."""

    prefix: Prefix
    length: int

    @property
    def copied(self) -> int:
        """Number of its tokens that each sequence has in its own slot."""
        return copied_length(self.length)

    def part(
        self, layer: int, query_HMD: Tensor, positions_M: Tensor, last: int, config: AttentionConfig
    ) -> tuple[Tensor, Tensor]:
        """Attention of later tokens over the prefix, as `prefix_attention` returns it; `last` is the last position."""
        return prefix_attention(query_HMD, *self.own(layer), positions_M, last, config)

    def own(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return its keys and values in a layer, `[K, P, D]`."""
        return self.prefix.keys[layer][:, : self.length], self.prefix.values[layer][:, : self.length]


def copied_length(length: int) -> int:
    """Return how many tokens of a prefix of this length are copied into each slot: all of a short one, none of a long
    one.
    """
    return length if length <= MAX_COPIED_LENGTH else 0


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


@limit_to_free_cores()
def read_prefix(base: Base, ids: tuple[int, ...], after: Prefix | None = None) -> Prefix:
    """Run the model over `ids` once and return their prefix; tokens of `after` are not run again.

    The model's virtual tokens are the default of `after`.
    """
    after = after or virtual_prefix_of(base)
    before = len(after) if after else 0
    if after and len(ids) == before:
        return after
    prefix = Prefix(ids, after)
    places_N = torch.arange(before, len(ids), device=base.device)
    base.hidden(torch.tensor(ids[before:], device=base.device), places_N, prefix)
    return prefix


def virtual_prefix_of(base: Base) -> Prefix | None:
    """Return the prefix of the model's virtual tokens, None if there are none."""
    virtual = virtual_tokens_of(base.model)
    if virtual is None:
        return None
    prefix = Prefix(virtual.ids)
    for key_KPD, value_KPD in virtual.keys_and_values(base.model):
        prefix.keys.append(key_KPD.contiguous())
        prefix.values.append(value_KPD.contiguous())
    return prefix


def with_virtual_ids(base: Base, ids: Sequence[int]) -> tuple[int, ...]:
    """Return a prompt's ids after the ids that stand for the model's virtual tokens."""
    virtual = virtual_tokens_of(base.model)
    return (*virtual.ids, *ids) if virtual else tuple(ids)


class KVCache:
    """KV cache with a slot for each of `count` sequences; the first `len(lengths)` are in use, so that a step uses one
    view.

    By layer: values `[slots, K, T, D]`, keys transposed in blocks of X places, `[slots, K, T / X, D, X]`: of 64 for
    `attend_decode`, else a single one, as a step's products read them. `count` is the target: storage follows when it
    has to be reallocated, then as small as `count` and the longest sequence in use allow.
    """

    def __init__(self) -> None:
        self.count = 0
        self.lengths: list[int] = []
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._rows = self._capacity = 0
        self._blocks = False

    def decode_slots(self, at_B: Tensor) -> DecodeSlots | None:
        """Return the slots as `attend_decode` takes them, the next tokens at positions `at_B`; None if their layout
        differs."""
        return DecodeSlots(self.keys, self.values, at_B) if self._blocks else None

    def reserve(self, longest: int) -> None:
        """Make room for as many sequences as `lengths` has, of up to `longest` tokens."""
        if len(self.lengths) <= self._rows and longest <= self._capacity:
            return
        self._rows, self._capacity = slots_for(max(self.count, len(self.lengths))), -(-longest // BLOCK) * BLOCK
        growing_dim, capacity = (2, self._capacity // BLOCK) if self._blocks else (4, self._capacity)
        for layer in range(len(self.keys)):  # layer by layer, so that old and new storage never coexist whole
            self.keys[layer] = _resized(self.keys[layer], self._rows, growing_dim, capacity)
            self.values[layer] = _resized(self.values[layer], self._rows, 2, self._capacity)

    def write(self, layer: int, slot: int, start: int, key_KTD: Tensor, value_KTD: Tensor) -> None:
        """Write a prompt's keys and values into a slot, from its token `start` on."""
        if layer == len(self.keys):
            heads, _, size = key_KTD.shape
            self._blocks = supports_heads("attend_own", key_KTD, value_KTD)
            block = BLOCK if self._blocks else self._capacity
            self.keys.append(key_KTD.new_zeros(self._rows, heads, self._capacity // block, size, block))
            self.values.append(value_KTD.new_zeros(self._rows, heads, self._capacity, size))
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
        # the flash kernel reads keys wrongly unless their last dimension is contiguous
        own_KTD = key_KTD[:, places.start - first * block : places.stop - first * block].contiguous()
        return own_KTD, self.values[layer][slot, :, places]

    def first(self, layer: int, sequences: int, span: int) -> tuple[Tensor, Tensor]:
        """Return keys `[B, K, D, T]` and values `[B, K, T, D]` of the first slots at their first `span` places.

        Keys of a single block are not copied.
        """
        key_BKDT = self.keys[layer][:sequences].transpose(2, 3).flatten(3)
        return key_BKDT[..., :span], self.values[layer][:sequences, :, :span]

    def copy(self, slot: int, places: slice) -> tuple[list[Tensor], list[Tensor]]:
        """Return a copy of the keys and values of a slot at these places, `[K, T, D]` by layer."""
        parts = [self.part(layer, slot, places) for layer in range(len(self.keys))]
        return [key_KTD for key_KTD, _ in parts], [value_KTD.clone() for _, value_KTD in parts]

    def span(self, longest: int) -> int:
        """Return how many tokens a step reads of each slot: mostly its whole capacity, since cutting it off would
        copy.
        """
        return self._capacity if self._capacity - longest < BLOCK else longest

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


class ScratchCache:
    """Keys and values `[K, T, D]`, by layer, of one prompt after its prefix and of trie nodes after the prompt.

    `nodes`: the nodes in their order of storage. `keep` is False if one pass is all: then nothing is stored.
    """

    def __init__(self, new_ids: tuple[int, ...], *, keep: bool = True) -> None:
        self.new_ids, self.keep = new_ids, keep
        self.nodes: list[int] = []
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    @property
    def is_prefilled(self) -> bool:
        """True if the prompt was computed."""
        return bool(self._keys)

    def append_layer(self, layer: int, key_KTD: Tensor, value_KTD: Tensor) -> tuple[Tensor, Tensor]:
        """Append new keys and values of one layer; return all of that layer."""
        if not self.keep:
            return key_KTD, value_KTD
        if layer == len(self._keys):
            self._keys.append(key_KTD.contiguous())
            self._values.append(value_KTD.contiguous())
        else:
            self._keys[layer] = torch.cat([self._keys[layer], key_KTD], dim=1)
            self._values[layer] = torch.cat([self._values[layer], value_KTD], dim=1)
        return self._keys[layer], self._values[layer]


def own_attention(
    query_HQD: Tensor, key_KQD: Tensor, value_KQD: Tensor, config: AttentionConfig
) -> tuple[Tensor, Tensor]:
    """Causal attention of a sequence over itself alone, as `partial_attention` returns it: `out_1HQD` and
    `log_sum_1HQ`.
    """
    heads, length, _ = query_HQD.shape
    within = config.window is None or length <= config.window
    if within and query_HQD.device.type == "cpu" and length > FLASH_MAX_TOKENS:
        out_HQD, log_sum_HQ = causal_part_attention(query_HQD, key_KQD, value_KQD, config)
        return out_HQD[None], log_sum_HQ[None]
    key_1HQD, value_1HQD = (repeat_heads(side, heads // side.shape[0])[None] for side in (key_KQD, value_KQD))
    if within:
        return partial_attention(query_HQD[None], key_1HQD, value_1HQD, config, is_causal=length > 1)
    masked_QQ = ~visibility_mask(length, length, config.window, query_HQD.device)
    return partial_attention(query_HQD[None], key_1HQD, value_1HQD, config, masked_QQ[None, None])


def prefix_attention(
    query_HMD: Tensor, key_KPD: Tensor, value_KPD: Tensor, places_M: Tensor, last: int, config: AttentionConfig
) -> tuple[Tensor, Tensor]:
    """Attention of later tokens over earlier ones, one product per key/value head, as `partial_attention` returns it.

    `places_M` count from the first of the earlier tokens; `last` is the largest.
    """
    heads, tokens, size = query_HMD.shape
    kv_heads = key_KPD.shape[0]
    query_KRD = query_HMD.reshape(kv_heads, heads // kv_heads * tokens, size)
    if config.window is None or last < config.window:
        out_1KRD, log_sum_1KR = unmasked_attention(query_KRD, key_KPD, value_KPD, config)
    else:
        places_P = torch.arange(key_KPD.shape[1], device=places_M.device)
        masked_RP = (places_M[:, None] - places_P >= config.window).repeat(heads // kv_heads, 1)
        out_1KRD, log_sum_1KR = partial_attention(
            query_KRD[None], key_KPD[None], value_KPD[None], config, masked_RP[None, None]
        )
    return out_1KRD.view(1, heads, tokens, size), log_sum_1KR.reshape(1, heads, tokens)


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
