"""Objectives of the one loop: imitate answers (`sft`) and read documents (`docs`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from trimtab.base.errors import InputError
from trimtab.base.records import Document, Encoded
from trimtab.data.prompts import ChatEncoder
from trimtab.model.load import Base, hidden_states, softcap
from trimtab.training.batch import IGNORE, Batch, Row, micro_batches, pack, step_rows, steps_per_epoch
from trimtab.training.losses import cross_entropy_sum

# Tokens of one forward and backward pass: bounds memory, changes nothing else.
MICRO_TOKENS = 512


class Supervised:
    """Cross entropy on the trained tokens, normalised over the whole optimizer step."""

    def __init__(self, rows: Sequence[Row], *, batch: int, seed: int) -> None:
        self.rows, self.batch, self.seed = list(rows), batch, seed

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that see every row once."""
        return steps_per_epoch(len(self.rows), self.batch)

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of one optimizer step."""
        rows = [self.rows[number] for number in step_rows(len(self.rows), self.batch, step, self.seed)]
        total = sum(row.trained_tokens * row.weight for row in rows)
        scaled = [Row(encoded=row.encoded, weight=row.weight / total) for row in rows]
        return [pack(part) for part in micro_batches(scaled, MICRO_TOKENS)]

    def loss(self, base: Base, batch: Batch) -> Tensor:
        """This micro-batch's share of the step's loss: weights already carry the division by the step's tokens."""
        device = base.device
        labels_N = batch.labels_N.to(device)
        scored_N = labels_N != IGNORE
        hidden_ND = hidden_states(base.model, batch.ids_N.to(device), batch.positions_N.to(device), batch.layout)
        head = base.model.get_output_embeddings()
        return cross_entropy_sum(
            hidden_ND[scored_N],
            head.weight,
            labels_N[scored_N],
            batch.weights_N.to(device)[scored_N],
            bias_V=head.bias,
            softcap=softcap(base.model),
        )


def answer_rows(encoded: Iterable[tuple[Encoded, float]]) -> list[Row]:
    """Rows of the `sft` stage from conversations with their loss mask and weight; a weight of 0 leaves a row out.

    Raises InputError for a row without a token to learn from: its loss of 0 would look like success.
    """
    rows = [Row(encoded=item, weight=weight) for item, weight in encoded]
    for number, row in enumerate(rows, 1):
        if not row.trained_tokens:
            raise InputError(f"row {number} has no answer token in the loss", "give it an answer or leave it out")
    counted = [row for row in rows if row.weight > 0]
    if not counted:
        raise InputError("no row to train on has a weight above 0", "give some a weight", field="weight")
    return counted


def document_rows(documents: Sequence[Document], encoder: ChatEncoder, tokens: int = 512) -> list[Row]:
    """Rows of the `docs` stage: running text cut into pieces of at most `tokens`, every token counted."""
    rows: list[Row] = []
    for document in documents:
        ids = encoder.document(document).ids
        for start in range(0, len(ids), tokens):
            piece = ids[start : start + tokens]
            if len(piece) > 1:
                rows.append(Row(encoded=Encoded(ids=piece, trained=(True,) * len(piece))))
    return rows
