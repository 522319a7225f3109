"""How fast a context is answered, and what of that changes with the weights and with how long answers are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trimtab.arms.session import BATCH_ITEMS
from trimtab.base.records import Generation


@dataclass(frozen=True, kw_only=True)
class AnsweringRate:
    """Seconds a question takes, among others (`each`) and alone; seconds of reading a token of its prompt; the tokens of a prompt.

    `together`: what questions that are answered together take beside that, however many they are: each pass reads all weights.
    `memory_mb`: what answering the test needs beyond what the process holds anyway; `own`: tokens of the longest prompt that a batch
    does not share. `decoding`: the share of the seconds that goes into new tokens, of which there were `new_tokens` a question.
    """

    each: float
    together: float
    alone: float
    token: float
    tokens: float
    own: int
    memory_mb: float
    timed: bool
    decoding: float = 0.0
    new_tokens: float = 1.0

    def seconds(self, questions: int) -> float:
        """Seconds of answering so many questions, in batches."""
        return questions * self.each + math.ceil(questions / BATCH_ITEMS) * self.together

    @property
    def batch_mean_seconds(self) -> float:
        """Seconds of a question in a whole batch."""
        return self.seconds(BATCH_ITEMS) / BATCH_ITEMS

    def with_new_tokens(self, new_tokens: float) -> AnsweringRate:
        """The rate of weights that have learnt to answer in so many tokens: the base goes on for longer."""
        fewer = min(1.0, new_tokens / max(self.new_tokens, 1.0))
        left = 1 - self.decoding * (1 - fewer)
        return replace(self, each=self.each * left, together=self.together * left, alone=self.alone * left)

    def at_usual_length(self, new_tokens: float) -> AnsweringRate:
        """The rate where the answers that were timed alone are not as long as they usually are."""
        alone = self.alone * (1 - self.decoding * (1 - new_tokens / max(self.new_tokens, 1.0)))
        decoding = 1 - (1 - self.decoding) * self.alone / max(alone, 1e-9)
        return replace(self, alone=alone, decoding=decoding, new_tokens=new_tokens)

    def of_head(self) -> AnsweringRate:
        """The rate of a classification head, which reads the prompt and no label."""
        reading = self.token * self.tokens
        return replace(self, each=min(self.each, reading), together=0.0, alone=min(self.alone, reading))


def shared_seconds(few: int, few_seconds: float, several: int, several_seconds: float) -> float:
    """Of the seconds that `few` questions took together, and `several`, those that do not grow with the questions."""
    if few == several:
        return 0.0
    shared = (several * few_seconds - few * several_seconds) / (several - few)
    return min(max(shared, 0.0), several_seconds)


def decoding_share(generations: Sequence[Generation]) -> float:
    """The share of the seconds of answers that went into new tokens; 0 of labels."""
    reading = sum(one.prefill_seconds or 0.0 for one in generations)
    return 1 - reading / max(sum(one.seconds for one in generations), 1e-9)


def mean_tokens(generations: Sequence[Generation]) -> float:
    """New tokens of an answer."""
    return sum(one.new_tokens for one in generations) / len(generations)
