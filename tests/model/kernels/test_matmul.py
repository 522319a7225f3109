"""Products by our kernels against float64, at lengths, widths and ranks around their edges; plain layers that become
theirs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from trimtab.model.adapters.lora import LoraLinear, shared_input_forward
from trimtab.model.fast.forwards import KernelLinear, accelerated_class, is_plain_linear
from trimtab.model.kernels import build as compiled
from trimtab.model.kernels import matmul as products
from trimtab.model.kernels.matmul import (
    LEAST,
    grad_matmul,
    lora_down,
    matmul,
    use_kernel,
    weight_gradient,
)

needs_kernels = pytest.mark.skipif("product" not in compiled.library(), reason="products of torch are faster here")

ROUNDING = 2.0**-8  # of bfloat16


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few they are, the kernels take them here."""
    monkeypatch.setattr(products, "LEAST", 1)


def bf16(*shape: int, seed: int = 0, by: float = 1.0) -> Tensor:
    return (by * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(torch.bfloat16)


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@needs_kernels
@pytest.mark.parametrize("tokens", [1, 7, 8, 33, 100])
@pytest.mark.parametrize(("inputs", "outputs"), [(32, 64), (96, 32), (4096, 96), (2144, 32)])
@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("rank", [0, 1, 16, 51])
@pytest.mark.parametrize("more", [False, True])
def test_a_product_is_the_sum_of_all_it_is_given(
    tokens: int, inputs: int, outputs: int, upright: bool, rank: int, more: bool
) -> None:
    input, weight = bf16(tokens, inputs), bf16(*((inputs, outputs) if upright else (outputs, inputs)), seed=1)
    thin = bf16(tokens, rank + 3, seed=2)[:, 1 : rank + 1], bf16(rank, outputs, seed=3)
    bias, onto = bf16(outputs, seed=4, by=9.0), bf16(tokens, outputs, seed=5, by=20.0)
    exact = input.double() @ (weight if upright else weight.T).double() + thin[0].double() @ thin[1].double()
    exact += (bias.double() + onto.double()) * more
    extras = {"bias_O": bias, "onto_NO": onto.clone()} if more else {}
    found = matmul(input, weight, transposed_weight=upright, low=thin if rank else None, **extras)
    # one rounding, of the whole sum
    assert ((found.double() - exact).abs() <= ROUNDING * exact.abs() + 1e-3).all()


@needs_kernels
def test_what_a_token_gets_does_not_hang_on_those_beside_it() -> None:
    input, weight = bf16(61, 576), bf16(192, 576, seed=1)
    whole = matmul(input, weight)
    assert all(torch.equal(matmul(input[at : at + 3], weight), whole[at : at + 3]) for at in (0, 7, 40, 58))


@needs_kernels
@pytest.mark.parametrize("tokens", [1, 16, 31, 33, 100])
@pytest.mark.parametrize("rank", [1, 7, 16, 40])
def test_thin_products_both_ways(tokens: int, rank: int) -> None:
    input, side, left = bf16(tokens, 96), bf16(rank, 96, seed=1), bf16(tokens, rank + 3, seed=2)[:, 2 : rank + 2]
    assert error(lora_down(input, side), input.double() @ side.double().T) < ROUNDING
    exact = left.double().T @ input.double()
    assert error(grad_matmul(left, input, 0.5), 0.5 * exact) < 1e-6
    assert error(grad_matmul(left, input, 3.0, transposed=True), 3 * exact.T) < 1e-6
    assert error(weight_gradient(left, input), exact) < ROUNDING


@needs_kernels
@pytest.mark.parametrize(("outputs", "inputs"), [(96, 32), (1024, 64), (40, 32), (32, 96)])
def test_the_gradient_of_a_wide_weight_and_of_a_narrow_one(outputs: int, inputs: int) -> None:
    grad, input = bf16(70, outputs), bf16(70, inputs, seed=1)
    assert error(weight_gradient(grad, input), grad.double().T @ input.double()) < ROUNDING
    assert error(weight_gradient(grad[:, 3:], input), grad[:, 3:].double().T @ input.double()) < ROUNDING


@needs_kernels
def test_no_nan_and_no_infinity_is_lost() -> None:
    input, weight = bf16(9, 64), bf16(32, 64, seed=1)
    input[3, 5], input[4, 6] = float("nan"), float("inf")
    found = matmul(input, weight)
    assert found[3].isnan().all()
    assert (found[4].abs() == torch.inf).all()
    assert found[[0, 1, 2, 5, 6, 7, 8]].isfinite().all()


def test_what_kernels_do_not_take_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not use_kernel(torch.zeros(200, 64))
    assert not use_kernel(bf16(200, 40))
    assert matmul(bf16(200, 40), bf16(8, 40)).shape == (200, 8)
    assert matmul(bf16(200, 64), bf16(8, 64)).shape == (200, 8)  # too few outputs
    monkeypatch.setattr(products, "LEAST", LEAST)
    assert not use_kernel(bf16(LEAST - 1, 64))
    assert use_kernel(bf16(2, LEAST // 2, 64)) is ("product" in compiled.library())


def test_in_float32_it_is_torchs_product_to_the_bit() -> None:
    input, weight, low, side, bias = (torch.randn(shape) for shape in ((5, 64), (32, 64), (5, 4), (4, 32), (32,)))
    assert torch.equal(matmul(input, weight), nn.functional.linear(input, weight))
    both = (low @ side).addmm_(input, weight.T)
    assert torch.equal(matmul(input, weight, low=(low, side), bias_O=bias), both + bias)
    assert torch.equal(grad_matmul(low, input), low.T @ input)


@needs_kernels
@pytest.mark.parametrize("bias", [False, True])
def test_a_plain_layer_learns_what_float64_learns(bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(96, 64, bias=bias).bfloat16()
    ours, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    ours.__class__ = accelerated_class(nn.Linear, KernelLinear)
    assert is_plain_linear(ours)
    assert is_plain_linear(plain)
    assert not is_plain_linear(nn.ReLU())
    grads = []
    for layer in (plain, ours, exact):
        input = bf16(2, 50, 96).to(layer.weight.dtype).requires_grad_()
        (layer(input).double() * bf16(2, 50, 64, seed=1).double()).sum().backward()
        grads.append([input.grad, *(one.grad for one in layer.parameters())])
    for theirs, own, true in zip(*grads, strict=True):
        assert own.dtype == torch.bfloat16
        assert error(own, true) <= 1.05 * error(theirs, true) + 1e-4


@needs_kernels
def test_low_rank_changes_by_kernels_are_as_near_to_float64_as_by_torch() -> None:
    torch.manual_seed(0)
    layers = [
        LoraLinear(nn.Linear(96, size).bfloat16().requires_grad_(False), rank, 32.0)
        for size, rank in ((64, 8), (32, 3))
    ]
    for layer in layers:
        nn.init.normal_(layer.lora_b, std=0.1)

    def learned(made: list[LoraLinear], dtype: torch.dtype) -> list[Tensor]:
        input = bf16(40, 96).to(dtype).requires_grad_()
        outs = shared_input_forward(made, input)
        sum((out.double() ** 2).sum() for out in outs).backward()
        found = [*outs, input.grad, *(side.grad for one in made for side in one.factors())]
        for one in made:
            one.zero_grad()
        return [one.detach().clone() for one in found]

    exact = learned([copy.deepcopy(one).double() for one in layers], torch.float64)
    ours = learned(layers, torch.bfloat16)
    with compiled.kernels_off():
        theirs = learned(layers, torch.bfloat16)
    for own, plain, true in zip(ours, theirs, exact, strict=True):
        assert error(own, true) <= 1.05 * error(plain, true) + 1e-4
