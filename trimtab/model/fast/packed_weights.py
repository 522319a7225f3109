"""Weights in the order in which products read them, our kernels' or the processor's, for answering.

Shapes: I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimtab.base.cgroups import memory
from trimtab.model.adapters.apply import merged
from trimtab.model.fast.inference_layers import Product, answered_by, bias_of, plain_layers, weight_of
from trimtab.model.kernels.matmul import Laid, has_panels, in_panels
from trimtab.model.kernels.torch_private import reordered, reordered_product, works
from trimtab.model.load import Base

SPARE = 2  # times what the copies take must be free, or the weights stay as they are

# By where the originals lie: models that share their weights share these too. While one is in use, so are its originals.
_known: WeakValueDictionary[tuple[tuple[int, torch.Size], ...], Tensor] = WeakValueDictionary()


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
    needed = laid_out_bytes(base)
    if not needed or memory().available < SPARE * needed:
        yield
        return
    with answered_by(base.model, _product_of):
        yield


def laid_out_bytes(base: Base) -> int:
    """Memory that the copies take while the base answers; 0 where there are none."""
    return sum(layer.weight.nbytes for layer in plain_layers(base.model) if has_order(layer.weight))


def in_its_order(*layers: nn.Linear) -> Tensor:
    """The bf16 weights of layers with the same input, one above the other, as `ordered_product` takes them; nobody else can read it."""
    key = tuple((layer.weight.data_ptr(), layer.weight.shape) for layer in layers)
    found = _known.get(key)
    if found is None:
        found = _known[key] = _ordered(weight_of(layers))
    return found


def ordered_product(ordered: Tensor, bias_O: Tensor | None) -> Product:
    """What linear layers put out, `[..., O]` from `[..., I]`, by a weight of `in_its_order`."""
    if not ordered.is_mkldnn:
        return Laid(ordered, bias_O)

    return lambda input: reordered_product(input, ordered, bias_O)


def product_by(weight_OI: Tensor, bias_O: Tensor | None) -> Product:
    """The product by a weight of one's own: by a copy in the processor's order where it has one, else by the weight."""
    if not has_order(weight_OI):
        return lambda input: F.linear(input, weight_OI, bias_O)
    return ordered_product(_ordered(weight_OI), bias_O)


def has_order(weight_OI: Tensor) -> bool:
    """Whether products have an order of their own here: of bf16 weights, where our kernels or the processor's library know them."""
    if has_panels(weight_OI):
        return True
    known = weight_OI.device.type == "cpu" and weight_OI.dtype == torch.bfloat16
    return known and works(reordered_product)


def _product_of(*layers: nn.Linear) -> Product:
    bias_O = bias_of(layers)
    if not all(has_order(layer.weight) for layer in layers):
        return product_by(weight_of(layers), bias_O)
    return ordered_product(in_its_order(*layers), bias_O)


def _ordered(weight_OI: Tensor) -> Tensor:
    return in_panels(weight_OI) if has_panels(weight_OI) else reordered(weight_OI)
