"""Context managers that run inference on packed copies of the weights, in the kernels' or oneDNN's layout, with
adapters merged if asked.

Shapes: I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from trimtab.base.machine import memory_use
from trimtab.model.adapters.apply import merged
from trimtab.model.fast.inference_layers import (
    Projection,
    inference_forwards,
    plain_linears,
    stacked_bias,
    stacked_weight,
)
from trimtab.model.kernels.linear import PackedLinear, TorchLinear, UnpackedLinear, pack, supports_linear
from trimtab.model.kernels.torch_private import mkldnn_linear, mkldnn_weight, works
from trimtab.model.load import Base

SPARE = 2  # times what the copies take must be free, or none are made

# By where the originals lie: models that share their weights share these too. While one is in use, so are its
# originals.
_packed_weights: WeakValueDictionary[tuple[tuple[int, torch.Size], ...], Tensor] = WeakValueDictionary()


@contextmanager
def merged_and_packed(base: Base) -> Iterator[None]:
    """Context manager: adapters are merged, and products read packed copies of the weights.

    Modules and weights stay where they are, so that they can be saved. Nested use changes nothing more.
    """
    with merged(base.model), packed(base):
        yield


@contextmanager
def packed(base: Base) -> Iterator[None]:
    """Context manager: on a CPU, linear layers and head run on packed copies of their present weights if memory
    allows, else on the weights themselves, with the same result."""
    if base.device.type != "cpu":
        yield
        return
    fits = memory_use().available >= SPARE * packed_bytes(base)
    with inference_forwards(base.model, _packed_projection if fits else _unpacked_projection):
        yield


def packed_bytes(base: Base) -> int:
    """Return the memory in bytes that the packed copies take during inference; 0 without any."""
    return sum(layer.weight.nbytes for layer in plain_linears(base.model) if is_packable(layer.weight))


def packed_weight(*layers: nn.Linear) -> Tensor:
    """Return the stacked weights of layers with one input, packed for `packed_projection`; shared copies are reused."""
    key = tuple((layer.weight.data_ptr(), layer.weight.shape) for layer in layers)
    copy = _packed_weights.get(key)
    if copy is None:
        copy = _packed_weights[key] = _packed_copy(stacked_weight(layers))
    return copy


def packed_projection(packed: Tensor, outputs: int, bias_O: Tensor | None) -> Projection:
    """Return the projection `[..., I]` to `[..., O]` by a packed weight."""
    if not packed.is_mkldnn:
        return PackedLinear(packed, outputs, bias_O)

    return lambda input: mkldnn_linear(input, packed, bias_O)


def projection_by(weight_OI: Tensor, bias_O: Tensor | None, *, pack: bool = True) -> Projection:
    """Return the projection by this weight: by a packed copy if asked and if there is a layout for it, else by the
    weight itself."""
    if pack and is_packable(weight_OI):
        return packed_projection(_packed_copy(weight_OI), len(weight_OI), bias_O)
    return (UnpackedLinear if supports_linear(weight_OI) else TorchLinear)(weight_OI, bias_O)


def is_packable(weight_OI: Tensor) -> bool:
    """Return True if there is a packed layout for this weight on a CPU: the kernels', or in bf16 oneDNN's."""
    if supports_linear(weight_OI):
        return True
    known = weight_OI.device.type == "cpu" and weight_OI.dtype == torch.bfloat16
    return known and works(mkldnn_linear)


def _packed_projection(*layers: nn.Linear) -> Projection:
    bias_O = stacked_bias(layers)
    if not all(is_packable(layer.weight) for layer in layers):
        return projection_by(stacked_weight(layers), bias_O)
    return packed_projection(packed_weight(*layers), sum(layer.out_features for layer in layers), bias_O)


def _unpacked_projection(*layers: nn.Linear) -> Projection:
    return projection_by(stacked_weight(layers), stacked_bias(layers), pack=False)


def _packed_copy(weight_OI: Tensor) -> Tensor:
    return pack(weight_OI) if supports_linear(weight_OI) else mkldnn_weight(weight_OI)
