"""The hidden state at the end of each prompt, in one pass: what a classification head reads; what prompts begin with is read once.

Shapes: N tokens of the flat row, H query heads, K key/value heads, T keys, D head or hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trimtab.answering.cache import Prefix, common_length, shared_length
from trimtab.answering.choose import SHARE_FROM, hold_prefix
from trimtab.model.attention import Rule, causal
from trimtab.model.load import Base

ROW_TOKENS = 2048  # of one pass over several prompts


class Behind:
    """Layout of prompts laid end to end, each causal over [the prefix; itself] and blind to the others."""

    def __init__(self, lengths: Sequence[int], prefix: Prefix | None) -> None:
        self.lengths, self.prefix = list(lengths), prefix
        before = len(prefix) if prefix else 0
        self.positions_N = torch.cat([torch.arange(before, before + length) for length in lengths])

    def attend(self, layer: int, query_HND: Tensor, key_KND: Tensor, value_KND: Tensor, rule: Rule) -> Tensor:
        """The mixed values, as `out_NHD`."""
        outs, start = [], 0
        for length in self.lengths:
            own = slice(start, start + length)
            key_KTD, value_KTD = key_KND[:, own], value_KND[:, own]
            if self.prefix:
                key_KTD = torch.cat([self.prefix.keys[layer], key_KTD], dim=1)
                value_KTD = torch.cat([self.prefix.values[layer], value_KTD], dim=1)
            outs.append(causal(query_HND[:, own], key_KTD, value_KTD, rule).transpose(0, 1))
            start += length
        return torch.cat(outs)


@torch.inference_mode()
def ends(base: Base, prompts: Sequence[tuple[int, ...]], *, held: Prefix | None = None) -> Tensor:
    """The last hidden state of each prompt, `[prompts, D]`, in the order asked.

    Prompts are token ids, none empty. `held`: a beginning that `hold_prefix` read before, used as far as all prompts begin with it.
    """
    hidden_PD = torch.empty(len(prompts), base.model.config.hidden_size, dtype=base.model.dtype, device=base.device)
    if prompts:
        prefix = _shared(base, prompts, held)
        before = len(prefix) if prefix else 0
        for places in _passes([len(ids) - before for ids in prompts]):
            hidden_PD[places] = _read(base, [prompts[place][before:] for place in places], prefix)
    return hidden_PD


def _shared(base: Base, prompts: Sequence[tuple[int, ...]], held: Prefix | None) -> Prefix | None:
    """What all prompts begin with, each keeping a token of its own: of what is held where that is half of it, else read now."""
    alike = shared_length(prompts)
    if held is not None:
        common = min(common_length([*prompts, held.ids]), min(map(len, prompts)) - 1)
        if common >= SHARE_FROM and common * 2 >= alike:
            return held.first(common)
    return hold_prefix(base, prompts[0][:alike])


def _read(base: Base, fresh: Sequence[tuple[int, ...]], prefix: Prefix | None) -> Tensor:
    lengths = [len(ids) for ids in fresh]
    layout, device = Behind(lengths, prefix), base.device
    ids_N = torch.tensor([token for ids in fresh for token in ids], device=device)
    hidden_ND = base.hidden(ids_N, layout.positions_N.to(device), layout)
    return hidden_ND[torch.tensor(lengths).cumsum(0).to(device) - 1]


def _passes(lengths: Sequence[int]) -> list[list[int]]:
    """Places that are read together: of like lengths, up to ROW_TOKENS in a pass."""
    passes: list[list[int]] = []
    filled = ROW_TOKENS
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if filled + lengths[place] > ROW_TOKENS:
            passes.append([])
            filled = 0
        passes[-1].append(place)
        filled += lengths[place]
    return passes
