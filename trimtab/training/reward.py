"""Reward model objective: of two answers to one prompt, the better one should score higher (Bradley-Terry).

Shapes: M scored positions, two for each of P pairs, the better answer first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.base.records import Encoded
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.model.classifier import ClassificationHead
from trimtab.model.load import Base
from trimtab.training.batch import (
    Batch,
    TrainingRow,
    micro_batches,
    pack_rows,
    step_rows,
    steps_per_epoch,
)
from trimtab.training.judged_answers import JudgedAnswers, usable_rows
from trimtab.training.losses import Loss, scored_hidden

SCORE_LABELS = ("reward",)  # labels of the head: a single score


def bradley_terry(chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """`-log sigma(r_chosen - r_rejected)`, in nats a pair. Bradley & Terry 1952; Ouyang et al. 2022 (arXiv
    2203.02155, equation 1)."""
    return -F.logsigmoid(chosen_P - rejected_P)


class BradleyTerry:
    """The Bradley-Terry loss over weighted pairs, averaged over the whole optimizer step; trains the model and the
    head.

    The score is read at the last token of prompt and answer, the answer's end token. Only differences are learnt: a
    single score has no meaning. Judgements of one answer alone are not used. Figures: `pair_accuracy`, the share of
    pairs whose better answer scores higher, and `margin`, the mean difference.
    """

    def __init__(
        self,
        rows: Iterable[JudgedAnswers],
        head: ClassificationHead,
        *,
        batch: int,
        seed: int,
    ) -> None:
        """Raises InputError if no pair has a weight above 0."""
        self.rows = usable_rows(rows, pairs=True)
        self.head, self.batch, self.seed = head, batch, seed
        if not self.rows:
            problem = "no pairs of a better and a worse answer to train on"
            raise InputError(problem, "reward needs them in data.preferences", field="data.preferences")

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return steps_per_epoch(len(self.rows), self.batch)

    def parameters(self, base: Base) -> Mapping[str, nn.Parameter]:
        """Return the model's trainable parameters, and the head as `head.weight`."""
        return {
            **trainable_parameters(base.model),
            **{f"head.{name}": value for name, value in self.head.named_parameters()},
        }

    def batches(self, step: int) -> list[Batch]:
        """Return the micro-batches of one optimizer step; both answers of a pair are adjacent in the same one."""
        chosen = [self.rows[number] for number in step_rows(len(self.rows), self.batch, step, self.seed)]
        total = sum(row.weight for row in chosen)
        units = [tuple(_last_token(answer, row.weight / total) for answer in row.answers) for row in chosen]
        parts = micro_batches(units)
        return [pack_rows([row for unit in part for row in unit]) for part in parts]

    def loss(self, base: Base, batch: Batch) -> Loss:
        """Return this micro-batch's part of the step's loss and figures; a pair's term is stored at its better
        answer.
        """
        scores_M = self.head(scored_hidden(base, batch))[:, 0]
        weights_P = batch.weights_M.to(scores_M.device)[::2]
        parts_P = weights_P * bradley_terry(scores_M[::2], scores_M[1::2])
        gain_P = (scores_M[::2] - scores_M[1::2]).detach()
        parts_M = torch.zeros_like(scores_M)
        parts_M[::2] = parts_P.detach()
        figures = {"pair_accuracy": ((gain_P > 0) * weights_P).sum(), "margin": (gain_P * weights_P).sum()}
        return Loss(value=parts_P.sum(), figures=figures, parts_M=parts_M.detach())


def _last_token(answer: Encoded, weight: float) -> TrainingRow:
    return TrainingRow(encoded=answer, weight=weight, scored=((len(answer.ids) - 1, 0),))
