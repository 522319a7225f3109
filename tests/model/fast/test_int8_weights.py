"""Weights in 8 bits: near the weights themselves, the same for one row and for many, with what is merged in them,
and gone afterwards to the bit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny_models import FAMILIES, base_of, with_lora
from torch import Tensor, nn

from trimtab.base.errors import InputError
from trimtab.model.adapters.apply import merged, trainable_parameters
from trimtab.model.attention import PackedSequences
from trimtab.model.fast.int8_weights import FEW, FEWER, Int8Projection, int8_forwards
from trimtab.model.load import Base
from trimtab.model.share_weights import share_weights

IDS = torch.arange(3, 3 + FEW + 4)


def told(base: Base, ids: Tensor = IDS) -> Tensor:
    layout = PackedSequences([len(ids)])
    with torch.inference_mode():
        return base.logits(base.hidden(ids, layout.positions_N, layout)).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_answers_nearly_the_same_and_as_before_afterwards(family: str, dtype: torch.dtype) -> None:
    base = base_of(family, dtype)
    before = told(base)
    with int8_forwards(base):
        inside = told(base)
        few = told(base, IDS[:FEWER])  # the other product
    gap = (inside - before).abs().max()
    assert 0 < gap < 0.1 * before.std() * before.abs().max()
    assert torch.allclose(few, inside[:FEWER], atol=1e-4 if dtype == torch.float32 else 0.1)
    assert torch.equal(told(base), before)


def test_what_is_merged_answers_too_and_a_twin_stays_as_it_is() -> None:
    base = base_of("llama")
    other = share_weights(base)
    plain = told(base)
    with int8_forwards(other):
        rounded = told(other)
        assert torch.equal(told(base), plain)
    tuned = with_lora()
    with torch.no_grad():
        for value in trainable_parameters(tuned.model).values():
            value += 0.1
    with merged(tuned.model):
        own = told(tuned)
        with int8_forwards(tuned):
            inside = told(tuned)
        assert torch.equal(told(tuned), own)
    assert (inside - own).abs().max() < 0.2 * (inside - rounded).abs().max()  # the adapter is in it


@pytest.mark.parametrize("outputs", [1, 7, 48])
def test_a_row_is_rounded_by_half_of_its_scale_at_most(outputs: int) -> None:
    layer = nn.Linear(32, outputs)
    with torch.no_grad():
        layer.weight[0] = 0.0  # of no size at all
    made = Int8Projection(layer)
    rounded_OI = made.whole_OI * made.scale_O[:, None]
    error = (rounded_OI - layer.weight).abs()
    assert (error <= made.scale_O[:, None] * 0.501).all()
    assert made.whole_OI[1:].abs().amax(1).eq(127).all()
    for input in (torch.randn(FEWER, 32), torch.randn(FEW, 3, 32)):  # by either product
        assert torch.allclose(made(input), nn.functional.linear(input, rounded_OI, layer.bias), atol=1e-5)


def test_on_a_device_without_the_product_it_is_refused() -> None:
    base = SimpleNamespace(device=torch.device("cuda"))
    with pytest.raises(InputError, match="8 bits on cuda"), int8_forwards(base):  # type: ignore[arg-type]
        raise AssertionError
