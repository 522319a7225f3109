"""Keys and values of what was read: prefixes that several share, a slot for each sequence, and the layouts that attend to both.

Shapes: N tokens of the flat row, M of them that hang on one prefix, B sequences, H query heads, K key/value heads, G = H / K query
heads for each of them, P tokens of a prefix, T own tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.model.attention import Rule, causal, joined, partial, repeat_heads, unmasked, visible
from trimtab.model.load import Base
from trimtab.model.virtual import virtual_of

BLOCK = 64  # tokens by which slots grow
PART = 16  # a part of a prefix is used in multiples of so many tokens


class Prefix:
    """Keys and values `[K, P, D]`, by layer, of the tokens that several prompts begin with.

    `after` is a beginning of them that was read before; what is read next goes on behind it.
    """

    def __init__(self, ids: tuple[int, ...], after: Prefix | None = None) -> None:
        self.ids, self._after = ids, after
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

    def attend(self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, rule: Rule) -> Tensor:
        """The layout that reads the prefix itself: causal, keeping what it saw."""
        if self._after:
            key_KND = torch.cat([self._after.keys[layer], key_KND], dim=1)
            value_KND = torch.cat([self._after.values[layer], value_KND], dim=1)
        self.keys.append(key_KND.contiguous())
        self.values.append(value_KND.contiguous())
        return causal(query_HND, key_KND, value_KND, rule).transpose(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """The first `length` tokens of a prefix, which a sequence hangs on."""

    prefix: Prefix
    length: int

    def part(self, layer: int, query_HMD: Tensor, positions_M: Tensor, last: int, rule: Rule) -> tuple[Tensor, Tensor]:
        """Attention of later tokens, the last at position `last`, in one product for each key/value head, as `partial` gives it."""
        key_KPD = self.prefix.keys[layer][:, : self.length]
        value_KPD = self.prefix.values[layer][:, : self.length]
        heads, tokens, size = query_HMD.shape
        kv_heads = key_KPD.shape[0]
        query_KRD = query_HMD.reshape(kv_heads, heads // kv_heads * tokens, size)
        if rule.window is None or last < rule.window:
            out_1KRD, log_sum_1KR = unmasked(query_KRD, key_KPD, value_KPD, rule)
        else:
            places_P = torch.arange(self.length, device=positions_M.device)
            hidden_RP = (positions_M[:, None] - places_P >= rule.window).repeat(heads // kv_heads, 1)
            out_1KRD, log_sum_1KR = partial(
                query_KRD[None], key_KPD[None], value_KPD[None], rule, hidden_RP[None, None]
            )
        return out_1KRD.view(1, heads, tokens, size), log_sum_1KR.reshape(1, heads, tokens)


class Kept:
    """Prefixes that stay, up to `tokens` in all: the least recently used leave first, the newest always stays."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self._prefixes: dict[tuple[int, ...], Prefix] = {}  # the last is the one used last

    def add(self, base: Base, ids: tuple[int, ...]) -> None:
        """Read `ids` unless they are kept already."""
        self._prefixes[ids] = self._prefixes.pop(ids) if ids in self._prefixes else read_prefix(base, ids)
        while len(self._prefixes) > 1 and sum(map(len, self._prefixes)) > self.tokens:
            del self._prefixes[next(iter(self._prefixes))]

    def longest(self, ids: tuple[int, ...]) -> Beginning | None:
        """The longest beginning that `ids` share with a prefix, leaving them one token of their own at least.

        Only a multiple of PART tokens of a prefix that is not shared whole: sequences that part from it nearly at the same
        place then still attend to it together.
        """
        best: Beginning | None = None
        for prefix in self._prefixes.values():
            length = common_length([prefix.ids, ids[:-1]])
            if length < len(prefix):
                length -= length % PART
            if length > (best.length if best else 0):
                best = Beginning(prefix=prefix, length=length)
        if best:
            self._prefixes[best.prefix.ids] = self._prefixes.pop(best.prefix.ids)
        return best

    def clear(self) -> None:
        """Drop all; sequences on their way keep theirs until they end."""
        self._prefixes.clear()


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
    """Run the model over `ids` once and keep what later tokens attend to; virtual tokens at their beginning are not run as ids."""
    learned = learned_prefix(base)
    before = len(learned) if learned else 0
    if learned and len(ids) == before:
        return learned
    prefix = Prefix(ids, learned)
    places_N = torch.arange(before, len(ids), device=base.device)
    base.hidden(torch.tensor(ids[before:], device=base.device), places_N, prefix)
    return prefix


def learned_prefix(base: Base) -> Prefix | None:
    """The keys and values of the virtual tokens that are on, which every prompt begins with; None where there are none."""
    virtual = virtual_of(base.model)
    if virtual is None:
        return None
    prefix = Prefix(virtual.ids)
    for key_KPD, value_KPD in virtual.keys_and_values(base.model):
        prefix.keys.append(key_KPD.contiguous())
        prefix.values.append(value_KPD.contiguous())
    return prefix


def begun(base: Base, ids: Sequence[int]) -> tuple[int, ...]:
    """A prompt's ids behind those that stand for the virtual tokens that are on."""
    virtual = virtual_of(base.model)
    return (*virtual.ids, *ids) if virtual else tuple(ids)


class Slots:
    """Room for `count` sequences; the first `len(lengths)` are in use, so that a step works on one view of them.

    `count` is what is asked for: storage follows when it has to be laid out anew, then as small as `count` and the longest
    sequence in use allow.
    """

    def __init__(self) -> None:
        self.count = 0
        self.lengths: list[int] = []
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._rows = self._room = 0

    def reserve(self) -> None:
        """Make room for what `lengths` say."""
        longest = max(self.lengths)
        if len(self.lengths) <= self._rows and longest <= self._room:
            return
        self._rows, self._room = max(self.count, len(self.lengths)), -(-longest // BLOCK) * BLOCK
        for stores in (self.keys, self.values):
            for layer, store in enumerate(stores):  # one layer at a time, so that old and new never lie side by side
                stores[layer] = _laid_out(store, self._rows, self._room)

    def write(self, layer: int, slot: int, key_KTD: Tensor, value_KTD: Tensor) -> None:
        """Put the keys and values of a prompt into a slot, from its beginning."""
        if layer == len(self.keys):
            heads, _, size = key_KTD.shape
            self.keys.append(key_KTD.new_zeros(self._rows, heads, self._room, size))
            self.values.append(value_KTD.new_zeros(self._rows, heads, self._room, size))
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


class Groups:
    """Which tokens of a flat row hang on which beginning, so that each is attended to by all its tokens in one product.

    `lengths` are the tokens of each sequence in the row.
    """

    def __init__(
        self, beginnings: Sequence[Beginning | None], lengths: Sequence[int], positions_N: Tensor, last: int
    ) -> None:
        self.positions_N, self.last = positions_N, last
        tokens: dict[Beginning, list[int]] = {}
        start = 0
        for beginning, length in zip(beginnings, lengths, strict=True):
            if beginning:
                tokens.setdefault(beginning, []).extend(range(start, start + length))
            start += length
        self._whole = next(iter(tokens), None) if [start] == [len(own) for own in tokens.values()] else None
        self._tokens = {
            beginning: sent(own, positions_N.device) for beginning, own in tokens.items() if not self._whole
        }

    def join(self, layer: int, query_HND: Tensor, own: tuple[Tensor, Tensor], rule: Rule) -> Tensor:
        """The mixed values `out_1HND`, from what `partial` gave for the own tokens (which may be overwritten)."""
        if self._whole:  # nothing needs to be picked out
            return joined(self._whole.part(layer, query_HND, self.positions_N, self.last, rule), own)
        out_1HND, log_sum_1HN = own
        for beginning, tokens_M in self._tokens.items():
            shared = beginning.part(layer, query_HND[:, tokens_M], self.positions_N[tokens_M], self.last, rule)
            out_1HND[:, :, tokens_M] = joined(shared, (out_1HND[:, :, tokens_M], log_sum_1HN[:, :, tokens_M]))
        return out_1HND


class Prefill:
    """Layout of new prompts laid end to end: each sees its beginning and itself; what it saw goes into the next free slots."""

    def __init__(
        self, slots: Slots, lengths: Sequence[int], beginnings: Sequence[Beginning | None], device: torch.device
    ) -> None:
        self.slots, self.lengths = slots, list(lengths)
        self.first = len(slots.lengths)
        slots.lengths.extend(lengths)
        slots.reserve()
        spans = [range(before, before + length) for before, length in zip(_before(beginnings), lengths, strict=True)]
        self.positions_N = sent([place for span in spans for place in span], device)
        self.groups = Groups(beginnings, lengths, self.positions_N, max(span[-1] for span in spans))

    def attend(self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, rule: Rule) -> Tensor:
        """Causal attention of each prompt over [beginning; itself]."""
        groups = query_HND.shape[0] // key_KND.shape[0]
        parts, start = [], 0
        for number, length in enumerate(self.lengths):
            own = slice(start, start + length)
            key_KTD, value_KTD = key_KND[:, own], value_KND[:, own]
            self.slots.write(layer, self.first + number, key_KTD, value_KTD)
            key_HTD, value_HTD = repeat_heads(key_KTD, groups)[None], repeat_heads(value_KTD, groups)[None]
            parts.append(own_part(query_HND[None, :, own], key_HTD, value_HTD, rule))
            start += length
        own_parts = torch.cat([out for out, _ in parts], dim=2), torch.cat([log_sum for _, log_sum in parts], dim=2)
        return self.groups.join(layer, query_HND, own_parts, rule)[0].transpose(0, 1)


class Decode:
    """Layout of one new token for every slot in use: each beginning in one product for its sequences, own tokens slot by slot."""

    def __init__(self, slots: Slots, beginnings: Sequence[Beginning | None], device: torch.device) -> None:
        self.slots = slots
        positions = [before + length for before, length in zip(_before(beginnings), slots.lengths, strict=True)]
        self.at_B = sent(slots.lengths, device)
        self.positions_N = sent(positions, device)
        self.groups = Groups(beginnings, [1] * len(positions), self.positions_N, max(positions))
        slots.lengths = [length + 1 for length in slots.lengths]
        self.shortest, self.longest = min(slots.lengths), max(slots.lengths)
        slots.reserve()
        self._hidden: dict[int | None, Tensor] = {}

    def attend(self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, rule: Rule) -> Tensor:
        """Attention of each new token over [beginning; own tokens], itself included."""
        heads, batch, size = query_HND.shape
        kv_heads = key_KND.shape[0]
        self.slots.append(layer, self.at_B, key_KND, value_KND)
        key_BKTD = self.slots.keys[layer][:batch, :, : self.longest]
        value_BKTD = self.slots.values[layer][:batch, :, : self.longest]
        query_BKGD = query_HND.transpose(0, 1).reshape(batch, kv_heads, heads // kv_heads, size)
        own_BKGD, own_sum_BKG = partial(query_BKGD, key_BKTD, value_BKTD, rule, self._hide(rule.window))
        own = own_BKGD.reshape(batch, heads, size).transpose(0, 1)[None], own_sum_BKG.reshape(batch, heads).T[None]
        return self.groups.join(layer, query_HND, own, rule)[0].transpose(0, 1)

    def _hide(self, window: int | None) -> Tensor | None:
        """True where a new token may not look among own tokens, `[B, 1, 1, T]`; None when all may look everywhere."""
        # whether all may is known from the lengths here: to look into a tensor would wait for the device
        if self.shortest == self.longest and (window is None or self.longest <= window):
            return None
        if window not in self._hidden:
            back_BT = self.at_B[:, None] - torch.arange(self.longest, device=self.at_B.device)
            hidden_BT = back_BT < 0 if window is None else (back_BT < 0) | (back_BT >= window)
            self._hidden[window] = hidden_BT[:, None, None]
        return self._hidden[window]


class Grown:
    """Keys and values `[K, T, D]`, by layer, of one prompt behind its beginning and of what was tried behind the prompt.

    `nodes`: what was tried, in the order in which it stands there. `keeps` is False where one pass is all: nothing stays then.
    """

    def __init__(self, fresh: tuple[int, ...], *, keeps: bool = True) -> None:
        self.fresh, self.keeps = fresh, keeps
        self.nodes: list[int] = []
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    @property
    def is_read(self) -> bool:
        """Whether the prompt was read."""
        return bool(self._keys)

    def put(self, layer: int, key_KTD: Tensor, value_KTD: Tensor) -> tuple[Tensor, Tensor]:
        """Keep one layer of what is read now; all that is kept of this layer."""
        if not self.keeps:
            return key_KTD, value_KTD
        if layer == len(self._keys):
            self._keys.append(key_KTD.contiguous())
            self._values.append(value_KTD.contiguous())
        else:
            self._keys[layer] = torch.cat([self._keys[layer], key_KTD], dim=1)
            self._values[layer] = torch.cat([self._values[layer], value_KTD], dim=1)
        return self._keys[layer], self._values[layer]


def own_part(query_1HQD: Tensor, key_1HQD: Tensor, value_1HQD: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Causal attention of a sequence over itself alone, as `partial` gives it."""
    length = query_1HQD.shape[2]
    if rule.window is None or length <= rule.window:
        return partial(query_1HQD, key_1HQD, value_1HQD, rule, is_causal=length > 1)
    hidden_QQ = ~visible(length, length, rule.window, query_1HQD.device)
    return partial(query_1HQD, key_1HQD, value_1HQD, rule, hidden_QQ[None, None])


def sent(values: Sequence[int] | Sequence[float], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of a few numbers, copied without waiting for what the device is doing."""
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)


def _before(beginnings: Sequence[Beginning | None]) -> list[int]:
    return [beginning.length if beginning else 0 for beginning in beginnings]


def _laid_out(store: Tensor, rows: int, room: int) -> Tensor:
    """The same contents in `[rows, K, room, D]`, as far as they fit."""
    rows_kept, room_kept = min(rows, store.shape[0]), min(room, store.shape[2])
    new = store.new_zeros(rows, store.shape[1], room, store.shape[3])
    new[:rows_kept, :, :room_kept] = store[:rows_kept, :, :room_kept]
    return new
