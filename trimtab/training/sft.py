"""Supervised objective: cross entropy on answers (`sft`) or on documents (`docs`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from trimtab.base.errors import InputError
from trimtab.base.records import Document, Encoded
from trimtab.data.prompts import ChatEncoder
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.model.load import Base
from trimtab.training.activation_cache import ActivationCache
from trimtab.training.batch import (
    Batch,
    TrainingRow,
    first_epoch,
    micro_batches,
    pack_rows,
    step_batches,
    steps_per_epoch,
    units_tokens,
)
from trimtab.training.encoded_rows import EncodedRows, store_encoded_rows
from trimtab.training.losses import (
    Loss,
    label_log_probabilities,
    scored_hidden,
    sums_by_row,
)
from trimtab.training.parallel import map_microbatches


class SupervisedObjective:
    """Cross entropy on the trained tokens, normalised over the whole optimizer step."""

    def __init__(
        self,
        rows: Sequence[TrainingRow],
        *,
        batch: int,
        seed: int,
        cache_activations: bool = True,
    ) -> None:
        """`cache_activations`: cache the outputs of frozen layers, if rows are read repeatedly."""
        self.rows, self.batch, self.seed = rows, batch, seed
        self.activation_cache = (
            ActivationCache(partial(first_epoch, self.rows, batch=batch, seed=seed)) if cache_activations else None
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return steps_per_epoch(len(self.rows), self.batch)

    def parameters(self, base: Base) -> Mapping[str, nn.Parameter]:
        """Return the model's trainable parameters."""
        return trainable_parameters(base.model)

    def batches(self, step: int) -> list[Batch]:
        """Return the micro-batches of one optimizer step."""
        return step_batches(self.rows, batch=self.batch, step=step, seed=self.seed)

    def loss(self, base: Base, batch: Batch) -> Loss:
        """Return this micro-batch's part of the step's loss; the weights are already divided by the step's total."""
        hidden_MD = scored_hidden(base, batch, self.activation_cache)
        weights_M = batch.weights_M.to(hidden_MD.device)
        log_p_M = label_log_probabilities(base, hidden_MD, batch.labels_M, upstream_grad_M=-weights_M)
        return Loss(value=-(log_p_M * weights_M).sum(), parts_M=-(log_p_M.detach() * weights_M))


@torch.no_grad()
def row_losses(base: Base, rows: Sequence[TrainingRow]) -> list[float]:
    """Return the loss of each row, summed over its trained tokens whatever its weight, in nats."""
    units = [(replace(row, weight=1.0),) for row in rows]
    parts = micro_batches(units)

    def nats(part: Sequence[tuple[TrainingRow, ...]]) -> list[float]:
        batch = pack_rows([row for unit in part for row in unit])
        log_p_M = label_log_probabilities(base, scored_hidden(base, batch), batch.labels_M)
        values: list[float] = (-sums_by_row(log_p_M, batch)).tolist()
        return values

    found: dict[int, float] = {}
    for part, values in zip(parts, map_microbatches(nats, parts, size=units_tokens), strict=True):
        found |= zip(map(id, part), values, strict=True)
    return [found[id(unit)] for unit in units]


def answer_rows(encoded: Iterable[tuple[Encoded, float]], folder: Path | None = None) -> EncodedRows:
    """Build rows of the `sft` stage from a stream of conversations with their loss mask and weight; rows of weight 0
    are left out.

    `folder`: for the temporary file of many rows. Raises InputError for a row without a trained token: its loss of 0
    would look like success.
    """

    def counted() -> Iterator[TrainingRow]:
        for number, (item, weight) in enumerate(encoded, 1):
            row = TrainingRow(encoded=item, weight=weight)
            if not row.trained_tokens:
                raise InputError(f"row {number} has no answer token in the loss", "give it an answer or leave it out")
            if weight > 0:
                yield row

    rows = store_encoded_rows(counted(), folder)
    if not rows:
        raise InputError("no row to train on has a weight above 0", "give some a weight", field="weight")
    return rows


def document_rows(
    documents: Iterable[Document], encoder: ChatEncoder, tokens: int = 512, folder: Path | None = None
) -> EncodedRows:
    """Build rows of the `docs` stage: running text cut into pieces of at most `tokens` tokens, all trained.

    `folder`: for the temporary file of many rows.
    """
    ids = (encoder.document(document).ids for document in documents)
    pieces = (one[start : start + tokens] for one in ids for start in range(0, len(one), tokens))
    encoded = (Encoded(ids=piece, trained=(True,) * len(piece)) for piece in pieces if len(piece) > 1)
    return store_encoded_rows((TrainingRow(encoded=one) for one in encoded), folder)
