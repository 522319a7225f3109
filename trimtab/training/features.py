"""Hidden states of the base model as text features: the middle layer, averaged over the prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trimtab.base.records import Encoded
from trimtab.model.fast.partial_forward import layer_output
from trimtab.model.load import Base, decoder_layers
from trimtab.model.threads import limit_to_free_cores
from trimtab.training.batch import TrainingRow, micro_batches, pack_rows


def mean_hidden(base: Base, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Return the mean hidden state of the middle layer over each prompt, `[prompts, D]`, float32 on CPU.

    Prompts are token ids, none empty. Layers above the middle one are not run. The middle layer beat the last one, and
    the mean the last token, as features of `linear` on most data sets (docs/log.md, 2026-11-28, features of linear).
    """
    size, middle = base.model.config.hidden_size, max(0, len(decoder_layers(base)) // 2 - 1)
    mean_PD = torch.empty(len(prompts), size)
    # the scored position is a prompt's last, and its label is the prompt's index, as `micro_batches` sorts by length
    units = [
        (TrainingRow(encoded=Encoded(ids=tuple(ids), trained=(False,) * len(ids)), scored=((len(ids) - 1, number),)),)
        for number, ids in enumerate(prompts)
    ]
    for part in micro_batches(units, shared=False):
        # without sharing, as the mean needs each prompt in one piece
        batch = pack_rows([row for unit in part for row in unit], shared=False)
        with limit_to_free_cores():
            out = layer_output(
                base, middle, batch.ids_N.to(base.device), batch.positions_N.to(base.device), batch.layout
            )
        hidden_ND = (out[0] if isinstance(out, tuple) else out).reshape(-1, size).float().cpu()
        ends = (batch.scored_M + 1).tolist()
        for number, begin, end in zip(batch.labels_M.tolist(), [0, *ends], ends, strict=False):
            mean_PD[number] = hidden_ND[begin:end].mean(0)
    return mean_PD
