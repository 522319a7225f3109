"""Who waits, whose prompt is being read and who runs; how many may at once, and how much of which prompt a pass reads."""

from __future__ import annotations

from collections import deque
from itertools import islice

from trimtab.inference.kv_cache import KVCache
from trimtab.inference.request import ActiveSequence


class Scheduler:
    """Sequences on their way, in order of arrival. The `running` have the first slots, in their order.

    Behind them is the slot of `reading`: a prompt longer than a pass, of which a part was read. `evenly`: all requests are known
    from the beginning and nobody waits for a next token, so that prompts are read before anything goes on.
    """

    def __init__(self, slots: int, cache_tokens: int, pass_tokens: int) -> None:
        self.slots, self.cache_tokens, self.pass_tokens = slots, cache_tokens, pass_tokens
        self.cache = KVCache()
        self.running: list[ActiveSequence] = []
        self.reading: ActiveSequence | None = None
        self.evenly = False
        self._waiting: deque[ActiveSequence] = deque()
        self._arrived = self._left = False  # since the last pass: somebody came, or was cancelled
        self._has_read = False  # the last pass read prompts

    def add(self, sequence: ActiveSequence) -> None:
        """Queue behind those that wait."""
        self._waiting.append(sequence)
        self._arrived = True

    def cancel(self, sequence: ActiveSequence) -> None:
        """Take a sequence off wherever it is; its slot is free for the next pass."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
            return
        self._left = True
        if sequence is self.reading:
            self.reading = None
            self.cache.release(len(self.running), len(self.running))
        else:
            self.leave(self.running.index(sequence))

    def leave(self, slot: int) -> None:
        """Free a slot: the last of the running moves into it."""
        last = len(self.running) - 1
        self.cache.release(slot, last)
        self.running[slot] = self.running[last]
        self.running.pop()

    def next(self) -> list[tuple[ActiveSequence, int]]:
        """The prompts that the next pass reads, and up to which of its own tokens each; none when it is better to go on decoding.

        A prompt that fits into a pass is never divided. One that does not is read in several, and what runs goes on between them.
        """
        turn = self._turn()
        self._left = False
        parts = self._parts() if turn else []
        self._has_read = bool(parts)
        return parts

    def read(self, parts: list[tuple[ActiveSequence, int]]) -> list[ActiveSequence]:
        """Note what a pass has read; the sequences that can go on now, which run from here on."""
        for sequence, end in parts:
            sequence.read = end
        ready = [sequence for sequence, _ in parts if sequence.read == len(sequence.fresh)]
        self.reading = parts[-1][0] if len(ready) < len(parts) else None
        self.running += ready
        return ready

    def _turn(self) -> bool:
        """Whether it is time to read prompts."""
        if not self._waiting and self.reading is None:
            return False
        if not self.running:
            return True
        if self._has_read and not self.evenly:
            return False  # one pass of prompts and one of decoding in turn: nobody's answer stands still for longer
        if self.reading or self._left:
            return True
        # A prompt alone fills a pass badly: wait until an eighth of the slots is free, or one for each that waits.
        self._grow()
        return self._free() >= min(len(self._waiting), -(-self.cache.count // 8))

    def _parts(self) -> list[tuple[ActiveSequence, int]]:
        """As much as a pass takes of the prompt that is being read, then of those that wait, as slots and memory allow."""
        self._grow()
        parts: list[tuple[ActiveSequence, int]] = []
        room, busy, longest = self.pass_tokens, len(self.running), self._longest()
        if self.reading:
            parts.append((self.reading, min(self.reading.read + room, len(self.reading.fresh))))
            room -= parts[0][1] - self.reading.read
        while self._waiting and busy + len(parts) < self.cache.count and room > 0:
            sequence = self._waiting[0]
            tokens = len(sequence.fresh) - sequence.read
            longest_now = max(longest, sequence.work)
            if busy + len(parts) >= self._room(longest_now) or (parts and room < tokens <= self.pass_tokens):
                break
            longest = longest_now
            parts.append((self._waiting.popleft(), sequence.read + min(tokens, room)))
            room -= tokens
        if parts:
            self.cache.count = min(self.cache.count, self._room(longest))
        return parts

    def _longest(self) -> int:
        """The tokens that the longest of those in a slot will hold."""
        in_slots = [*self.running, self.reading] if self.reading else self.running
        return max((sequence.work for sequence in in_slots), default=0)

    def _free(self) -> int:
        return self.cache.count - len(self.running) - (self.reading is not None)

    def _room(self, longest: int) -> int:
        """How many sequences of up to `longest` tokens may run together; one always may."""
        return max(1, min(self.slots, self.cache_tokens // max(1, longest)))

    def _most(self) -> tuple[int, int]:
        """How many of those in a slot and waiting may run together, in order of arrival, and the tokens of the longest of these."""
        longest = self._longest()
        fit = len(self.running) + (self.reading is not None)
        for sequence in islice(self._waiting, self.slots):
            if fit >= self._room(max(longest, sequence.work)):
                break
            fit, longest = fit + 1, max(longest, sequence.work)
        return fit, longest

    def fill_evenly(self) -> None:
        """As many slots as memory allows, filled evenly: 70 prompts and 64 slots are 35 and 35, not 64 and 6."""
        fit, _ = self._most()
        count = len(self._waiting)
        self.cache.count = -(-count // -(-count // fit))
        self.evenly, self._arrived = True, False

    def _grow(self) -> None:
        """As many slots as can be used, when requests have arrived or a third more fit because long ones have ended."""
        fit, longest = self._most()
        now = self.cache.count
        if self._arrived or 3 * fit >= 4 * now:
            # When requests come one by one, doubling: the slots are not laid out anew for each.
            self.cache.count = max(fit, min(self._room(longest), 2 * now if fit > now else now))
            self._arrived = False
