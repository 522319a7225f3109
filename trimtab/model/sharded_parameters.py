"""Sharded parameters: each process of a group holds some rows of the first dimension.

`model/sharded.py` shards a model; the functions here tell the optimizer, checkpoints and saving which rows are local.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from torch import Tensor

from trimtab.model import process_group
from trimtab.model.load import DTYPES, Base

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(value: Tensor) -> TypeGuard[DTensor]:
    """True if this process holds only some rows of a parameter."""
    if process_group.size() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def local_shard(value: DTensor) -> Tensor:
    """Return this process's shard of a sharded parameter, over the same memory."""
    detached: Any = value.detach()
    part: Tensor = detached.to_local()
    return part


def shard_rows(value: Tensor) -> slice:
    """Return the rows of a sharded parameter that this process holds."""
    each = -(-value.shape[0] // process_group.size())
    start = min(process_group.rank() * each, value.shape[0])
    return slice(start, min(start + each, value.shape[0]))


def gathered_value(base: Base, value: Tensor) -> Tensor:
    """Return a trained parameter as it is saved: contiguous; a sharded one gathered, in the base's precision.

    All processes of the group must call it.
    """
    if is_sharded(value):
        detached: Any = value.detach()
        whole: Tensor = detached.full_tensor()
        return whole.to(DTYPES[base.precision]).cpu()
    return value.detach().contiguous()
