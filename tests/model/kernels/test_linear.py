"""Linear layers by kernel and by torch: near float64, and the same bits for a row whatever rows are beside it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trimtab.model.kernels import build as compiled
from trimtab.model.kernels.linear import LEAST_ROWS, PackedLinear, TorchLinear, UnpackedLinear, pack, supports_linear
from trimtab.model.threads import threads

DTYPES = [torch.bfloat16, torch.float32]
# odd widths; a chunk of inputs and a part of one in either dtype; sizes of a real layer
SHAPES = [(34, 5), (96, 65), (2144, 32), (1538, 40), (576, 192)]


def numbers(dtype: torch.dtype, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def needs_kernel(weight: Tensor) -> None:
    if not supports_linear(weight):
        pytest.skip("no kernel for this dtype on this processor")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("has_bias", [False, True])
def test_outputs_are_near_float64_and_do_not_depend_on_rows_threads_or_packing(
    dtype: torch.dtype, inputs: int, outputs: int, has_bias: bool
) -> None:
    weight = numbers(dtype, outputs, inputs, seed=1)
    needs_kernel(weight)
    rows, bias = numbers(dtype, 70, inputs), numbers(dtype, outputs, seed=2) if has_bias else None
    linear = PackedLinear(pack(weight), outputs, bias)
    whole = linear(rows)
    exact = rows.double() @ weight.double().T + (bias.double() if bias is not None else 0.0)
    rounding = 2.0**-8 if dtype is torch.bfloat16 else 1e-5
    assert ((whole.double() - exact).abs() <= rounding * (exact.abs() + inputs**0.5)).all()
    for first, count in ((0, 1), (3, 1), (5, 2), (2, 7), (1, 8), (9, 33)):
        with threads(1):
            assert torch.equal(linear(rows[first : first + count]), whole[first : first + count])
    assert torch.equal(UnpackedLinear(weight, bias)(rows), whole)
    assert torch.equal(linear(rows.view(7, 10, -1)), whole.view(7, 10, -1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_stays_none(dtype: torch.dtype) -> None:
    weight, rows = numbers(dtype, 33, 64, seed=1), numbers(dtype, 9, 64)
    needs_kernel(weight)
    rows[4, 7], rows[5, 0] = float("nan"), float("inf")
    out = PackedLinear(pack(weight), 33, None)(rows)
    assert out[4].isnan().all()
    assert not out[5].isfinite().any()
    assert out[[0, 1, 2, 3, 6, 7, 8]].isfinite().all()


def test_weights_without_a_kernel_are_multiplied_by_torch() -> None:
    weight, rows = numbers(torch.float64, 33, 64, seed=1), numbers(torch.float64, 3, 64)
    assert not supports_linear(weight)
    assert not supports_linear(numbers(torch.bfloat16, 4, 63))
    linear = TorchLinear(weight, None)
    assert torch.allclose(linear(rows), rows @ weight.T)
    many = numbers(torch.float64, LEAST_ROWS, 64)
    assert torch.equal(linear(many[:3]), linear(many)[:3])
    with compiled.kernels_off():
        assert not supports_linear(weight.float())
