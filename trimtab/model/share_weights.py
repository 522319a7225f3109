"""Makes a second `Base` over the same weight tensors, so that several adapters need one copy of the base."""

from __future__ import annotations

import copy
from itertools import chain

from torch import nn

from trimtab.base.errors import InputError
from trimtab.model.adapters.base import adapter_layers
from trimtab.model.load import Base
from trimtab.model.prompt_tuning import virtual_tokens_of


def share_weights(base: Base) -> Base:
    """Return a base of its own over the tensors of `base`, without copies.

    Adapters that are attached, merged or detached in one do not affect the other: parameters are separate objects, and
    weights are copied before they are trained (`model/adapters/apply.py`). Raises InputError if `base` has an adapter
    or trained weights: they would be shared too.
    """
    if base.original_weights or adapter_layers(base.model) or virtual_tokens_of(base.model) is not None:
        raise InputError("a base with an adapter or trained weights cannot be shared", "detach them first")
    memo: dict[int, object] = {}
    for parameter in base.model.parameters():  # a tied weight occurs once, so it stays tied
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for shared in chain(base.model.buffers(), [base.model.config]):
        memo[id(shared)] = shared
    model = copy.deepcopy(base.model, memo)
    return Base(model=model, tokenizer=base.tokenizer, precision=base.precision, folder=base.folder)
