"""A device of one's own, `own`, whose memory and arithmetic are the processor's, and which may be wrong on purpose.

Tensors of it and of the processor do not mix, as on a GPU. It is registered with torch for good, and torch does not end
cleanly with it, so it lives in a process of its own: run as a script, this file prints which parts of a device check
are equal on it, as it is and with each of FAULTS.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

MAY_BE_INDEXED_BY_THE_PROCESSOR = ("index", "index_put", "index_put_")  # torch allows it on any device
RANK, ROWS = 32, 400  # of LoRA's factors in a check; more rows than any single prompt has


@dataclass(frozen=True, kw_only=True)
class Fault:
    """An operation whose results are too large by a factor where `applies`, or that is not there (factor None).

    `harms` is a part that sees it, `spares` are parts that see nothing of it. `switches_off`: what a check makes of it.
    """

    operation: str
    applies: Callable[[Tensor], bool]
    factor: float | None
    harms: str
    spares: tuple[str, ...]
    precision: str = "fp32"
    switches_off: str = "device"


def is_fp32(result: Tensor) -> bool:
    return result.dtype == torch.float32


def is_bf16(result: Tensor) -> bool:
    return result.dtype == torch.bfloat16


FAULTS = {
    "activation": Fault(
        operation="silu", applies=is_fp32, factor=1.5, harms="logits", spares=("optimizer", "resumed step")
    ),
    "lacking": Fault(operation="silu", applies=is_fp32, factor=None, harms="logits", spares=("optimizer",)),
    "not a number": Fault(
        operation="silu", applies=is_fp32, factor=float("nan"), harms="logits", spares=("optimizer",)
    ),
    "product of many rows": Fault(
        operation="mm",
        applies=lambda result: is_fp32(result) and len(result) > ROWS,
        factor=1.5,
        harms="packed rows",
        spares=("logits", "optimizer"),
    ),
    "product of few rows": Fault(
        operation="mm",
        applies=lambda result: is_fp32(result) and len(result) == RANK,
        factor=1.5,
        harms="LoRA step",
        spares=("logits", "packed rows"),
    ),
    "gradient of the embedding": Fault(
        operation="embedding_dense_backward",
        applies=is_fp32,
        factor=1.5,
        harms="step of all weights",
        spares=("logits", "LoRA step"),
    ),
    "optimizer": Fault(
        operation="_fused_adamw_", applies=is_fp32, factor=1.001, harms="optimizer", spares=("logits", "LoRA step")
    ),
    "copy": Fault(  # so little that only what must be equal to the bit shows it
        operation="copy_",
        applies=lambda result: is_fp32(result) and result.dim() == 2,
        factor=1 + 1e-6,
        harms="resumed step",
        spares=("logits", "LoRA step"),
    ),
    "likeliest token": Fault(
        operation="argmax",
        applies=lambda result: result.dtype == torch.int64,
        factor=0,
        harms="greedy answers",
        spares=("logits", "label scores"),
    ),
    "subtraction": Fault(
        operation="sub", applies=is_fp32, factor=1.5, harms="label scores", spares=("logits", "optimizer")
    ),
    "product in bf16": Fault(
        operation="mm",
        applies=is_bf16,
        factor=1.5,
        harms="logits",
        spares=("optimizer",),
        precision="bf16",
        switches_off="bf16",
    ),
}
_fault: Fault | None = None


class OwnTensor(Tensor):
    """A tensor of the device: `raw` is the same tensor of the processor."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> OwnTensor:
        layout = {"strides": raw.stride(), "storage_offset": raw.storage_offset(), "dtype": raw.dtype}
        tensor = Tensor._make_wrapper_subclass(cls, raw.size(), device="own:0", **layout)
        tensor.raw = raw
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.raw.tolist()

    def untyped_storage(self) -> Any:  # safetensors asks whether tensors share memory
        return self.raw.untyped_storage()


def compute(operation: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run an operation of torch on the device."""
    if torch._C._dispatch_has_kernel_for_dispatch_key(operation.name(), "CompositeImplicitAutograd"):
        return operation.decompose(*args, **kwargs)
    name, target = operation.overloadpacket.__name__, kwargs.get("device")
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    if name not in ("_to_copy", "copy_", *MAY_BE_INDEXED_BY_THE_PROCESSOR) and any(
        one.dim() and not isinstance(one, OwnTensor) for one in tensors
    ):
        raise RuntimeError(f"{operation}: tensors of two devices")
    here = {**kwargs, **({} if target is None else {"device": "cpu"})}
    out = operation(*tree_map(_raw, args), **tree_map(_raw, here))
    spoil(name, out, args)
    changed = [at for at, one in enumerate(operation._schema.arguments) if one.alias_info and one.alias_info.is_write]
    if changed and len(operation._schema.returns) == 1:
        first = operation._schema.arguments[changed[0]].name
        return args[changed[0]] if changed[0] < len(args) else kwargs[first]
    if changed and not operation._schema.returns:
        return None
    if target is not None and torch.device(target).type == "cpu":
        return out
    return tree_map(lambda one: OwnTensor(one) if isinstance(one, Tensor) else one, out)


def spoil(name: str, out: Any, args: Sequence[Any]) -> None:
    """Make the results of an operation wrong where the present fault applies."""
    if _fault is None or name != _fault.operation:
        return
    for result in [out] if isinstance(out, Tensor) else map(_raw, args[0]):
        if _fault.applies(result):
            if _fault.factor is None:
                raise NotImplementedError(f"{name} is not there on this device")
            result.mul_(_fault.factor)


def _raw(value: Any) -> Any:
    return value.raw if isinstance(value, OwnTensor) else value


def register() -> list[torch.library.Library]:
    """Make `own` a device of torch, as long as the result lives."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend("own")
    aten, all_others = torch.library.Library("aten", "IMPL"), torch.library.Library("_", "IMPL")

    def empty(size: Any, *, dtype: Any = None, **_: Any) -> Tensor:
        return OwnTensor(torch.empty(size, dtype=dtype))

    def empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
        return OwnTensor(torch.empty_strided(size, stride, dtype=dtype))

    def copy_from(source: Tensor, to: Tensor, non_blocking: bool = False) -> Tensor:
        _raw(to).copy_(_raw(source))
        spoil("copy_", _raw(to), ())
        return to

    for name, function in (("empty.memory_format", empty), ("empty_strided", empty_strided), ("_copy_from", copy_from)):
        aten.impl(name, function, "PrivateUse1")
    all_others.fallback(lambda operation, *args, **kwargs: compute(operation, args, kwargs), "PrivateUse1")
    return [aten, all_others]


def main() -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a check by fault: of the faults the parts that are of interest, of none ("") all of them."""
    global _fault
    from trimtab.arms.device_parts import FAMILIES, PARTS, Reference, Variant, check_part
    from trimtab.base.codec import to_plain

    torch.set_num_threads(1)
    variants = {name: Variant(device="own", precision=name, kernels=False) for name in ("fp32", "bf16")}
    references = [Reference(family) for family in FAMILIES]
    rows = {"": [check_part(part, variants["fp32"], references) for part in PARTS]}
    rows[""] += [check_part(part, variants["bf16"], references[:1]) for part in PARTS]
    for name, _fault in FAULTS.items():
        parts = (_fault.harms, *_fault.spares)
        rows[name] = [check_part(part, variants[_fault.precision], references[:1]) for part in parts]
    return {name: [to_plain(row) for row in found] for name, found in rows.items()}


if __name__ == "__main__":
    libraries = register()
    print(json.dumps(main()), flush=True)
    sys.stdout.flush()
    os._exit(0)  # torch would end the process with SIGABRT
