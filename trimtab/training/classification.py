"""Classification objective: weighted cross entropy of a head on the last token.

Shapes: M scored positions, D hidden size, C labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.base.records import Encoded
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.model.classifier import ClassificationHead
from trimtab.model.load import Base
from trimtab.training.activation_cache import ActivationCache
from trimtab.training.batch import Batch, TrainingRow, first_epoch, step_batches, steps_per_epoch
from trimtab.training.encoded_rows import EncodedRows, store_encoded_rows
from trimtab.training.losses import Loss, scored_hidden


class ClassificationObjective:
    """Weighted cross entropy over the labels, normalised over the whole optimizer step; trains the model and the
    head.
    """

    def __init__(
        self,
        rows: Sequence[TrainingRow],
        head: ClassificationHead,
        *,
        batch: int,
        seed: int,
        cache_activations: bool = True,
    ) -> None:
        """`cache_activations`: cache the outputs of frozen layers, if rows are read repeatedly."""
        self.rows, self.head, self.batch, self.seed = rows, head, batch, seed
        self.activation_cache = (
            ActivationCache(partial(first_epoch, self.rows, batch=batch, seed=seed)) if cache_activations else None
        )

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
        """Return the micro-batches of one optimizer step."""
        return step_batches(self.rows, batch=self.batch, step=step, seed=self.seed)

    def loss(self, base: Base, batch: Batch) -> Loss:
        """Return this micro-batch's part of the step's loss (nats per row) and accuracy, weighted alike."""
        log_p_MC = self.head(scored_hidden(base, batch, self.activation_cache)).log_softmax(-1)
        labels_M, weights_M = batch.labels_M.to(log_p_MC.device), batch.weights_M.to(log_p_MC.device)
        log_p_M = log_p_MC.gather(1, labels_M[:, None])[:, 0]
        correct_M = log_p_MC.argmax(-1) == labels_M
        parts_M = -(log_p_M * weights_M)
        return Loss(value=parts_M.sum(), figures={"accuracy": (correct_M * weights_M).sum()}, parts_M=parts_M.detach())


def label_rows(
    prompts: Iterable[tuple[Sequence[int], int, float]], labels: int, folder: Path | None = None
) -> EncodedRows:
    """Build rows from a stream of a prompt's token ids, its label index and its weight; rows of weight 0 are left out.

    `folder`: for the temporary file of many rows. Raises InputError for an empty prompt, for an index that is not below
    `labels`, and if no row is left.
    """

    def counted() -> Iterator[TrainingRow]:
        for number, (ids, label, weight) in enumerate(prompts, 1):
            if not ids:
                raise InputError(f"row {number} has an empty prompt", "give it a text or leave it out")
            if not 0 <= label < labels:
                raise InputError(f"row {number} has label number {label}", f"number the labels from 0 to {labels - 1}")
            if weight > 0:
                yield _last_token(ids, label, weight)

    rows = store_encoded_rows(counted(), folder)
    if not rows:
        raise InputError("no row to train on has a weight above 0", "give some a weight", field="weight")
    return rows


@torch.no_grad()
def class_probabilities(head: ClassificationHead, hidden_MD: Tensor) -> Tensor:
    """Return the probability of each label from the hidden state at the end of each prompt, `[M, C]`, float32 on
    CPU.
    """
    probabilities_MC: Tensor = head(hidden_MD).softmax(-1).cpu()
    return probabilities_MC


def _last_token(ids: Sequence[int], label: int, weight: float) -> TrainingRow:
    encoded = Encoded(ids=tuple(ids), trained=(False,) * len(ids))
    return TrainingRow(encoded=encoded, weight=weight, scored=((len(ids) - 1, label),))
