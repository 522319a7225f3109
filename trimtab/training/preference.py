"""Preference objectives: DPO, IPO, SimPO, ORPO (pairs), KTO (single answers); the reference is scored once.

Shapes: M scored positions, A answers, P pairs. An answer is scored by the sum of its tokens' log-probabilities, its end
token included; prompts are not scored. The reference is the model at the start of the stage: its sums are computed once
and kept.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
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
from trimtab.training.judged_answers import JudgedAnswers, JudgedRows, usable_rows
from trimtab.training.losses import Loss, label_log_probabilities, scored_hidden, sums_by_row
from trimtab.training.parallel import map_microbatches

BETA = 0.1  # strength of the reference in DPO, IPO and KTO; weight of the odds ratio in ORPO
SIMPO_BETA, SIMPO_MARGIN = 2.0, 1.0  # as in the paper, per token
BLOCK = 4096  # prompts whose answers are scored at once: bounds memory, and decides which answers share a pass


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
        rows: Iterable[JudgedAnswers],
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
        self.rows = usable_rows(rows, pairs=loss in PAIR_LOSSES)
        if not self.rows:
            need = "pairs of a better and a worse answer" if loss in PAIR_LOSSES else "judged answers"
            raise InputError(
                f"no {need} to train on", f"{loss} needs them in data.preferences", field="data.preferences"
            )
        self._base = base
        self._partners = _partners(len(self.rows)) if loss == "kto" else array("i")
        groups = partial(_reference_answers, self.rows, self._partners)
        self.activation_cache = ActivationCache(partial(_passes, groups)) if cache_activations else None
        answers, kl_answers = groups()
        self._reference: list[tuple[float, ...]] = [(0.0, 0.0)] * len(self.rows)
        if loss not in WITHOUT_REFERENCE:
            self._reference = answer_log_probabilities(base, answers, self.activation_cache)
        self._kl_reference = answer_log_probabilities(base, kl_answers, self.activation_cache)
        good, bad = (sum(self.rows.weights[one].tolist()) for one in (self.rows.has_chosen, self.rows.has_rejected))
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
        numbers = step_rows(len(self.rows), self.batch, step, self.seed)
        judged = [self.rows[number] for number in numbers]
        total = sum(row.weight * self._judgement_count(row) for row in judged)
        divergence = self._divergence(numbers) if self.loss_name == "kto" else 0.0
        units = _units(row.answers for row in judged)
        places = {id(unit): place for place, unit in enumerate(units)}

        def packed(part: Sequence[tuple[TrainingRow, ...]]) -> PreferenceBatch:
            own = [places[id(unit)] for unit in part]
            rows, reference = [judged[place] for place in own], [self._reference[numbers[place]] for place in own]
            return _packed(part, rows, reference, total, divergence)

        return [packed(part) for part in micro_batches(units)]

    def _judgement_count(self, row: JudgedAnswers) -> int:
        """Return the judgements of a row: a pair is one, and for KTO each of its answers is."""
        return 1 if self.loss_name in PAIR_LOSSES else len(row.answers)

    def _divergence(self, numbers: Sequence[int]) -> float:
        """Return KTO's z of a step: the mean log-ratio of mismatched answers, in nats, at least 0."""
        answers = [mismatched_answer(self.rows, self._partners, number) for number in numbers]
        now = answer_log_probabilities(self._base, [(one,) for one in answers], self.activation_cache)
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


def _packed(
    units: Sequence[tuple[TrainingRow, ...]],
    judged: Sequence[JudgedAnswers],
    reference: Sequence[tuple[float, ...]],
    total: float,
    divergence: float,
) -> PreferenceBatch:
    """Return a micro-batch of judged rows; `units` are their answers, `total` is the weight of the step."""
    packed = pack_rows([row for unit in units for row in unit])
    return PreferenceBatch(
        **{name: getattr(packed, name) for name in Batch.__dataclass_fields__},
        reference_A=torch.tensor([value for own in reference for value in own]),
        good_A=torch.tensor([answer is row.chosen for row in judged for answer in row.answers]),
        weights_A=torch.tensor([row.weight / total for row in judged for _ in row.answers]),
        divergence=divergence,
    )


def _loss_with_figures(batch: Batch, parts: Tensor, weights: Tensor, gain: Tensor, answers_per_judgement: int) -> Loss:
    """Return the loss with its figures; a judgement's term is stored at the first position of its (better) answer."""
    first_A = torch.searchsorted(batch.row_M, torch.arange(batch.rows)).to(parts.device)
    parts_M = parts.new_zeros(len(batch.row_M)).index_add(0, first_A[::answers_per_judgement], parts.detach())
    gain = gain.detach()
    figures = {"pair_accuracy": ((gain > 0) * weights).sum(), "margin": (gain * weights).sum()}
    return Loss(value=parts.sum(), figures=figures, parts_M=parts_M)


@torch.no_grad()
def answer_log_probabilities(
    base: Base, answers: Iterable[tuple[Encoded, ...]], activation_cache: ActivationCache | None = None
) -> list[tuple[float, ...]]:
    """Return the summed log-probabilities of the answers to each prompt under the current weights, in nats."""
    return [sums for block in _blocks(answers) for sums in _block_log_probabilities(base, block, activation_cache)]


def _block_log_probabilities(
    base: Base, units: Sequence[tuple[TrainingRow, ...]], activation_cache: ActivationCache | None
) -> list[tuple[float, ...]]:
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


def _units(answers: Iterable[tuple[Encoded, ...]]) -> list[tuple[TrainingRow, ...]]:
    return [tuple(TrainingRow(encoded=answer) for answer in both) for both in answers]


def _blocks(answers: Iterable[tuple[Encoded, ...]]) -> Iterator[list[tuple[TrainingRow, ...]]]:
    """Yield the units of some thousand prompts at a time; micro-batches are filled from one of them."""
    units = iter(answers)
    while block := _units(islice(units, BLOCK)):
        yield block


def _reference_answers(rows: JudgedRows, partners: Sequence[int]) -> tuple[Iterator[tuple[Encoded, ...]], ...]:
    """Return the answers that the reference scores: all judged ones, and the mismatched ones of KTO."""
    mismatched = ((mismatched_answer(rows, partners, number),) for number in range(len(partners)))
    return (row.answers for row in rows), mismatched


def _passes(groups: Callable[[], Iterable[Iterable[tuple[Encoded, ...]]]]) -> Iterator[list[TrainingRow]]:
    """Yield the rows of each pass of `answer_log_probabilities` over each of the groups."""
    for answers in groups():
        for block in _blocks(answers):
            yield from ([row for unit in part for row in unit] for part in micro_batches(block))


def _partners(count: int) -> array[int]:
    """Return for each row another one, drawn with a fixed seed."""
    order = array("i", range(count))
    random.Random(0).shuffle(order)
    partners = array("i", order)
    for place, number in enumerate(order):
        partners[number] = order[(place + 1) % count]
    return partners


def mismatched_answer(rows: JudgedRows, partners: Sequence[int], number: int) -> Encoded:
    """Return an answer of a row after the prompt of its partner."""
    prompt_of, answer_of = rows[partners[number]].answers[0], rows[number].answers[0]
    prompt_end = prompt_of.trained.index(True)
    answer_start = answer_of.trained.index(True)
    ids = (*prompt_of.ids[:prompt_end], *answer_of.ids[answer_start:])
    return Encoded(ids=ids, trained=(False,) * prompt_end + (True,) * (len(answer_of.ids) - answer_start))
