"""Answers for prompts that come and go: shared beginnings read once, no padding, a finished sequence's slot taken by the next."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from trimtab.answering.cache import Beginning, Decode, Kept, Prefill, Slots, begun, learned_prefix, sent, shared_length
from trimtab.answering.request import Completion, Event, Ongoing, Request, Token
from trimtab.answering.sample import log_probabilities, next_tokens
from trimtab.answering.text import TextStream, before_stop
from trimtab.base.errors import InputError
from trimtab.base.records import Generation
from trimtab.model.attention import Layout
from trimtab.model.load import Base

__all__ = ["Completion", "Engine", "Event", "OnToken", "Request", "Token", "generate_texts"]

OnToken = Callable[[str, int], bool | None]


class Engine:
    """Generates with one model; `slots` sequences are decoded together, prompts read up to `prefill_tokens` in a pass.

    Fewer slots are used where their keys and values would hold more than `cache_tokens` (SmolLM2-135M in bf16: 23 kB each);
    prefixes that are kept come on top, with up to `kept_tokens`. A beginning is shared if it has `share_from` tokens or more.
    The weights must not change while requests are in flight. For one thread: nothing is locked.
    """

    def __init__(
        self,
        base: Base,
        stop_ids: frozenset[int],
        *,
        slots: int = 64,
        cache_tokens: int = 16384,
        prefill_tokens: int = 2048,
        share_from: int = 16,
        kept_tokens: int = 8192,
    ) -> None:
        self.base, self.stop_ids = base, stop_ids
        self.slots, self.cache_tokens = slots, cache_tokens
        self.prefill_tokens, self.share_from = prefill_tokens, share_from
        self._kept, self._common = Kept(kept_tokens), Kept(0)
        self._read_learned()
        self._reset()

    @torch.inference_mode()
    def _read_learned(self) -> None:
        """The virtual tokens that are on: what every prompt hangs on at least."""
        learned = learned_prefix(self.base)
        self._learned = Beginning(prefix=learned, length=len(learned)) if learned else None

    def _reset(self) -> None:
        self._in_flight: dict[str, Ongoing] = {}
        self._waiting: deque[Ongoing] = deque()
        self._running: list[Ongoing] = []  # in the order of the slots
        self._cache = Slots()
        self._arrived = self._cancelled = False  # since the last pass

    @property
    def in_flight(self) -> int:
        """How many requests wait or run."""
        return len(self._in_flight)

    @torch.inference_mode()
    def hold(self, ids: Sequence[int]) -> None:
        """Read `ids` now and keep them for every later request that begins alike, found without being named.

        Several are kept, up to the engine's `kept_tokens` in all; then the least recently used leave, the newest never. The
        weights must not change meanwhile, or `forget` has to be called.
        """
        if ids:
            self._kept.add(self.base, begun(self.base, ids))

    def forget(self) -> None:
        """Drop what is held: call it when the weights have changed."""
        self._kept.clear()
        self._read_learned()

    def submit(self, request: Request) -> None:
        """Queue a request: it is answered by the calls of `step` that follow, first come first served.

        It hangs on the longest beginning that is held now, whatever is held or forgotten later.
        Raises InputError for an empty prompt, for one that does not fit the model's context with its answer, for an empty stop
        and for an id that is in flight.
        """
        request = self._begun(request)
        self._check(request)
        found = [self._common.longest(request.ids), self._kept.longest(request.ids), self._learned]
        beginning = max((one for one in found if one), key=lambda one: one.length, default=None)
        if beginning and beginning.length < self.share_from:
            beginning = self._learned
        streams = request.stream or request.stops
        decode = partial(self.base.tokenizer.decode, skip_special_tokens=True) if streams else None
        sequence = Ongoing(
            request=request,
            beginning=beginning,
            fresh=request.ids[beginning.length if beginning else 0 :],
            text=TextStream(decode, request.stops) if decode else None,
        )
        self._in_flight[request.id] = sequence
        self._waiting.append(sequence)
        self._arrived = True

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One pass over the model, which reads new prompts or goes on by one token: what is new, a Completion behind its last token.

        Returns nothing where nothing is in flight. A pass that raises ends all requests; the engine can then be used anew.
        """
        if not self._in_flight:
            return []
        try:
            admitted = self._admit()
            return self._prefill(admitted) if admitted else self._decode()
        except BaseException:
            self._reset()
            raise

    @torch.inference_mode()
    def cancel(self, request_id: str) -> Completion | None:
        """End a request and free its slot for the next pass; what it had said, or None where no such request is in flight."""
        sequence = self._in_flight.get(request_id)
        if sequence is None:
            return None
        if sequence in self._waiting:
            self._waiting.remove(sequence)
            self._settle(request_id)
        else:
            self._leave(next(slot for slot, other in enumerate(self._running) if other is sequence))
            self._cancelled = True
        return sequence.completion()

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], *, on_token: OnToken | None = None) -> list[Completion]:
        """Answer all requests, in the order asked; a beginning that all of them share is read once.

        `on_token(id, token)` is told every new token (the stop token too) and ends that answer by returning True. Raises
        InputError for what `submit` refuses, and while other requests are in flight.
        """
        if self._in_flight:
            raise InputError(f"generate while {self.in_flight} requests are in flight", "finish or cancel them first")
        begun_requests = [self._begun(request) for request in requests]
        for request in begun_requests:
            self._check(request)
        if not requests:
            return []
        started = time.perf_counter()
        self._share([request.ids for request in begun_requests])
        share = (time.perf_counter() - started) / len(requests)
        try:
            for request in sorted(requests, key=lambda request: -len(request.ids) - request.max_new):
                self.submit(request)
            self._fill_evenly()
            done = self._run(on_token)
        finally:
            self._common.clear()
            if self._in_flight:
                self._reset()
        return [_with_share(done[request.id], share) for request in requests]

    def _run(self, on_token: OnToken | None) -> dict[str, Completion]:
        """Step until nothing is in flight."""
        done: dict[str, Completion] = {}
        while self._in_flight:
            events = self.step()
            done.update((event.id, event) for event in events if isinstance(event, Completion))
            if on_token is not None:
                for event in events:
                    if isinstance(event, Token) and on_token(event.id, event.token) is True:
                        done[event.id] = replace(self.cancel(event.id) or done[event.id], finished=True)
        return done

    def _begun(self, request: Request) -> Request:
        """The request with the virtual tokens that are on before its prompt; an empty prompt stays one, which is refused."""
        return replace(request, ids=begun(self.base, request.ids)) if self._learned and request.ids else request

    def _check(self, request: Request) -> None:
        context = int(self.base.model.config.max_position_embeddings)
        if not request.ids or request.max_new < 1:
            raise InputError(
                f"{request.id}: {len(request.ids)} prompt tokens and {request.max_new} new ones",
                "give at least one of each",
                field="task.output_tokens",
            )
        if len(request.ids) + request.max_new > context:
            raise InputError(
                f"{request.id}: {len(request.ids)} prompt tokens and {request.max_new} new ones do not fit the model's "
                f"context of {context}",
                "shorten the prompt (fewer shots or passages), lower task.output_tokens, or choose another base.model",
                field="task.output_tokens",
            )
        if "" in request.stops:
            raise InputError(f"{request.id}: an empty stop", "leave it out", field="stops")
        if request.id in self._in_flight:
            raise InputError(f"{request.id}: a request of this id is in flight", "give each its own id", field="id")

    def _share(self, prompts: list[tuple[int, ...]]) -> None:
        """Read what all prompts of a call begin with, unless half of it or more is held already."""
        shared = shared_length(prompts)
        held = self._kept.longest(prompts[0][: shared + 1])
        known = max((one.length for one in (held, self._learned) if one), default=0)
        if shared >= self.share_from and known * 2 < shared:
            self._common.add(self.base, prompts[0][:shared])

    def _admit(self) -> list[Ongoing]:
        """The next prompts for one pass, as many as there are slots and room for; none when it is better to go on decoding."""
        hurry, self._cancelled = self._cancelled or not self._running, False
        if not self._waiting:
            return []
        self._grow()
        free = self._cache.count - len(self._running)
        # A prompt alone fills a pass badly: wait until an eighth of the slots is free, or one for each that waits.
        if not hurry and free < min(len(self._waiting), -(-self._cache.count // 8)):
            return []
        admitted: list[Ongoing] = []
        tokens, longest = 0, max((sequence.work for sequence in self._running), default=0)
        while self._waiting and len(admitted) < free:
            sequence = self._waiting[0]
            tokens += len(sequence.fresh)
            fits = len(self._running) + len(admitted) < self._room(max(longest, sequence.work))
            if not fits or (admitted and tokens > self.prefill_tokens):
                break
            admitted.append(self._waiting.popleft())
            longest = max(longest, sequence.work)
        self._cache.count = min(self._cache.count, self._room(longest))
        return admitted

    def _room(self, longest: int) -> int:
        """How many sequences of up to `longest` tokens may run together; one always may."""
        return max(1, min(self.slots, self.cache_tokens // longest))

    def _most(self) -> tuple[int, int]:
        """How many of those that run and wait may run together, in order of arrival, and the tokens of the longest of these."""
        longest = max((sequence.work for sequence in self._running), default=0)
        fit = len(self._running)
        for sequence in islice(self._waiting, self.slots):
            if fit >= self._room(max(longest, sequence.work)):
                break
            fit, longest = fit + 1, max(longest, sequence.work)
        return fit, longest

    def _fill_evenly(self) -> None:
        """As many slots as memory allows, filled evenly: 70 prompts and 64 slots are 35 and 35, not 64 and 6."""
        fit, _ = self._most()
        self._cache.count = -(-self.in_flight // -(-self.in_flight // fit))
        self._arrived = False

    def _grow(self) -> None:
        """As many slots as can be used, when requests have arrived or twice as many fit because long ones have ended."""
        fit, longest = self._most()
        now = self._cache.count
        if self._arrived or fit >= 2 * now:
            # When requests come one by one, doubling: the slots are not laid out anew for each.
            self._cache.count = max(fit, min(self._room(longest), 2 * now if fit > now else now))
            self._arrived = False

    def _forward(self, ids: Sequence[int], positions_N: Tensor, layout: Layout) -> Tensor:
        return self.base.hidden(sent(ids, self.base.device), positions_N, layout)

    def _prefill(self, admitted: list[Ongoing]) -> list[Event]:
        """Read new prompts in one pass, up to the first token of each."""
        started = time.perf_counter()
        lengths = [len(sequence.fresh) for sequence in admitted]
        beginnings = [sequence.beginning for sequence in admitted]
        layout = Prefill(self._cache, lengths, beginnings, self.base.device)
        ids = [token for sequence in admitted for token in sequence.fresh]
        hidden_ND = self._forward(ids, layout.positions_N, layout)
        ends = sent(lengths, hidden_ND.device).cumsum(0) - 1
        said = self._next(hidden_ND[ends], admitted)
        seconds = (time.perf_counter() - started) / len(ids)
        for sequence in admitted:
            sequence.prefill_seconds += seconds * len(sequence.fresh)
        self._running.extend(admitted)
        return self._advance(layout.first, said)

    def _decode(self) -> list[Event]:
        """One more token for every running sequence."""
        started = time.perf_counter()
        layout = Decode(self._cache, [sequence.beginning for sequence in self._running], self.base.device)
        hidden_ND = self._forward([sequence.ids[-1] for sequence in self._running], layout.positions_N, layout)
        said = self._next(hidden_ND, self._running)
        seconds = (time.perf_counter() - started) / len(self._running)
        for sequence in self._running:
            sequence.decode_seconds += seconds
        return self._advance(0, said)

    def _next(self, hidden_BD: Tensor, sequences: Sequence[Ongoing]) -> list[tuple[int, float | None]]:
        """The next token of each sequence, with its log-probability where that is asked for."""
        logits_BV = self.base.logits(hidden_BD)
        samplings = [sequence.request.sampling for sequence in sequences]
        tokens_B = next_tokens(logits_BV, samplings, [len(sequence.ids) for sequence in sequences])
        asked = [row for row, sequence in enumerate(sequences) if sequence.request.logprobs]
        # The one place in a pass where the host waits for the device.
        if not asked:
            return [(token, None) for token in tokens_B.tolist()]
        rows = sent(asked, tokens_B.device)
        logs = log_probabilities(logits_BV[rows], tokens_B[rows])
        read = torch.cat([tokens_B.float(), logs]).tolist()  # float32 is exact for ids below 2^24
        by_row = dict(zip(asked, read[len(sequences) :], strict=True))
        return [(int(token), by_row.get(row)) for row, token in enumerate(read[: len(sequences)])]

    def _advance(self, first: int, said: list[tuple[int, float | None]]) -> list[Event]:
        """Tell the new tokens of the slots from `first` on; whoever ends leaves."""
        events: list[Event] = []
        for slot in reversed(range(first, len(self._running))):  # the last slot moves into a gap: it has had its turn
            sequence = self._running[slot]
            events.append(sequence.take(*said[slot - first], self.stop_ids))
            if sequence.ended:
                events.append(sequence.completion())
                self._leave(slot)
        return events

    def _leave(self, slot: int) -> None:
        """Free a slot: the last one moves into it."""
        sequence = self._running[slot]
        self._cache.release(slot)
        self._running[slot] = self._running[-1]
        self._running.pop()
        self._settle(sequence.request.id)

    def _settle(self, request_id: str) -> None:
        """Take a request off the list, and free all memory with the last."""
        del self._in_flight[request_id]
        if not self._in_flight:
            self._cache = Slots()


def _with_share(completion: Completion, seconds: float) -> Completion:
    """With a share of the time in which the common beginning was read."""
    return replace(
        completion,
        seconds=completion.seconds + seconds,
        prefill_seconds=completion.prefill_seconds + seconds,
    )


def generate_texts(engine: Engine, tokenizer: Any, requests: Sequence[Request]) -> list[Generation]:
    """Answer as text, without special tokens and cut before the first of each request's stops."""
    completions = engine.generate(requests)
    return [
        _generation(completion, tokenizer, request.stops)
        for completion, request in zip(completions, requests, strict=True)
    ]


def _generation(completion: Completion, tokenizer: Any, stops: Sequence[str]) -> Generation:
    return Generation(
        id=completion.id,
        text=before_stop(tokenizer.decode(list(completion.ids), skip_special_tokens=True), stops),
        prompt_tokens=completion.prompt_tokens,
        new_tokens=len(completion.ids),
        seconds=completion.seconds,
        prefill_seconds=completion.prefill_seconds,
        finished=completion.finished,
    )
