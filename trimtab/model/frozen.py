"""Where a pass may begin: layers below the first one that moves put out the same for the same tokens, so it can be read once and handed in.

Shapes: N tokens of the flat row, D hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.model.attention import Layout
from trimtab.model.load import Base
from trimtab.model.virtual import virtual_of


def first_moving(model: Any) -> int:
    """The number of the first layer that holds something that moves, from 0.

    0 as well where no pass may begin later: nothing moves, something before the layers does, virtual tokens are on, or upper layers
    read keys of lower ones.
    """
    if virtual_of(model) is not None or getattr(model.config, "num_kv_shared_layers", None):
        return 0
    found: list[int] = []
    for name, parameter in model.base_model.named_parameters():  # in the order of a pass
        part, _, rest = name.partition(".")
        if not parameter.requires_grad or (found and part.endswith("norm")):  # behind the layers
            continue
        found.append(int(rest.partition(".")[0]) if part == "layers" else 0)
        if not found[-1]:
            break
    return min(found, default=0)


@torch.no_grad()
def entering(base: Base, layer: int, ids_N: Tensor, positions_N: Tensor, layout: Layout) -> Tensor | None:
    """What enters a layer, `hidden_ND` on the model's device; nothing from there on is computed.

    None for an architecture whose layers hand on more than that.
    """

    def reached(*args: Any, **kwargs: Any) -> Any:
        raise _ReachedError(last(*args, **kwargs))

    last = base.model.base_model.layers[layer - 1]
    try:
        _with_forwards(base, {layer - 1: reached}).hidden(ids_N, positions_N, layout)
    except _ReachedError as end:
        out = end.args[0]
    shape = (1, len(ids_N), base.model.config.hidden_size)
    return out[0] if isinstance(out, Tensor) and out.shape == shape else None


def hidden_above(
    base: Base, layer: int, inputs_ND: Tensor, ids_N: Tensor, positions_N: Tensor, layout: Layout
) -> Tensor:
    """Last hidden states `hidden_ND` of a flat row whose pass begins at a layer, with what `entering` gave for its tokens."""
    given = partial(_given, inputs_ND[None])
    return _with_forwards(base, dict.fromkeys(range(layer), given)).hidden(ids_N, positions_N, layout)


class _ReachedError(Exception):
    """The layer was reached, and the pass may end; what it put out."""


def _given(out: Tensor, *_: Any, **__: Any) -> Tensor:
    return out


def _with_forwards(base: Base, forwards: Mapping[int, Callable[..., Any]]) -> Base:
    """The same model, weights and all, in which some layers, by number, compute something else; other passes do not see it."""
    layers = list(base.model.base_model.layers)
    for number, forward in forwards.items():
        layers[number] = copy.copy(layers[number])
        layers[number].forward = forward
    model = _beside(base.model)
    inner = _beside(model.base_model)
    inner._modules["layers"] = nn.ModuleList(layers)
    model._modules[model.base_model_prefix] = inner
    return replace(base, model=model)


def _beside(module: Any) -> Any:
    """A module that holds the same parts, of which some may be replaced."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
