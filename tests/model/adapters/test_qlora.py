"""Weights in 4 bits: those of bitsandbytes, trained over as LoRA over the unpacked ones, and back to the bit."""

import bitsandbytes
import pytest
import torch
from torch import nn

from trimtab.model.adapters.lora import LoraLinear
from trimtab.model.adapters.qlora import SETTINGS, QloraLinear

pytestmark = pytest.mark.no_kernels


def layer():
    torch.manual_seed(0)
    linear = nn.Linear(64, 128, bias=True).requires_grad_(False)
    return linear, QloraLinear(linear, 4, 8.0, torch.Generator().manual_seed(1))


def test_the_packed_weight_is_that_of_bitsandbytes():
    linear, packed = layer()
    published = nn.Linear(64, 128)
    published.weight.data = packed.release().weight.data
    theirs = bitsandbytes.nn.Linear4bit(64, 128, quant_type=SETTINGS["bnb_4bit_quant_type"], compress_statistics=True)
    theirs.weight = bitsandbytes.nn.Params4bit(
        published.weight.data.clone(), requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    theirs = theirs.to(linear.weight.device)
    unpacked = bitsandbytes.functional.dequantize_4bit(theirs.weight.data, theirs.weight.quant_state)
    _, again = layer()
    assert torch.equal(again.frozen_weight(), unpacked)
    assert not torch.equal(unpacked, published.weight)


def test_it_trains_as_lora_over_the_unpacked_weight_and_comes_apart_to_the_bit():
    linear, packed = layer()
    before = packed._published.clone()
    plain = nn.Linear(64, 128).requires_grad_(False)
    plain.weight.data, plain.bias.data = packed.frozen_weight(), linear.bias.data
    twin = LoraLinear(plain, 4, 8.0, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for made in (packed, twin):
            made.lora_b.copy_(torch.randn(128, 4, generator=torch.Generator().manual_seed(2)))
    grads = []
    for made in (packed, twin):
        values = torch.ones(3, 64, requires_grad=True)
        made(values).square().sum().backward()
        grads.append((values.grad, made.lora_a.grad, made.lora_b.grad))
    assert all(torch.allclose(ours, theirs, rtol=1e-4) for ours, theirs in zip(*grads, strict=True))
    assert linear.weight.numel() == 0  # what is published waits elsewhere
    values = torch.randn(3, 64)
    expected = packed(values)
    packed.merge()
    assert torch.allclose(packed(values), expected, atol=1e-4)
    assert torch.equal(packed.release().weight, before)
