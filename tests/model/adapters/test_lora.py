"""The fused LoRA product against the plain formula, and its gradients against numerical ones."""

import pytest
import torch
from torch import nn

from trimtab.model.adapters.dora import DoraLinear
from trimtab.model.adapters.lora import LoraLinear, shared_input_forward


def layer(bias, dtype=torch.float32):
    torch.manual_seed(0)
    made = LoraLinear(nn.Linear(6, 5, bias=bias).to(dtype).requires_grad_(False), rank=3, alpha=6.0)
    nn.init.normal_(made.lora_b)
    return made


def plain(made, input):
    return made.base(input) + (input @ made.lora_a.T @ made.lora_b.T) * (6.0 / 3)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6), (1, 6)])
def test_it_is_the_formula_with_its_gradients(bias, shape):
    made = layer(bias)
    values = torch.randn(shape)
    left, right = values.clone().requires_grad_(), values.clone().requires_grad_()
    weighting = torch.randn(*shape[:-1], 5)
    (made(left) * weighting).sum().backward()
    ours = made.lora_a.grad.clone(), made.lora_b.grad.clone()
    made.zero_grad()
    reference = plain(made, right)
    (reference * weighting).sum().backward()
    assert torch.allclose(made(values), reference, atol=1e-5)
    assert torch.allclose(left.grad, right.grad, atol=1e-5)
    assert torch.allclose(ours[0], made.lora_a.grad, atol=1e-5)
    assert torch.allclose(ours[1], made.lora_b.grad, atol=1e-5)


def test_gradients_reach_the_adapter_when_the_input_needs_none():
    made = layer(False)
    made(torch.randn(4, 6)).sum().backward()
    assert made.lora_a.grad.abs().sum() > 0
    assert made.lora_b.grad.abs().sum() > 0
    assert made.base.weight.grad is None


def test_bfloat16_weights_give_float32_gradients_near_the_exact_ones():
    low, exact = layer(True, torch.bfloat16), layer(True)
    values = torch.randn(64, 6)
    low(values.bfloat16()).float().square().mean().backward()
    exact(values).square().mean().backward()
    for name in ("lora_a", "lora_b"):
        ours, theirs = getattr(low, name).grad, getattr(exact, name).grad
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.03 * theirs.norm()


def test_merged_is_the_same_function_and_comes_apart_to_the_bit():
    made = layer(True)
    before, values = made.base.weight.data.clone(), torch.randn(4, 6)
    expected = made(values)
    made.merge()
    made.merge()  # a second time changes nothing
    assert torch.allclose(made(values), expected, atol=1e-5)
    made.unmerge()
    assert torch.equal(made.base.weight.data, before)
    assert torch.equal(made(values), expected)


@pytest.mark.parametrize("bias", [False, True])
def test_a_small_change_is_not_rounded_away_in_bfloat16(bias):
    """Far below the last bit of the output, it must still be there on average: else training in bfloat16 learns
    less."""
    torch.manual_seed(0)
    linear = nn.Linear(64, 32, bias=bias).bfloat16().requires_grad_(False)
    if bias:
        nn.init.normal_(linear.bias)
    made = LoraLinear(linear, rank=4, alpha=8.0)
    nn.init.constant_(made.lora_b, 1e-4)
    values = torch.randn(4000, 64).bfloat16()
    change = (values.float() @ made.delta().T).double()
    got = (made(values).detach() - linear(values)).double()
    last_bit = linear(values).abs().double().mean() * 2**-8
    assert change.abs().mean() < last_bit  # a change that rounding could swallow
    kept = float((got * change).sum() / change.square().sum())
    assert kept == pytest.approx(1.0, abs=0.1)


def several(*ranks):
    """Layers with the same input, of several sizes and ranks."""
    torch.manual_seed(1)
    made = [
        LoraLinear(nn.Linear(6, 4 + rank, bias=rank == 2).requires_grad_(False), rank=rank, alpha=4.0) for rank in ranks
    ]
    for one in made:
        nn.init.normal_(one.lora_b)
    return made


def outputs_and_gradients(layers, values, put_out):
    input = values.clone().requires_grad_()
    outs = put_out(layers, input)
    sum((out * out).sum() for out in outs).backward()
    grads = [parameter.grad.clone() for layer in layers for parameter in layer.parameters() if parameter.requires_grad]
    for layer in layers:
        layer.zero_grad()
    return [*outs, input.grad, *grads]


@pytest.mark.parametrize("ranks", [(3,), (3, 3, 3), (1, 2, 5)])
@pytest.mark.parametrize("shape", [(4, 6), (1, 7, 6)])
def test_layers_side_by_side_are_the_same_layers(ranks, shape):
    values = torch.randn(shape)
    together = outputs_and_gradients(several(*ranks), values, shared_input_forward)
    apart = outputs_and_gradients(several(*ranks), values, lambda layers, input: [one(input) for one in layers])
    assert len(together) == len(apart) == 3 * len(ranks) + 1
    assert all(torch.allclose(ours, theirs, atol=1e-5) for ours, theirs in zip(together, apart, strict=True))


def test_other_layers_side_by_side_are_asked_one_by_one():
    low, values = several(2)[0], torch.randn(4, 6)
    dora = DoraLinear(nn.Linear(6, 3).requires_grad_(False), rank=2, alpha=4.0)
    merged = several(3)[0]
    merged.merge()
    for other in (nn.Linear(6, 5), dora, merged):
        outs = shared_input_forward([low, other], values)
        assert torch.equal(outs[0], low(values))
        assert torch.equal(outs[1], other(values))


def test_a_layer_side_by_side_that_nobody_looks_at_gets_no_gradient():
    layers = several(2, 3)
    shared_input_forward(layers, torch.randn(4, 6))[0].sum().backward()
    assert layers[0].lora_b.grad.abs().sum() > 0
    assert layers[1].lora_b.grad.abs().sum() == 0
