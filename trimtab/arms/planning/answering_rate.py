"""Answering speed of a context, and how it changes with trained weights and answer length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trimtab.arms.session import BATCH_ITEMS
from trimtab.base.records import Generation


@dataclass(frozen=True, kw_only=True)
class AnsweringRate:
    """Answering speed: seconds per question in a batch (`each`) and alone (`alone`), seconds of prefill per token
    (`token`), and tokens per prompt (`tokens`).

    `together`: extra seconds per batch, whatever its size: each pass reads all weights. `memory_mb`: memory for
    answering the test beyond the process's present one. `own`: tokens of the longest prompt after the shared prefix.
    `decoding`: the share of the seconds spent on new tokens, of which there are `new_tokens` per question.
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
        """Return the seconds of answering `questions` questions in batches."""
        return questions * self.each + math.ceil(questions / BATCH_ITEMS) * self.together

    @property
    def batch_mean_seconds(self) -> float:
        """Return the seconds per question in a full batch."""
        return self.seconds(BATCH_ITEMS) / BATCH_ITEMS

    def with_new_tokens(self, new_tokens: float) -> AnsweringRate:
        """Return the rate of weights trained to answer in `new_tokens` tokens: the base model writes more."""
        fewer = min(1.0, new_tokens / max(self.new_tokens, 1.0))
        left = 1 - self.decoding * (1 - fewer)
        return replace(self, each=self.each * left, together=self.together * left, alone=self.alone * left)

    def at_usual_length(self, new_tokens: float) -> AnsweringRate:
        """Return the rate corrected for answers of the usual length, where those timed alone were not."""
        alone = self.alone * (1 - self.decoding * (1 - new_tokens / max(self.new_tokens, 1.0)))
        decoding = 1 - (1 - self.decoding) * self.alone / max(alone, 1e-9)
        return replace(self, alone=alone, decoding=decoding, new_tokens=new_tokens)

    def of_head(self) -> AnsweringRate:
        """Return the rate of a classification head, which reads the prompt and no label."""
        reading = self.token * self.tokens
        return replace(self, each=min(self.each, reading), together=0.0, alone=min(self.alone, reading))


def shared_seconds(few: int, few_seconds: float, several: int, several_seconds: float) -> float:
    """Return the seconds that do not grow with the number of questions, from timings of `few` and of `several`
    questions together.
    """
    if few == several:
        return 0.0
    shared = (several * few_seconds - few * several_seconds) / (several - few)
    return min(max(shared, 0.0), several_seconds)


def decoding_share(generations: Sequence[Generation]) -> float:
    """Return the share of the answers' seconds spent on new tokens; 0 for labels."""
    reading = sum(one.prefill_seconds or 0.0 for one in generations)
    return 1 - reading / max(sum(one.seconds for one in generations), 1e-9)


def mean_tokens(generations: Sequence[Generation]) -> float:
    """Return the mean number of new tokens of an answer."""
    return sum(one.new_tokens for one in generations) / len(generations)
