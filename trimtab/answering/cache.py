"""Keys and values of what was read: a prefix that all share, a slot for each sequence, and the layouts that attend to both.

Shapes: N tokens of the flat row, B sequences, H query heads, K key/value heads, G = H / K query heads for each of them,
P tokens of the prefix, T own tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trimtab.model.attention import Rule, causal
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

    def __init__(self, slots: Slots, lengths: Sequence[int], prefix: Prefix | None) -> None:
        self.slots, self.lengths, self.prefix = slots, list(lengths), prefix
        self.first = len(slots.lengths)
        slots.reserve(max(lengths))
        slots.lengths.extend(lengths)
        before = len(prefix) if prefix else 0
        self.positions_N = torch.cat([torch.arange(before, before + length) for length in lengths])

    def attend(self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, rule: Rule) -> Tensor:
        """Causal attention of each prompt over [prefix; itself]."""
        outs, start = [], 0
        for number, length in enumerate(self.lengths):
            own = slice(start, start + length)
            key_KTD, value_KTD = key_KND[:, own], value_KND[:, own]
            self.slots.write(layer, self.first + number, key_KTD, value_KTD)
            if self.prefix:
                key_KTD = torch.cat([self.prefix.keys[layer], key_KTD], dim=1)
                value_KTD = torch.cat([self.prefix.values[layer], value_KTD], dim=1)
            outs.append(causal(query_HND[:, own], key_KTD, value_KTD, rule))
            start += length
        return torch.cat(outs, dim=1).transpose(0, 1)


class Decode:
    """Layout of one new token for every slot in use: the prefix in one product for all, own tokens slot by slot."""

    def __init__(self, slots: Slots, prefix: Prefix | None, device: torch.device) -> None:
        self.slots, self.prefix = slots, prefix
        self.before = len(prefix) if prefix else 0
        self.at_B = torch.tensor(slots.lengths, device=device)
        self.rows_B = torch.arange(len(slots.lengths), device=device)
        self.positions_N = self.at_B + self.before
        slots.lengths = [length + 1 for length in slots.lengths]
        self.longest = max(slots.lengths)
        slots.reserve(self.longest)
        self._hidden: dict[int | None, Tensor | None] = {}

    def attend(self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, rule: Rule) -> Tensor:
        """Attention of each new token over [prefix; own tokens], itself included, with one softmax over both."""
        heads, batch, size = query_HND.shape
        kv_heads = key_KND.shape[0]
        groups = heads // kv_heads
        self.slots.keys[layer][self.rows_B, :, self.at_B] = key_KND.transpose(0, 1)
        self.slots.values[layer][self.rows_B, :, self.at_B] = value_KND.transpose(0, 1)
        key_BKTD = self.slots.keys[layer][:batch, :, : self.longest]
        value_BKTD = self.slots.values[layer][:batch, :, : self.longest]
        query_BKGD = query_HND.transpose(0, 1).reshape(batch, kv_heads, groups, size)
        scores_BKGT = query_BKGD @ key_BKTD.transpose(2, 3)
        if self.prefix:
            query_KMD = query_HND.reshape(kv_heads, groups * batch, size)
            shared_KMP = query_KMD @ self.prefix.keys[layer].transpose(1, 2)
            shared_BKGP = shared_KMP.view(kv_heads, groups, batch, self.before).permute(2, 0, 1, 3)
            scores_BKGT = torch.cat([shared_BKGP, scores_BKGT], dim=3)
        weights_BKGT = self._weights(scores_BKGT, rule).to(value_BKTD.dtype)
        out_BKGD = weights_BKGT[..., self.before :] @ value_BKTD
        if self.prefix:
            weights_KMP = weights_BKGT[..., : self.before].permute(1, 2, 0, 3).reshape(kv_heads, groups * batch, -1)
            shared_KMD = weights_KMP @ self.prefix.values[layer]
            out_BKGD = out_BKGD + shared_KMD.view(kv_heads, groups, batch, size).permute(2, 0, 1, 3)
        return out_BKGD.reshape(batch, heads, size)

    def _weights(self, scores_BKGT: Tensor, rule: Rule) -> Tensor:
        scores_BKGT = scores_BKGT * rule.scale
        if rule.softcap is not None:
            scores_BKGT = rule.softcap * torch.tanh(scores_BKGT / rule.softcap)
        if rule.window not in self._hidden:
            self._hidden[rule.window] = self._hide(rule.window)
        hidden = self._hidden[rule.window]
        if hidden is not None:
            scores_BKGT = scores_BKGT.masked_fill_(hidden, float("-inf"))
        return scores_BKGT.softmax(-1, dtype=torch.float32)

    def _hide(self, window: int | None) -> Tensor | None:
        """True where a new token may not look, `[B, 1, 1, P + T]`; None when all may look everywhere."""
        places = torch.arange(self.before + self.longest, device=self.at_B.device)
        back_BT = self.positions_N[:, None] - places
        hidden_BT = back_BT < 0
        if window is not None:
            hidden_BT |= back_BT >= window
        return hidden_BT[:, None, None] if bool(hidden_BT.any()) else None


def _grown(tensor: Tensor, room: int) -> Tensor:
    count, heads, old, size = tensor.shape
    wider = tensor.new_zeros(count, heads, room, size)
    wider[:, :, :old] = tensor
    return wider
