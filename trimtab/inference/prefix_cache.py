"""What was read before and by whom it may be found: beginnings that are held, what all may know of prompts, turns of a conversation.

Shapes: K key/value heads, T tokens, D head size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import torch

from trimtab.base.common_prefix import common_prefix_length
from trimtab.inference.kv_cache import (
    KVCache,
    KVSegment,
    Prefix,
    PrefixRef,
    learned_prefix,
    read_prefix,
    shared_length,
    with_virtual_ids,
)
from trimtab.inference.request import ActiveSequence, Request
from trimtab.model.load import Base

PART = 16  # a part of a prefix is used in multiples of so many tokens


Read = TypeVar("Read", Prefix, KVSegment)


class _LruCache(Generic[Read]):
    """What was read, up to `tokens` in all: the least recently used leave first, the newest always stays."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self._read: list[Read] = []  # the last is the one used last

    def put(self, read: Read) -> None:
        """Keep it as the one used last."""
        self._read = [one for one in self._read if one is not read] + [read]
        while len(self._read) > 1 and sum(map(len, self._read)) > self.tokens:
            del self._read[0]

    def clear(self) -> None:
        """Drop all; sequences on their way keep theirs until they end."""
        self._read.clear()


class PinnedPrefixes(_LruCache[Prefix]):
    """Prefixes that stay."""

    def add(self, base: Base, ids: tuple[int, ...]) -> None:
        """Read `ids` unless they are kept already."""
        found = next((one for one in self._read if one.ids == ids), None)
        self.put(found or read_prefix(base, ids))

    def longest(self, ids: tuple[int, ...]) -> PrefixRef | None:
        """The longest beginning that `ids` share with a prefix, leaving them one token of their own at least.

        Only a multiple of PART tokens of a prefix that is not shared whole: sequences that part from it nearly at the same
        place then still attend to it together.
        """
        best: PrefixRef | None = None
        for prefix in self._read:
            length = common_prefix_length(prefix.ids, ids[:-1])
            if length < len(prefix):
                length -= length % PART
            if length > (best.length if best else 0):
                best = PrefixRef(prefix=prefix, length=length)
        if best:
            self.put(best.prefix)
        return best


class SegmentCache(_LruCache[KVSegment]):
    """Stretches of what was read, none longer than all that may be kept.

    A later prompt with the same tokens before and in it gets a copy of it into its slot, where it then is like any other token that was
    read for it. So decoding stays one product for all, which beginnings of their own would take apart.
    """

    def put(self, read: KVSegment) -> None:
        """Keep a stretch, if it is not too long."""
        if len(read) <= self.tokens:
            self._read = [one for one in self._read if (one.ids, one.asker) != (read.ids, read.asker)]
            super().put(read)

    def longest(self, ids: tuple[int, ...], start: int, asker: str) -> KVSegment | None:
        """The longest stretch for an asker that `ids` have from place `start` on, leaving them one token of their own at least."""
        best, most = None, start
        for stretch in self._read:
            if stretch.asker not in ("", asker) or stretch.start > start:
                continue
            if (length := common_prefix_length(stretch.ids, ids[:-1])) > max(most, stretch.asked):
                best, most = stretch, length
        if best is None:
            return None
        self.put(best)
        return best.cut(start, most)


class PrefixCache:
    """Of one engine: prefixes that are held, up to `tokens`; half as many of public stretches, of those for who asked, of repeated prompts.

    A beginning is shared if it has `share_from` tokens or more.
    """

    def __init__(self, base: Base, tokens: int, share_from: int) -> None:
        self.base, self.share_from = base, share_from
        self._held, self._common = PinnedPrefixes(tokens), PinnedPrefixes(0)
        self._public, self._asked, self._repeated = (SegmentCache(tokens // 2) for _ in range(3))
        self._read_learned()

    @torch.inference_mode()
    def _read_learned(self) -> None:
        """The virtual tokens that are on: what every prompt hangs on at least."""
        prefix = learned_prefix(self.base)
        self.learned = PrefixRef(prefix=prefix, length=len(prefix)) if prefix else None

    def hold(self, ids: Sequence[int]) -> None:
        """Read a beginning now, for every later prompt that begins alike."""
        self._held.add(self.base, with_virtual_ids(self.base, ids))

    def forget(self) -> None:
        """Drop all: the weights have changed."""
        for kept in (self._held, self._public, self._asked):
            kept.clear()
        self._read_learned()

    def beginning(self, ids: tuple[int, ...]) -> PrefixRef | None:
        """The longest beginning of a prompt that is held and long enough to be shared; the virtual tokens that are on at least."""
        found = [self._common.longest(ids), self._held.longest(ids), self.learned]
        longest = max((one for one in found if one), key=lambda one: one.length, default=None)
        return longest if longest and longest.length >= self.share_from else self.learned

    def again(self, request: Request, start: int) -> KVSegment | None:
        """What was read before of a prompt from place `start` on, for all or for who asks now."""
        stores = (self._public, self._asked, self._repeated)
        found = (kept.longest(request.ids, start, request.asker) for kept in stores)
        return max((one for one in found if one), key=len, default=None)

    @torch.inference_mode()
    def share(self, prompts: Sequence[tuple[int, ...]]) -> None:
        """Before a call that asks all these: read what they begin with, and those that come several times, once each."""
        shared = shared_length(prompts)
        held = self._held.longest(prompts[0][: shared + 1])
        known = max((one.length for one in (held, self.learned) if one), default=0)
        if shared >= self.share_from and known * 2 < shared:  # unless half of it or more is held already
            self._common.add(self.base, prompts[0][:shared])
        room = self._repeated.tokens
        for ids, times in Counter(prompts).items():
            beginning = self.beginning(ids) if times > 1 else None
            start = beginning.length if beginning else 0
            if times > 1 and start + self.share_from < len(ids) <= room:
                room -= len(ids)
                read = read_prefix(self.base, ids[:-1], beginning.prefix.first(start) if beginning else None)
                self._repeated.put(KVSegment(read.ids, read.keys, read.values))

    def end_call(self) -> None:
        """Drop what `share` read."""
        self._common.clear()
        self._repeated.clear()

    def keep_public(self, cache: KVCache, slot: int, sequence: ActiveSequence) -> None:
        """Keep what is public of a prompt that was read to its end, where it is more than was known."""
        new = sequence.request.public - sequence.start
        if new - sequence.known >= self.share_from:
            self._public.put(_stretch(cache, slot, sequence, new))

    def keep_for_asker(self, cache: KVCache, slot: int, sequence: ActiveSequence) -> None:
        """Keep prompt and answer of a sequence that ends, for the next turn of who asked."""
        asker, asked = sequence.request.asker, len(sequence.request.ids)
        # the token that was said last is not in the slot, and there may be guesses behind a stop
        new = min(cache.lengths[slot] - sequence.copied, len(sequence.fresh) + len(sequence.ids))
        if asker and new - sequence.known >= self.share_from and sequence.start + new > asked:
            self._asked.put(replace(_stretch(cache, slot, sequence, new), asker=asker, asked=asked))


def _stretch(cache: KVCache, slot: int, sequence: ActiveSequence, new: int) -> KVSegment:
    """A copy of the first `new` tokens of a sequence behind its beginning."""
    ids = (*sequence.request.ids, *sequence.ids)[: sequence.start + new]
    return KVSegment(ids, *cache.copy(slot, slice(sequence.copied, sequence.copied + new)))
