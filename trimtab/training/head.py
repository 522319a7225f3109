"""A classification head on the last token: a label for a prompt in one pass, with its probability, and no token generated.

Shapes: M scored positions, D hidden size, C labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.base.records import Encoded
from trimtab.model.adapters import trainable
from trimtab.model.classifier import load_classifier, save_classifier
from trimtab.model.load import Base
from trimtab.training.batch import Batch, Row, first_epoch, step_batches, steps_per_epoch
from trimtab.training.frozen import FrozenLayers
from trimtab.training.losses import Loss, scored_hidden

_SPREAD = 0.02  # standard deviation of a new head's weights, as transformers starts one


class Head(nn.Module):
    """A float32 linear layer from the hidden size to the labels, in their order.

    Without a bias, as transformers' sequence classifiers have none: all prompts end in the same tokens, so their hidden states
    have much in common, and weights along that do what a bias would.
    """

    def __init__(self, labels: Sequence[str], hidden_size: int, *, seed: int = 0) -> None:
        super().__init__()
        self.labels = tuple(labels)
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(_SPREAD * torch.randn(len(self.labels), hidden_size, generator=generator))

    def forward(self, hidden_MD: Tensor) -> Tensor:
        """Scores `logits_MC` in float32."""
        return nn.functional.linear(hidden_MD.float(), self.weight)


class Classification:
    """Cross entropy over the labels, weighted, normalised over the whole optimizer step; moves the model's own and the head."""

    def __init__(self, rows: Sequence[Row], head: Head, *, batch: int, seed: int, keep: bool = True) -> None:
        """`keep`: rows are read often enough to keep what frozen layers put out for them."""
        self.rows, self.head, self.batch, self.seed = list(rows), head, batch, seed
        self.frozen = FrozenLayers(partial(first_epoch, self.rows, batch=batch, seed=seed)) if keep else None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that see every row once."""
        return steps_per_epoch(len(self.rows), self.batch)

    def parameters(self, base: Base) -> Mapping[str, nn.Parameter]:
        """Whatever of the model may move, and the head as `head.weight`."""
        return {**trainable(base.model), **{f"head.{name}": value for name, value in self.head.named_parameters()}}

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of one optimizer step."""
        return step_batches(self.rows, batch=self.batch, step=step, seed=self.seed)

    def loss(self, base: Base, batch: Batch) -> Loss:
        """This micro-batch's share of the step's loss in nats a row, and of the accuracy, weighted alike."""
        log_p_MC = self.head(scored_hidden(base, batch, self.frozen)).log_softmax(-1)
        labels_M, weights_M = batch.labels_M.to(log_p_MC.device), batch.weights_M.to(log_p_MC.device)
        log_p_M = log_p_MC.gather(1, labels_M[:, None])[:, 0]
        right_M = log_p_MC.argmax(-1) == labels_M
        parts_M = -(log_p_M * weights_M)
        return Loss(value=parts_M.sum(), figures={"accuracy": (right_M * weights_M).sum()}, parts_M=parts_M.detach())


def label_rows(prompts: Iterable[tuple[Sequence[int], int, float]], labels: int) -> list[Row]:
    """Rows from token ids of a prompt, the number of its label and its weight; a weight of 0 leaves a row out.

    Raises InputError for an empty prompt, for a number that is not below `labels`, and when no row is left.
    """
    rows = []
    for number, (ids, label, weight) in enumerate(prompts, 1):
        if not ids:
            raise InputError(f"row {number} has an empty prompt", "give it a text or leave it out")
        if not 0 <= label < labels:
            raise InputError(f"row {number} has label number {label}", f"number the labels from 0 to {labels - 1}")
        if weight > 0:
            rows.append(_last_token(ids, label, weight))
    if not rows:
        raise InputError("no row to train on has a weight above 0", "give some a weight", field="weight")
    return rows


@torch.no_grad()
def label_probabilities(head: Head, hidden_MD: Tensor) -> Tensor:
    """Probability of each label from the hidden state at the end of each prompt, `[M, C]` float32 on CPU."""
    chances_MC: Tensor = head(hidden_MD).softmax(-1).cpu()
    return chances_MC


def save_head(base: Base, head: Head, folder: Path) -> None:
    """Write what moved on the base and the head on it, as transformers and PEFT load them: see `model/classifier.py`."""
    save_classifier(base, head.weight, head.labels, folder)


def load_head(base: Base, folder: Path) -> Head:
    """Read a saved head onto the model's device.

    Raises MissingError when the folder holds none, InputError when it is damaged, of an earlier version or for another model.
    """
    labels, score_CD = load_classifier(folder)
    head = Head(labels, base.model.config.hidden_size)
    if score_CD.shape != head.weight.shape:
        raise InputError(
            f"the classification head does not fit the model and the {len(labels)} labels",
            "use the base model and the labels it was trained with",
            file=folder,
        )
    with torch.no_grad():
        head.weight.copy_(score_CD)
    return head.to(base.device)


def _last_token(ids: Sequence[int], label: int, weight: float) -> Row:
    encoded = Encoded(ids=tuple(ids), trained=(False,) * len(ids))
    return Row(encoded=encoded, weight=weight, scored=((len(ids) - 1, label),))
