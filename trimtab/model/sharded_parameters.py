"""Sharded parameters: each process of a group holds some rows of the first dimension.

`model/sharded.py` divides a model; here is what optimizer, checkpoints and saving need to know of its parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from torch import Tensor

from trimtab.model import process_group
from trimtab.model.load import DTYPES, Base

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(value: Tensor) -> TypeGuard[DTensor]:
    """True if this process holds only a part of a parameter."""
    if process_group.size() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def local_shard(value: DTensor) -> Tensor:
    """Return this process's part of a divided parameter, over the same memory."""
    detached: Any = value.detach()
    part: Tensor = detached.to_local()
    return part


def shard_rows(value: Tensor) -> slice:
    """Return which rows of a divided parameter this process holds."""
    each = -(-value.shape[0] // process_group.size())
    start = min(process_group.rank() * each, value.shape[0])
    return slice(start, min(start + each, value.shape[0]))


def gathered_value(base: Base, value: Tensor) -> Tensor:
    """Return a trained parameter as it is saved: contiguous; a divided one whole, in the base's precision.

    All processes must ask for it alike.
    """
    if is_sharded(value):
        detached: Any = value.detach()
        whole: Tensor = detached.full_tensor()
        return whole.to(DTYPES[base.precision]).cpu()
    return value.detach().contiguous()
