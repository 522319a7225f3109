"""How fast a context is answered, and what of that changes with the weights and with how long answers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trimtab.base.records import Generation


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Seconds a question takes, among many and alone; seconds of reading a token of its prompt; the tokens of a prompt.

    `memory_mb`: what answering a batch needs beyond what the process holds anyway. `decoding`: the share of the seconds that goes into
    new tokens, of which there were `new_tokens` a question.
    """

    many: float
    alone: float
    token: float
    tokens: float
    memory_mb: float
    timed: bool
    decoding: float = 0.0
    new_tokens: float = 1.0

    def answering(self, new_tokens: float) -> Rate:
        """The rate of weights that have learnt to answer in so many tokens: the base goes on for longer."""
        fewer = min(1.0, new_tokens / max(self.new_tokens, 1.0))
        left = 1 - self.decoding * (1 - fewer)
        return replace(self, many=self.many * left, alone=self.alone * left)

    def usual(self, new_tokens: float) -> Rate:
        """The rate where the answers that were timed alone are not as long as they usually are."""
        alone = self.alone * (1 - self.decoding * (1 - new_tokens / max(self.new_tokens, 1.0)))
        decoding = 1 - (1 - self.decoding) * self.alone / max(alone, 1e-9)
        return replace(self, alone=alone, decoding=decoding, new_tokens=new_tokens)

    def of_head(self) -> Rate:
        """The rate of a classification head, which reads the prompt and no label."""
        reading = self.token * self.tokens
        return replace(self, many=min(self.many, reading), alone=min(self.alone, reading))


def decoding(given: Sequence[Generation]) -> float:
    """The share of the seconds of answers that went into new tokens; 0 of labels."""
    reading = sum(one.prefill_seconds or 0.0 for one in given)
    return 1 - reading / max(sum(one.seconds for one in given), 1e-9)


def mean_tokens(given: Sequence[Generation]) -> float:
    """New tokens of an answer."""
    return sum(one.new_tokens for one in given) / len(given)
