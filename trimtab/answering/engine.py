"""Answers for many prompts at once: a common prefix read once, no padding, a finished sequence's slot taken by the next prompt."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trimtab.answering.cache import Decode, Prefill, Prefix, Slots, read_prefix, shared_length
from trimtab.answering.sample import GREEDY, Sampler, Sampling, draw_all
from trimtab.base.errors import InputError
from trimtab.base.records import Generation
from trimtab.model.attention import Layout
from trimtab.model.load import Base

OnToken = Callable[[str, int], bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt as token ids, and how it is answered."""

    id: str
    ids: tuple[int, ...]
    max_new: int
    sampling: Sampling = GREEDY


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The new tokens without the stop token; `finished` is False when `max_new` cut it off.

    `seconds`: the time of every pass shared among its sequences (prefill by tokens, prefix and decoding evenly), so that
    the seconds of a batch add up to its time, and one request alone has its own latency. `prefill_seconds` of them went
    into reading the prompt.
    """

    id: str
    ids: tuple[int, ...]
    finished: bool
    prompt_tokens: int
    seconds: float
    prefill_seconds: float


@dataclass(slots=True)
class _Sequence:
    """A request on its way; `fresh` are the prompt's tokens after the shared prefix."""

    place: int
    request: Request
    fresh: tuple[int, ...]
    sampler: Sampler
    ids: list[int] = field(default_factory=list)
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    finished: bool = False

    @property
    def work(self) -> int:
        return len(self.fresh) + self.request.max_new


class Engine:
    """Generates with one model; `slots` sequences are decoded together, prompts read up to `prefill_tokens` in a pass.

    Fewer slots are used where their keys and values would hold more than `cache_tokens` (SmolLM2-135M in bf16: 23 kB each). A
    beginning that all prompts of a call share is read once if it has `share_from` tokens or more.
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
    ) -> None:
        self.base, self.stop_ids = base, stop_ids
        self.slots, self.cache_tokens = slots, cache_tokens
        self.prefill_tokens, self.share_from = prefill_tokens, share_from
        self._held: Prefix | None = None

    @torch.inference_mode()
    def hold(self, ids: Sequence[int]) -> None:
        """Read `ids` now and keep them for every later call whose prompts begin alike, until other ids are held.

        The weights must not change meanwhile.
        """
        self._held = read_prefix(self.base, tuple(ids)) if ids else None

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], *, on_token: OnToken | None = None) -> list[Completion]:
        """Answer all requests, in the order asked.

        `on_token(id, token)` is told every new token (the stop token too) and ends that answer by returning True. Raises
        InputError for an empty prompt, and for one that does not fit the model's context with its answer.
        """
        for request in requests:
            self._check(request)
        if not requests:
            return []
        started = time.perf_counter()
        prefix = self._common_prefix([request.ids for request in requests])
        share = (time.perf_counter() - started) / len(requests)
        before = len(prefix) if prefix else 0
        waiting = [
            _Sequence(place, request, request.ids[before:], Sampler(request.sampling), prefill_seconds=share)
            for place, request in enumerate(requests)
        ]
        waiting.sort(key=lambda sequence: sequence.work)  # popped from the end: the longest first
        done: list[Completion | None] = [None] * len(requests)
        active: list[_Sequence] = []
        slots = Slots(self._slots(waiting))
        while waiting or active:
            free = slots.count - len(active)
            # A prompt alone fills a pass badly: wait until an eighth of the slots is free.
            if waiting and (not active or free * 8 >= slots.count):
                tokens = self._prefill(slots, prefix, self._admit(waiting, free), active)
            else:
                tokens = self._decode(slots, prefix, active)
            self._advance(tokens, slots, active, done, on_token)
        return [completion for completion in done if completion is not None]

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

    def _slots(self, waiting: list[_Sequence]) -> int:
        """As many as memory allows, filled evenly: 70 prompts and 64 slots are 35 and 35, not 64 and 6."""
        most = max(1, min(self.slots, self.cache_tokens // waiting[-1].work))
        return -(-len(waiting) // -(-len(waiting) // most))

    def _common_prefix(self, prompts: list[tuple[int, ...]]) -> Prefix | None:
        """What all prompts begin with, leaving each at least one token of its own to predict from."""
        shared = shared_length(prompts)
        if self._held is not None:
            held = shared_length([*prompts, (*self._held.ids, -1)])
            if held >= self.share_from and held * 2 >= shared:
                return self._held.first(held)
        return read_prefix(self.base, prompts[0][:shared]) if shared >= self.share_from else None

    def _forward(self, ids: Sequence[int], positions_N: Tensor, layout: Layout) -> Tensor:
        return self.base.hidden(torch.tensor(ids, device=self.base.device), positions_N, layout)

    def _admit(self, waiting: list[_Sequence], free: int) -> list[_Sequence]:
        """The next prompts for one pass: at least one, then as many as there are slots and room for."""
        admitted = [waiting.pop()]
        tokens = len(admitted[0].fresh)
        while waiting and len(admitted) < free and tokens + len(waiting[-1].fresh) <= self.prefill_tokens:
            admitted.append(waiting.pop())
            tokens += len(admitted[-1].fresh)
        return admitted

    def _prefill(
        self, slots: Slots, prefix: Prefix | None, admitted: list[_Sequence], active: list[_Sequence]
    ) -> dict[int, int]:
        """Read new prompts in one pass; the first token of each, by slot."""
        started = time.perf_counter()
        lengths = [len(sequence.fresh) for sequence in admitted]
        layout = Prefill(slots, lengths, prefix, self.base.device)
        ids = [token for sequence in admitted for token in sequence.fresh]
        hidden_ND = self._forward(ids, layout.positions_N, layout)
        ends = torch.tensor(lengths, device=hidden_ND.device).cumsum(0) - 1
        tokens = draw_all(self.base.logits(hidden_ND[ends]), [sequence.sampler for sequence in admitted])
        seconds = (time.perf_counter() - started) / len(ids)
        for sequence in admitted:
            sequence.prefill_seconds += seconds * len(sequence.fresh)
        first = len(active)
        active.extend(admitted)
        return {first + number: token for number, token in enumerate(tokens)}

    def _decode(self, slots: Slots, prefix: Prefix | None, active: list[_Sequence]) -> dict[int, int]:
        """One more token for every active sequence, by slot."""
        started = time.perf_counter()
        layout = Decode(slots, prefix, self.base.device)
        hidden_ND = self._forward([sequence.ids[-1] for sequence in active], layout.positions_N, layout)
        tokens = draw_all(self.base.logits(hidden_ND), [sequence.sampler for sequence in active])
        seconds = (time.perf_counter() - started) / len(active)
        for sequence in active:
            sequence.decode_seconds += seconds
        return dict(enumerate(tokens))

    def _advance(
        self,
        tokens: dict[int, int],
        slots: Slots,
        active: list[_Sequence],
        done: list[Completion | None],
        on_token: OnToken | None,
    ) -> None:
        """Append the new tokens; whoever ends leaves, and the last slot moves into the gap (so from the end backwards)."""
        for slot in sorted(tokens, reverse=True):
            sequence, token = active[slot], tokens[slot]
            stopped = on_token is not None and on_token(sequence.request.id, token) is True
            if token in self.stop_ids:
                sequence.finished = True
            else:
                sequence.ids.append(token)
                sequence.finished = stopped
            if sequence.finished or len(sequence.ids) == sequence.request.max_new:
                done[sequence.place] = _completion(sequence)
                slots.release(slot)
                active[slot] = active[-1]
                active.pop()


def _completion(sequence: _Sequence) -> Completion:
    return Completion(
        id=sequence.request.id,
        ids=tuple(sequence.ids),
        finished=sequence.finished,
        prompt_tokens=len(sequence.request.ids),
        seconds=sequence.prefill_seconds + sequence.decode_seconds,
        prefill_seconds=sequence.prefill_seconds,
    )


def generate_texts(
    engine: Engine, tokenizer: Any, requests: Sequence[Request], *, stops: Sequence[str] = ()
) -> list[Generation]:
    """Answer as text, without special tokens and cut before the first of the `stops`."""
    so_far: dict[str, list[int]] = {request.id: [] for request in requests}

    def ended(request_id: str, token: int) -> bool:
        so_far[request_id].append(token)
        text = tokenizer.decode(so_far[request_id], skip_special_tokens=True)
        return any(stop in text for stop in stops)

    completions = engine.generate(requests, on_token=ended if stops else None)
    return [_generation(completion, tokenizer, stops) for completion in completions]


def _generation(completion: Completion, tokenizer: Any, stops: Sequence[str]) -> Generation:
    text = tokenizer.decode(list(completion.ids), skip_special_tokens=True)
    for stop in stops:
        text = text.partition(stop)[0]
    return Generation(
        id=completion.id,
        text=text,
        prompt_tokens=completion.prompt_tokens,
        new_tokens=len(completion.ids),
        seconds=completion.seconds,
        prefill_seconds=completion.prefill_seconds,
        finished=completion.finished,
    )
