"""A classification head on the last token: a label for a prompt in one pass, with its probability, and no token generated.

Shapes: M scored positions, D hidden size, C labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import read_object, write_atomic, write_json
from trimtab.base.records import Encoded
from trimtab.model.adapters import trainable
from trimtab.model.load import Base
from trimtab.training.batch import MICRO_TOKENS, Batch, Row, micro_batches, pack, step_batches, steps_per_epoch
from trimtab.training.losses import Loss, scored_hidden

WEIGHTS_FILE, LABELS_FILE = "head.safetensors", "head.json"
_SPREAD = 0.02  # standard deviation of a new head's weights, as transformers starts one


class Head(nn.Module):
    """A float32 linear layer from the hidden size to the labels, in their order."""

    def __init__(self, labels: Sequence[str], hidden_size: int, *, seed: int = 0) -> None:
        super().__init__()
        self.labels = tuple(labels)
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(_SPREAD * torch.randn(len(self.labels), hidden_size, generator=generator))
        self.bias = nn.Parameter(torch.zeros(len(self.labels)))

    def forward(self, hidden_MD: Tensor) -> Tensor:
        """Scores `logits_MC` in float32."""
        return nn.functional.linear(hidden_MD.float(), self.weight, self.bias)


class Classification:
    """Cross entropy over the labels, weighted, normalised over the whole optimizer step; moves the model's own and the head."""

    def __init__(self, rows: Sequence[Row], head: Head, *, batch: int, seed: int) -> None:
        self.rows, self.head, self.batch, self.seed = list(rows), head, batch, seed

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that see every row once."""
        return steps_per_epoch(len(self.rows), self.batch)

    def parameters(self, base: Base) -> Mapping[str, nn.Parameter]:
        """Whatever of the model may move, and the head as `head.weight` and `head.bias`."""
        return {**trainable(base.model), **{f"head.{name}": value for name, value in self.head.named_parameters()}}

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of one optimizer step."""
        return step_batches(self.rows, batch=self.batch, step=step, seed=self.seed)

    def loss(self, base: Base, batch: Batch) -> Loss:
        """This micro-batch's share of the step's loss in nats a row, and of the accuracy, weighted alike."""
        log_p_MC = self.head(scored_hidden(base, batch)).log_softmax(-1)
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


def label_probabilities(base: Base, head: Head, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Probability of each label for each prompt, `[prompts, labels]` float32 on CPU, in one pass over every prompt.

    Prompts are token ids, none empty. An adapter is merged by the caller where it is to cost no time.
    """
    probabilities_PC = torch.empty(len(prompts), len(head.labels))
    # shortest first, so a row carries the number of its prompt in the place of a label
    units = [(_last_token(ids, number, 1.0),) for number, ids in enumerate(prompts)]
    with torch.no_grad():
        for part in micro_batches(units, MICRO_TOKENS):
            batch = pack([row for unit in part for row in unit])
            probabilities_PC[batch.labels_M] = head(scored_hidden(base, batch)).softmax(-1).cpu()
    return probabilities_PC


def save_head(head: Head, folder: Path) -> None:
    """Write the weights as safetensors and the labels as JSON, beside the adapter."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in head.named_parameters()}
    write_atomic(folder / WEIGHTS_FILE, save(tensors))
    write_json(folder / LABELS_FILE, {"labels": list(head.labels)})


def load_head(base: Base, folder: Path) -> Head:
    """Read a saved head onto the model's device.

    Raises MissingError when the folder holds none, InputError when it is damaged or for another model.
    """
    for name in (LABELS_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise MissingError(f"{folder}: no classification head ({name}); train one first")
    labels = read_object(folder / LABELS_FILE, "labels")["labels"]
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise InputError("is damaged (no list of labels)", "restore it from a copy", file=folder / LABELS_FILE)
    head = Head(labels, base.model.config.hidden_size)
    _fill(head, folder / WEIGHTS_FILE)
    return head.to(base.device)


def _fill(head: Head, file: Path) -> None:
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"is damaged ({error})", "restore it from a copy, or train again", file=file) from None
    expected: dict[str, Any] = {name: value.shape for name, value in head.named_parameters()}
    if {name: value.shape for name, value in tensors.items()} != expected:
        raise InputError(
            f"does not fit the model and the {len(head.labels)} labels",
            "use the base model and the labels it was trained with",
            file=file,
        )
    head.load_state_dict(tensors)


def _last_token(ids: Sequence[int], label: int, weight: float) -> Row:
    encoded = Encoded(ids=tuple(ids), trained=(False,) * len(ids))
    return Row(encoded=encoded, weight=weight, scored=((len(ids) - 1, label),))
