"""Sampling: penalties, greedy or seeded draws with top-k, top-p and min-p, and log-probabilities, for a whole batch.

Shapes: B rows, R of them drawn, V vocabulary, W the highest scores of each row, E tokens with a penalty. A draw is the
argmax of scores plus Gumbel noise (Gumbel 1954), and a token's noise is a hash of (seed, step, token): there is no
state to keep, and neither other rows nor the slot change a draw. Only differences of scores matter, so rounding in
another batch changes a draw about as rarely as a greedy token; a cumulative sum would carry it through the vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.base.errors import InputError
from trimtab.inference.kv_cache import small_tensor
from trimtab.model.attention import softmax_and_log_sum
from trimtab.model.kernels import ops as ops

_BLOCK = 128  # scores; most vocabularies are a multiple of it
_SLICE = 8  # rows in float32 at once
_SPREAD, _MIX_1, _MIX_2 = -1640531527, 0x7FEB352D, -2073254261  # odd, as signed 32 bits: 2^32 / golden ratio; lowbias32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling parameters: temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 keep the whole distribution.

    Tokens that tie with the last one that top_k or top_p keeps are kept too. `min_p` drops tokens with less than this
    share of the likeliest one's probability. Penalties come first and also apply to greedy choices:
    `repetition_penalty` (Keskar et al. 2019, arXiv 1909.05858) divides positive scores of tokens in prompt or answer
    and multiplies negative ones; as in OpenAI's API, `frequency_penalty` times the token's count in the answer, and
    `presence_penalty` if it occurs there, are subtracted. Raises InputError for a value outside its range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature = {self.temperature}", "give 0 (greedy) or more", field="temperature")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p = {self.top_p}", "give a share above 0 and up to 1", field="top_p")
        if self.top_k < 0:
            raise InputError(f"top_k = {self.top_k}", "give 0 (all tokens) or more", field="top_k")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p = {self.min_p}", "give a share from 0 (all tokens) to 1", field="min_p")
        for name in ("frequency_penalty", "presence_penalty"):
            value = getattr(self, name)
            if not -2 <= value <= 2:
                raise InputError(f"{name} = {value}", "give a number from -2 to 2", field=name)
        if not 0 < self.repetition_penalty < math.inf:
            problem = f"repetition_penalty = {self.repetition_penalty}"
            raise InputError(problem, "give a number above 0 (1: none)", field="repetition_penalty")

    @property
    def greedy(self) -> bool:
        """True if nothing is drawn."""
        return self.temperature == 0

    @property
    def truncates(self) -> bool:
        """True if some tokens are never drawn."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    @property
    def has_penalties(self) -> bool:
        """True if a token's score depends on earlier tokens."""
        return self.uses_prompt_counts or self.frequency_penalty != 0 or self.presence_penalty != 0

    @property
    def uses_prompt_counts(self) -> bool:
        """True if a token's score depends on the prompt's tokens too."""
        return self.repetition_penalty != 1


GREEDY = Sampling()


def next_tokens(logits_BV: Tensor, samplings: Sequence[Sampling], steps: Sequence[int]) -> Tensor:
    """Return the next token of every row, `tokens_B` on the device; `steps`: tokens that each has drawn before."""
    tokens_B = _argmax(logits_BV)
    drawn = [row for row, sampling in enumerate(samplings) if not sampling.greedy]
    if drawn:
        rows_R = small_tensor(drawn, logits_BV.device)
        chosen = [samplings[row] for row in drawn]
        noise_RV = _gumbel([(samplings[row].seed, steps[row]) for row in drawn], logits_BV.shape[1], logits_BV.device)
        tokens_B[rows_R] = (_scaled(logits_BV[rows_R].float(), chosen) + noise_RV).argmax(-1)
    return tokens_B


def _argmax(scores_BV: Tensor) -> Tensor:
    """Return `argmax(-1)`, which takes three times as long on CPU: it converts every score."""
    if scores_BV.device.type != "cpu" or scores_BV.shape[1] % _BLOCK:
        return scores_BV.argmax(-1)
    blocks_BCL = scores_BV.view(len(scores_BV), -1, _BLOCK)
    best_B1 = blocks_BCL.amax(-1).argmax(-1, keepdim=True)
    within_BL = blocks_BCL.take_along_dim(best_B1[..., None], dim=1)[:, 0]
    highest_B: Tensor = best_B1[:, 0] * _BLOCK + within_BL.argmax(-1)
    return highest_B


def apply_penalties(scores_BV: Tensor, samplings: Sequence[Sampling], counts: Sequence[Mapping[int, int]]) -> Tensor:
    """Return scores with each row's penalties applied, float32; the same tensor if no row has any.

    `counts`: how often each token occurs in a row's answer; tokens of the prompt alone have 0, for rows that penalise
    them.
    """
    penalised = [row for row, sampling in enumerate(samplings) if sampling.has_penalties and counts[row]]
    if not penalised:
        return scores_BV
    device = scores_BV.device
    lengths_R = small_tensor([len(counts[row]) for row in penalised], device)
    total = sum(len(counts[row]) for row in penalised)

    def each(values: list[float]) -> Tensor:
        return small_tensor(values, device).repeat_interleave(lengths_R, output_size=total)

    rows_E = small_tensor(penalised, device).repeat_interleave(lengths_R, output_size=total)
    tokens_E = small_tensor([token for row in penalised for token in counts[row]], device)
    counts_E = small_tensor([count for row in penalised for count in counts[row].values()], device)
    factor_E = each([samplings[row].repetition_penalty for row in penalised])
    scores_BV = scores_BV.float()
    scores_E = scores_BV[rows_E, tokens_E]
    scores_E = torch.where(scores_E < 0, scores_E * factor_E, scores_E / factor_E)
    scores_E -= each([samplings[row].frequency_penalty for row in penalised]) * counts_E
    scores_E -= each([samplings[row].presence_penalty for row in penalised]) * (counts_E > 0)
    return scores_BV.index_put((rows_E, tokens_E), scores_E)


def top_log_probabilities(logits_BV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` likeliest tokens of each row and their log-probabilities, `[B, count]`, the likeliest
    first.
    """
    best_BW, tokens_BW = logits_BV.float().topk(count)
    return tokens_BW, best_BW - log_sum_exp_of(logits_BV)[:, None]


def log_probabilities(logits_BV: Tensor, tokens_B: Tensor) -> Tensor:
    """Return the natural log-probability of each row's token, float32, before any sampling parameter."""
    return logits_BV.gather(1, tokens_B[:, None])[:, 0].float() - log_sum_exp_of(logits_BV)


def log_sum_exp_of(logits_BV: Tensor) -> Tensor:
    """Return each row's log-sum-exp, float32 `log_sum_B`.

    On CPU a few rows at a time, which stay in cache.
    """
    if logits_BV.device.type != "cpu":
        return logits_BV.float().logsumexp(-1)
    if ops.supports_rows("log_sums", logits_BV):
        return ops.log_sum_exp(logits_BV)
    return torch.cat([softmax_and_log_sum(part_SV.float())[1] for part_SV in torch.split(logits_BV, _SLICE)])


def _scaled(scores_RV: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Return scores divided by temperature, the highest at 0, those that are never drawn at -inf."""
    temperatures_R = small_tensor([sampling.temperature for sampling in samplings], scores_RV.device)
    scaled_RV = (scores_RV - scores_RV.amax(-1, keepdim=True)) / temperatures_R[:, None]
    narrow = [row for row, sampling in enumerate(samplings) if sampling.truncates]
    if narrow:
        rows = small_tensor(narrow, scores_RV.device)
        some_RV = scaled_RV[rows]
        floor_R1 = _min_kept_score(some_RV, [samplings[row] for row in narrow])
        scaled_RV[rows] = some_RV.masked_fill(some_RV < floor_R1, float("-inf"))
    return scaled_RV


def _min_kept_score(scaled_RV: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Return the lowest score that each row still draws, `[R, 1]`, by top_k, top_p and min_p."""
    vocabulary, device = scaled_RV.shape[1], scaled_RV.device
    # the highest score is 0, so exp(score) is a token's probability relative to the likeliest
    least_R1 = small_tensor(
        [math.log(sampling.min_p) if sampling.min_p else -math.inf for sampling in samplings], device
    )[:, None]
    if all(sampling.top_k == 0 and sampling.top_p == 1 for sampling in samplings):
        return least_R1  # no sorting needed
    counts = [min(sampling.top_k or vocabulary, vocabulary) for sampling in samplings]
    counts_R1 = small_tensor(counts, device)[:, None]
    shares_R1 = small_tensor([sampling.top_p for sampling in samplings], device)[:, None]
    best_RW = scaled_RV.topk(max(counts)).values
    outside_RW = torch.arange(max(counts), device=device) >= counts_R1
    weights_RW = best_RW.masked_fill(outside_RW, float("-inf")).softmax(-1)
    # A token stays if those before it hold less than top_p; at 1, rounding must not drop the last ones.
    outside_RW |= (weights_RW.cumsum(-1) - weights_RW >= shares_R1) & (shares_R1 < 1)
    return best_RW.masked_fill(outside_RW, float("inf")).amin(-1, keepdim=True).maximum(least_R1)


def _gumbel(draws: Sequence[tuple[int, int]], vocabulary: int, device: torch.device) -> Tensor:
    """Return Gumbel noise `[R, V]` of each (seed, step), from 31 bits per token.

    Integers wrap around at 32 bits, and the shifts keep the sign: still one-to-one, and one operation less.
    """
    keys_2R = small_tensor([part for draw in draws for part in _key(*draw)], device, torch.int32).view(-1, 2).T
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
