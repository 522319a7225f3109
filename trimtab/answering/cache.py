"""Keys and values of what was read: a prefix that all share, a slot for each sequence, and the layouts that attend to both.

Shapes: N tokens of the flat row, B sequences, H query heads, K key/value heads, G = H / K query heads for each of them,
P tokens of the prefix, T own tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trimtab.model.attention import Rule, causal, joined, partial, repeat_heads, unmasked, visible
from trimtab.model.load import Base

BLOCK = 64  # tokens by which slots grow


class Prefix:
    """Keys and values `[K, P, D]`, by layer, of the tokens that several prompts begin with."""

    def __init__(self, ids: tuple[int, ...]) -> None:
        self.ids = ids
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, length: int) -> Prefix:
        """Its first `length` tokens, without copying."""
        part = Prefix(self.ids[:length])
        part.keys = [key_KPD[:, :length] for key_KPD in self.keys]
        part.values = [value_KPD[:, :length] for value_KPD in self.values]
        return part

    def attend(self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, rule: Rule) -> Tensor:  # noqa: ARG002
        """The layout that reads the prefix itself: causal, keeping what it saw."""
        self.keys.append(key_KND.contiguous())
        self.values.append(value_KND.contiguous())
        return causal(query_HND, key_KND, value_KND, rule).transpose(0, 1)

    def part(self, layer: int, query_HND: Tensor, positions_N: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
        """Attention of all later tokens over the prefix, in one product for each key/value head, as `partial` gives it."""
        heads, tokens, size = query_HND.shape
        kv_heads = self.keys[layer].shape[0]
        query_KMD = query_HND.reshape(kv_heads, heads // kv_heads * tokens, size)
        key_KPD, value_KPD = self.keys[layer], self.values[layer]
        if rule.window is None or int(positions_N.max()) < rule.window:
            out_1KMD, log_sum_1KM = unmasked(query_KMD, key_KPD, value_KPD, rule)
        else:
            hidden_NP = positions_N[:, None] - torch.arange(len(self), device=positions_N.device) >= rule.window
            hidden_MP = hidden_NP.repeat(heads // kv_heads, 1)
            out_1KMD, log_sum_1KM = partial(
                query_KMD[None], key_KPD[None], value_KPD[None], rule, hidden_MP[None, None]
            )
        return out_1KMD.view(1, heads, tokens, size), log_sum_1KM.reshape(1, heads, tokens)


def common_length(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with."""
    low, high = min(prompts), max(prompts)  # all others lie between these two in order
    for place, (left, right) in enumerate(zip(low, high, strict=False)):
        if left != right:
            return place
    return min(len(low), len(high))


def shared_length(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens several prompts can share, each keeping its last one to predict from; 0 for a prompt alone."""
    return min(common_length(prompts), min(map(len, prompts)) - 1) if len(prompts) > 1 else 0


def read_prefix(base: Base, ids: tuple[int, ...]) -> Prefix:
    """Run the model over `ids` once and keep what later tokens attend to."""
    prefix = Prefix(ids)
    base.hidden(torch.tensor(ids, device=base.device), torch.arange(len(ids), device=base.device), prefix)
    return prefix


class Slots:
    """Room for `count` sequences; the first `len(lengths)` are in use, so that a step works on one view of them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.lengths: list[int] = []
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._room = 0

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` in every slot."""
        if tokens <= self._room:
            return
        self._room = -(-tokens // BLOCK) * BLOCK
        self.keys = [_grown(tensor, self._room) for tensor in self.keys]
        self.values = [_grown(tensor, self._room) for tensor in self.values]

    def write(self, layer: int, slot: int, key_KTD: Tensor, value_KTD: Tensor) -> None:
        """Put the keys and values of a prompt into a slot, from its beginning."""
        if layer == len(self.keys):
            heads, _, size = key_KTD.shape
            self.keys.append(key_KTD.new_zeros(self.count, heads, self._room, size))
            self.values.append(value_KTD.new_zeros(self.count, heads, self._room, size))
        length = key_KTD.shape[1]
        self.keys[layer][slot, :, :length] = key_KTD
        self.values[layer][slot, :, :length] = value_KTD

    def append(self, layer: int, at_B: Tensor, key_KBD: Tensor, value_KBD: Tensor) -> None:
        """Put one token's keys and values behind what each slot in use holds."""
        heads, batch, size = key_KBD.shape
        rows_BK = torch.arange(batch * heads, device=at_B.device).view(batch, heads)
        places = (rows_BK * self._room + at_B[:, None]).flatten()
        for store, new_KBD in ((self.keys, key_KBD), (self.values, value_KBD)):
            store[layer].view(-1, size).index_copy_(0, places, new_KBD.transpose(0, 1).reshape(-1, size))

    def release(self, slot: int) -> None:
        """End a sequence: the last one moves into its slot."""
        last, length = len(self.lengths) - 1, self.lengths[-1]
        if slot != last:
            for tensor in (*self.keys, *self.values):
                tensor[slot, :, :length] = tensor[last, :, :length]
            self.lengths[slot] = length
        self.lengths.pop()


class Prefill:
    """Layout of new prompts laid end to end: each sees the prefix and itself; what it saw goes into the next free slots."""

    def __init__(self, slots: Slots, lengths: Sequence[int], prefix: Prefix | None, device: torch.device) -> None:
        self.slots, self.lengths, self.prefix = slots, list(lengths), prefix
        self.first = len(slots.lengths)
        slots.reserve(max(lengths))
        slots.lengths.extend(lengths)
        before = len(prefix) if prefix else 0
        positions_N = torch.cat([torch.arange(before, before + length) for length in lengths])
        self.positions_N = positions_N.to(device)

    def attend(self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, rule: Rule) -> Tensor:
        """Causal attention of each prompt over [prefix; itself]."""
        groups = query_HND.shape[0] // key_KND.shape[0]
        parts, start = [], 0
        for number, length in enumerate(self.lengths):
            own = slice(start, start + length)
            key_KTD, value_KTD = key_KND[:, own], value_KND[:, own]
            self.slots.write(layer, self.first + number, key_KTD, value_KTD)
            key_HTD, value_HTD = repeat_heads(key_KTD, groups)[None], repeat_heads(value_KTD, groups)[None]
            parts.append(own_part(query_HND[None, :, own], key_HTD, value_HTD, rule))
            start += length
        out_1HND = torch.cat([out for out, _ in parts], dim=2)
        if self.prefix:
            own_parts = out_1HND, torch.cat([log_sum for _, log_sum in parts], dim=2)
            out_1HND = joined(self.prefix.part(layer, query_HND, self.positions_N, rule), own_parts)
        return out_1HND[0].transpose(0, 1)


class Decode:
    """Layout of one new token for every slot in use: the prefix in one product for all, own tokens slot by slot."""

    def __init__(self, slots: Slots, prefix: Prefix | None, device: torch.device) -> None:
        self.slots, self.prefix = slots, prefix
        self.before = len(prefix) if prefix else 0
        self.at_B = torch.tensor(slots.lengths, device=device)
        self.positions_N = self.at_B + self.before
        slots.lengths = [length + 1 for length in slots.lengths]
        self.longest = max(slots.lengths)
        slots.reserve(self.longest)
        self._hidden: dict[int | None, Tensor | None] = {}

    def attend(self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, rule: Rule) -> Tensor:
        """Attention of each new token over [prefix; own tokens], itself included."""
        heads, batch, size = query_HND.shape
        kv_heads = key_KND.shape[0]
        self.slots.append(layer, self.at_B, key_KND, value_KND)
        key_BKTD = self.slots.keys[layer][:batch, :, : self.longest]
        value_BKTD = self.slots.values[layer][:batch, :, : self.longest]
        query_BKGD = query_HND.transpose(0, 1).reshape(batch, kv_heads, heads // kv_heads, size)
        own_BKGD, own_sum_BKG = partial(query_BKGD, key_BKTD, value_BKTD, rule, self._hide(rule.window))
        out_BHD = own_BKGD.reshape(batch, heads, size)
        if self.prefix:
            shared = self.prefix.part(layer, query_HND, self.positions_N, rule)
            own = out_BHD.transpose(0, 1)[None], own_sum_BKG.reshape(batch, heads).T[None]
            return joined(shared, own)[0].transpose(0, 1)
        return out_BHD

    def _hide(self, window: int | None) -> Tensor | None:
        """True where a new token may not look among own tokens, `[B, 1, 1, T]`; None when all may look everywhere."""
        if window not in self._hidden:
            back_BT = self.at_B[:, None] - torch.arange(self.longest, device=self.at_B.device)
            hidden_BT = back_BT < 0 if window is None else (back_BT < 0) | (back_BT >= window)
            self._hidden[window] = hidden_BT[:, None, None] if bool(hidden_BT.any()) else None
        return self._hidden[window]


def own_part(query_1HQD: Tensor, key_1HQD: Tensor, value_1HQD: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Causal attention of a sequence over itself alone, as `partial` gives it."""
    length = query_1HQD.shape[2]
    if rule.window is None or length <= rule.window:
        return partial(query_1HQD, key_1HQD, value_1HQD, rule, is_causal=length > 1)
    hidden_QQ = ~visible(length, length, rule.window, query_1HQD.device)
    return partial(query_1HQD, key_1HQD, value_1HQD, rule, hidden_QQ[None, None])


def _grown(tensor: Tensor, room: int) -> Tensor:
    count, heads, old, size = tensor.shape
    wider = tensor.new_zeros(count, heads, room, size)
    wider[:, :, :old] = tensor
    return wider
