"""Prefix cache: reuses keys and values of preloaded prefixes, of prompt beginnings marked public, of one client's
conversation (`cache_salt`), and of a batch's common prefix and repeated prompts.

Shapes: K key/value heads, T tokens, D head size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import torch

from trimtab.base.common_prefix import common_prefix_length
from trimtab.inference.attention_layouts import read_prefix
from trimtab.inference.kv_cache import (
    KVCache,
    KVSegment,
    Prefix,
    PrefixRef,
    shared_length,
    virtual_prefix_of,
    with_virtual_ids,
)
from trimtab.inference.request import ActiveSequence, Request
from trimtab.model.load import Base

Entry = TypeVar("Entry", Prefix, KVSegment)


class _LruCache(Generic[Entry]):
    """A least-recently-used cache of up to `capacity` tokens; the newest entry always stays."""

    def __init__(self, tokens: int) -> None:
        self.capacity = tokens
        self._entries: list[Entry] = []  # in order of use, the latest last

    def put(self, entry: Entry) -> None:
        """Add an entry as the most recently used one."""
        self._entries = [one for one in self._entries if one is not entry] + [entry]
        while len(self._entries) > 1 and sum(map(len, self._entries)) > self.capacity:
            del self._entries[0]

    def clear(self) -> None:
        """Drop all entries; running sequences keep theirs until they end."""
        self._entries.clear()


class PinnedPrefixes(_LruCache[Prefix]):
    """Prefixes that are kept until others push them out."""

    def add(self, base: Base, ids: tuple[int, ...]) -> None:
        """Prefill `ids`, unless they are cached already."""
        found = next((one for one in self._entries if one.ids == ids), None)
        self.put(found or read_prefix(base, ids))

    def longest(self, ids: tuple[int, ...]) -> PrefixRef | None:
        """Return the longest cached prefix of `ids`, leaving at least one token of their own."""
        best: PrefixRef | None = None
        for prefix in self._entries:
            length = common_prefix_length(prefix.ids, ids[:-1])
            if length > (best.length if best else 0):
                best = PrefixRef(prefix=prefix, length=length)
        if best:
            self.put(best.prefix)
        return best


class SegmentCache(_LruCache[KVSegment]):
    """Cached KV segments, none longer than the whole capacity.

    A later prompt with the same tokens before and in it gets a copy of the segment in its slot, where it is like any
    other prefilled token.
    """

    def put(self, entry: KVSegment) -> None:
        """Add a segment, unless it is too long."""
        if len(entry) <= self.capacity:
            self._entries = [one for one in self._entries if (one.ids, one.cache_salt) != (entry.ids, entry.cache_salt)]
            super().put(entry)

    def longest(self, ids: tuple[int, ...], start: int, cache_salt: str) -> KVSegment | None:
        """Return the longest segment that `ids` match from place `start` on, leaving at least one token of their own.

        Only segments without a `cache_salt` or with this one are found.
        """
        best, most = None, start
        for segment in self._entries:
            if segment.cache_salt not in ("", cache_salt) or segment.start > start:
                continue
            if (length := common_prefix_length(segment.ids, ids[:-1])) > max(most, segment.prompt_length):
                best, most = segment, length
        if best is None:
            return None
        self.put(best)
        return best.cut(start, most)


class PrefixCache:
    """The prefix cache of one engine.

    Holds up to `tokens` tokens of pinned prefixes, and half as many each of public segments, of segments per
    `cache_salt`, and of repeated prompts. A prefix is shared if it has at least `min_shared_tokens` tokens.
    """

    def __init__(self, base: Base, tokens: int, min_shared_tokens: int) -> None:
        self.base, self.min_shared_tokens = base, min_shared_tokens
        self._pinned, self._batch_prefix = PinnedPrefixes(tokens), PinnedPrefixes(0)
        self._public, self._by_salt, self._repeated_prompts = (SegmentCache(tokens // 2) for _ in range(3))
        self._read_virtual_tokens()

    @torch.inference_mode()
    def _read_virtual_tokens(self) -> None:
        """Read the model's virtual tokens, the prefix of every prompt."""
        prefix = virtual_prefix_of(self.base)
        self.virtual_prefix = PrefixRef(prefix=prefix, length=len(prefix)) if prefix else None

    def pin(self, ids: Sequence[int]) -> None:
        """Prefill a prefix now, for every later prompt that begins with it."""
        self._pinned.add(self.base, with_virtual_ids(self.base, ids))

    def reset(self) -> None:
        """Drop everything: the weights have changed."""
        for cache in (self._pinned, self._public, self._by_salt):
            cache.clear()
        self._read_virtual_tokens()

    def find_prefix(self, ids: tuple[int, ...]) -> PrefixRef | None:
        """Return the longest cached prefix of a prompt that is long enough to share, or else the virtual tokens."""
        found = [self._batch_prefix.longest(ids), self._pinned.longest(ids), self.virtual_prefix]
        longest = max((one for one in found if one), key=lambda one: one.length, default=None)
        return longest if longest and longest.length >= self.min_shared_tokens else self.virtual_prefix

    def find_segment(self, request: Request, start: int) -> KVSegment | None:
        """Return the longest cached segment of a prompt from place `start` on that its request may use."""
        caches = (self._public, self._by_salt, self._repeated_prompts)
        found = (cache.longest(request.ids, start, request.cache_salt) for cache in caches)
        return max((one for one in found if one), key=len, default=None)

    @torch.inference_mode()
    def prepare_batch(self, prompts: Sequence[tuple[int, ...]]) -> None:
        """Before a batch: prefill the common prefix of all prompts, and prompts that occur several times, once each."""
        shared = shared_length(prompts)
        pinned = self._pinned.longest(prompts[0][: shared + 1])
        known = max((one.length for one in (pinned, self.virtual_prefix) if one), default=0)
        if shared >= self.min_shared_tokens and known * 2 < shared:  # unless at least half of it is cached
            self._batch_prefix.add(self.base, prompts[0][:shared])
        room = self._repeated_prompts.capacity
        for ids, times in Counter(prompts).items():
            prefix_ref = self.find_prefix(ids) if times > 1 else None
            start = prefix_ref.length if prefix_ref else 0
            if times > 1 and start + self.min_shared_tokens < len(ids) <= room:
                room -= len(ids)
                beginning = prefix_ref.prefix.first(start).segment() if prefix_ref else None
                self._repeated_prompts.put(read_prefix(self.base, ids[:-1], beginning).segment())

    def end_batch(self) -> None:
        """Drop what `prepare_batch` cached."""
        self._batch_prefix.clear()
        self._repeated_prompts.clear()

    def add_public(self, cache: KVCache, slot: int, sequence: ActiveSequence) -> None:
        """Cache the public part of a prefilled prompt, if it is longer than what was cached."""
        new = sequence.request.public_tokens - sequence.start
        if new - sequence.cached >= self.min_shared_tokens:
            self._public.put(_segment_of(cache, slot, sequence, new))

    def add_for_salt(self, cache: KVCache, slot: int, sequence: ActiveSequence) -> None:
        """Cache prompt and answer of a finished sequence, for the next turn under the same `cache_salt`."""
        cache_salt, asked = sequence.request.cache_salt, len(sequence.request.ids)
        # the last token is not in the slot, and there may be drafts after a stop
        new = min(cache.lengths[slot] - sequence.copied, len(sequence.new_ids) + len(sequence.ids))
        if cache_salt and new - sequence.cached >= self.min_shared_tokens and sequence.start + new > asked:
            self._by_salt.put(
                replace(_segment_of(cache, slot, sequence, new), cache_salt=cache_salt, prompt_length=asked)
            )


def _segment_of(cache: KVCache, slot: int, sequence: ActiveSequence, new: int) -> KVSegment:
    """Return a copy of the first `new` tokens of a sequence after its prefix."""
    ids = (*sequence.request.ids, *sequence.ids)[: sequence.start + new]
    return KVSegment(ids, *cache.copy(slot, slice(sequence.copied, sequence.copied + new)))
