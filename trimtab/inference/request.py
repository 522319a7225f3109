"""Requests of the engine, their events and completions, and the state of a running sequence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from trimtab.base.errors import ContextLengthError
from trimtab.base.records import Generation
from trimtab.inference.attention_layouts import PromptPart
from trimtab.inference.constraints import Constraint, Matcher
from trimtab.inference.detokenize import TextStream
from trimtab.inference.kv_cache import KVSegment, PrefixRef
from trimtab.inference.prompt_lookup import PromptLookup
from trimtab.inference.quote import QuoteConstraint
from trimtab.inference.sampling import GREEDY, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt as token ids, and how to answer it.

    The answer ends with the token that completes one of the `stops`. `logprobs` requests log-probabilities,
    `top_logprobs` those of the likeliest tokens too, `stream` text with each token. `prompt_logprobs` requests the same
    for the prompt's tokens; the whole prompt is then computed, and `max_new` may be 0. `constraint`: what the answer
    must match; if no token matches, because the tokenizer cannot spell it, the answer is cut. `public_tokens`: how many
    of its first tokens may be cached for any later request; hits show in `cached_tokens`, so these must hold nothing
    private.
    `cache_salt`: prompt and answer are cached for later requests with the same salt; nothing is cached if it is empty.
    """

    id: str
    ids: tuple[int, ...]
    max_new: int
    sampling: Sampling = GREEDY
    stops: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: bool = False
    constraint: Constraint | QuoteConstraint | None = None
    stream: bool = False
    public_tokens: int = 0
    cache_salt: str = ""


def require_room(request_id: str, tokens: int, max_new: int, context: int, *, at_least: bool = False) -> None:
    """Raise ContextLengthError for a prompt of `tokens` tokens that does not fit the model's context with its answer.

    `at_least`: the prompt was not tokenized, and has at least that many.
    """
    if tokens + max_new > context:
        raise ContextLengthError(
            f"{request_id}: {'at least ' if at_least else ''}{tokens} prompt tokens and {max_new} new ones do "
            f"not fit the model's context of {context}: this model's maximum context length is {context} tokens",
            "shorten the prompt (fewer shots or passages), ask for fewer new tokens (max_tokens, task.output_tokens), "
            "or choose another base.model",
            field="task.output_tokens",
        )


TopTokens = tuple[tuple[int, float], ...]  # tokens with their log-probabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedToken:
    """One new token of an answer, the stop token too.

    `text`: the text that became final with it, whole characters that no stop removes. It is empty unless the request
    streams or has stops; all together are the answer's text. `log_probability` is None unless requested; `likeliest`:
    the requested number of tokens with theirs, the likeliest first.
    """

    id: str
    token: int
    text: str = ""
    log_probability: float | None = None
    likeliest: TopTokens = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The new tokens without the stop token, those of a stop string included; unless `finished`, `max_new` or a
    cancellation cut it.

    `log_probabilities`: natural log-probability of each token under the model's own distribution (temperature 1, not
    truncated, no penalty, float32), if requested; a stop token's comes last, so there is one more than there are `ids`.
    `likeliest` goes with them. `prompt_log_probabilities` and `prompt_likeliest`: the same for the prompt's tokens from
    the second on. `cached_tokens`: prompt tokens that came from a cache. `seconds`: the time of every pass shared among
    its sequences (prefill by tokens, prefix and decoding evenly), so that the seconds of a batch add up to its time,
    and a single request has its own latency. `prefill_seconds`: the part of them spent on the prompt.
    """

    id: str
    ids: tuple[int, ...]
    finished: bool
    prompt_tokens: int
    seconds: float
    prefill_seconds: float
    cached_tokens: int = 0
    log_probabilities: tuple[float, ...] = ()
    likeliest: tuple[TopTokens, ...] = ()
    prompt_log_probabilities: tuple[float, ...] = ()
    prompt_likeliest: tuple[TopTokens, ...] = ()

    def generation(self, text: str) -> Generation:
        """Return the answer with its text in place of its tokens."""
        return Generation(
            id=self.id,
            text=text,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            new_tokens=len(self.ids),
            seconds=self.seconds,
            prefill_seconds=self.prefill_seconds,
            finished=self.finished,
        )


EngineEvent = GeneratedToken | Completion


@dataclass(slots=True, eq=False)
class ActiveSequence:
    """A request in flight; `new_ids` are the prompt's tokens after its prefix.

    The first `prefilled` of them are in its slot. `cached_segment`: cached keys and values of the first of them, which
    the first pass copies into the slot.
    """

    request: Request
    prefix_ref: PrefixRef | None
    new_ids: tuple[int, ...]
    text: TextStream | None
    matcher: Matcher | None = None
    cached_segment: KVSegment | None = None
    prefilled: int = 0
    ids: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    likeliest: list[TopTokens] = field(default_factory=list)
    prompt_log_probabilities: list[float] = field(default_factory=list)
    prompt_likeliest: list[TopTokens] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    lookup: PromptLookup | None = None
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    finished: bool = False
    rejected: bool = False

    def __post_init__(self) -> None:
        """Initialise `counts`, how often each token was generated; prompt tokens have 0 there if penalties use them."""
        if self.request.sampling.uses_prompt_counts:
            self.counts = {token: 0 for token in self.request.ids if token >= 0}  # virtual tokens have negative ids
        self.prefilled = self.cached

    @property
    def start(self) -> int:
        """Place of the first of its own tokens."""
        return self.prefix_ref.length if self.prefix_ref else 0

    @property
    def copied(self) -> int:
        """Tokens of its prefix that are copied into its slot."""
        return self.prefix_ref.copied if self.prefix_ref else 0

    @property
    def cached(self) -> int:
        """Number of `new_ids` that are cached."""
        return len(self.cached_segment) if self.cached_segment else 0

    def part(self, end: int) -> PromptPart:
        """Return what the next pass prefills, up to `end` of its own tokens."""
        cached_segment = self.cached_segment if self.prefilled == self.cached else None
        return PromptPart(
            start=self.prefilled,
            end=end,
            length=len(self.new_ids),
            prefix_ref=self.prefix_ref,
            cached_segment=cached_segment,
        )

    @property
    def slot_tokens(self) -> int:
        """The most tokens that its slot will hold."""
        return self.copied + len(self.new_ids) + self.request.max_new

    @property
    def shared(self) -> PrefixRef | None:
        """The prefix that it attends to outside of its slot."""
        return None if self.copied else self.prefix_ref

    @property
    def can_draft(self) -> bool:
        """True if its next token depends on the scores alone: drafts change neither penalties nor a grammar."""
        return self.matcher is None and not self.request.sampling.has_penalties

    def draft(self, most: int) -> list[int]:
        """Return up to `most` draft tokens."""
        prompt = self.request.ids
        if self.lookup is None:
            self.lookup = PromptLookup(prompt)
        self.lookup.extend(self.ids[len(self.lookup) - len(prompt) :])
        return self.lookup.next(min(most, self.request.max_new - len(self.ids) - 1))

    @property
    def is_done(self) -> bool:
        """True if it has all its tokens."""
        return self.finished or self.rejected or len(self.ids) == self.request.max_new

    def take(self, sampled: GeneratedToken, stop_ids: frozenset[int]) -> GeneratedToken:
        """Append a token as it was sampled, and return it with the text that it completes."""
        if sampled.log_probability is not None:
            self.log_probabilities.append(sampled.log_probability)
        if sampled.likeliest:
            self.likeliest.append(sampled.likeliest)
        if self.matcher and not self.matcher.accept(sampled.token):
            self.rejected = True
        elif sampled.token in stop_ids:
            self.finished = True
        else:
            self.ids.append(sampled.token)
            self.counts[sampled.token] = self.counts.get(sampled.token, 0) + 1
        if self.text is None:
            return sampled
        text = self.text.add(self.ids, self.is_done)
        self.finished |= self.text.stopped
        return replace(sampled, text=text)

    def completion(self) -> Completion:
        """Return the answer so far."""
        return Completion(
            id=self.request.id,
            ids=tuple(self.ids),
            finished=self.finished,
            prompt_tokens=len(self.request.ids),
            seconds=self.prefill_seconds + self.decode_seconds,
            prefill_seconds=self.prefill_seconds,
            cached_tokens=len(self.request.ids) - len(self.new_ids) + self.cached,
            log_probabilities=tuple(self.log_probabilities),
            likeliest=tuple(self.likeliest),
            prompt_log_probabilities=tuple(self.prompt_log_probabilities),
            prompt_likeliest=tuple(self.prompt_likeliest),
        )
