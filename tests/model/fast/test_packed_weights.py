"""Weights in the processor's order: the same numbers to the bit, with what is merged in them, and everything as
before afterwards."""

from __future__ import annotations

import copy

import pytest
import torch
from same_bits import same
from tiny_models import FAMILIES, base_of, stirred, with_lora
from torch import Tensor, nn

from trimtab.base.machine import MemoryUse
from trimtab.exports.hf import merged_weights
from trimtab.model.adapters.apply import merged
from trimtab.model.attention import PackedSequences
from trimtab.model.fast import packed_weights as room
from trimtab.model.fast.forwards import INFERENCE_FORWARDS
from trimtab.model.fast.packed_weights import merged_and_packed, packed, packed_projection, packed_weight
from trimtab.model.kernels import build as compiled
from trimtab.model.kernels.torch_private import mkldnn_linear, works
from trimtab.model.load import Base
from trimtab.model.share_weights import share_weights

needs_order = pytest.mark.skipif(
    not works(mkldnn_linear),
    reason="this processor's library has no bf16 products",
)
IDS = torch.arange(3, 20)


def told(base: Base) -> Tensor:
    layout = PackedSequences([len(IDS)])
    with torch.inference_mode():
        return base.logits(base.hidden(IDS, layout.positions_N, layout)).float()


def swapped(base: Base) -> int:
    """How many layers answer by a copy."""
    return sum(module in INFERENCE_FORWARDS for module in base.model.modules())


@needs_order
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_the_same_to_the_bit(family: str) -> None:
    base = base_of(family, torch.bfloat16)
    before = told(base)
    with packed(base):
        assert swapped(base) > 0
        assert same(told(base), before)
    assert swapped(base) == 0
    assert torch.equal(told(base), before)


@needs_order
@pytest.mark.parametrize("panels", [False, True])
def test_products_of_real_sizes(panels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the processor's library the same to the bit; by our kernels, which add up in another order, within a
    rounding."""
    if panels and "linear_bf16" not in compiled.library():
        pytest.skip("products of torch are faster here")
    if not panels:
        monkeypatch.setattr(room, "supports_linear", lambda _: False)
    draw = torch.Generator().manual_seed(0)
    for inputs, outputs in ((576, 192), (576, 1536), (1536, 576)):  # SmolLM2-135M's
        layer = nn.Linear(inputs, outputs, dtype=torch.bfloat16)
        weight = packed_weight(layer)
        for tokens in (1, 16, 130):
            input_NI = torch.randn(tokens, inputs, generator=draw).bfloat16()
            with torch.inference_mode():
                found, theirs = packed_projection(weight, outputs, layer.bias)(input_NI), layer(input_NI)
                exact = copy.deepcopy(layer).double()(input_NI.double())
            assert panels or same(found, theirs)
            assert ((found.double() - exact).abs() <= 2.0**-8 * exact.abs() + 1e-5).all()


@needs_order
def test_what_is_merged_answers_and_can_be_written_meanwhile() -> None:
    base = with_lora(dtype=torch.bfloat16)
    stirred(base)
    with merged(base.model):
        own, weights = told(base), merged_weights(base)
    with merged_and_packed(base):
        assert swapped(base) > 0
        assert same(told(base), own)
        inside = merged_weights(base)
        assert all(torch.equal(inside[name], value) for name, value in weights.items())
        with merged_and_packed(base):  # nothing more to do
            assert same(told(base), own)
        assert swapped(base) > 0
    stirred(base, 2)
    with merged(base.model):
        other = told(base)
    assert not torch.equal(other, own)
    with merged_and_packed(base):
        assert same(told(base), other)  # by the weights as they are now


@needs_order
def test_models_that_share_weights_share_the_copies_and_a_twin_is_plain() -> None:
    base = base_of("llama", torch.bfloat16)
    with packed(base):
        other = share_weights(base)
        assert swapped(other) == 0
        before = len(room._packed_weights)
        with packed(other):
            assert len(room._packed_weights) == before
            assert torch.equal(told(other), told(base))
    assert len(room._packed_weights) == 0


@needs_order
def test_weights_that_are_gone_are_not_taken_for_others() -> None:
    """Memory is used again: another weight may lie where one lay before."""
    for seed in range(20):
        torch.manual_seed(seed)
        layer, input_NI = nn.Linear(64, 64, bias=False, dtype=torch.bfloat16), torch.randn(3, 64).bfloat16()
        assert same(packed_projection(packed_weight(layer), 64, None)(input_NI), layer(input_NI))


def test_without_room_for_copies_weights_are_read_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_of("llama", torch.bfloat16)
    with packed(base):
        before = told(base)
    monkeypatch.setattr(room, "memory_use", lambda: MemoryUse(total=10**9, available=1000))
    monkeypatch.setattr(room, "_packed_copy", None)  # whoever made a copy now would fail
    with packed(base):
        assert swapped(base) > 0
        assert same(told(base), before)


@needs_order
def test_a_layer_of_another_type_among_them_answers_by_itself() -> None:
    base = base_of("llama", torch.bfloat16)
    base.model.model.layers[0].mlp.down_proj.float()
    with packed(base):
        down = INFERENCE_FORWARDS[base.model.model.layers[0]].down
        input_NI = torch.randn(3, 48)
        theirs = nn.functional.linear(input_NI, base.model.model.layers[0].mlp.down_proj.weight)
        assert torch.allclose(down(input_NI), theirs, atol=1e-5)
