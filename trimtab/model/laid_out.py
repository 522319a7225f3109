"""Weights in the order in which the processor's products read them, for answering: the same numbers out in less time (decision 52).

Shapes: I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

import psutil
import torch
from torch import Tensor, nn

from trimtab.model.adapters import merged
from trimtab.model.load import Base

SPARE = 2  # times what the copies take must be free, or the weights stay as they are

# By where the original lies: models that share their weights share these too. While one is in use, so is its original.
_known: WeakValueDictionary[tuple[int, torch.Size], Tensor] = WeakValueDictionary()


@contextmanager
def answering(base: Base) -> Iterator[None]:
    """Inside, adapters are part of the weights, and products read copies of these in the processor's order, where it has one.

    Weights and modules are all where they were, so that they can be saved. Inside of itself it changes nothing more.
    """
    with merged(base.model), laid_out(base):
        yield


@contextmanager
def laid_out(base: Base) -> Iterator[None]:
    """Inside, every linear layer and the head answer by a copy of their weight as it is now, where memory allows."""
    layers = _layers(base)
    if not layers or psutil.virtual_memory().available < SPARE * laid_out_bytes(base):
        yield
        return
    try:
        for layer in layers:
            layer.forward = _by(in_its_order(layer.weight.detach()), layer.bias)  # type: ignore[assignment, method-assign]
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def laid_out_bytes(base: Base) -> int:
    """Memory that the copies take while the base answers; 0 where there are none."""
    return sum(layer.weight.nbytes for layer in _layers(base))


def in_its_order(weight_OI: Tensor) -> Tensor:
    """A bf16 weight as `product` takes it; nobody else can read it."""
    key = weight_OI.data_ptr(), weight_OI.shape
    found = _known.get(key)
    if found is None:
        found = _known[key] = torch.ops.mkldnn._reorder_linear_weight(weight_OI, None)
    return found


def product(input: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """What a linear layer puts out, `[..., O]` from `[..., I]`, by a weight of `in_its_order`."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight_OI, bias_O, "none", [], "")
    return out


def _by(weight_OI: Tensor, bias_O: Tensor | None) -> Callable[[Tensor], Tensor]:
    # no `partial`: a twin is a deep copy, and these weights have none
    return lambda input: product(input, weight_OI, bias_O)


def _layers(base: Base) -> list[nn.Linear]:
    """The layers whose products have an order of their own here: of bf16 weights, where the processor's library knows them."""
    known = base.device.type == "cpu" and base.model.dtype == torch.bfloat16 and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not known or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return []
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return []
    plain = (module for module in base.model.modules() if type(module) is nn.Linear)
    return [layer for layer in plain if layer.weight.dtype == torch.bfloat16 and "forward" not in vars(layer)]
