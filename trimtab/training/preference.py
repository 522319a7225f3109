"""Preference objectives: DPO, IPO, SimPO, ORPO (pairs), KTO (single answers); the reference is scored once.

Shapes: M scored positions, A answers, P pairs. An answer is scored by the sum of its tokens' log-probabilities, its end
token included; prompts are not scored. The reference is the model at the start of the stage: its sums are computed once
and kept.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.base.records import Encoded
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.model.load import Base
from trimtab.training.activation_cache import ActivationCache
from trimtab.training.batch import (
    Batch,
    TrainingRow,
    micro_batches,
    pack_rows,
    step_rows,
    steps_per_epoch,
    units_tokens,
)
from trimtab.training.losses import Loss, label_log_probabilities, scored_hidden, sums_by_row
from trimtab.training.parallel import map_microbatches

BETA = 0.1  # strength of the reference in DPO, IPO and KTO; weight of the odds ratio in ORPO
SIMPO_BETA, SIMPO_MARGIN = 2.0, 1.0  # as in the paper, per token


@dataclass(frozen=True, kw_only=True)
class JudgedAnswers:
    """Two answers to one prompt, the better and the worse; or one of them, with None in place of the other."""

    chosen: Encoded | None
    rejected: Encoded | None
    weight: float = 1.0

    @property
    def answers(self) -> tuple[Encoded, ...]:
        """The answers that are present, the better first."""
        return tuple(one for one in (self.chosen, self.rejected) if one is not None)


class PairLogProbabilities(NamedTuple):
    """Log-probabilities of P pairs: of both answers under the policy and the reference, and the answers' token
    counts.
    """

    chosen_P: Tensor
    rejected_P: Tensor
    chosen_reference_P: Tensor
    rejected_reference_P: Tensor
    chosen_tokens_P: Tensor
    rejected_tokens_P: Tensor

    @property
    def log_ratios(self) -> Tensor:
        """Log-ratio of the better answer minus that of the worse one, in nats."""
        return (self.chosen_P - self.chosen_reference_P) - (self.rejected_P - self.rejected_reference_P)

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """The policy's mean log-probability per token of either answer."""
        return self.chosen_P / self.chosen_tokens_P, self.rejected_P / self.rejected_tokens_P


def dpo(sides: PairLogProbabilities) -> Tensor:
    """`-log sigma(beta h)` with h the difference of log-ratios. Rafailov et al. 2023 (arXiv 2305.18290)."""
    return -F.logsigmoid(BETA * sides.log_ratios)


def ipo(sides: PairLogProbabilities) -> Tensor:
    """`(h - 1 / (2 beta))^2` with h the difference of log-ratios, each averaged over its tokens so that length does not
    matter.

    Azar et al. 2023 (arXiv 2310.12036). The average over tokens follows their experiments, as the authors told TRL.
    """
    chosen_P = (sides.chosen_P - sides.chosen_reference_P) / sides.chosen_tokens_P
    rejected_P = (sides.rejected_P - sides.rejected_reference_P) / sides.rejected_tokens_P
    return (chosen_P - rejected_P - 1 / (2 * BETA)).square()


def simpo(sides: PairLogProbabilities) -> Tensor:
    """`-log sigma(beta (mean chosen - mean rejected) - gamma)`, without a reference. Meng et al. 2024 (arXiv
    2405.14734)."""
    chosen_P, rejected_P = sides.means
    return -F.logsigmoid(SIMPO_BETA * (chosen_P - rejected_P) - SIMPO_MARGIN)


def orpo(sides: PairLogProbabilities) -> Tensor:
    """Cross entropy of the better answer per token, and `-beta log sigma(log odds ratio)` of the mean
    log-probabilities.

    Needs no reference. Hong et al. 2024 (arXiv 2403.07691). The authors' code also trains on the prompt; here the
    answer alone is trained.
    """
    chosen_P, rejected_P = sides.means
    odds_P = (chosen_P - rejected_P) - (_log_one_minus_p(chosen_P) - _log_one_minus_p(rejected_P))
    return -chosen_P - BETA * F.logsigmoid(odds_P)


def _log_one_minus_p(log_p_P: Tensor) -> Tensor:
    """Return log(1 - p) from log p; a p that rounds to 1 is taken as the largest float below 1."""
    return torch.log1p(-torch.exp(log_p_P.clamp(max=-torch.finfo(log_p_P.dtype).eps)))


def kto(good_A: Tensor, log_ratios_A: Tensor, divergence: float, shares: tuple[float, float]) -> Tensor:
    """`1 - sigma(beta (r - z))` for a good answer with log-ratio r, `1 - sigma(beta (z - r))` for a bad one.

    z is the divergence from the reference, estimated as the mean log-ratio of answers paired with other prompts, at
    least 0, without gradient. `shares` weigh good and bad answers, so that the rarer kind counts as much. Ethayarajh et
    al. 2024 (arXiv 2402.01306).
    """
    shifted_A = BETA * (log_ratios_A - divergence)
    weight_A = torch.where(good_A, shares[0], shares[1])
    return weight_A * (1 - torch.sigmoid(torch.where(good_A, shifted_A, -shifted_A)))


PAIR_LOSSES: Mapping[str, Callable[[PairLogProbabilities], Tensor]] = {
    "dpo": dpo,
    "ipo": ipo,
    "simpo": simpo,
    "orpo": orpo,
}
WITHOUT_REFERENCE = ("simpo", "orpo")


@dataclass(frozen=True, kw_only=True)
class PreferenceBatch(Batch):
    """A batch whose rows are answers, with their judgements.

    `reference_A`: summed log-probability under the reference. `good_A`: True for the better answer of a pair, or a good
    one. `weights_A`: weight of the answer or its pair, divided by the step's total. Answers of a pair are adjacent, the
    better first.
    """

    reference_A: Tensor
    good_A: Tensor
    weights_A: Tensor
    divergence: float = 0.0

    @property
    def trained_tokens(self) -> int:
        """Number of answers, by which a part of the step is weighted: a judgement counts once, however long the answer
        is.
        """
        return len(self.reference_A)


class PreferenceObjective:
    """A preference loss over judged answers, averaged over the judgements of the whole optimizer step.

    Figures: `pair_accuracy`, the share of pairs whose better answer gained more than the worse one over the reference
    (without a reference: has the higher mean log-probability), and `margin`, the difference in nats; for single answers
    the same against 0.
    """

    def __init__(
        self,
        base: Base,
        rows: Sequence[JudgedAnswers],
        loss: str,
        *,
        batch: int,
        seed: int,
        cache_activations: bool = True,
    ) -> None:
        """Raises InputError for rows that the loss cannot use; the reference is `base` as it is now.

        `cache_activations`: cache the outputs of frozen layers, if rows are read repeatedly (the reference reads them
        too).
        """
        self.loss_name, self.batch, self.seed = loss, batch, seed
        self.rows = usable_rows(rows, loss)
        if not self.rows:
            need = "pairs of a better and a worse answer" if loss in PAIR_LOSSES else "judged answers"
            raise InputError(
                f"no {need} to train on", f"{loss} needs them in data.preferences", field="data.preferences"
            )
        self._base = base
        answers = [row.answers for row in self.rows]
        self._kl_answers = _mismatched_answers(self.rows) if loss == "kto" else []
        self.activation_cache = (
            ActivationCache(partial(_passes, (answers, self._kl_answers))) if cache_activations else None
        )
        self._reference = [(0.0,) * len(both) for both in answers]
        if loss not in WITHOUT_REFERENCE:
            self._reference = answer_log_probabilities(base, answers, self.activation_cache)
        self._kl_reference = answer_log_probabilities(base, self._kl_answers, self.activation_cache)
        good = sum(row.weight for row in self.rows if row.chosen is not None)
        bad = sum(row.weight for row in self.rows if row.rejected is not None)
        smaller = min(good, bad) or max(good, bad)  # a single kind keeps its weight
        self._shares = (smaller / good if good else 1.0, smaller / bad if bad else 1.0)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return steps_per_epoch(len(self.rows), self.batch)

    def parameters(self, base: Base) -> Mapping[str, nn.Parameter]:
        """Return the model's trainable parameters."""
        return trainable_parameters(base.model)

    def batches(self, step: int) -> list[PreferenceBatch]:
        """Return the micro-batches of one optimizer step; both answers of a pair are in the same one."""
        chosen = step_rows(len(self.rows), self.batch, step, self.seed)
        total = sum(self.rows[number].weight * self._judgement_count(number) for number in chosen)
        divergence = self._divergence(chosen) if self.loss_name == "kto" else 0.0
        units = [tuple(TrainingRow(encoded=answer) for answer in self.rows[number].answers) for number in chosen]
        number_of = {id(unit): number for unit, number in zip(units, chosen, strict=True)}
        parts = micro_batches(units)
        return [self._packed(part, [number_of[id(unit)] for unit in part], total, divergence) for part in parts]

    def _judgement_count(self, number: int) -> int:
        """Return the judgements of a row: a pair is one, and for KTO each of its answers is."""
        return 1 if self.loss_name in PAIR_LOSSES else len(self.rows[number].answers)

    def _packed(
        self, units: Sequence[tuple[TrainingRow, ...]], numbers: Sequence[int], total: float, divergence: float
    ) -> PreferenceBatch:
        packed = pack_rows([row for unit in units for row in unit])
        good = [side for number in numbers for side in self._good(number)]
        weights = [self.rows[number].weight / total for number in numbers for _ in self.rows[number].answers]
        return PreferenceBatch(
            **{name: getattr(packed, name) for name in Batch.__dataclass_fields__},
            reference_A=torch.tensor([value for number in numbers for value in self._reference[number]]),
            good_A=torch.tensor(good),
            weights_A=torch.tensor(weights),
            divergence=divergence,
        )

    def _good(self, number: int) -> list[bool]:
        row = self.rows[number]
        return [True] * (row.chosen is not None) + [False] * (row.rejected is not None)

    def _divergence(self, numbers: Sequence[int]) -> float:
        """Return KTO's z of a step: the mean log-ratio of mismatched answers, in nats, at least 0."""
        now = answer_log_probabilities(
            self._base, [self._kl_answers[number] for number in numbers], self.activation_cache
        )
        gaps = [one - self._kl_reference[number][0] for (one,), number in zip(now, numbers, strict=True)]
        return max(0.0, math.fsum(gaps) / len(gaps))

    def loss(self, base: Base, batch: PreferenceBatch) -> Loss:
        """Return this micro-batch's part of the step's loss and figures."""
        log_p_M = label_log_probabilities(base, scored_hidden(base, batch, self.activation_cache), batch.labels_M)
        device, sums_A = log_p_M.device, sums_by_row(log_p_M, batch)
        weights_A, reference_A, good_A = (one.to(device) for one in (batch.weights_A, batch.reference_A, batch.good_A))
        if self.loss_name == "kto":
            ratios_A = sums_A - reference_A
            parts_A = weights_A * kto(good_A, ratios_A, batch.divergence, self._shares)
            return _loss_with_figures(
                batch, parts_A, weights_A, torch.where(good_A, ratios_A, -ratios_A), answers_per_judgement=1
            )
        tokens_A = torch.bincount(batch.row_M, minlength=batch.rows).to(sums_A)
        sides = PairLogProbabilities(*(one[at::2] for one in (sums_A, reference_A, tokens_A) for at in (0, 1)))
        chosen_P, rejected_P = sides.means
        gain_P = chosen_P - rejected_P if self.loss_name in WITHOUT_REFERENCE else sides.log_ratios
        parts_P = weights_A[::2] * PAIR_LOSSES[self.loss_name](sides)
        return _loss_with_figures(batch, parts_P, weights_A[::2], gain_P, answers_per_judgement=2)


def _loss_with_figures(batch: Batch, parts: Tensor, weights: Tensor, gain: Tensor, answers_per_judgement: int) -> Loss:
    """Return the loss with its figures; a judgement's term is stored at the first position of its (better) answer."""
    first_A = torch.searchsorted(batch.row_M, torch.arange(batch.rows)).to(parts.device)
    parts_M = parts.new_zeros(len(batch.row_M)).index_add(0, first_A[::answers_per_judgement], parts.detach())
    gain = gain.detach()
    figures = {"pair_accuracy": ((gain > 0) * weights).sum(), "margin": (gain * weights).sum()}
    return Loss(value=parts.sum(), figures=figures, parts_M=parts_M)


def usable_rows(rows: Sequence[JudgedAnswers], loss: str) -> list[JudgedAnswers]:
    """Return the rows that a loss can learn from: those with a weight, and for pair losses those with both answers."""
    return [row for row in rows if row.weight > 0 and (loss not in PAIR_LOSSES or len(row.answers) == 2)]


def fitting_rows(rows: Sequence[JudgedAnswers], max_tokens: int) -> tuple[list[JudgedAnswers], int]:
    """Return the rows whose answers have at most `max_tokens` tokens with their prompt, and the number left out.

    Raises InputError for an answer without a trained token.
    """
    for number, row in enumerate(rows, 1):
        if not all(any(answer.trained) for answer in row.answers):
            raise InputError(f"preference {number} has an answer without a token", "give it a text or leave it out")
    fitting = [row for row in rows if all(len(answer.ids) <= max_tokens for answer in row.answers)]
    return fitting, len(rows) - len(fitting)


@torch.no_grad()
def answer_log_probabilities(
    base: Base, answers: Sequence[tuple[Encoded, ...]], activation_cache: ActivationCache | None = None
) -> list[tuple[float, ...]]:
    """Return the summed log-probabilities of the answers to each prompt under the current weights, in nats."""
    units = _units(answers)
    number_of = {id(unit): number for number, unit in enumerate(units)}
    found: list[tuple[float, ...]] = [()] * len(units)
    parts = micro_batches(units)

    def sums_of(part: Sequence[tuple[TrainingRow, ...]]) -> list[float]:
        batch = pack_rows([row for unit in part for row in unit])
        log_p_M = label_log_probabilities(base, scored_hidden(base, batch, activation_cache), batch.labels_M)
        values: list[float] = sums_by_row(log_p_M, batch).tolist()
        return values

    for part, values in zip(parts, map_microbatches(sums_of, parts, size=units_tokens), strict=True):
        of_row = iter(values)
        for unit in part:
            found[number_of[id(unit)]] = tuple(next(of_row) for _ in unit)
    return found


def _units(answers: Sequence[tuple[Encoded, ...]]) -> list[tuple[TrainingRow, ...]]:
    return [tuple(TrainingRow(encoded=answer) for answer in both) for both in answers]


def _passes(groups: Sequence[Sequence[tuple[Encoded, ...]]]) -> list[list[TrainingRow]]:
    """Return the rows of each pass of `answer_log_probabilities` over each of the groups."""
    parts = (part for answers in groups for part in micro_batches(_units(answers)))
    return [[row for unit in part for row in unit] for part in parts]


def _mismatched_answers(rows: Sequence[JudgedAnswers]) -> list[tuple[Encoded, ...]]:
    """Return for each row one of its answers after another row's prompt, drawn with a fixed seed."""
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    partner = {number: order[(place + 1) % len(order)] for place, number in enumerate(order)}
    return [(_with_prompt_of(rows[partner[number]].answers[0], row.answers[0]),) for number, row in enumerate(rows)]


def _with_prompt_of(prompt_of: Encoded, answer_of: Encoded) -> Encoded:
    """Return the prompt of one row with the answer of another."""
    prompt_end = prompt_of.trained.index(True)
    answer_start = answer_of.trained.index(True)
    ids = (*prompt_of.ids[:prompt_end], *answer_of.ids[answer_start:])
    return Encoded(ids=ids, trained=(False,) * prompt_end + (True,) * (len(answer_of.ids) - answer_start))
