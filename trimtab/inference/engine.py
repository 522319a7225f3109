"""Continuous batching engine with prefix caching, packed prefill, streaming, constraints and prompt lookup decoding."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from trimtab.base.errors import InputError
from trimtab.base.records import Generation
from trimtab.inference.attention_layouts import decode_layout, prefill_layout
from trimtab.inference.constraints import Constraint, Grammars, Matcher, grammars_of, mask_disallowed
from trimtab.inference.detokenize import TextStream, cut_at_stop
from trimtab.inference.kv_cache import small_tensor, with_virtual_ids
from trimtab.inference.prefix_cache import PrefixCache
from trimtab.inference.prompt_lookup import draft_length
from trimtab.inference.quote import QuoteConstraint, token_bytes_of
from trimtab.inference.request import (
    ActiveSequence,
    Completion,
    EngineEvent,
    GeneratedToken,
    Request,
    require_room,
)
from trimtab.inference.sampling import apply_penalties, log_probabilities, next_tokens, top_log_probabilities
from trimtab.inference.scheduler import Scheduler
from trimtab.model.attention import Layout
from trimtab.model.load import Base
from trimtab.model.threads import limit_to_free_cores

__all__ = ["Completion", "Engine", "EngineEvent", "GeneratedToken", "OnToken", "Request", "generate_texts"]

OnToken = Callable[[str, int], bool | None]
LOGIT_ROWS = 64  # rows of a prompt whose logits are in memory at once


class Engine:
    """Generates with one model; `slots` sequences are decoded together, prompts are prefilled up to `prefill_tokens`
    per pass.

    A longer prompt is prefilled in several passes, between which running sequences go on: the fewer `prefill_tokens`,
    the shorter they wait. Fewer slots are used if their KV cache would exceed `cache_tokens` (SmolLM2-135M in bf16: 23
    kB per token). On top come pinned prefixes of up to `prefix_cache_tokens`, half as many tokens of public parts of
    prompts, and as many again of what is cached per `cache_salt` and, within `generate`, of repeated prompts. A prefix
    is shared if it has at least `min_shared_tokens` tokens. The weights must not change while requests are in flight.
    Not thread-safe.
    """

    def __init__(
        self,
        base: Base,
        stop_ids: frozenset[int],
        *,
        slots: int = 64,
        cache_tokens: int = 16384,
        prefill_tokens: int = 2048,
        min_shared_tokens: int = 16,
        prefix_cache_tokens: int = 8192,
    ) -> None:
        self.base, self.stop_ids = base, stop_ids
        self.slots, self.cache_tokens = slots, cache_tokens
        self.prefill_tokens = prefill_tokens
        self._prefix_cache = PrefixCache(base, prefix_cache_tokens, min_shared_tokens)
        self._on_token: OnToken | None = None
        self._grammars: Grammars | None = None  # set with the first constraint
        self._reset()

    def _reset(self) -> None:
        self._in_flight: dict[str, ActiveSequence] = {}
        self._scheduler = Scheduler(self.slots, self.cache_tokens, self.prefill_tokens)

    @property
    def in_flight(self) -> int:
        """Number of waiting and running requests."""
        return len(self._in_flight)

    @torch.inference_mode()
    def pin(self, ids: Sequence[int]) -> None:
        """Prefill `ids` now and keep them for every later request that begins with them.

        Up to the engine's `prefix_cache_tokens` are kept; beyond that the least recently used are dropped, the newest
        never. If the weights change, `reset_prefix_cache` has to be called.
        """
        if ids:
            self._prefix_cache.pin(ids)

    def reset_prefix_cache(self) -> None:
        """Drop everything that is cached: call it after the weights have changed."""
        self._prefix_cache.reset()

    def prepare(self, constraint: Constraint) -> None:
        """Compile a constraint, which may take seconds, so that `submit` does not wait for it. Any thread may call
        this.

        Raises InputError for a constraint that cannot be used, and PackageError if the library for them is not
        installed.
        """
        self._grammar(constraint)

    def is_prepared(self, constraint: Constraint) -> bool:
        """True if `submit` would not wait for a constraint. Any thread may call this, and it does not wait."""
        return self._grammars is not None and self._grammars.is_compiled(constraint)

    def _matcher(self, request: Request) -> Matcher | None:
        if isinstance(request.constraint, QuoteConstraint):
            vocabulary = int(self.base.model.config.vocab_size)
            return token_bytes_of(self.base.tokenizer, self.stop_ids, vocabulary).quoting(
                request.constraint, request.max_new
            )
        return self._grammar(request.constraint) if request.constraint else None

    def _grammar(self, constraint: Constraint) -> Matcher:
        vocabulary = int(self.base.model.config.vocab_size)
        self._grammars = grammars_of(self.base.tokenizer, self.stop_ids, vocabulary)
        return self._grammars.matcher(constraint)

    def submit(self, request: Request) -> None:
        """Queue a request; later calls of `step` answer it, first come first served.

        It uses the longest prefix that is cached now, whatever is pinned or dropped later. Raises InputError for an
        empty prompt, for one that does not fit the model's context with its answer, for an empty stop and for an id
        that is in flight; for a constraint what `prepare` raises.
        """
        request = self._with_virtual_tokens(request)
        self._check(request)
        uncached = request.prompt_logprobs  # every token is computed: cached ones have no logits
        prefix_ref = self._prefix_cache.virtual_prefix if uncached else self._prefix_cache.find_prefix(request.ids)
        start = prefix_ref.length if prefix_ref else 0
        streams = request.stream or request.stops
        decode = partial(self.base.tokenizer.decode, skip_special_tokens=True) if streams else None
        sequence = ActiveSequence(
            request=request,
            prefix_ref=prefix_ref,
            new_ids=request.ids[start:],
            cached_segment=None if uncached else self._prefix_cache.find_segment(request, start),
            text=TextStream(decode, request.stops) if decode else None,
            matcher=self._matcher(request),
        )
        self._in_flight[request.id] = sequence
        self._scheduler.add(sequence)

    @torch.inference_mode()
    @limit_to_free_cores()
    def step(self) -> list[EngineEvent]:
        """Run one pass, a prefill or a decoding step, and return its new tokens; a Completion follows a request's last
        token.

        Returns nothing if nothing is in flight, or if the pass read only a part of a long prompt. A pass that raises
        ends all requests; the engine can then be used again.
        """
        if not self._in_flight:
            return []
        try:
            parts = self._scheduler.next_prompts()
            return self._prefill(parts) if parts else self._decode()
        except BaseException:
            self._reset()
            raise

    @torch.inference_mode()
    def cancel(self, request_id: str) -> Completion | None:
        """End a request and free its slot for the next pass; return its answer so far, or None if it is not in
        flight.
        """
        sequence = self._in_flight.get(request_id)
        if sequence is None:
            return None
        self._scheduler.cancel(sequence)
        self._forget_request(request_id)
        return sequence.completion()

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], *, on_token: OnToken | None = None) -> list[Completion]:
        """Answer all requests, in their order; a prefix that all of them share and repeated prompts are prefilled once.

        `on_token(id, token)` is called with every new token (the stop token too) and ends that answer by returning
        True. Raises InputError for what `submit` refuses, and while other requests are in flight.
        """
        if self._in_flight:
            raise InputError(f"generate while {self.in_flight} requests are in flight", "finish or cancel them first")
        full_requests = [self._with_virtual_tokens(request) for request in requests]
        for request in full_requests:
            self._check(request)
        if not requests:
            return []
        try:
            started = time.perf_counter()
            self._prefix_cache.prepare_batch([request.ids for request in full_requests])
            share = (time.perf_counter() - started) / len(requests)
            for request in sorted(requests, key=lambda request: -len(request.ids) - request.max_new):
                self.submit(request)
            self._scheduler.start_batch()
            self._on_token = on_token
            done = self._run_to_end()
        finally:
            self._on_token = None
            self._prefix_cache.end_batch()
            self._reset()
        return [_with_share(done[request.id], share) for request in requests]

    def _run_to_end(self) -> dict[str, Completion]:
        """Step until nothing is in flight."""
        done: dict[str, Completion] = {}
        while self._in_flight:
            done.update((event.id, event) for event in self.step() if isinstance(event, Completion))
        return done

    def _with_virtual_tokens(self, request: Request) -> Request:
        """Return the request with the virtual tokens before its prompt; an empty prompt stays empty and is refused
        later.
        """
        virtual_prefix = self._prefix_cache.virtual_prefix
        if not virtual_prefix or not request.ids:
            return request
        public_tokens = virtual_prefix.length + request.public_tokens
        return replace(request, ids=with_virtual_ids(self.base, request.ids), public_tokens=public_tokens)

    def _check(self, request: Request) -> None:
        context = int(self.base.model.config.max_position_embeddings)
        if not request.ids or request.max_new < (0 if request.prompt_logprobs else 1):
            raise InputError(
                f"{request.id}: {len(request.ids)} prompt tokens and {request.max_new} new ones",
                "give at least one of each",
                field="task.output_tokens",
            )
        require_room(request.id, len(request.ids), request.max_new, context)
        if "" in request.stops:
            raise InputError(f"{request.id}: an empty stop", "leave it out", field="stops")
        if not 0 <= request.top_logprobs <= self.base.model.config.vocab_size:
            problem = f"{request.id}: top_logprobs = {request.top_logprobs}"
            raise InputError(problem, "give 0 (none) or more, up to the vocabulary", field="top_logprobs")
        if request.id in self._in_flight:
            raise InputError(f"{request.id}: a request of this id is in flight", "give each its own id", field="id")

    def _forward(self, ids: Sequence[int], positions_N: Tensor, layout: Layout) -> Tensor:
        return self.base.hidden(small_tensor(ids, self.base.device), positions_N, layout)

    def _prefill(self, parts: list[tuple[ActiveSequence, int]]) -> list[EngineEvent]:
        """Prefill prompts up to the given places in one pass; return the first token of each that is complete."""
        started = time.perf_counter()
        first = len(self._scheduler.running)
        spans = [one.part(end) for one, end in parts]
        layout = prefill_layout(self._scheduler.cache, first, spans, self.base.device)
        ids = [token for one, end in parts for token in one.new_ids[one.prefilled : end]]
        hidden_ND = self._forward(ids, layout.positions_N, layout)
        ends = list(accumulate(span.end - span.start for span in spans))
        places = [slice(start, end) for start, end in pairwise([0, *ends])]
        for slot, (sequence, end) in enumerate(parts, first):
            if sequence.request.prompt_logprobs:
                self._score_prompt(sequence, end, hidden_ND[places[slot - first]])
            if end == len(sequence.new_ids):
                self._prefix_cache.add_public(self._scheduler.cache, slot, sequence)
        ready = self._scheduler.mark_prefilled(parts)
        lasts = [last - 1 for last in ends[: len(ready)]]
        sampled = self._next(hidden_ND[small_tensor(lasts, hidden_ND.device)], ready) if ready else []
        seconds = (time.perf_counter() - started) / len(ids)
        for (sequence, _), span in zip(parts, spans, strict=True):
            sequence.prefill_seconds += seconds * (span.end - span.start)
        return self._advance(first, [[one] for one in sampled])

    def _decode(self) -> list[EngineEvent]:
        """Decode one more token for every running sequence, plus accepted drafts."""
        started, running = time.perf_counter(), self._scheduler.running
        runs = _draft_runs(running)
        tokens_per_sequence = len(runs[0])
        layout = decode_layout(
            self._scheduler.cache, [sequence.shared for sequence in running], tokens_per_sequence, self.base.device
        )
        hidden_ND = self._forward([token for run in runs for token in run], layout.positions_N, layout)
        sampled = self._next(hidden_ND, running, tokens_per_sequence)
        accepted = [
            _accepted_prefix(sampled[start : start + tokens_per_sequence], run)
            for start, run in zip(range(0, len(sampled), tokens_per_sequence), runs, strict=True)
        ]
        self._scheduler.cache.truncate([tokens_per_sequence - len(tokens) for tokens in accepted])
        seconds = (time.perf_counter() - started) / len(running)
        for sequence in running:
            sequence.decode_seconds += seconds
        return self._advance(0, accepted)

    def _score_prompt(self, sequence: ActiveSequence, end: int, hidden_QD: Tensor) -> None:
        """Record the log-probabilities of the prompt tokens that follow those just read, up to `end` of its own."""
        following = sequence.new_ids[end - len(hidden_QD) + 1 : end + 1]
        count = sequence.request.top_logprobs
        for start in range(0, len(following), LOGIT_ROWS):
            tokens = following[start : start + LOGIT_ROWS]
            logits_RV = self.base.logits(hidden_QD[start : start + len(tokens)])
            logs_R = log_probabilities(logits_RV, small_tensor(tokens, logits_RV.device))
            sequence.prompt_log_probabilities += logs_R.tolist()
            if count:
                pairs = zip(*(part_RW.tolist() for part_RW in top_log_probabilities(logits_RV, count)), strict=True)
                sequence.prompt_likeliest += [tuple(zip(*pair, strict=True)) for pair in pairs]

    def _next(
        self, hidden_BD: Tensor, running: Sequence[ActiveSequence], tokens_per_sequence: int = 1
    ) -> list[GeneratedToken]:
        """Sample the token after each row, with log-probabilities if requested.

        `tokens_per_sequence` adjacent rows belong to one sequence.
        """
        logits_BV = self.base.logits(hidden_BD)
        sequences = [sequence for sequence in running for _ in range(tokens_per_sequence)]
        samplings = [sequence.request.sampling for sequence in sequences]
        scores_BV = apply_penalties(logits_BV, samplings, [sequence.counts for sequence in sequences])
        scores_BV = mask_disallowed(scores_BV, [sequence.matcher for sequence in sequences])
        steps = [len(sequence.ids) + ahead for sequence in running for ahead in range(tokens_per_sequence)]
        tokens_B = next_tokens(scores_BV, samplings, steps)
        top_counts = [sequence.request.top_logprobs for sequence in sequences]
        rows_with_logprobs = [
            row for row, sequence in enumerate(sequences) if sequence.request.logprobs or top_counts[row]
        ]
        # The one place in a pass where the host waits for the device.
        if not rows_with_logprobs:
            return _named(tokens_B.tolist(), sequences)
        rows, most = small_tensor(rows_with_logprobs, tokens_B.device), max(top_counts)
        logits_RV = logits_BV[rows]
        found = [tokens_B.float(), log_probabilities(logits_RV, tokens_B[rows])]
        if most:
            found += [part_RW.flatten() for part_RW in top_log_probabilities(logits_RV, most)]
        read = torch.cat(found).tolist()  # float32 is exact for ids below 2^24
        sampled = _named(map(int, read[: len(sequences)]), sequences)
        logs = read[len(sequences) :][: len(rows_with_logprobs)]
        pairs = read[len(sequences) + len(rows_with_logprobs) :]
        for place, row in enumerate(rows_with_logprobs):
            best = slice(place * most, place * most + top_counts[row])
            tokens = pairs[: len(rows_with_logprobs) * most][best]
            scores = pairs[len(rows_with_logprobs) * most :][best]
            sampled[row] = replace(
                sampled[row],
                log_probability=logs[place],
                likeliest=tuple((int(token), score) for token, score in zip(tokens, scores, strict=True)),
            )
        return sampled

    def _advance(self, first: int, accepted: list[list[GeneratedToken]]) -> list[EngineEvent]:
        """Append the new tokens of the slots from `first` on and return their events; finished sequences leave."""
        events: list[EngineEvent] = []
        running = self._scheduler.running
        for slot in reversed(range(first, len(running))):  # the last slot, already done, moves into the gap
            sequence = running[slot]
            for sampled in accepted[slot - first]:
                if not sequence.is_done:
                    token = sequence.take(sampled, self.stop_ids)
                    events.append(token)
                    if self._on_token and self._on_token(token.id, token.token) is True:
                        sequence.finished = True
            if sequence.is_done:
                events.append(sequence.completion())
                self._prefix_cache.add_for_salt(self._scheduler.cache, slot, sequence)
                self._scheduler.release(slot)
                self._forget_request(sequence.request.id)
        return events

    def _forget_request(self, request_id: str) -> None:
        """Remove a request, and free all memory with the last one."""
        del self._in_flight[request_id]
        if not self._in_flight:
            self._reset()


def _named(tokens: Iterable[int], sequences: Sequence[ActiveSequence]) -> list[GeneratedToken]:
    """Return sampled tokens as events of their sequences."""
    return [
        GeneratedToken(id=sequence.request.id, token=token) for token, sequence in zip(tokens, sequences, strict=True)
    ]


def _draft_runs(running: Sequence[ActiveSequence]) -> list[list[int]]:
    """Return the tokens that a decoding step reads: each sequence's last token and its drafts, padded to equal
    length.
    """
    most = draft_length(len(running)) if all(sequence.can_draft for sequence in running) else 0
    drafts = [sequence.draft(most) if most else [] for sequence in running]
    tokens_per_sequence = max(map(len, drafts))
    return [
        [
            sequence.ids[-1],
            *own,
            *sequence.ids[-1:] * (tokens_per_sequence - len(own)),
        ]  # shorter ones are padded with any token
        for sequence, own in zip(running, drafts, strict=True)
    ]


def _accepted_prefix(sampled: list[GeneratedToken], run: list[int]) -> list[GeneratedToken]:
    """Return the sampled tokens up to the first that differs from its draft."""
    accepted_count = 1
    while accepted_count < len(run) and sampled[accepted_count - 1].token == run[accepted_count]:
        accepted_count += 1
    return sampled[:accepted_count]


def _with_share(completion: Completion, seconds: float) -> Completion:
    """Return the completion with its share of the time for the common prefix."""
    return replace(
        completion,
        seconds=completion.seconds + seconds,
        prefill_seconds=completion.prefill_seconds + seconds,
    )


def generate_texts(engine: Engine, tokenizer: Any, requests: Sequence[Request]) -> list[Generation]:
    """Return the answers as text, without special tokens, each cut before the first of its request's stops."""
    return [
        completion.generation(
            cut_at_stop(tokenizer.decode(list(completion.ids), skip_special_tokens=True), request.stops)
        )
        for completion, request in zip(engine.generate(requests), requests, strict=True)
    ]
