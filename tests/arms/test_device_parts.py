"""The parts of a device check, on a device and with kernels that are wrong on purpose: each fault is seen, and switches
off what it is of."""

import ctypes
import json
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import own_device
import pytest
import torch
from forked import run

from trimtab.arms import device_parts
from trimtab.arms.device_parts import FAMILIES, PARTS, Reference, Variant, check_part
from trimtab.base.codec import from_plain
from trimtab.model.device_record import CheckRow, what_to_switch_off
from trimtab.model.kernels.build import library
from trimtab.model.kernels.cached_attention import _Job

KERNELS = [Variant(device="cpu", precision=precision, kernels=True) for precision in ("fp32", "bf16")]
PLAIN = {variant.precision: replace(variant, kernels=False) for variant in KERNELS}
GARBLED = (ctypes.c_uint16 * 2)(0x4500, 0x4500)  # 2,048 as bfloat16, twice; about as much as one float32


@pytest.fixture(scope="module")
def rows_of_own_device() -> dict[str, list[CheckRow]]:
    """What a check finds on a device of one's own, by fault; under "" what it finds without one."""
    done = run([sys.executable, own_device.__file__])
    assert done.returncode == 0, done.stderr
    return {name: [from_plain(CheckRow, row) for row in rows] for name, rows in json.loads(done.stdout).items()}


def test_a_device_of_ones_own_equals_plain_float32(rows_of_own_device: dict[str, list[CheckRow]]) -> None:
    """Tensors of two devices do not mix there, so all parts take theirs to the device and back."""
    rows = rows_of_own_device[""]
    assert len(rows) == 2 * len(PARTS)
    assert all(row.equal for row in rows), rows


def test_every_part_sees_a_fault() -> None:
    assert {fault.harms for fault in own_device.FAULTS.values()} == PARTS.keys()
    assert own_device.RANK == device_parts.RANK


@pytest.mark.parametrize("name", own_device.FAULTS)
def test_a_wrong_operation_is_seen_by_its_part_and_switches_off_what_it_is_of(
    name: str, rows_of_own_device: dict[str, list[CheckRow]]
) -> None:
    fault, (harmed, *others) = own_device.FAULTS[name], rows_of_own_device[name]
    assert (harmed.what, harmed.equal) == (fault.harms, False)
    assert all(row.equal for row in others), others
    assert what_to_switch_off([harmed, *others]) == (fault.switches_off,)


def test_an_operation_that_is_not_there_is_told_and_numbers_that_are_none_are_not_compared(
    rows_of_own_device: dict[str, list[CheckRow]],
) -> None:
    lacking, no_numbers = (rows_of_own_device[name][0] for name in ("lacking", "not a number"))
    assert (lacking.difference, lacking.error) == (None, "NotImplementedError: silu is not there on this device")
    assert (no_numbers.difference, no_numbers.error) == (None, "")


def test_memory_that_ran_out_says_nothing_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def part(reference: Reference, variant: Variant) -> float:
        raise torch.OutOfMemoryError("a GPU that others use")

    monkeypatch.setattr(device_parts, "PARTS", {"logits": part})
    with pytest.raises(MemoryError, match="a GPU that others use"):
        check_part("logits", PLAIN["bf16"], [Reference("llama")])


@pytest.fixture(scope="module")
def references() -> list[Reference]:
    return [Reference(family) for family in FAMILIES]


@pytest.fixture(scope="module")
def parts_of(references: list[Reference]) -> dict[str, list[tuple[Variant, str]]]:
    """For each kernel the variants and parts that call it."""
    called: dict[str, list[tuple[Variant, str]]] = {}

    def counted(name: str, kernel: Any, *arguments: Any) -> None:
        called.setdefault(name, []).append((variant, part))
        kernel(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        for name, kernel in list(library().items()):
            patch.setitem(library(), name, partial(counted, name, kernel))
        for variant in KERNELS:
            for part in PARTS:
                row = check_part(part, variant, references)
                assert row.equal, row
    return {name: list(dict.fromkeys(parts)) for name, parts in called.items()}


@pytest.mark.skipif(not library(), reason="no C compiler, so no kernels")
@pytest.mark.parametrize("name", sorted(library()))
def test_every_kernel_takes_part_and_is_switched_off_where_it_is_wrong(
    name: str,
    references: list[Reference],
    parts_of: dict[str, list[tuple[Variant, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name == "softmax" and "attend_causal" in library():
        pytest.skip("stands in for the kernel of causal attention")
    if name == "pack_bf16" and "linear_bf16" not in library():
        pytest.skip("packs for the kernel of bf16 products, which AMX replaces by oneDNN's")
    kernel: Any = library()[name]

    def garbled(*arguments: Any) -> None:
        kernel(*arguments)
        pointers = [at for at, kind in zip(arguments, kernel.argtypes, strict=True) if kind is ctypes.c_void_p]
        result = [at for at in pointers if at is not None][-1]
        if name == "softmax":  # in place; what comes last, the logarithm of the sums, is not read here
            result = pointers[0]
        if name == "attend_cached":  # its first argument is a structure, which names the output
            result = _Job.from_address(arguments[0]).out
        ctypes.memmove(result, GARBLED, ctypes.sizeof(GARBLED))

    monkeypatch.setitem(library(), name, garbled)
    rows = ((variant, check_part(part, variant, references)) for variant, part in parts_of[name])
    variant, wrong = next((variant, row) for variant, row in rows if not row.equal)
    assert what_to_switch_off([wrong]) == ("kernels",)
    assert check_part(wrong.what, PLAIN[variant.precision], references).equal
