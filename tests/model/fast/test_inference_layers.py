"""Decoder layers in fewer operations: transformers' own numbers, what was trained included, and the layers as they
were afterwards."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from kernel_models import KERNEL_FAMILIES, accelerated, model_of
from tiny_models import base_of, stirred, with_lora
from torch import Tensor, nn

from trimtab.model.adapters.apply import merged
from trimtab.model.attention import PackedSequences
from trimtab.model.fast.forwards import INFERENCE_FORWARDS
from trimtab.model.fast.inference_layers import (
    FAMILIES,
    FusedDecoderLayer,
    Projection,
    inference_forwards,
    stacked_bias,
    stacked_weight,
)
from trimtab.model.kernels import build as compiled
from trimtab.model.kernels.linear import PackedLinear, pack
from trimtab.model.load import Base, hidden_states

IDS = torch.arange(3, 20)


def told(base: Base) -> Tensor:
    layout = PackedSequences([8, 9])  # two sequences, longer than a window
    with torch.inference_mode():
        return base.logits(base.hidden(IDS, layout.positions_N, layout))


def plain(*layers: nn.Linear) -> Projection:
    weight_OI, bias_O = stacked_weight(layers), stacked_bias(layers)
    return lambda input: nn.functional.linear(input, weight_OI, bias_O)


def fused(base: Base) -> int:
    return sum(isinstance(INFERENCE_FORWARDS.get(module), FusedDecoderLayer) for module in base.model.modules())


@pytest.mark.parametrize("family", [family.lower() for family in FAMILIES])
def test_a_decoder_layer_says_what_transformers_says(family: str) -> None:
    base = base_of(family)
    before = told(base)
    with inference_forwards(base.model, plain):
        assert fused(base) == base.model.config.num_hidden_layers
        assert torch.allclose(told(base), before, rtol=1e-5, atol=1e-5)
    assert fused(base) == 0
    assert torch.equal(told(base), before)


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "phi", "phi3"])
def test_other_families_keep_their_layers(family: str) -> None:
    base = base_of(family)
    before = told(base)
    with inference_forwards(base.model, plain):
        assert fused(base) == 0
        assert torch.allclose(told(base), before, rtol=1e-5, atol=1e-5)


def test_a_change_beside_the_weights_keeps_the_layers_until_it_is_merged() -> None:
    base = with_lora()
    stirred(base)
    before = told(base)
    with inference_forwards(base.model, plain):
        assert fused(base) == 0
        assert torch.allclose(told(base), before, rtol=1e-5, atol=1e-5)
    with merged(base.model), inference_forwards(base.model, plain):
        assert fused(base) > 0
        assert torch.allclose(told(base), before, rtol=1e-4, atol=1e-4)
        inside = [INFERENCE_FORWARDS.get(module) for module in base.model.modules()]
        with inference_forwards(base.model, plain):  # nothing more to do
            assert [INFERENCE_FORWARDS.get(module) for module in base.model.modules()] == inside
        assert fused(base) > 0


def test_biases_of_some_layers_stand_beside_zeros() -> None:
    """BitFit gives a bias to what it trains."""
    layers = nn.Linear(3, 2, bias=False), nn.Linear(3, 4)
    input_NI = torch.randn(5, 3)
    apart = torch.cat([layer(input_NI) for layer in layers], dim=-1)
    assert torch.allclose(plain(*layers)(input_NI), apart, atol=1e-6)
    assert stacked_bias(layers[:1]) is None


@pytest.mark.skipif("linear_bf16" not in compiled.library(), reason="products of torch are faster here")
@pytest.mark.parametrize("tokens", [(1,), (8, 9), (40, 65)])
@pytest.mark.parametrize("family", KERNEL_FAMILIES)
def test_a_layer_by_kernels_lies_as_near_to_float64_as_transformers(family: str, tokens: tuple[int, ...]) -> None:
    model, layout = model_of(family, torch.bfloat16), PackedSequences(list(tokens))
    ids = torch.arange(sum(tokens)) % 90

    def put_out(given: Any) -> Tensor:
        with torch.inference_mode():
            return hidden_states(given, ids, layout.positions_N, layout).double()

    exact, theirs = put_out(copy.deepcopy(model).double()), put_out(model)
    with inference_forwards(accelerated(model), laid):
        ours = put_out(model)
    assert (ours - exact).norm() <= 1.15 * (theirs - exact).norm() + 1e-3 * exact.norm()


def laid(*layers: nn.Linear) -> Projection:
    weight_OI = stacked_weight(layers)
    return PackedLinear(pack(weight_OI), len(weight_OI), stacked_bias(layers))
