"""Parts of layers by our kernels in training: transformers' numbers and gradients, held against float64."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_models import KERNEL_FAMILIES, accelerated, model_of
from torch import Tensor

from trimtab.model.attention import AttentionConfig, PackedSequences, causal_attention
from trimtab.model.fast import patch as lean
from trimtab.model.fast.patch import decelerate
from trimtab.model.kernels import build as compiled
from trimtab.model.load import Base, hidden_states

needs_kernels = pytest.mark.skipif(not compiled.library(), reason="no C compiler, so no kernels")

IDS = torch.arange(3, 60)
ROUNDING = 2.0**-8


def learned(model: Any) -> dict[str, Tensor]:
    """What the layers put out for two sequences, and every gradient."""
    layout = PackedSequences([23, 34])
    model.zero_grad()
    out_ND = hidden_states(model, IDS, layout.positions_N, layout)
    target = torch.randn(out_ND.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (out_ND.double() * target).sum().backward()
    found = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    return {"out": out_ND.detach()} | {name: grad.clone() for name, grad in found.items()}


def errors(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    return {name: float((found[name].double() - one).norm() / one.norm()) for name, one in exact.items()}


@needs_kernels
@pytest.mark.parametrize("family", KERNEL_FAMILIES)
def test_outputs_and_gradients_lie_as_near_to_float64_as_transformers(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = model_of(family, torch.bfloat16)
    exact = learned(copy.deepcopy(given).double())
    with compiled.kernels_off():
        plain = errors(learned(given), exact)
    accelerated(given)
    monkeypatch.setattr(type(given.model.layers[0].self_attn).__mro__[3], "forward", None)  # theirs is not called
    ours = errors(learned(given), exact)
    assert len(ours) > 10
    for name, error in ours.items():
        assert error <= 1.25 * plain[name] + 1e-3, name


@pytest.mark.parametrize("family", KERNEL_FAMILIES)
def test_float32_and_machines_without_kernels_get_transformers_numbers_to_the_bit(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = model_of(family, dtype)
        with compiled.kernels_off():
            before = learned(model)
            after = learned(accelerated(model))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_copy_computes_with_its_own_weights_and_keeps_its_names() -> None:
    model = model_of("llama", torch.bfloat16)
    names = list(model.state_dict())
    kinds = [type(part).__name__ for part in model.modules()]
    accelerated(model)
    other = copy.deepcopy(model)
    before = learned(model)["out"]
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    assert torch.equal(learned(model)["out"], before)
    assert not torch.equal(learned(other)["out"], before)
    assert list(other.state_dict()) == names
    assert [type(part).__name__ for part in model.modules()] == kinds


@needs_kernels
@pytest.mark.parametrize("shape", [(1, 32), (7, 96), (1, 5, 3, 64)])
def test_the_gradient_of_a_norm(shape: tuple[int, ...]) -> None:
    input, weight = _bf16(*shape, by=2.0).requires_grad_(), (1 + _bf16(shape[-1], seed=1, by=0.2)).requires_grad_()
    grad = _bf16(*shape, seed=2)
    lean._Normed.apply(input, weight, 1e-5).backward(grad)
    exact_input, exact_weight = (side.detach().double().requires_grad_() for side in (input, weight))
    out = exact_input * torch.rsqrt(exact_input.pow(2).mean(-1, keepdim=True) + 1e-5) * exact_weight
    out.backward(grad.double())
    for ours, exact in ((input, exact_input), (weight, exact_weight)):
        assert ours.grad is not None
        assert exact.grad is not None
        assert (ours.grad.double() - exact.grad).norm() < ROUNDING * exact.grad.norm()


@needs_kernels
def test_the_gradient_of_a_gate() -> None:
    sides = [_bf16(3, 64, seed=seed, by=4.0).requires_grad_() for seed in (0, 1)]
    exact = [side.detach().double().requires_grad_() for side in sides]
    grad = _bf16(3, 64, seed=2)
    lean._Gated.apply(*sides).backward(grad)
    (torch.nn.functional.silu(exact[0]) * exact[1]).backward(grad.double())
    for ours, theirs in zip(sides, exact, strict=True):
        assert ((ours.grad.double() - theirs.grad).abs() <= 3 * ROUNDING * (theirs.grad.abs() + 0.02)).all()


@needs_kernels
@pytest.mark.parametrize("together", [True, False])
def test_the_gradient_of_turned_heads(together: bool) -> None:
    side = _bf16(5, 3, 64).requires_grad_()
    angles = torch.randn(5, 32, generator=torch.Generator().manual_seed(1)).repeat(1, 2)
    cos, sin = angles.cos().to(torch.bfloat16), angles.sin().to(torch.bfloat16)
    grad = _bf16(3, 5, 64, seed=2) if together else _bf16(5, 3, 64, seed=2).transpose(0, 1)
    out = lean._Turned.apply(side, cos, sin)
    out.backward(grad)
    exact = side.detach().double().requires_grad_()
    first, second = exact.chunk(2, -1)
    turned = exact * cos[:, None].double() + torch.cat((-second, first), -1) * sin[:, None].double()
    turned.transpose(0, 1).backward(grad.double())
    assert ((out.double() - turned.transpose(0, 1)).abs() <= 3 * ROUNDING * (turned.transpose(0, 1).abs() + 1)).all()
    assert ((side.grad.double() - exact.grad).abs() <= 3 * ROUNDING * (exact.grad.abs() + 1)).all()


@needs_kernels
@pytest.mark.parametrize("tokens", [1, 2, 33, 300])
def test_the_gradient_of_attention(tokens: int) -> None:
    sides = [_bf16(heads, tokens, 64, seed=heads + n).requires_grad_() for n, heads in enumerate((6, 2, 2))]
    exact = [side.detach().double().requires_grad_() for side in sides]
    grad = _bf16(6, tokens, 64, seed=9)
    causal_attention(*sides, AttentionConfig(0.125)).backward(grad)
    causal_attention(*exact, AttentionConfig(0.125)).backward(grad.double())
    for ours, theirs in zip(sides, exact, strict=True):
        error = (ours.grad.double() - theirs.grad).norm() / theirs.grad.norm().clamp(min=1e-6)
        assert error < 3 * ROUNDING


def _bf16(*shape: int, seed: int = 0, by: float = 1.0) -> Tensor:
    return (by * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(torch.bfloat16)


@pytest.mark.parametrize("family", KERNEL_FAMILIES)
def test_what_was_put_on_is_taken_off(family: str) -> None:
    """Every class is transformers' own again, also after it was put on twice, and in float32 no number changes."""
    model = model_of(family, torch.float32)
    before, kinds = learned(model), [type(part) for part in model.modules()]
    base = Base(model=accelerated(accelerated(model)), tokenizer=None, precision="fp32", folder=Path())
    assert sum(type(part) is not kind for part, kind in zip(model.modules(), kinds, strict=True)) > 10
    assert decelerate(base) is base
    assert [type(part) for part in model.modules()] == kinds
    assert all(torch.equal(before[name], value) for name, value in learned(model).items())
