"""Decoder layers by two kernels in training: what their parts learn, with LoRA to the bit, and those parts where
they do not fit."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_models import model_of
from tiny_models import random_rows
from torch import Tensor

from trimtab.model.adapters.apply import add_lora, trainable_parameters
from trimtab.model.attention import PackedSequences
from trimtab.model.fast import train_layers as learning
from trimtab.model.fast.partial_forward import hidden_at
from trimtab.model.fast.patch import accelerate
from trimtab.model.fast.train_layers import trains_by_kernels
from trimtab.model.kernels import build as compiled
from trimtab.model.kernels import matmul as products
from trimtab.model.kernels.build import call
from trimtab.model.load import Base, hidden_states
from trimtab.training.loop import LoopSettings, TrainingJob, train_model
from trimtab.training.sft import SupervisedObjective

pytestmark = pytest.mark.skipif(
    "layer_forward" not in compiled.library(), reason="parts of layers are faster by torch here"
)

LAYOUTS = {
    "two": PackedSequences([50, 47]),
    "one": PackedSequences([130]),
    "short": PackedSequences([12, 5]),
    "tree": PackedSequences([40, 20, 37, 5, 64], [None, 0, 0, 2, None]),
}


def base_of(family: str, rank: int = 8, dtype: torch.dtype = torch.bfloat16) -> Base:
    """With LoRA of this rank, or with all weights but biases moving where it is 0."""
    model = model_of(family, dtype)
    base = accelerate(Base(model=model, tokenizer=None, precision="bf16", folder="."))  # type: ignore[arg-type]
    for name, value in model.named_parameters():
        value.requires_grad_(not rank and not name.endswith("bias"))
    if rank:
        add_lora(base, rank, 2.0 * rank, seed=0)
    draw = torch.Generator().manual_seed(1)
    for name, value in model.named_parameters():
        if name.endswith("lora_b"):  # made as zeros, they would hide what A gives
            value.data = 0.05 * torch.randn(value.shape, generator=draw)
    return base


def learned(base: Base, layout: PackedSequences, wanted: Tensor | None = None) -> dict[str, Tensor]:
    """What the layers put out, at the places that are wanted where there are any, and the gradient of all that
    moves."""
    flat = torch.arange(len(layout.positions_N)) % 90, layout.positions_N, layout
    base.model.zero_grad()
    out_ND = hidden_states(base.model, *flat) if wanted is None else hidden_at(base, wanted, *flat)
    target = torch.randn(out_ND.shape, generator=torch.Generator().manual_seed(2)).to(out_ND.dtype)
    (out_ND * target).sum().backward()
    found = {name: one.grad.clone() for name, one in base.model.named_parameters() if one.grad is not None}
    return {"out": out_ND.detach()} | found


def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels of whole layers that run from now on."""
    found: list[str] = []
    monkeypatch.setattr(learning, "call", lambda kernel, *given: found.append(kernel) or call(kernel, *given))
    return found


def require_as_near(whole: dict[str, Tensor], parts: dict[str, Tensor], exact: dict[str, Tensor]) -> None:
    """Whether whole layers lie as near to float64 as their parts; what they put out is the same to the bit."""
    assert torch.equal(whole["out"], parts["out"])
    for name, one in exact.items():
        ours, theirs = ((found[name].double() - one).norm() / one.norm() for found in (whole, parts))
        assert ours <= 1.15 * theirs, name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("family", "rank"), [("llama", 8), ("qwen2", 3), ("llama", 20), ("llama", 0), ("qwen2", 0)])
def test_a_layer_by_two_kernels_learns_what_its_parts_learn(
    family: str, rank: int, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, kernels = base_of(family, rank), ran(monkeypatch)
    assert trains_by_kernels(base.model)
    monkeypatch.setattr(products, "LEAST", 1)  # parts of a few rows would go by torch's, which round otherwise
    whole = learned(base, LAYOUTS[layout])
    layers = base.model.config.num_hidden_layers
    assert kernels == ["layer_forward"] * layers + ["layer_backward"] * layers
    monkeypatch.setattr(learning, "_fits", lambda *_: False)
    parts = learned(base, LAYOUTS[layout])
    assert len(kernels) == 2 * layers
    assert len(parts) >= 1 + (14 if rank else 9) * layers
    assert whole.keys() == parts.keys()
    if rank:
        assert [name for name, one in parts.items() if not torch.equal(one, whole[name])] == []
    else:  # what products give to one input is added up before it is rounded, and by parts behind that
        require_as_near(whole, parts, learned(replace(base, model=copy.deepcopy(base.model).double()), LAYOUTS[layout]))


@pytest.mark.parametrize("lengths", [[1], [1, 4]])
def test_so_it_does_over_a_few_tokens(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    base, kernels, layout = base_of("llama"), ran(monkeypatch), PackedSequences(lengths)
    monkeypatch.setattr(products, "LEAST", 1)
    whole = learned(base, layout)
    assert "layer_forward" in kernels
    monkeypatch.setattr(learning, "_fits", lambda *_: False)
    assert [name for name, one in learned(base, layout).items() if not torch.equal(one, whole[name])] == []


@pytest.mark.parametrize(("family", "rank"), [("llama", 8), ("qwen2", 0)])
@pytest.mark.parametrize("layout", ["one", "tree"])
def test_behind_its_attention_the_last_one_goes_on_where_it_is_wanted(
    family: str, rank: int, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, kernels, layout_N = base_of(family, rank), ran(monkeypatch), LAYOUTS[layout]
    monkeypatch.setattr(products, "LEAST", 1)
    wanted = torch.tensor([3, 39, 39, 41, *range(60, 125)])  # one of them twice
    whole = learned(base, layout_N, wanted)
    layers = base.model.config.num_hidden_layers
    assert kernels == ["layer_forward"] * layers + ["layer_backward"] * layers
    assert len(whole["out"]) == len(wanted)
    monkeypatch.setattr(learning, "_fits", lambda *_: False)
    parts = learned(base, layout_N, wanted)
    require_as_near(whole, parts, learned(replace(base, model=copy.deepcopy(base.model).double()), layout_N, wanted))


@pytest.mark.parametrize(("family", "rank"), [("llama", 8), ("qwen2", 0)])
def test_a_checkpointed_layer_goes_forward_once_more_and_learns_the_same(
    family: str, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, kernels, layout = base_of(family, rank), ran(monkeypatch), LAYOUTS["tree"]
    wanted = torch.tensor([3, 39, 39, 41, *range(60, 125)])
    plain = learned(base, layout, wanted)
    kernels.clear()
    again = learned(replace(base, activation_checkpointing=True), layout, wanted)
    assert kernels == [
        "layer_forward",
        "layer_forward",
        "layer_forward",
        "layer_backward",
        "layer_forward",
        "layer_backward",
    ]
    assert [name for name, one in plain.items() if not torch.equal(one, again[name])] == []


def test_the_gradient_of_what_enters_is_given_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a model the first layer's input is fixed."""
    base, layout = base_of("llama"), LAYOUTS["two"]
    layer, kernels = base.model.base_model.layers[0], ran(monkeypatch)
    hidden = torch.randn(1, 97, 96, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16).requires_grad_()
    angles = base.model.base_model.rotary_emb(hidden, layout.positions_N[None])

    def grad() -> Tensor:
        out = layer(hidden, position_embeddings=angles, layout=layout)
        (found,) = torch.autograd.grad(out.sum(), hidden)
        return found

    whole = grad()
    assert kernels == ["layer_forward", "layer_backward"]
    monkeypatch.setattr(learning, "_fits", lambda *_: False)
    assert torch.equal(whole, grad())


@pytest.mark.parametrize("still", ["norm", "proj"])
def test_of_norms_and_weights_those_that_move_have_gradients(still: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, kernels = base_of("llama", rank=0), ran(monkeypatch)
    last = base.model.base_model.layers[1]
    for name, value in base.model.named_parameters():
        value.requires_grad_(any(value is one for one in last.parameters()) and still not in name)
    whole = learned(base, LAYOUTS["two"])
    assert kernels == ["layer_forward", "layer_forward", "layer_backward"]  # the first layer only reads
    monkeypatch.setattr(learning, "_fits", lambda *_: False)
    parts = learned(base, LAYOUTS["two"])
    assert len(parts) == 1 + sum(still not in name for name, _ in last.named_parameters())
    require_as_near(whole, parts, learned(replace(base, model=copy.deepcopy(base.model).double()), LAYOUTS["two"]))


def _moving_bias(base: Base) -> None:
    base.model.base_model.layers[0].self_attn.q_proj.base.bias = torch.nn.Parameter(
        torch.zeros(256, dtype=torch.bfloat16)
    )


def _narrower(base: Base) -> None:
    add = base.model.base_model.layers[0].self_attn.q_proj
    add.lora_a, add.lora_b = (
        torch.nn.Parameter(side) for side in (add.lora_a.data[:4], add.lora_b.data[:, :4].clone())
    )


def _moving_norm(base: Base) -> None:
    base.model.base_model.layers[0].input_layernorm.weight.requires_grad_()


def _merged(base: Base) -> None:
    base.model.base_model.layers[0].mlp.up_proj.merge()


@pytest.mark.parametrize("change", [_narrower, _moving_norm, _moving_bias, _merged])
def test_what_kernels_do_not_know_goes_by_its_parts(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base, kernels = base_of("llama"), ran(monkeypatch)
    change(base)
    assert not trains_by_kernels(base.model)
    learned(base, LAYOUTS["two"])
    assert kernels == ["layer_forward", "layer_backward"]  # of the other layer


@pytest.mark.parametrize(
    ("family", "dtype", "lengths"),
    [
        ("qwen3", torch.bfloat16, [50, 50]),  # norms over each head
        ("mistral", torch.bfloat16, [50, 50]),  # longer than its window
        ("llama", torch.float32, [50, 50]),
    ],
)
def test_other_layers_and_passes_go_by_their_parts(
    family: str, dtype: torch.dtype, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, kernels = base_of(family, dtype=dtype), ran(monkeypatch)
    learned(base, PackedSequences(lengths))
    assert kernels == []


@pytest.mark.parametrize("rank", [8, 0])
def test_what_learns_by_kernels_goes_on_to_the_same_bits(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward, backward, sums of gradients and steps: of LoRA's sides by torch, of weights by the kernel."""
    kernels = ran(monkeypatch)

    def trained(folder: Path, *until: int | None) -> dict[str, Tensor]:
        for last in until:
            base = base_of("llama", rank)  # as it was loaded
            settings = LoopSettings(learning_rate=1e-2, epochs=2.0)
            objective = SupervisedObjective(random_rows(8), batch=3, seed=0)
            train_model(TrainingJob(base=base, objective=objective, settings=settings, folder=folder), until=last)
        return {name: value.detach().clone() for name, value in trainable_parameters(base.model).items()}

    whole = trained(tmp_path / "whole", None)
    assert "layer_backward" in kernels
    parts = trained(tmp_path / "parts", 2, 4, None)
    assert [name for name, one in parts.items() if not torch.equal(one, whole[name])] == []
    before = trainable_parameters(base_of("llama", rank).model)
    assert not all(torch.equal(one, whole[name]) for name, one in before.items())
