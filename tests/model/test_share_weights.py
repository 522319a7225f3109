"""Twins share every frozen tensor, and what is put on one of them, merged and taken off is never seen in another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import FAMILIES, base_of
from torch import Tensor

from trimtab.base.errors import InputError
from trimtab.base.grammar import METHODS as GRAMMAR
from trimtab.model.adapters.apply import (
    add_lora,
    attach,
    detach,
    load_adapter,
    merged,
    save_adapter,
    trainable_parameters,
)
from trimtab.model.adapters.base import adapter_layers
from trimtab.model.attention import PackedSequences
from trimtab.model.load import Base
from trimtab.model.prompt_tuning import virtual_tokens_of
from trimtab.model.share_weights import share_weights

METHODS = [name for name, method in GRAMMAR.items() if method.staged and name != "qlora"]
IDS = torch.tensor([5, 9, 14, 3, 22, 41])


def told(base: Base) -> Tensor:
    layout = PackedSequences([len(IDS)])
    with torch.no_grad():
        return base.logits(base.hidden(IDS, layout.positions_N, layout))


def moved(base: Base, method: str, seed: int) -> None:
    """Put a method on, and move what it trains."""
    attach(base, method, seed, rank=2, layers=1, virtual_tokens=3)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trainable_parameters(base.model).values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def pointers(base: Base) -> dict[str, int]:
    """Where each tensor of the model lies, by its name without that of a layer around it."""
    return {
        name.replace(".base.", "."): value.data_ptr()
        for name, value in [*base.model.named_parameters(), *base.model.named_buffers()]
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_twin_lies_where_its_base_lies_and_says_the_same(family: str) -> None:
    base = base_of(family)
    other = share_weights(base)
    assert pointers(other) == pointers(base)
    assert torch.equal(told(other), told(base))
    ours, theirs = dict(base.model.named_parameters()), dict(other.model.named_parameters())
    assert not any(ours[name] is theirs[name] for name in ours)
    tied = base.model.get_input_embeddings().weight is base.model.get_output_embeddings().weight
    assert tied == (other.model.get_input_embeddings().weight is other.model.get_output_embeddings().weight)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_what_one_has_on_no_other_sees(method: str, dtype: torch.dtype, tmp_path: Path) -> None:
    base = base_of("qwen2", dtype)  # with biases
    before, published = told(base), {name: value.clone() for name, value in base.model.state_dict().items()}
    first, second = share_weights(base), share_weights(base)
    moved(first, method, seed=1)
    save_adapter(first, tmp_path)
    load_adapter(second, tmp_path)
    own = told(first)
    assert not torch.equal(own, before)
    assert torch.equal(told(second), own)
    with merged(first.model):
        assert torch.equal(told(base), before)
        assert torch.equal(told(second), own)
        merged_logits = told(first)
        with merged(second.model):
            assert torch.equal(told(second), merged_logits)
            assert torch.equal(told(base), before)
        detach(second)  # while the other one is merged
        assert torch.equal(told(second), before)
        assert torch.equal(told(first), merged_logits)
    assert torch.equal(told(first), own)
    moved(base, method, seed=2)
    assert torch.equal(told(first), own)
    assert torch.equal(told(second), before)
    for one in (first, base):
        detach(one)
    for one in (base, first, second):
        assert torch.equal(told(one), before)
        assert not adapter_layers(one.model)
        assert virtual_tokens_of(one.model) is None
        for name, value in one.model.state_dict().items():
            assert torch.equal(value, published[name])
    assert pointers(first) == pointers(second) == pointers(base)  # what had storage of its own has let go of it


@pytest.mark.parametrize("method", METHODS)
def test_only_what_moves_has_storage_of_its_own(method: str) -> None:
    base = base_of("llama")
    other = share_weights(base)
    there = pointers(base)
    moved(other, method, seed=1)
    own = {name for name, place in pointers(other).items() if there.get(name) != place}
    assert own
    assert own & set(there) == (set(trainable_parameters(other.model)) if method in ("freeze", "full") else set())
    if method == "freeze":
        assert len(own) < len(there)
    assert pointers(base) == there


def test_a_base_with_something_on_has_no_twin() -> None:
    base = base_of("llama")
    add_lora(base, 2, 4.0, seed=0)
    with pytest.raises(InputError, match="detach them first"):
        share_weights(base)
    detach(base)
    attach(base, "soft-prompt", 0, virtual_tokens=2)
    with pytest.raises(InputError, match="detach them first"):
        share_weights(base)
    detach(base)
    attach(base, "freeze", 0, layers=1)
    with pytest.raises(InputError, match="detach them first"):
        share_weights(base)
    detach(base)
    assert torch.equal(told(share_weights(base)), told(base))
