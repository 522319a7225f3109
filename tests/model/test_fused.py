"""Decoder layers in fewer operations: transformers' own numbers, what was trained included, and the layers as they were afterwards."""

from __future__ import annotations

import pytest
import torch
from tiny_models import base_of, stirred, with_lora
from torch import Tensor, nn

from trimtab.model.adapters import merged
from trimtab.model.attention import Segments
from trimtab.model.fused import FAMILIES, Fused, Product, answered_by, bias_of, weight_of
from trimtab.model.load import Base

IDS = torch.arange(3, 20)


def told(base: Base) -> Tensor:
    layout = Segments([8, 9])  # two sequences, longer than a window
    with torch.inference_mode():
        return base.logits(base.hidden(IDS, layout.positions_N, layout))


def plain(*layers: nn.Linear) -> Product:
    weight_OI, bias_O = weight_of(layers), bias_of(layers)
    return lambda input: nn.functional.linear(input, weight_OI, bias_O)


def fused(base: Base) -> int:
    return sum(isinstance(vars(module).get("forward"), Fused) for module in base.model.modules())


@pytest.mark.parametrize("family", [family.lower() for family in FAMILIES])
def test_a_decoder_layer_says_what_transformers_says(family: str) -> None:
    base = base_of(family)
    before = told(base)
    with answered_by(base.model, plain):
        assert fused(base) == base.model.config.num_hidden_layers
        assert torch.allclose(told(base), before, rtol=1e-5, atol=1e-5)
    assert fused(base) == 0
    assert torch.equal(told(base), before)


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "phi", "phi3"])
def test_other_families_keep_their_layers(family: str) -> None:
    base = base_of(family)
    before = told(base)
    with answered_by(base.model, plain):
        assert fused(base) == 0
        assert torch.allclose(told(base), before, rtol=1e-5, atol=1e-5)


def test_a_change_beside_the_weights_keeps_the_layers_until_it_is_merged() -> None:
    base = with_lora()
    stirred(base)
    before = told(base)
    with answered_by(base.model, plain):
        assert fused(base) == 0
        assert torch.allclose(told(base), before, rtol=1e-5, atol=1e-5)
    with merged(base.model), answered_by(base.model, plain):
        assert fused(base) > 0
        assert torch.allclose(told(base), before, rtol=1e-4, atol=1e-4)
        inside = [vars(module).get("forward") for module in base.model.modules()]
        with answered_by(base.model, plain):  # nothing more to do
            assert [vars(module).get("forward") for module in base.model.modules()] == inside
        assert fused(base) > 0


def test_biases_of_some_layers_stand_beside_zeros() -> None:
    """BitFit gives a bias to what it trains."""
    layers = nn.Linear(3, 2, bias=False), nn.Linear(3, 4)
    input_NI = torch.randn(5, 3)
    apart = torch.cat([layer(input_NI) for layer in layers], dim=-1)
    assert torch.allclose(plain(*layers)(input_NI), apart, atol=1e-6)
    assert bias_of(layers[:1]) is None
