"""A request, what comes back for it, and the sequence that it is on the way there."""

from __future__ import annotations

from dataclasses import dataclass, field

from trimtab.answering.cache import Beginning
from trimtab.answering.sample import GREEDY, Sampling
from trimtab.answering.text import TextStream


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt as token ids, and how it is answered.

    The answer ends with the token that completes one of the `stops`. `logprobs` asks for log-probabilities, `stream` for text with
    each token.
    """

    id: str
    ids: tuple[int, ...]
    max_new: int
    sampling: Sampling = GREEDY
    stops: tuple[str, ...] = ()
    logprobs: bool = False
    stream: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One new token of an answer, the stop token too.

    `text` is what became certain with it: whole characters that no stop takes back. It stays empty unless the request streams
    or has stops; all together are the answer's text. `log_probability` is None unless asked for.
    """

    id: str
    token: int
    text: str = ""
    log_probability: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The new tokens without the stop token, those of a stop text included; unless `finished`, `max_new` or a cancellation cut it.

    `log_probabilities`: the natural logarithm of each token's probability in the model's own distribution (temperature 1,
    nothing left out, float32), where asked for; a stop token's comes last, so there is one more than there are `ids`.
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
    log_probabilities: tuple[float, ...] = ()


Event = Token | Completion


@dataclass(slots=True, eq=False)
class Ongoing:
    """A request on its way; `fresh` are the prompt's tokens after its beginning."""

    request: Request
    beginning: Beginning | None
    fresh: tuple[int, ...]
    text: TextStream | None
    ids: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    finished: bool = False

    @property
    def work(self) -> int:
        """Tokens that its slot will hold at most."""
        return len(self.fresh) + self.request.max_new

    @property
    def ended(self) -> bool:
        """Whether it has all its tokens."""
        return self.finished or len(self.ids) == self.request.max_new

    def take(self, token: int, log_probability: float | None, stop_ids: frozenset[int]) -> Token:
        """Go on by one token."""
        if log_probability is not None:
            self.log_probabilities.append(log_probability)
        if token in stop_ids:
            self.finished = True
        else:
            self.ids.append(token)
        piece = ""
        if self.text:
            piece = self.text.add(self.ids, self.ended)
            self.finished |= self.text.stopped
        return Token(id=self.request.id, token=token, text=piece, log_probability=log_probability)

    def completion(self) -> Completion:
        """What it has said so far."""
        return Completion(
            id=self.request.id,
            ids=tuple(self.ids),
            finished=self.finished,
            prompt_tokens=len(self.request.ids),
            seconds=self.prefill_seconds + self.decode_seconds,
            prefill_seconds=self.prefill_seconds,
            log_probabilities=tuple(self.log_probabilities),
        )
