"""From scores over the vocabulary to the next token: greedy, or drawn by a request's own numbers, for all rows at once.

Shapes: B rows, R of them drawn, V vocabulary, W the highest scores of each row. A draw is the argmax of scores plus Gumbel noise
(Gumbel 1954), and the noise of a token is a hash of (seed, step, token): there is no state to keep, and nothing that another row
or the slot could change. Neighbouring scores decide in no other way than by their difference, so the rounding that comes with
another batch changes a draw about as rarely as it changes a greedy token; a cumulative sum would carry it through the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.answering.cache import sent
from trimtab.base.errors import InputError

_SPREAD, _MIX_1, _MIX_2 = -1640531527, 0x7FEB352D, -2073254261  # odd, as signed 32 bits: 2^32 / golden ratio; lowbias32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn: temperature 0 is greedy; top_k 0 and top_p 1 leave the distribution whole.

    Tokens with the same score as the last one that top_k or top_p keeps are kept too.
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

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    @property
    def narrows(self) -> bool:
        """Whether some tokens are never drawn."""
        return self.top_k > 0 or self.top_p < 1


GREEDY = Sampling()


def next_tokens(logits_BV: Tensor, samplings: Sequence[Sampling], steps: Sequence[int]) -> Tensor:
    """The next token of every row, `tokens_B` on the device; `steps` are the numbers of tokens each has drawn before."""
    tokens_B = logits_BV.argmax(-1)
    drawn = [row for row, sampling in enumerate(samplings) if not sampling.greedy]
    if drawn:
        rows_R = sent(drawn, logits_BV.device)
        chosen = [samplings[row] for row in drawn]
        noise_RV = _gumbel([(samplings[row].seed, steps[row]) for row in drawn], logits_BV.shape[1], logits_BV.device)
        tokens_B[rows_R] = (_scaled(logits_BV[rows_R].float(), chosen) + noise_RV).argmax(-1)
    return tokens_B


def log_probabilities(logits_BV: Tensor, tokens_B: Tensor) -> Tensor:
    """Natural logarithm of each row's probability of its token, float32, whatever the sampling."""
    scores_BV = logits_BV.float()
    return scores_BV.gather(1, tokens_B[:, None])[:, 0] - scores_BV.logsumexp(-1)


def _scaled(scores_RV: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Scores by temperature, the highest at 0, those that are never drawn at -inf."""
    temperatures_R = sent([sampling.temperature for sampling in samplings], scores_RV.device)
    scaled_RV = (scores_RV - scores_RV.amax(-1, keepdim=True)) / temperatures_R[:, None]
    narrow = [row for row, sampling in enumerate(samplings) if sampling.narrows]
    if narrow:
        rows = sent(narrow, scores_RV.device)
        some_RV = scaled_RV[rows]
        floor_R1 = _floor(some_RV, [samplings[row] for row in narrow])
        scaled_RV[rows] = some_RV.masked_fill(some_RV < floor_R1, float("-inf"))
    return scaled_RV


def _floor(scaled_RV: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """The lowest score that each row still draws, `[R, 1]`: of the top_k best, the fewest that hold top_p."""
    vocabulary, device = scaled_RV.shape[1], scaled_RV.device
    counts = [min(sampling.top_k or vocabulary, vocabulary) for sampling in samplings]
    counts_R1 = sent(counts, device)[:, None]
    shares_R1 = sent([sampling.top_p for sampling in samplings], device)[:, None]
    best_RW = scaled_RV.topk(max(counts)).values
    outside_RW = torch.arange(max(counts), device=device) >= counts_R1
    weights_RW = best_RW.masked_fill(outside_RW, float("-inf")).softmax(-1)
    # A token stays when those before it hold less than top_p; at 1 rounding must not drop the last ones.
    outside_RW |= (weights_RW.cumsum(-1) - weights_RW >= shares_R1) & (shares_R1 < 1)
    return best_RW.masked_fill(outside_RW, float("inf")).amin(-1, keepdim=True)


def _gumbel(draws: Sequence[tuple[int, int]], vocabulary: int, device: torch.device) -> Tensor:
    """Gumbel noise `[R, V]` of each (seed, step), from 31 bits a token.

    Integers wrap around at 32 bits, and the shifts keep the sign: still one-to-one, and one operation less than without.
    """
    keys_2R = sent([part for draw in draws for part in _key(*draw)], device, torch.int32).view(-1, 2).T
    bits_RV = torch.arange(vocabulary, dtype=torch.int32, device=device) * _SPREAD + keys_2R[0, :, None]
    bits_RV ^= bits_RV >> 16
    bits_RV *= _MIX_1
    bits_RV ^= keys_2R[1, :, None]
    bits_RV ^= bits_RV >> 15
    bits_RV *= _MIX_2
    bits_RV ^= bits_RV >> 16
    # Fine near 0, where the highest noise comes from; below 1, so that no noise is -inf.
    share_RV = ((bits_RV & 0x7FFFFFFF).float() + 0.5).mul_(2.0**-31).clamp_(max=1 - 2.0**-24)
    return share_RV.neg_().log1p_().neg_().log_().neg_()


def _key(seed: int, step: int) -> tuple[int, int]:
    digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little", signed=True), int.from_bytes(digest[4:], "little", signed=True)
