"""Scheduler of the engine: picks prompts to prefill and sequences to run, within its slots and `cache_tokens`."""

from __future__ import annotations

from collections import deque
from itertools import islice

from trimtab.inference.kv_cache import KVCache
from trimtab.inference.request import ActiveSequence


class Scheduler:
    """Waiting, prefilling and running sequences, in order of arrival.

    The `running` have the first slots, in their order. The next slot is that of `reading`, a prompt longer than a pass
    that is partly prefilled. `batch_mode`: all requests are known from the start and nobody waits for the next token,
    so prompts are prefilled before decoding goes on.
    """

    def __init__(self, slots: int, cache_tokens: int, pass_tokens: int) -> None:
        self.slots, self.cache_tokens, self.pass_tokens = slots, cache_tokens, pass_tokens
        self.cache = KVCache()
        self.running: list[ActiveSequence] = []
        self.reading: ActiveSequence | None = None
        self.batch_mode = False
        self._waiting: deque[ActiveSequence] = deque()
        self._arrived = self._left = False  # since the last pass: requests arrived, or were cancelled
        self._last_was_prefill = False  # the last pass read prompts

    def add(self, sequence: ActiveSequence) -> None:
        """Queue a sequence."""
        self._waiting.append(sequence)
        self._arrived = True

    def cancel(self, sequence: ActiveSequence) -> None:
        """Remove a sequence wherever it is; its slot is free for the next pass."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
            return
        self._left = True
        if sequence is self.reading:
            self.reading = None
            self.cache.release(len(self.running), len(self.running))
        else:
            self.release(self.running.index(sequence))

    def release(self, slot: int) -> None:
        """Free a slot: the last running sequence moves into it."""
        last = len(self.running) - 1
        self.cache.release(slot, last)
        self.running[slot] = self.running[last]
        self.running.pop()

    def next_prompts(self) -> list[tuple[ActiveSequence, int]]:
        """Return the prompts that the next pass prefills, and up to which of its own tokens each; none if decoding goes
        on.

        A prompt that fits into a pass is never split. A longer one is prefilled in several, and decoding goes on
        between them.
        """
        is_prefill_turn = self._is_prefill_turn()
        self._left = False
        parts = self._next_parts() if is_prefill_turn else []
        self._last_was_prefill = bool(parts)
        return parts

    def mark_prefilled(self, parts: list[tuple[ActiveSequence, int]]) -> list[ActiveSequence]:
        """Record what a pass has prefilled; return the sequences that are complete, which run from here on."""
        for sequence, end in parts:
            sequence.prefilled = end
        ready = [sequence for sequence, _ in parts if sequence.prefilled == len(sequence.new_ids)]
        self.reading = parts[-1][0] if len(ready) < len(parts) else None
        self.running += ready
        return ready

    def _is_prefill_turn(self) -> bool:
        """True if it is time to prefill."""
        if not self._waiting and self.reading is None:
            return False
        if not self.running:
            return True
        if self._last_was_prefill and not self.batch_mode:
            return False  # prefill and decoding alternate: no answer waits for longer than one pass
        if self.reading or self._left:
            return True
        # A single prompt is a small pass: wait until an eighth of the slots is free, or one per waiting request.
        self._adjust_slots()
        return self._free_slots() >= min(len(self._waiting), -(-self.cache.count // 8))

    def _next_parts(self) -> list[tuple[ActiveSequence, int]]:
        """Fill a pass with the prompt that is being prefilled and then waiting ones, as slots and memory allow."""
        self._adjust_slots()
        parts: list[tuple[ActiveSequence, int]] = []
        token_budget, busy, longest = self.pass_tokens, len(self.running), self._longest_in_slots()
        if self.reading:
            parts.append((self.reading, min(self.reading.prefilled + token_budget, len(self.reading.new_ids))))
            token_budget -= parts[0][1] - self.reading.prefilled
        while self._waiting and busy + len(parts) < self.cache.count and token_budget > 0:
            sequence = self._waiting[0]
            tokens = len(sequence.new_ids) - sequence.prefilled
            longest_now = max(longest, sequence.slot_tokens)
            if busy + len(parts) >= self._max_sequences(longest_now) or (
                parts and token_budget < tokens <= self.pass_tokens
            ):
                break
            longest = longest_now
            parts.append((self._waiting.popleft(), sequence.prefilled + min(tokens, token_budget)))
            token_budget -= tokens
        if parts:
            self.cache.count = min(self.cache.count, self._max_sequences(longest))
        return parts

    def _longest_in_slots(self) -> int:
        """Return the tokens that the longest sequence in a slot will hold."""
        in_slots = [*self.running, self.reading] if self.reading else self.running
        return max((sequence.slot_tokens for sequence in in_slots), default=0)

    def _free_slots(self) -> int:
        return self.cache.count - len(self.running) - (self.reading is not None)

    def _max_sequences(self, longest: int) -> int:
        """Return how many sequences of up to `longest` tokens may run together, at least one."""
        return max(1, min(self.slots, self.cache_tokens // max(1, longest)))

    def _fitting_sequences(self) -> tuple[int, int]:
        """Return how many sequences, in slots and waiting, fit together in order of arrival, and the longest one's
        tokens.
        """
        longest = self._longest_in_slots()
        count_fitting = len(self.running) + (self.reading is not None)
        for sequence in islice(self._waiting, self.slots):
            if count_fitting >= self._max_sequences(max(longest, sequence.slot_tokens)):
                break
            count_fitting, longest = count_fitting + 1, max(longest, sequence.slot_tokens)
        return count_fitting, longest

    def start_batch(self) -> None:
        """Set as many slots as memory allows, filled evenly: 70 prompts and 64 slots become 35 and 35, not 64 and 6."""
        count_fitting, _ = self._fitting_sequences()
        count = len(self._waiting)
        self.cache.count = -(-count // -(-count // count_fitting))
        self.batch_mode, self._arrived = True, False

    def _adjust_slots(self) -> None:
        """Set as many slots as can be used, after arrivals or if a third more fit because long sequences have ended."""
        count_fitting, longest = self._fitting_sequences()
        now = self.cache.count
        if self._arrived or 3 * count_fitting >= 4 * now:
            # If requests come one by one, double the slots: they are not reallocated for each.
            self.cache.count = max(
                count_fitting, min(self._max_sequences(longest), 2 * now if count_fitting > now else now)
            )
            self._arrived = False
