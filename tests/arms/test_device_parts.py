"""The parts of a device check, on devices that are wrong on purpose: each fault is seen, and switches off what it is
of."""

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from trimtab.arms.device_parts import FAMILIES, PARTS, RANK, Reference, Variant, check_part
from trimtab.model.device_record import what_to_switch_off
from trimtab.model.kernels.build import library

FP32 = Variant(device="cpu", precision="fp32", kernels=False)
BF16 = Variant(device="cpu", precision="bf16", kernels=False)
KERNELS = Variant(device="cpu", precision="bf16", kernels=True)
GARBLED = (ctypes.c_uint16 * 2)(0x4500, 0x4500)  # 2,048 as bfloat16, twice; about as much as one float32


class RightReference(Reference):
    """A reference that is computed by the processor as it is, whatever is wrong around it."""

    def logits_of(self, *sequences: Sequence[int]) -> Tensor:
        with _disable_current_modes():
            return super().logits_of(*sequences)


class WrongDevice(TorchDispatchMode):
    """A device on which one operation's results are larger by a factor, where `applies`."""

    def __init__(self, operation: str, applies: Callable[[Tensor], bool], factor: float = 1.5) -> None:
        super().__init__()
        self.operation, self.applies, self.factor = operation, applies, factor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if str(func).startswith(f"aten.{self.operation}."):
            for result in [out] if isinstance(out, Tensor) else args[0]:
                if self.applies(result):
                    result.mul_(self.factor)
        return out


@pytest.fixture(scope="module")
def references() -> list[Reference]:
    torch.set_num_threads(1)  # a dispatch mode holds for its thread
    return [RightReference(family) for family in FAMILIES]


@pytest.fixture(scope="module")
def llama(references: list[Reference]) -> list[Reference]:
    """One family, with every result of the reference computed, and every part equal on this processor."""
    rows = [check_part(what, FP32, references[:1]) for what in PARTS]
    assert all(row.equal for row in rows), rows
    return references[:1]


def is_fp32(result: Tensor) -> bool:
    return result.dtype == torch.float32


# For each part: an operation, where it is wrong, by what factor, and the parts that see nothing of it.
FAULTS: dict[str, tuple[str, Callable[[Tensor], bool], float, tuple[str, ...]]] = {
    "logits": ("silu", is_fp32, 1.5, ("optimizer", "resumed step")),
    "packed rows": ("mm", lambda result: is_fp32(result) and len(result) > 400, 1.5, ("logits", "optimizer")),
    "LoRA step": ("mm", lambda result: is_fp32(result) and len(result) == RANK, 1.5, ("logits", "packed rows")),
    "step of all weights": ("embedding_dense_backward", is_fp32, 1.5, ("logits", "LoRA step")),
    "optimizer": ("_fused_adamw_", is_fp32, 1.001, ("logits", "LoRA step")),
    "resumed step": ("copy_", lambda result: is_fp32(result) and result.dim() == 2, 1 + 1e-6, ("logits", "LoRA step")),
    "greedy answers": ("scaled_dot_product_attention", is_fp32, 1.5, ("logits", "LoRA step")),
    "label scores": ("softmax", lambda result: result.dim() == 1, 1.5, ("logits", "greedy answers")),
}


def test_every_part_of_the_table_has_a_fault_here() -> None:
    assert FAULTS.keys() == PARTS.keys()


@pytest.mark.parametrize("part", FAULTS)
def test_a_wrong_operation_is_seen_by_its_part_and_switches_the_device_off(part: str, llama: list[Reference]) -> None:
    operation, applies, factor, unharmed = FAULTS[part]
    with WrongDevice(operation, applies, factor):
        row = check_part(part, FP32, llama)
        others = [check_part(other, FP32, llama) for other in unharmed]
    assert not row.equal
    assert all(other.equal for other in others), others
    assert what_to_switch_off([row, *others]) == ("device",)


def test_a_wrong_product_in_bf16_alone_switches_bf16_off(llama: list[Reference]) -> None:
    with WrongDevice("mm", lambda result: result.dtype == torch.bfloat16):
        rows = [check_part("logits", variant, llama) for variant in (FP32, BF16)]
    assert [row.equal for row in rows] == [True, False]
    assert what_to_switch_off(rows) == ("bf16",)


def test_an_operation_that_a_device_lacks_is_told_and_counts_as_wrong(llama: list[Reference]) -> None:
    class Lacking(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if str(func).startswith("aten.silu"):
                raise NotImplementedError("silu is not there for this device\nat all")
            return func(*args, **(kwargs or {}))

    with Lacking():
        row = check_part("logits", FP32, llama)
    assert (row.equal, row.difference) == (False, None)
    assert row.error == "NotImplementedError: silu is not there for this device"


def test_numbers_that_are_not_finite_count_as_wrong(llama: list[Reference]) -> None:
    with WrongDevice("silu", is_fp32, float("nan")):
        row = check_part("logits", FP32, llama)
    assert (row.equal, row.difference) == (False, None)


def test_memory_that_ran_out_says_nothing_of_a_device(llama: list[Reference]) -> None:
    class Full(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            raise torch.OutOfMemoryError("a GPU that others use")

    with Full(), pytest.raises(MemoryError, match="a GPU that others use"):
        check_part("logits", FP32, llama)


@pytest.fixture(scope="module")
def parts_of(references: list[Reference]) -> dict[str, list[str]]:
    """For each kernel the parts that call it."""
    called: dict[str, list[str]] = {}

    def counted(name: str, kernel: Any, *arguments: Any) -> None:
        called.setdefault(name, []).append(part)
        kernel(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        for name, kernel in list(library().items()):
            patch.setitem(library(), name, partial(counted, name, kernel))
        for part in PARTS:
            row = check_part(part, KERNELS, references)
            assert row.equal, row
    return {name: list(dict.fromkeys(parts)) for name, parts in called.items()}


@pytest.mark.skipif(not library(), reason="no C compiler, so no kernels")
@pytest.mark.parametrize("name", sorted(library()))
def test_every_kernel_takes_part_and_is_switched_off_where_it_is_wrong(
    name: str, references: list[Reference], parts_of: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel: Any = library()[name]
    results = 2 if name in ("attend_own", "attend_ways") else 1  # the output, and log sums, which not everyone reads

    def garbled(*arguments: Any) -> None:
        kernel(*arguments)
        pointers = [at for at, kind in zip(arguments, kernel.argtypes, strict=True) if kind is ctypes.c_void_p]
        for result in [at for at in pointers if at is not None][-results:]:
            ctypes.memmove(result, GARBLED, ctypes.sizeof(GARBLED))

    monkeypatch.setitem(library(), name, garbled)
    wrong = next(row for row in (check_part(part, KERNELS, references) for part in parts_of[name]) if not row.equal)
    assert what_to_switch_off([wrong]) == ("kernels",)
    assert check_part(wrong.what, BF16, references).equal
