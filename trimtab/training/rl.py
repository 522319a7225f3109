"""Policy gradient objectives for rewards of the model's own answers, which a callback samples: RLOO, GRPO, and PPO with
a value head.

Shapes: M answer tokens of a batch, A answers, P prompts with G answers each, T tokens of one answer.

Every optimizer step samples its own answers from the current weights, so nothing but the weights has to be saved: a run
that was stopped between sampling and step samples the same answers again. The behaviour policy of every ratio is the
inference engine that sampled them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.base.records import Encoded
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.model.load import Base
from trimtab.training.batch import (
    Batch,
    TrainingRow,
    batch_tokens,
    micro_batches,
    pack_rows,
    step_rows,
    steps_per_epoch,
)
from trimtab.training.losses import Loss, label_log_probabilities, scored_hidden, sums_by_row
from trimtab.training.optim import restore, snapshot
from trimtab.training.parallel import map_microbatches

GROUP = 8  # answers to a prompt
CLIP = 0.2  # clip range of the ratio, as in all three papers
GRPO_KL, RLOO_KL, PPO_KL = 0.04, 0.05, 0.05  # penalty per nat of KL from the reference
LAMBDA, VALUE_SHARE = 0.95, 0.1  # PPO: GAE's lambda, and the weight of the value loss


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One sampled answer: its tokens after the prompt's (end token included), their log-probabilities, and its reward.

    `log_p`: natural log-probability of each answer token when it was sampled.
    """

    encoded: Encoded
    log_p: tuple[float, ...]
    reward: float


# Prompt indices and the step → for each prompt equally many answers, at least two, sampled from the current weights.
GenerateRollouts = Callable[[Sequence[int], int], Sequence[Sequence[Rollout]]]
AnswerIndices = Sequence[tuple[int, int]]  # pairs of a prompt's index and its answer's index


def grpo_advantages(rewards_PG: Tensor) -> Tensor:
    """Return each reward minus its group's mean, in standard deviations of the group. Shao et al. 2024 (arXiv
    2402.03300).
    """
    return (rewards_PG - rewards_PG.mean(1, keepdim=True)) / (rewards_PG.std(1, keepdim=True) + 1e-4)


def rloo_advantages(rewards_PG: Tensor) -> Tensor:
    """Return each reward minus the mean of the others in its group. Ahmadian et al. 2024 (arXiv 2402.14740)."""
    others = rewards_PG.shape[1] - 1
    return rewards_PG - (rewards_PG.sum(1, keepdim=True) - rewards_PG) / others


def gae(rewards_T: Tensor, values_T: Tensor) -> Tensor:
    """Return generalised advantage estimates of one answer's tokens, discount 1, decay LAMBDA.

    Schulman et al. 2016 (arXiv 1506.02438).
    """
    found_T, advantage = torch.zeros_like(values_T), values_T.new_zeros(())
    for token in reversed(range(len(values_T))):
        next_value = values_T[token + 1] if token + 1 < len(values_T) else values_T.new_zeros(())
        advantage = rewards_T[token] + next_value - values_T[token] + LAMBDA * advantage
        found_T[token] = advantage
    return found_T


def clipped_objective(log_ratio: Tensor, advantages: Tensor) -> Tensor:
    """`-min(r A, clip(r) A)`: the ratio is clipped to within CLIP of 1. Schulman et al. 2017 (arXiv 1707.06347)."""
    ratio = log_ratio.exp()
    return -torch.min(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)


def kl_estimate(log_p: Tensor, reference: Tensor) -> Tensor:
    """Return the non-negative estimate of the KL divergence per sampled token, `q/p - log q/p - 1` (Schulman 2020,
    "k3").
    """
    gap = reference - log_p
    return gap.exp() - gap - 1


def whiten(values: Tensor) -> Tensor:
    """Return the values shifted to mean 0 and scaled to variance 1."""
    return (values - values.mean()) * torch.rsqrt(values.var() + 1e-8) if len(values) > 1 else values - values.mean()


@dataclass(frozen=True, kw_only=True)
class RolloutBatch(Batch):
    """A batch whose rows are answers, with log-probabilities and advantages per token.

    `drawn_M`: log-probability when sampled; `reference_M`: under the reference. `weights_M` divides by the tokens of
    the whole step, `share` by its answers; `rewards_A`: the answers' rewards. PPO: `values_M` are the values predicted
    when the answers were sampled, `returns_M` their targets.
    """

    drawn_M: Tensor
    reference_M: Tensor
    advantages_M: Tensor
    rewards_A: Tensor
    share: float
    values_M: Tensor
    returns_M: Tensor


class PolicyGradient:
    """A policy gradient loss over answers that are sampled for every step; the reference is the model at the start of
    the stage.

    GRPO: clipped ratios of tokens and a KL penalty in the loss, averaged over the tokens of the whole step (as in DAPO,
    arXiv 2503.14476; the paper's mean of means would change under gradient accumulation). RLOO: clipped ratios of whole
    answers, averaged over answers, the KL subtracted from the reward. PPO: clipped ratios of tokens over whitened
    advantages, the KL subtracted from each token's reward, and a value head on the same model (with a share of the
    loss; the papers train a separate model).

    Figures: `reward`, `kl` (nats per token from the reference), `length` (tokens per answer), `entropy` (nats per
    token).
    """

    def __init__(
        self, base: Base, prompts: int, generate_rollouts: GenerateRollouts, loss: str, *, batch: int, seed: int
    ) -> None:
        """`batch` counts prompts; raises InputError if there are none."""
        if not prompts:
            raise InputError("no prompt to answer", "give training rows", field="data.examples")
        self.count = prompts
        self.generate_rollouts = generate_rollouts
        self.loss_name = loss
        self.batch = batch
        self.seed = seed
        self._base, self._initial = base, snapshot(trainable_parameters(base.model))
        self.value = _zero_value_head(base) if loss == "ppo" else None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in which every prompt is answered once."""
        return steps_per_epoch(self.count, self.batch)

    def parameters(self, base: Base) -> Mapping[str, nn.Parameter]:
        """Return the model's trainable parameters, and the value head as `value.weight` and `value.bias`."""
        own = self.value.named_parameters() if self.value else ()
        return {**trainable_parameters(base.model), **{f"value.{name}": one for name, one in own}}

    def batches(self, step: int) -> list[RolloutBatch]:
        """Sample answers from the current weights and return them with the advantage of each token."""
        groups = self.generate_rollouts(step_rows(self.count, self.batch, step, self.seed), step)
        places = _split_answers(groups)
        parts = [[groups[prompt][answer] for prompt, answer in part] for part in places]
        packed = [pack_rows([TrainingRow(encoded=one.encoded) for one in part]) for part in parts]
        drawn = [torch.tensor([value for one in part for value in one.log_p]) for part in parts]
        with torch.no_grad():
            values = list(map_microbatches(self._values, packed, size=batch_tokens))
            with self._reference_weights():
                references = list(map_microbatches(self._log_p, packed, size=batch_tokens))
        kl_of_parts = [one - reference for one, reference in zip(drawn, references, strict=True)]
        rewards_PG = torch.tensor([[one.reward for one in group] for group in groups])
        if self.loss_name == "ppo":
            raw_advantages = self._token_advantages(rewards_PG, places, packed, kl_of_parts, values)
            advantages = list(torch.split(whiten(torch.cat(raw_advantages)), [len(one) for one in raw_advantages]))
        else:
            raw_advantages = advantages = self._answer_advantages(rewards_PG, places, packed, kl_of_parts)
        answers, tokens = rewards_PG.numel(), sum(map(len, drawn))
        return [
            RolloutBatch(
                **{name: getattr(batch, name) for name in Batch.__dataclass_fields__ if name != "weights_M"},
                weights_M=torch.full_like(drawn[number], 1 / tokens),
                share=1 / answers,
                drawn_M=drawn[number],
                reference_M=references[number],
                advantages_M=advantages[number],
                rewards_A=_gather(rewards_PG, places[number]),
                values_M=values[number],
                returns_M=raw_advantages[number] + values[number],
            )
            for number, batch in enumerate(packed)
        ]

    def _answer_advantages(
        self,
        rewards_PG: Tensor,
        places: Sequence[AnswerIndices],
        packed: Sequence[Batch],
        kl_of_parts: Sequence[Tensor],
    ) -> list[Tensor]:
        """Return advantages per token; all tokens of an answer have its advantage within the group."""
        if self.loss_name == "grpo":
            advantages_PG = grpo_advantages(rewards_PG)
        else:
            penalised_PG = rewards_PG.clone()
            for part, batch, kl_M in zip(places, packed, kl_of_parts, strict=True):
                for (prompt, answer), nats in zip(part, sums_by_row(kl_M, batch).tolist(), strict=True):
                    penalised_PG[prompt, answer] -= RLOO_KL * nats
            advantages_PG = rloo_advantages(penalised_PG)
        return [_gather(advantages_PG, part)[batch.row_M] for part, batch in zip(places, packed, strict=True)]

    def _token_advantages(
        self,
        rewards_PG: Tensor,
        places: Sequence[AnswerIndices],
        packed: Sequence[Batch],
        kl_of_parts: Sequence[Tensor],
        values: Sequence[Tensor],
    ) -> list[Tensor]:
        """Return GAE advantages per token: rewards are the negative KL penalty, plus the answer's reward at its last
        token.
        """
        found = []
        for part, batch, kl_M, values_M in zip(places, packed, kl_of_parts, values, strict=True):
            lengths = torch.bincount(batch.row_M, minlength=batch.rows)
            rewards_M = -PPO_KL * kl_M
            rewards_M[lengths.cumsum(0) - 1] += _gather(rewards_PG, part)
            each = (torch.split(one, lengths.tolist()) for one in (rewards_M, values_M))
            found.append(torch.cat([gae(*one) for one in zip(*each, strict=True)]))
        return found

    def _log_p(self, batch: Batch) -> Tensor:
        """Return the log-probabilities `[M]` of the answers' tokens under the current weights, on the CPU."""
        return label_log_probabilities(self._base, scored_hidden(self._base, batch), batch.labels_M).cpu()

    def _values(self, batch: Batch) -> Tensor:
        """Return the predicted value before each token, `[M]`; 0 without a value head."""
        if self.value is None:
            return torch.zeros(batch.trained_tokens)
        return _predict_values(self.value, scored_hidden(self._base, batch)).cpu()

    @contextmanager
    def _reference_weights(self) -> Iterator[None]:
        """Context manager: the model has its reference weights."""
        moving = trainable_parameters(self._base.model)
        now = snapshot(moving)
        restore(moving, self._initial)
        try:
            yield
        finally:
            restore(moving, now)

    def loss(self, base: Base, batch: RolloutBatch) -> Loss:
        """Return this micro-batch's part of the step's loss and figures."""
        hidden_MD = scored_hidden(base, batch)
        log_p_M = label_log_probabilities(base, hidden_MD, batch.labels_M)
        device = log_p_M.device
        drawn_M, reference_M, advantages_M, weights_M, row_M = (
            one.to(device)
            for one in (batch.drawn_M, batch.reference_M, batch.advantages_M, batch.weights_M, batch.row_M)
        )
        kl_M = kl_estimate(log_p_M, reference_M)
        if self.loss_name == "rloo":
            ratio_A = sums_by_row(log_p_M - drawn_M, batch)
            first_A = torch.searchsorted(row_M, torch.arange(batch.rows, device=device))
            value = batch.share * clipped_objective(ratio_A, advantages_M[first_A]).sum()
        else:
            parts_M = clipped_objective(log_p_M - drawn_M, advantages_M)
            if self.loss_name == "grpo":
                parts_M = parts_M + GRPO_KL * kl_M
            value = (weights_M * parts_M).sum()
        if self.value is not None:
            value = value + VALUE_SHARE * self._value_loss(hidden_MD, batch, weights_M)
        figures: dict[str, Tensor | float] = {
            "reward": batch.share * float(batch.rewards_A.sum()),
            "kl": (weights_M * kl_M.detach()).sum(),
            "length": batch.share * batch.trained_tokens,
            "entropy": -(weights_M * drawn_M).sum(),
        }
        return Loss(value=value, figures=figures)

    def _value_loss(self, hidden_MD: Tensor, batch: RolloutBatch, weights_M: Tensor) -> Tensor:
        """Return half the squared error of the value head, clipped to within CLIP of the old values."""
        if self.value is None:
            raise ValueError("only PPO has a value head")
        predicted_M = _predict_values(self.value, hidden_MD)
        old_values_M, returns_M = batch.values_M.to(predicted_M.device), batch.returns_M.to(predicted_M.device)
        clipped_M = old_values_M + (predicted_M - old_values_M).clamp(-CLIP, CLIP)
        error_M = torch.max((predicted_M - returns_M).square(), (clipped_M - returns_M).square())
        return 0.5 * (weights_M * error_M).sum()


def _split_answers(groups: Sequence[Sequence[Rollout]]) -> list[list[tuple[int, int]]]:
    """Split the answers of a step into micro-batches, those of one prompt together if they
    fit.
    """
    found: list[list[tuple[int, int]]] = []
    units: list[tuple[TrainingRow, ...]] = []
    place_of: dict[int, list[tuple[int, int]]] = {}
    for prompt, group in enumerate(groups):
        rows = [(TrainingRow(encoded=one.encoded),) for one in group]
        numbers = {id(row[0]): answer for answer, row in enumerate(rows)}
        for part in micro_batches(rows):
            unit = tuple(row for one in part for row in one)
            units.append(unit)
            place_of[id(unit)] = [(prompt, numbers[id(row)]) for row in unit]
    for part in micro_batches(units):
        found.append([index for unit in part for index in place_of[id(unit)]])
    return found


def _gather(values_PG: Tensor, places: AnswerIndices) -> Tensor:
    """Return the values of the given answers, `[A]`."""
    return torch.stack([values_PG[index] for index in places])


def _zero_value_head(base: Base) -> nn.Linear:
    """Return a new float32 value head with zero weights: from a token's hidden state to the expected reward."""
    value = nn.Linear(base.model.config.hidden_size, 1)
    nn.init.zeros_(value.weight)
    nn.init.zeros_(value.bias)
    return value.to(base.device)


def _predict_values(value: nn.Linear, hidden_MD: Tensor) -> Tensor:
    """Return the predicted rewards `[M]`."""
    found_M1: Tensor = value(hidden_MD.float())
    return found_M1[:, 0]
