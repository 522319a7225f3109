"""A pass that ends early: the last layer's MLP reads what is wanted alone, and values and gradients are those of the
whole pass."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, base_of, with_lora
from torch import Tensor, nn

from trimtab.model.adapters.apply import attach, trainable_parameters, unfreeze
from trimtab.model.attention import PackedSequences
from trimtab.model.fast import inference_layers as fused
from trimtab.model.fast.partial_forward import hidden_at, layer_output
from trimtab.model.load import Base

pytestmark = pytest.mark.no_kernels

IDS, LAYOUT = torch.arange(3, 20), PackedSequences([8, 9])
WANTED = torch.tensor([4, 7, 7, 15, 16])  # one of them twice


def in_double(base: Base) -> Base:
    """In float32 no pass ends early; in float64 only norms round, as transformers has them in float32."""
    base.model.double()
    return base


def read_by_mlps(base: Base) -> list[int]:
    """How many tokens the MLP of each layer is given, as it is run."""
    read: list[int] = []
    for layer in base.model.base_model.layers:
        layer.mlp.register_forward_pre_hook(lambda _, given: read.append(given[0].shape[1]))
    return read


def found(base: Base, *, early: bool) -> tuple[Tensor, list[Tensor | None]]:
    """Wanted hidden states, and the gradients of all that moves."""
    if early:
        hidden_MD = hidden_at(base, WANTED, IDS, LAYOUT.positions_N, LAYOUT)
    else:
        hidden_MD = base.hidden(IDS, LAYOUT.positions_N, LAYOUT)[WANTED]
    loss = (hidden_MD * torch.arange(1.0, hidden_MD.numel() + 1).view(hidden_MD.shape)).sum()
    moving = list(trainable_parameters(base.model).values())
    return hidden_MD, list(torch.autograd.grad(loss, moving, allow_unused=True))


def assert_same(base: Base) -> None:
    ours, theirs = (found(base, early=early) for early in (True, False))
    assert torch.allclose(ours[0], theirs[0], rtol=1e-6)
    assert any(grad is not None for grad in ours[1])
    for mine, full in zip(ours[1], theirs[1], strict=True):
        assert (mine is None) == (full is None)
        assert mine is None or torch.allclose(mine, full, rtol=1e-5, atol=1e-6 * float(full.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_weights_get_the_gradients_of_the_whole_pass(family: str) -> None:
    base = in_double(base_of(family))
    unfreeze(base, "full")
    assert_same(base)
    read = read_by_mlps(base)
    found(base, early=True)
    known = family.split()[-1] in [name.lower() for name in fused.FAMILIES]
    assert read == [len(IDS)] * (len(read) - 1) + [len(WANTED) if known else len(IDS)]


def test_so_does_lora() -> None:
    assert_same(in_double(with_lora()))


@pytest.mark.parametrize("why", ["all are wanted", "virtual tokens"])
def test_else_the_pass_is_whole(why: str) -> None:
    base, wanted = in_double(base_of("llama")), WANTED
    if why == "all are wanted":
        wanted = torch.arange(len(IDS)).flip(0)
    if why == "virtual tokens":
        attach(base, "soft-prompt", 0, virtual_tokens=3)
    plain = base.hidden(IDS, LAYOUT.positions_N, LAYOUT)
    read = read_by_mlps(base)
    assert torch.equal(hidden_at(base, wanted, IDS, LAYOUT.positions_N, LAYOUT), plain[wanted])
    assert min(read) >= len(IDS)


def test_layers_that_answer_in_fewer_operations_stay_as_they_are() -> None:
    base = in_double(base_of("llama"))
    plain = base.hidden(IDS, LAYOUT.positions_N, LAYOUT)[WANTED]
    first = layer_output(base, 0, IDS, LAYOUT.positions_N, LAYOUT)

    def make(*layers: nn.Linear) -> fused.Projection:
        weight_OI = fused.stacked_weight(layers)
        return lambda input: nn.functional.linear(input, weight_OI)

    with fused.inference_forwards(base.model, make):
        assert torch.allclose(hidden_at(base, WANTED, IDS, LAYOUT.positions_N, LAYOUT), plain)
        assert torch.allclose(layer_output(base, 0, IDS, LAYOUT.positions_N, LAYOUT), first, atol=1e-5)
