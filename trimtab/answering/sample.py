"""From scores over the vocabulary to the next token: greedy, or drawn with a generator of the request's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.base.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn: temperature 0 is greedy; top_k 0 and top_p 1 leave the distribution whole.

    Raises InputError for a value outside its range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise InputError(f"temperature = {self.temperature}", "give 0 (greedy) or more", field="temperature")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p = {self.top_p}", "give a share above 0 and up to 1", field="top_p")
        if self.top_k < 0:
            raise InputError(f"top_k = {self.top_k}", "give 0 (all tokens) or more", field="top_k")


GREEDY = Sampling()


class Sampler:
    """The draws of one request: they depend on its seed and its own scores, never on what else is in the batch."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.greedy = sampling.temperature == 0
        self._generator = torch.Generator().manual_seed(sampling.seed)

    def draw(self, logits_V: Tensor) -> int:
        """The next token."""
        if self.greedy:
            return int(logits_V.argmax())
        sorted_V, order_V = (logits_V.float().cpu() / self.sampling.temperature).sort(descending=True, stable=True)
        if self.sampling.top_k:
            sorted_V = sorted_V[: self.sampling.top_k]
        weights_V = sorted_V.softmax(-1)
        # A token stays when those before it hold less than top_p: the smallest set that reaches it.
        weights_V = weights_V[weights_V.cumsum(-1) - weights_V < self.sampling.top_p]
        return int(order_V[torch.multinomial(weights_V, 1, generator=self._generator)])


def draw_all(logits_BV: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """The next token of every sequence."""
    best: list[int] = logits_BV.argmax(-1).tolist()
    return [
        token if sampler.greedy else sampler.draw(row_V)
        for token, sampler, row_V in zip(best, samplers, logits_BV, strict=True)
    ]
