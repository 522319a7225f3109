"""Divides a model's weights among the processes of a group, by PyTorch's FSDP2 (`fully_shard`).

Each decoder layer is gathered for its own pass and freed again; everything else, such as embeddings and head, for as
long as a loss is computed. Pretrained weights that are trained (`full`, `freeze`) are divided as float32 masters and
gathered in the base's precision; their gradients are summed, in float32, onto the process that holds the part. What is
trained beside them (adapters, virtual tokens, heads) is small, stays whole on every process, and is summed by the
optimizer (`training/optim.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from trimtab.model import process_group
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.model.adapters.base import adapter_layers
from trimtab.model.fast.patch import decelerate
from trimtab.model.load import DTYPES, Base

Result = TypeVar("Result")


class _WholeWeights(nn.Module):
    """The root of the divided modules: within its forward, the weights outside of the layers are whole."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Any]) -> Any:
        """Run a function that passes through the model; tensors in its result carry the gradient."""
        return function()


_root: _WholeWeights | None = None  # of the model that was divided last: a process trains one


def shard(base: Base) -> None:
    """Divide a model among the processes of the group; what it trains must be attached already.

    The model moves to this process's device and keeps no copy of the pretrained weights, so that it can be trained and
    saved but not detached. Its forward runs in plain torch: kernels read weights by addresses that change as layers
    are gathered.
    """
    global _root
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    model, device = decelerate(base).model, process_group.device()
    trained = trainable_parameters(model)
    own = [value for name, value in trained.items() if name in base.original_weights]
    beside = {value for name, value in trained.items() if name not in base.original_weights}
    for value in own:
        value.data = value.data.float()
    base.original_weights.clear()
    shared = [value for layer in adapter_layers(model).values() for value in layer.shared_tensors.values()]
    for tensor in (*beside, *shared):
        if tensor.is_meta:  # as `fully_shard` leaves a model whose size alone is asked for
            continue
        tensor.data = tensor.data.to(device)
    gathered = MixedPrecisionPolicy(
        param_dtype=DTYPES[base.precision], reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    mesh = init_device_mesh(device.type, (process_group.size(),))
    own_ids = set(map(id, own))

    def divide(module: nn.Module) -> None:
        is_trained = any(id(one) in own_ids for one in module.parameters())
        policy = gathered if is_trained else MixedPrecisionPolicy()
        # the root too is freed after a pass: its parts may be loaded anew before the next one
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=beside, reshard_after_forward=True)

    for layer in model.base_model.layers:
        divide(layer)
    root = _WholeWeights(model)
    divide(root)
    for module in root.modules():
        if isinstance(module, FSDPModule):  # losses are parts of the step's loss: their gradients add up
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    _root = root


def with_whole_weights(function: Callable[[], Result]) -> Result:
    """Run a function that passes through the divided model, on all processes alike, and return its result."""
    found: Result = function() if _root is None else _root(function)
    return found


def release() -> None:
    """Forget the divided model, so that its memory is free as soon as nobody holds its base."""
    global _root
    _root = None
