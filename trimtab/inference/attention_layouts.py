"""Layout of an inference pass: tokens that attend to cached keys and values; passes of prefill, decoding, label tries.

All passes compute attention by one function: the C kernel (`kernels/cached_attention.py`) where it supports the heads,
else torch's products. Either sums in the order of positions, so that an answer does not depend on what shares its
passes, where its prompt was divided, or what was cached.

Shapes: N tokens of the flat row, S sequences, H query heads, K key/value heads, G = H / K query heads for each of them,
Q queries, R = G · Q rows of queries, T places of a slot, D head size, A the ancestors of a node of a trie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from trimtab.inference.kv_cache import KVCache, KVSegment, Prefix, PrefixRef, virtual_prefix_of
from trimtab.inference.label_trie import LabelTrie
from trimtab.model.attention import AttentionConfig
from trimtab.model.kernels.cached_attention import CachedTokens, KernelAttention, LayerCache, padded_places
from trimtab.model.kernels.linear import LEAST_ROWS
from trimtab.model.kernels.ops import BLOCK
from trimtab.model.load import Base
from trimtab.model.threads import limit_to_free_cores

_BLOCK_QUERIES = 128  # tokens whose scores torch computes at once


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
            yield 0, *self.prefix_ref.prefix.cache.part(layer, 0, slice(0, self.before))
        if self.cached_segment:
            yield self.before, self.cached_segment.keys[layer], self.cached_segment.values[layer]


class CachedLayout:
    """Layout of a pass whose tokens attend to [prefix; their sequence's slot].

    `tokens` says where each token goes and what it sees. `writes`: for each sequence what is copied into its slot
    first.
    """

    def __init__(
        self,
        cache: KVCache,
        tokens: CachedTokens,
        prefixes: Sequence[PrefixRef | None],
        device: torch.device,
        writes: Sequence[PromptPart] = (),
    ) -> None:
        self.cache, self.tokens, self.writes, self.device = cache, tokens, writes, device
        self.prefixes = [ref.prefix if ref and not ref.copied else None for ref in prefixes]
        counts_S = torch.tensor(tokens.counts)
        positions_N = tokens.seen_N - 1 + torch.tensor(tokens.prefix_lengths).repeat_interleave(counts_S)
        if tokens.depths_N is not None:
            positions_N = positions_N + tokens.depths_N
        self.positions_N = positions_N.to(device, non_blocking=True)
        self._slots_N = torch.tensor(tokens.slots).repeat_interleave(counts_S).to(device, non_blocking=True)
        self._places_N = tokens.places_N.to(device, non_blocking=True)
        self._starts = [0, *accumulate(tokens.counts)]
        self._visible: dict[tuple[range, int | None], Tensor] = {}

    def attend(
        self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, config: AttentionConfig
    ) -> Tensor:
        """Return the attention of each token over its prefix and the places of its slot that it sees."""
        self._prepare(layer, key_KND, value_KND)
        if self.cache.is_blocked:
            groups = len(query_HND) // len(key_KND)
            kernel = KernelAttention(
                self.tokens,
                [self._layer(layer)],
                groups=groups,
                scales=[config.scale],
                windows=[config.window],
                cap=config.softcap,
            )
            return kernel.attend(query_HND, key_KND, value_KND)
        self.cache.append(layer, self._slots_N, self._places_N, key_KND, value_KND)
        return torch.cat([self._attend_by_torch(layer, query_HND, run, config) for run in self._runs()])

    def kernel_attention(
        self, key_KTD: Tensor, groups: int, configs: Sequence[AttentionConfig]
    ) -> KernelAttention | None:
        """Return the kernel's view of all layers, None where it does not support them; `key_KTD` has their heads, size
        and dtype.
        """
        for layer in range(len(configs)):
            self._prepare(layer, key_KTD, key_KTD)
        if not self.cache.is_blocked:
            return None
        return KernelAttention(
            self.tokens,
            [self._layer(layer) for layer in range(len(configs))],
            groups=groups,
            scales=[config.scale for config in configs],
            windows=[config.window for config in configs],
        )

    def _prepare(self, layer: int, key_KTD: Tensor, value_KTD: Tensor) -> None:
        """Allocate a layer's storage, and copy into the slots what the pass copies."""
        self.cache.add_layer(layer, key_KTD, value_KTD)
        for slot, part in zip(self.tokens.slots, self.writes, strict=False):
            for place, known_key_KTD, known_value_KTD in part.first_writes(layer):
                self.cache.write(layer, slot, place, known_key_KTD, known_value_KTD)

    def _layer(self, layer: int) -> LayerCache:
        prefixes = [
            (prefix.cache.keys[layer][0], prefix.cache.values[layer][0]) if prefix else None for prefix in self.prefixes
        ]
        return LayerCache(self.cache.keys[layer], self.cache.values[layer], prefixes)

    def _runs(self) -> list[range]:
        """Return the sequences that torch computes together: all of a decoding step, else one at a time."""
        counts, slots = self.tokens.counts, self.tokens.slots
        together = len(set(counts)) == 1 and all(later == slot + 1 for slot, later in pairwise(slots))
        return [range(len(slots))] if together else [range(number, number + 1) for number in range(len(slots))]

    def _attend_by_torch(self, layer: int, query_HND: Tensor, run: range, config: AttentionConfig) -> Tensor:
        """Return the attention of sequences in adjacent slots with as many tokens each, `[tokens, H, D]`.

        Slots are read in multiples of BLOCK places, and rows are padded to LEAST_ROWS: torch then sums in one order.
        """
        start, end, first = self._starts[run.start], self._starts[run.stop], self.tokens.slots[run.start]
        kv_heads, span = self.cache.values[layer].shape[1], self._span(run)
        heads, size, each = len(query_HND), query_HND.shape[2], (end - start) // len(run)
        slots = slice(first, first + len(run))
        key_SKDT = self.cache.keys[layer][slots, :, 0, :, :span]
        value_SKTD = self.cache.values[layer][slots, :, :span]
        query_SKGQD = query_HND[:, start:end].view(kv_heads, -1, len(run), each, size).permute(2, 0, 1, 3, 4)
        visible_SQT = self._visible_places(run, config.window).view(len(run), each, span)
        outs = []
        for block in range(0, each, _BLOCK_QUERIES):
            queries = slice(block, block + _BLOCK_QUERIES)
            rows_SKRD = query_SKGQD[:, :, :, queries].flatten(2, 3)
            count = rows_SKRD.shape[2]
            padding = (0, 0, 0, max(0, LEAST_ROWS - count))
            products_SKRT = (F.pad(rows_SKRD, padding) @ key_SKDT)[:, :, :count]
            visible_S1RT = visible_SQT[:, None, queries].repeat(1, 1, heads // kv_heads, 1)
            weights_SKRT = _weights(products_SKRT, visible_S1RT, config).to(value_SKTD.dtype)
            out_SKRD = _weighted_sum(F.pad(weights_SKRT, padding), value_SKTD)[:, :, :count]
            outs.append(out_SKRD.reshape(len(run), kv_heads, heads // kv_heads, -1, out_SKRD.shape[-1]))
        out_SKGQD = torch.cat(outs, dim=3)
        return out_SKGQD.permute(0, 3, 1, 2, 4).reshape(end - start, heads, -1)

    def _span(self, run: range) -> int:
        """Return how many places of its slots a run reads."""
        return padded_places(max(self.tokens.ends[number] for number in run))

    def _visible_places(self, run: range, window: int | None) -> Tensor:
        """Return the mask of the places that a run's tokens see, `[tokens, T]`; prefixes are in the slots here."""
        if (run, window) not in self._visible:
            tokens, span = slice(self._starts[run.start], self._starts[run.stop]), self._span(run)
            seen_N1, place_T = self.tokens.seen_N[tokens, None], torch.arange(span)
            ancestors_NA, depths_N = self.tokens.ancestors_NA, self.tokens.depths_N
            depths_N1 = torch.zeros_like(seen_N1) if depths_N is None else depths_N[tokens, None]
            visible_NT = place_T < seen_N1
            if window is not None:
                visible_NT &= place_T >= seen_N1 + depths_N1 - window
            if ancestors_NA is not None:
                number_A = torch.arange(ancestors_NA.shape[1])
                is_seen_NA = (number_A < depths_N1) & (number_A >= depths_N1 - (window or len(number_A)))
                # one more column takes those that are not seen
                columns_NA = torch.where(is_seen_NA, ancestors_NA[tokens], span)
                visible_NT = F.pad(visible_NT, (0, 1)).scatter_(1, columns_NA, True)[:, :span]
            self._visible[run, window] = visible_NT.to(self.device)
        return self._visible[run, window]


def _weights(products_SKRT: Tensor, visible_SKRT: Tensor, config: AttentionConfig) -> Tensor:
    """Return the attention weights, float32 or wider, of the products of queries and keys."""
    scores = products_SKRT.to(torch.promote_types(products_SKRT.dtype, torch.float32)) * config.scale
    if config.softcap is not None:
        scores = config.softcap * torch.tanh(scores / config.softcap)
    return scores.masked_fill_(~visible_SKRT, float("-inf")).softmax(-1)


def _weighted_sum(weights_SKRT: Tensor, value_SKTD: Tensor) -> Tensor:
    """Return the weights times the values, added up block by block: in a longer product torch may sum in another
    order."""
    weights = weights_SKRT.unflatten(3, (-1, BLOCK)).transpose(2, 3)  # type: ignore[no-untyped-call]
    products = weights @ value_SKTD.unflatten(2, (-1, BLOCK))  # type: ignore[no-untyped-call]
    blocks: tuple[Tensor, ...] = products.to(torch.promote_types(products.dtype, torch.float32)).unbind(2)
    return sum(blocks[1:], start=blocks[0]).to(value_SKTD.dtype)


def prefill_layout(cache: KVCache, first: int, parts: Sequence[PromptPart], device: torch.device) -> CachedLayout:
    """Return the layout of prompts laid end to end, whose keys and values go into the slots from `first` on."""
    cache.lengths[first:] = [part.before + part.end for part in parts]
    cache.reserve(max([*cache.lengths, *(part.before + part.length for part in parts)]))
    places = torch.cat([torch.arange(part.before + part.start, part.before + part.end) for part in parts])
    tokens = CachedTokens(
        counts=[part.end - part.start for part in parts],
        slots=range(first, first + len(parts)),
        ends=cache.lengths[first:],
        places_N=places,
        seen_N=places + 1,
        prefix_lengths=_lengths_in_place([part.prefix_ref for part in parts]),
    )
    return CachedLayout(cache, tokens, [part.prefix_ref for part in parts], device, parts)


def decode_layout(
    cache: KVCache, prefixes: Sequence[PrefixRef | None], tokens_per_sequence: int, device: torch.device
) -> CachedLayout:
    """Return the layout of `tokens_per_sequence` new tokens, adjacent in the flat row, for each of the first slots."""
    lengths = cache.lengths[: len(prefixes)]
    places = (torch.tensor(lengths)[:, None] + torch.arange(tokens_per_sequence)).flatten()
    cache.lengths[: len(prefixes)] = [length + tokens_per_sequence for length in lengths]
    cache.reserve(max(cache.lengths))
    tokens = CachedTokens(
        counts=[tokens_per_sequence] * len(prefixes),
        slots=range(len(prefixes)),
        ends=cache.lengths[: len(prefixes)],
        places_N=places,
        seen_N=places + 1,
        prefix_lengths=_lengths_in_place(prefixes),
    )
    return CachedLayout(cache, tokens, prefixes, device)


class TriePrompts:
    """The cache of several prompts and of the nodes of a label trie that were scored after each of them.

    `new_ids`: each prompt's tokens after `prefix`, which all of them share.
    """

    def __init__(self, new_ids: Sequence[tuple[int, ...]], trie: LabelTrie, prefix: Prefix | None) -> None:
        self.new_ids, self.trie = new_ids, trie
        self.prefix_ref = PrefixRef(prefix=prefix, length=len(prefix)) if prefix else None
        self._copied = self.prefix_ref.copied if self.prefix_ref else 0
        self._nodes: list[list[int]] = [[] for _ in new_ids]
        self._prefilled = [False for _ in new_ids]
        self._cache = KVCache([0] * len(new_ids))

    def is_prefilled(self, number: int) -> bool:
        """True if the prompt was computed in an earlier pass."""
        return self._prefilled[number]

    def layout(self, nodes: dict[int, list[int]], device: torch.device) -> CachedLayout:
        """Return the layout of one pass over the prompts `nodes` names, the unread ones and then their new nodes.

        Parents come before their children; a node's ancestors are in this pass or were in an earlier one.
        """
        counts, places, seen, ancestors, depths, writes = [], [], [], [], [], []
        for number, new in nodes.items():
            length = len(self.new_ids[number])
            prompt, known = self._copied + length, self._nodes[number]
            read = 0 if self._prefilled[number] else length
            node_places = torch.arange(prompt + len(known), prompt + len(known) + len(new))
            known += new
            place_R = torch.zeros(len(self.trie.tokens), dtype=torch.long)
            place_R[known] = prompt + torch.arange(len(known))
            places.append(torch.cat([torch.arange(prompt - read, prompt), node_places]))
            seen.append(torch.cat([torch.arange(prompt - read, prompt) + 1, torch.full((len(new),), prompt)]))
            ancestors.append(F.pad(place_R[self.trie.ancestors_RA[new]], (0, 0, read, 0)))
            depths.append(F.pad(self.trie.depths_R[new], (read, 0)))
            counts.append(read + len(new))
            writes.append(PromptPart(start=length - read, end=length, length=length, prefix_ref=self.prefix_ref))
            self._prefilled[number] = True
            self._cache.lengths[number] = prompt + len(known)
        self._cache.reserve(max(self._cache.lengths))
        has_nodes = any(nodes.values())
        tokens = CachedTokens(
            counts=counts,
            slots=list(nodes),
            ends=[self._cache.lengths[number] for number in nodes],
            places_N=torch.cat(places),
            seen_N=torch.cat(seen),
            prefix_lengths=_lengths_in_place([self.prefix_ref] * len(nodes)),
            ancestors_NA=torch.cat(ancestors) if has_nodes else None,
            depths_N=torch.cat(depths) if has_nodes else None,
        )
        return CachedLayout(self._cache, tokens, [self.prefix_ref] * len(nodes), device, writes)


@limit_to_free_cores()
def read_prefix(base: Base, ids: tuple[int, ...], after: KVSegment | None = None) -> Prefix:
    """Run the model over `ids` once and return their prefix; tokens of `after`, their beginning, are not run again.

    The model's virtual tokens are the default of `after`.
    """
    if after is None and (virtual := virtual_prefix_of(base)):
        if len(virtual) == len(ids):
            return virtual
        after = virtual.segment()
    before, cache = len(after) if after else 0, KVCache([0])
    part = PromptPart(start=before, end=len(ids), length=len(ids), prefix_ref=None, cached_segment=after)
    layout = prefill_layout(cache, 0, [part], base.device)
    base.hidden(torch.tensor(ids[before:], device=base.device), layout.positions_N, layout)
    return Prefix(ids, cache)


def _lengths_in_place(prefixes: Sequence[PrefixRef | None]) -> list[int]:
    """Return the tokens of each sequence's prefix that are not in its slot."""
    return [ref.length if ref and not ref.copied else 0 for ref in prefixes]
