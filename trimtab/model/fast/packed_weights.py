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

from trimtab.base.cgroups import memory_use
from trimtab.model.adapters.apply import merged
from trimtab.model.fast.inference_layers import (
    Projection,
    inference_forwards,
    plain_linears,
    stacked_bias,
    stacked_weight,
)
from trimtab.model.kernels.matmul import PackedLinear, can_pack, pack
from trimtab.model.kernels.torch_private import mkldnn_linear, mkldnn_weight, works
from trimtab.model.load import Base

SPARE = 2  # times what the copies take must be free, or the weights stay as they are

# By where the originals lie: models that share their weights share these too. While one is in use, so are its originals.
_known: WeakValueDictionary[tuple[tuple[int, torch.Size], ...], Tensor] = WeakValueDictionary()


@contextmanager
def merged_and_packed(base: Base) -> Iterator[None]:
    """Inside, adapters are part of the weights, and products read copies of these in the processor's order, where it has one.

    Weights and modules are all where they were, so that they can be saved. Inside of itself it changes nothing more.
    """
    with merged(base.model), packed(base):
        yield


@contextmanager
def packed(base: Base) -> Iterator[None]:
    """Inside, every linear layer and the head answer by a copy of their weight as it is now, where memory allows."""
    needed = packed_bytes(base)
    if not needed or memory_use().available < SPARE * needed:
        yield
        return
    with inference_forwards(base.model, _product_of):
        yield


def packed_bytes(base: Base) -> int:
    """Memory that the copies take while the base answers; 0 where there are none."""
    return sum(layer.weight.nbytes for layer in plain_linears(base.model) if is_packable(layer.weight))


def packed_weight(*layers: nn.Linear) -> Tensor:
    """The bf16 weights of layers with the same input, one above the other, as `ordered_product` takes them; nobody else can read it."""
    key = tuple((layer.weight.data_ptr(), layer.weight.shape) for layer in layers)
    found = _known.get(key)
    if found is None:
        found = _known[key] = _ordered(stacked_weight(layers))
    return found


def packed_projection(ordered: Tensor, bias_O: Tensor | None) -> Projection:
    """What linear layers put out, `[..., O]` from `[..., I]`, by a weight of `in_its_order`."""
    if not ordered.is_mkldnn:
        return PackedLinear(ordered, bias_O)

    return lambda input: mkldnn_linear(input, ordered, bias_O)


def projection_by(weight_OI: Tensor, bias_O: Tensor | None) -> Projection:
    """The product by a weight of one's own: by a copy in the processor's order where it has one, else by the weight."""
    if not is_packable(weight_OI):
        return lambda input: F.linear(input, weight_OI, bias_O)
    return packed_projection(_ordered(weight_OI), bias_O)


def is_packable(weight_OI: Tensor) -> bool:
    """Whether products have an order of their own here: of bf16 weights, where our kernels or the processor's library know them."""
    if can_pack(weight_OI):
        return True
    known = weight_OI.device.type == "cpu" and weight_OI.dtype == torch.bfloat16
    return known and works(mkldnn_linear)


def _product_of(*layers: nn.Linear) -> Projection:
    bias_O = stacked_bias(layers)
    if not all(is_packable(layer.weight) for layer in layers):
        return projection_by(stacked_weight(layers), bias_O)
    return packed_projection(packed_weight(*layers), bias_O)


def _ordered(weight_OI: Tensor) -> Tensor:
    return pack(weight_OI) if can_pack(weight_OI) else mkldnn_weight(weight_OI)
