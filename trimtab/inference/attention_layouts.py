"""Attention over KV caches in each kind of inference pass: prefill (whole or chunked), decoding, and label tries.

Shapes: N tokens of the flat row, M of them that follow one prefix or are nodes of labels, B sequences, H query heads, K
key/value heads, G = H / K query heads for each of them, P tokens of a prefix, Q own queries, R = G · Q rows of queries,
T own tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.inference.kv_cache import (
    KVCache,
    KVSegment,
    Prefix,
    PrefixRef,
    ScratchCache,
    own_attention,
    prefix_attention,
    small_tensor,
)
from trimtab.inference.label_trie import LabelTrie
from trimtab.model.attention import AttentionConfig, attention_by_matmul, merge_attention, partial_attention_by_matmul
from trimtab.model.fast.kernel_layers import DecodeSlots
from trimtab.model.kernels.ops import attend_decode, attend_tree, supports_decode, supports_heads


class PrefixGroups:
    """Groups the tokens of a flat row by their shared prefix, so that each prefix is attended in one product.

    `lengths`: tokens of each sequence in the row.
    """

    def __init__(
        self, prefixes: Sequence[PrefixRef | None], lengths: Sequence[int], positions_N: Tensor, last: int
    ) -> None:
        self.positions_N, self.last = positions_N, last
        tokens: dict[PrefixRef, list[int]] = {}
        start = 0
        for prefix_ref, length in zip(prefixes, lengths, strict=True):
            if prefix_ref:
                tokens.setdefault(prefix_ref, []).extend(range(start, start + length))
            start += length
        self._whole = next(iter(tokens), None) if [start] == [len(own) for own in tokens.values()] else None
        self._tokens = {
            prefix_ref: small_tensor(own, positions_N.device) for prefix_ref, own in tokens.items() if not self._whole
        }

    def __bool__(self) -> bool:
        """True if any token has a shared prefix."""
        return bool(self._whole or self._tokens)

    def join(self, layer: int, query_HND: Tensor, own: tuple[Tensor, Tensor], config: AttentionConfig) -> Tensor:
        """Return the attention `out_1HND` over prefix and own tokens; `own` is from `partial_attention` and may be
        overwritten.
        """
        if self._whole:  # one prefix for the whole row: no indexing needed
            return merge_attention(self._whole.part(layer, query_HND, self.positions_N, self.last, config), own)
        out_1HND, log_sum_1HN = own
        for prefix_ref, tokens_M in self._tokens.items():
            shared = prefix_ref.part(layer, query_HND[:, tokens_M], self.positions_N[tokens_M], self.last, config)
            out_1HND[:, :, tokens_M] = merge_attention(shared, (out_1HND[:, :, tokens_M], log_sum_1HN[:, :, tokens_M]))
        return out_1HND


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPart:
    """The tokens `start` to `end` that one pass reads, of the `length` tokens that a prompt has after its prefix.

    `cached_segment`: cached tokens before `start`, which the first pass copies into the slot.
    """

    start: int
    end: int
    length: int
    prefix_ref: PrefixRef | None
    cached_segment: KVSegment | None = None

    @property
    def before(self) -> int:
        """Tokens of its prefix that are copied into its slot."""
        return self.prefix_ref.copied if self.prefix_ref else 0

    def first_writes(self, layer: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield place, keys and values `[K, T, D]` that the first pass copies into the slot."""
        if self.before and self.prefix_ref and (self.cached_segment or not self.start):
            yield 0, *self.prefix_ref.own(layer)
        if self.cached_segment:
            yield self.before, self.cached_segment.keys[layer], self.cached_segment.values[layer]

    @property
    def positions(self) -> range:
        """Positions of the tokens in the whole prompt."""
        before = self.prefix_ref.length if self.prefix_ref else 0
        return range(before + self.start, before + self.end)


class PrefillLayout:
    """Layout of prompts laid end to end: each sees its prefix, its earlier tokens, and itself.

    Keys and values go into the slots from `first` on; a part that continues an earlier pass must be the first.
    """

    def __init__(self, slots: KVCache, first: int, parts: Sequence[PromptPart], device: torch.device) -> None:
        self.slots, self.first, self.parts = slots, first, parts
        slots.lengths[first:] = [part.before + part.end for part in parts]
        slots.reserve(max([*slots.lengths, *(part.before + part.length for part in parts)]))
        positions = [place for part in parts for place in part.positions]
        self.positions_N = small_tensor(positions, device)
        prefixes, lengths = [part.prefix_ref for part in parts], [part.end - part.start for part in parts]
        self.groups = PrefixGroups(prefixes, lengths, self.positions_N, max(positions))

    def attend(
        self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, config: AttentionConfig
    ) -> Tensor:
        """Causal attention of each prompt over [prefix; earlier tokens; itself]."""
        parts, start = [], 0
        for slot, part in enumerate(self.parts, self.first):
            own = slice(start, start + part.end - part.start)
            key_KTD, value_KTD, query_HQD = key_KND[:, own], value_KND[:, own], query_HND[:, own]
            for place, known_key_KTD, known_value_KTD in part.first_writes(layer):
                self.slots.write(layer, slot, place, known_key_KTD, known_value_KTD)
            self.slots.write(layer, slot, part.before + part.start, key_KTD, value_KTD)
            seen = own_attention(query_HQD, key_KTD, value_KTD, config)
            if part.start:
                seen = merge_optional_attention(self._attend_earlier(layer, slot, part, query_HQD, config), seen)
            parts.append(seen)
            start = own.stop
        own_parts = torch.cat([out for out, _ in parts], dim=2), torch.cat([log_sum for _, log_sum in parts], dim=2)
        return self.groups.join(layer, query_HND, own_parts, config)[0].transpose(0, 1)

    def _attend_earlier(
        self, layer: int, slot: int, part: PromptPart, query_HQD: Tensor, config: AttentionConfig
    ) -> tuple[Tensor, Tensor]:
        """Attention over the prompt's tokens of earlier passes."""
        read = slice(part.before, part.before + part.start)
        places_Q = torch.arange(part.start, part.end, device=query_HQD.device)
        return prefix_attention(query_HQD, *self.slots.part(layer, slot, read), places_Q, part.end - 1, config)


class DecodeLayout:
    """Layout of `tokens_per_sequence` new tokens for each of the first slots.

    Each prefix is attended in one product for all its sequences, own tokens slot by slot. A sequence's new tokens are
    adjacent in the flat row.
    """

    def __init__(
        self, slots: KVCache, prefixes: Sequence[PrefixRef | None], tokens_per_sequence: int, device: torch.device
    ) -> None:
        self.slots, self.tokens_per_sequence = slots, tokens_per_sequence
        lengths = slots.lengths[: len(prefixes)]
        places = [length + ahead for length in lengths for ahead in range(tokens_per_sequence)]
        before = [length for length in _prefix_lengths(prefixes) for _ in range(tokens_per_sequence)]
        positions = [start + place for start, place in zip(before, places, strict=True)]
        self.slots_N = torch.arange(len(lengths), device=device).repeat_interleave(tokens_per_sequence)
        self.at_N, self.positions_N = small_tensor(places, device), small_tensor(positions, device)
        self.at_B = small_tensor(lengths, device)
        self.groups = PrefixGroups(prefixes, [tokens_per_sequence] * len(lengths), self.positions_N, max(positions))
        slots.lengths[: len(lengths)] = [length + tokens_per_sequence for length in lengths]
        slots.reserve(max(slots.lengths))
        self.shortest, self.span = min(lengths) + 1, slots.span(max(lengths) + tokens_per_sequence)
        self._masks: dict[int | None, Tensor] = {}

    @property
    def decode_slots(self) -> DecodeSlots | None:
        """The slots, if the new tokens see nothing else."""
        return None if self.groups else self.slots.decode_slots(self.at_B)

    def attend(
        self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, config: AttentionConfig
    ) -> Tensor:
        """Attention of each new token over [prefix; own tokens], up to itself."""
        new, slots = (query_HND, key_KND, value_KND), self.slots
        if config.softcap is None and supports_decode(new, slots.keys[layer]):
            stores = slots.keys[layer], slots.values[layer]
            own_NHD, own_sum_NH = attend_decode(new, *stores, self.at_B, config.scale, config.window)
        else:
            own_NHD, own_sum_NH = self._own(layer, *new, config)
        if not self.groups:
            return own_NHD
        own = own_NHD.transpose(0, 1)[None], own_sum_NH.transpose(0, 1)[None]
        return self.groups.join(layer, query_HND, own, config)[0].transpose(0, 1)

    def _own(
        self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, config: AttentionConfig
    ) -> tuple[Tensor, Tensor]:
        """`attend_decode` by matrix products; without the sums if there is no prefix to merge."""
        heads, tokens, size = query_HND.shape
        batch, kv_heads = tokens // self.tokens_per_sequence, key_KND.shape[0]
        groups = heads // kv_heads
        self.slots.append(layer, self.slots_N, self.at_N, key_KND, value_KND)
        key_BKDT, value_BKTD = self.slots.first(layer, batch, self.span)
        query_BKGQD = query_HND.view(kv_heads, groups, batch, self.tokens_per_sequence, size).permute(2, 0, 1, 3, 4)
        sides = (
            query_BKGQD.reshape(batch, kv_heads, -1, size),
            key_BKDT,
            value_BKTD,
            config,
            self._mask(config.window, groups),
        )
        out_BKRD, sum_BKR = (
            partial_attention_by_matmul(*sides)
            if self.groups
            else (attention_by_matmul(*sides), query_HND.new_empty(0))
        )
        out_NHD = (
            out_BKRD.view(batch, heads, self.tokens_per_sequence, size).transpose(1, 2).reshape(tokens, heads, size)
        )
        return out_NHD, sum_BKR.view(-1, heads, self.tokens_per_sequence).transpose(1, 2).reshape(-1, heads)

    def _mask(self, window: int | None, groups: int) -> Tensor | None:
        """True where a new token may not look among own tokens, `[B, 1, R, T]` or `[B, 1, 1, T]`; None if all may look
        everywhere.
        """
        # decided from the lengths on the host: reading a tensor would wait for the device
        if self.shortest == self.span and (window is None or self.span <= window):
            return None
        if window not in self._masks:
            back_NT = self.at_N[:, None] - torch.arange(self.span, device=self.at_N.device)
            masked_NT = back_NT < 0 if window is None else (back_NT < 0) | (back_NT >= window)
            masked_BQT = masked_NT.view(-1, self.tokens_per_sequence, self.span)
            self._masks[window] = (masked_BQT.repeat(1, groups, 1) if self.tokens_per_sequence > 1 else masked_BQT)[
                :, None
            ]
        return self._masks[window]


class TrieLayout:
    """Layout of one pass over the unread tokens of each prompt, followed by nodes of the label trie.

    `nodes[i]`, parents first, belong to `caches[i]`, which stores the keys and values; a node's ancestors must be in
    there or before it. A is the depth of the deepest node; X = A · K keys are in a node's row of ancestors.
    """

    def __init__(
        self,
        caches: Sequence[ScratchCache],
        nodes: Sequence[list[int]],
        trie: LabelTrie,
        prefix: Prefix | None,
        device: torch.device,
    ) -> None:
        self.caches = caches
        before, positions = len(prefix) if prefix else 0, []
        reads, behind, all_ancestors, places, kept, start = [], [], [], [], 0, 0
        self._own_ancestors: list[tuple[Tensor, Tensor]] = []
        for one, new in zip(caches, nodes, strict=True):
            read, end = 0 if one.is_prefilled else len(one.new_ids), before + len(one.new_ids)
            one.nodes += new
            reads.append(read)
            depths_Q = trie.depths_R[new]
            behind.append(len(one.new_ids) - 1 + depths_Q)
            positions += [torch.arange(end - read, end), end - 1 + depths_Q]
            at_R = torch.zeros(len(trie.tokens), dtype=torch.long)
            at_R[one.nodes] = torch.arange(len(one.nodes))
            ancestors_QA = at_R[trie.ancestors_RA[new]]
            all_ancestors.append(kept + ancestors_QA)
            self._own_ancestors.append((len(one.new_ids) + ancestors_QA, depths_Q))
            places.append(torch.arange(start + read, start + read + len(new)))
            kept, start = kept + len(one.nodes), start + read + len(new)
        self._prefill_counts, self._node_positions = reads, [places_Q.to(device) for places_Q in behind]
        self._last = [int(places_Q.max()) if len(places_Q) else 0 for places_Q in behind]
        lengths = [read + len(new) for read, new in zip(reads, nodes, strict=True)]
        self.positions_N = torch.cat(positions)
        last, self.positions_N = int(self.positions_N.max()), self.positions_N.to(device)
        prefix_ref = PrefixRef(prefix=prefix, length=before) if prefix else None
        self._groups = PrefixGroups([prefix_ref] * len(caches), lengths, self.positions_N, last)
        self._nodes_M = torch.cat(places).to(device)
        depths_M = trie.depths_R[[node for new in nodes for node in new]]
        self._deepest = int(depths_M.max()) if len(depths_M) else 0
        self._ancestors_MA = torch.cat(all_ancestors)[:, : self._deepest].to(device)
        self._levels_up_MA = (depths_M[:, None] - torch.arange(1, self._deepest + 1)).to(device)
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}

    def attend(
        self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, config: AttentionConfig
    ) -> Tensor:
        """Attention of prompts, causal over [prefix; prompt], and of nodes over [prefix; prompt; ancestors and
        themselves].
        """
        parts, keys, values, start = [], [], [], 0
        use_tree_kernel = config.softcap is None and (config.window is None or max(self._last) < config.window)
        use_tree_kernel = use_tree_kernel and supports_heads("attend_ways", query_HND, key_KND, value_KND)
        for number, one in enumerate(self.caches):
            read, places_Q, prompt = self._prefill_counts[number], self._node_positions[number], len(one.new_ids)
            middle, end = start + read, start + read + len(places_Q)
            key_KTD, value_KTD = one.append_layer(layer, key_KND[:, start:end], value_KND[:, start:end])
            own_KPD, own_value_KPD = key_KTD[:, :prompt], value_KTD[:, :prompt]
            if read:
                parts.append(own_attention(query_HND[:, start:middle], own_KPD, own_value_KPD, config))
            query_HQD = query_HND[:, middle:end]
            if len(places_Q) and use_tree_kernel:
                ancestor_part = attend_tree(
                    query_HQD, key_KTD, value_KTD, *self._own_ancestors[number], prompt, config.scale
                )
                parts.append((ancestor_part[0].transpose(0, 1)[None], ancestor_part[1].transpose(0, 1)[None]))
            elif len(places_Q):
                last = self._last[number]
                parts.append(prefix_attention(query_HQD, own_KPD, own_value_KPD, places_Q, last, config))
            keys.append(key_KTD[:, prompt:])
            values.append(value_KTD[:, prompt:])
            start = end
        out_1HND, log_sum_1HN = torch.cat([out for out, _ in parts], 2), torch.cat([log_sum for _, log_sum in parts], 2)
        if self._deepest and not use_tree_kernel:
            nodes_M = self._nodes_M
            ancestor_part = self._attend_ancestors(
                query_HND[:, nodes_M], torch.cat(keys, 1), torch.cat(values, 1), config
            )
            seen = merge_optional_attention((out_1HND[:, :, nodes_M], log_sum_1HN[:, :, nodes_M]), ancestor_part)
            out_1HND[:, :, nodes_M], log_sum_1HN[:, :, nodes_M] = seen
        return self._groups.join(layer, query_HND, (out_1HND, log_sum_1HN), config)[0].transpose(0, 1)

    def _attend_ancestors(
        self, query_HMD: Tensor, key_KTD: Tensor, value_KTD: Tensor, config: AttentionConfig
    ) -> tuple[Tensor, Tensor]:
        """Attention of each node over its ancestors and itself, as `partial_attention` returns it, with one product per
        node.

        Keys of all heads are in one row, and those of other heads are masked: a few large products take less time than
        many small ones.
        """
        heads, tokens, size = query_HMD.shape
        rows = self._ancestors_MA.flatten()
        key_MXD, value_MXD = (
            side_KTD.transpose(0, 1).flatten(1).index_select(0, rows).view(tokens, -1, size)
            for side_KTD in (key_KTD, value_KTD)
        )
        masked_MHX = self._mask(heads, key_KTD.shape[0], config.window)
        query_M1HD, key_M1DX = query_HMD.transpose(0, 1)[:, None], key_MXD.transpose(1, 2)[:, None]
        out_M1HD, log_sum_M1H = partial_attention_by_matmul(
            query_M1HD, key_M1DX, value_MXD[:, None], config, masked_MHX[:, None]
        )
        return out_M1HD[:, 0].transpose(0, 1)[None], log_sum_M1H[:, 0].transpose(0, 1)[None]

    def _mask(self, heads: int, kv_heads: int, window: int | None) -> Tensor:
        """True where a node's heads may not look in its row of ancestors, `[M, H, X]`."""
        known = heads, kv_heads, window
        if known not in self._masks:
            masked_MA = (
                self._levels_up_MA < 0 if window is None else (self._levels_up_MA < 0) | (self._levels_up_MA >= window)
            )
            of_H = torch.arange(heads, device=masked_MA.device) // (heads // kv_heads)
            other_HK = of_H[:, None] != torch.arange(kv_heads, device=masked_MA.device)
            self._masks[known] = (masked_MA[:, None, :, None] | other_HK[None, :, None]).flatten(2)
        return self._masks[known]


def merge_optional_attention(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Merge the attention over two parts of the keys, as `partial_attention` returns it."""
    return merge_attention(first, second), torch.logaddexp(first[1], second[1])


def _prefix_lengths(prefixes: Sequence[PrefixRef | None]) -> list[int]:
    return [prefix_ref.length if prefix_ref else 0 for prefix_ref in prefixes]
