"""A second model on the same frozen weights, onto which something else can be put."""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import nn

from trimtab.model.load import Base


def twin(base: Base) -> Base:
    """The base again, its tensors shared."""
    memo = {id(one): nn.Parameter(one.detach(), requires_grad=False) for one in base.model.parameters()}
    return replace(base, model=copy.deepcopy(base.model, memo), published={})
