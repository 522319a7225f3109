"""Rows into flat batches without padding, and which rows an optimizer step takes.

Shapes: N tokens of the flat row.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.base.records import Encoded
from trimtab.model.attention import Segments

IGNORE = -100


@dataclass(frozen=True, kw_only=True)
class Row:
    """An encoded row and its weight in the loss."""

    encoded: Encoded
    weight: float = 1.0

    @property
    def trained_tokens(self) -> int:
        """Tokens that are predicted and count: the first token of a row is never predicted."""
        return sum(self.encoded.trained[1:])


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences laid end to end; `labels_N` is the next token where that is trained on, else -100."""

    ids_N: Tensor
    positions_N: Tensor
    labels_N: Tensor
    weights_N: Tensor
    layout: Segments

    @property
    def trained_tokens(self) -> int:
        """Tokens that are predicted and count."""
        return int((self.labels_N != IGNORE).sum())


def pack(rows: Sequence[Row], device: torch.device | str = "cpu") -> Batch:
    """Lay rows end to end."""
    ids: list[int] = []
    labels: list[int] = []
    weights: list[float] = []
    for row in rows:
        tokens, trained = row.encoded.ids, row.encoded.trained
        ids += tokens
        labels += [tokens[i + 1] if trained[i + 1] else IGNORE for i in range(len(tokens) - 1)] + [IGNORE]
        weights += [row.weight] * len(tokens)
    layout = Segments([len(row.encoded.ids) for row in rows])
    return Batch(
        ids_N=torch.tensor(ids, device=device),
        positions_N=layout.positions_N.to(device),
        labels_N=torch.tensor(labels, device=device),
        weights_N=torch.tensor(weights, device=device),
        layout=layout,
    )


def step_rows(count: int, batch: int, step: int, seed: int) -> list[int]:
    """Row numbers of optimizer step `step` (from 0): a new order each epoch, the last step of an epoch may be short.

    A pure function of its arguments, so a resumed run sees the same rows without any saved state.
    """
    per_epoch = steps_per_epoch(count, batch)
    epoch, place = divmod(step, per_epoch)
    order = list(range(count))
    random.Random(f"{seed}:{epoch}").shuffle(order)
    return order[place * batch : (place + 1) * batch]


def steps_per_epoch(count: int, batch: int) -> int:
    """Optimizer steps that see every row once."""
    return -(-count // batch)


def micro_batches(rows: Sequence[Row], tokens: int) -> list[list[Row]]:
    """Split the rows of one step so that none of the parts exceeds `tokens`, unless a single row does."""
    parts: list[list[Row]] = []
    room = 0
    for row in sorted(rows, key=lambda row: len(row.encoded.ids)):
        length = len(row.encoded.ids)
        if not parts or length > room:
            parts.append([])
            room = tokens
        parts[-1].append(row)
        room -= length
    return parts
