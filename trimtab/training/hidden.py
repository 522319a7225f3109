"""Hidden states of the base model as features of a text: what the middle layer says, its mean over the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from trimtab.base.records import Encoded
from trimtab.model.load import Base
from trimtab.model.threads import on_free_cores
from trimtab.training.batch import MICRO_TOKENS, Row, micro_batches, pack


def mean_hidden(base: Base, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Mean hidden state of the middle layer over each prompt, `[prompts, D]` float32 on CPU.

    Prompts are token ids, none empty. The middle layer and not the last, and the mean and not the last token, as measured (decision 31).
    """
    found_PD = torch.empty(len(prompts), base.model.config.hidden_size)
    # the scored position is the last of a prompt, and its label says which prompt it is: shortest ones come first
    units = [
        (Row(encoded=Encoded(ids=tuple(ids), trained=(False,) * len(ids)), scored=((len(ids) - 1, number),)),)
        for number, ids in enumerate(prompts)
    ]
    with torch.no_grad(), _middle(base) as caught:
        for part in micro_batches(units, MICRO_TOKENS, shared=False):
            # a mean over a prompt wants it in one piece
            batch = pack([row for unit in part for row in unit], shared=False)
            with on_free_cores():
                base.hidden(batch.ids_N.to(base.device), batch.positions_N.to(base.device), batch.layout)
            hidden_ND = caught.pop().float().cpu()
            ends = (batch.scored_M + 1).tolist()
            for number, begin, end in zip(batch.labels_M.tolist(), [0, *ends], ends, strict=False):
                found_PD[number] = hidden_ND[begin:end].mean(0)
    return found_PD


@contextmanager
def _middle(base: Base) -> Iterator[list[Tensor]]:
    """Inside, what the middle layer puts out on each pass is added to the list, `[N, D]`."""
    caught: list[Tensor] = []
    layers, size = base.model.base_model.layers, base.model.config.hidden_size

    def keep(_: Any, __: Any, out: Any) -> None:
        caught.append((out[0] if isinstance(out, tuple) else out).reshape(-1, size))

    handle = layers[max(0, len(layers) // 2 - 1)].register_forward_hook(keep)
    try:
        yield caught
    finally:
        handle.remove()
