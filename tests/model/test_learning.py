"""Decoder layers with LoRA by two kernels in training: the same to the bit as by their parts, and those parts where they do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_lean import model_of
from torch import Tensor

from trimtab.model import compiled, learning
from trimtab.model.adapters import add_lora
from trimtab.model.attention import Segments
from trimtab.model.compiled import run
from trimtab.model.lean import make_lean
from trimtab.model.learning import learns_by_kernels
from trimtab.model.load import Base, hidden_states

pytestmark = pytest.mark.skipif("learn" not in compiled.library(), reason="parts of layers are faster by torch here")

LAYOUTS = {
    "two": Segments([50, 47]),
    "one": Segments([130]),
    "tree": Segments([40, 20, 37, 5, 64], [None, 0, 0, 2, None]),
}


def base_of(family: str, rank: int = 8, dtype: torch.dtype = torch.bfloat16) -> Base:
    model = model_of(family, dtype).requires_grad_(False)
    make_lean(model)
    base = Base(model=model, tokenizer=None, precision="bf16", folder=".")  # type: ignore[arg-type]
    add_lora(base, rank, 2.0 * rank, seed=0)
    draw = torch.Generator().manual_seed(1)
    for name, value in model.named_parameters():
        if name.endswith("lora_b"):  # made as zeros, they would hide what A gives
            value.data = 0.05 * torch.randn(value.shape, generator=draw)
    return base


def learned(base: Base, layout: Segments) -> dict[str, Tensor]:
    """What the layers put out, and the gradient of all that moves."""
    ids = torch.arange(len(layout.positions_N)) % 90
    base.model.zero_grad()
    out_ND = hidden_states(base.model, ids, layout.positions_N, layout)
    target = torch.randn(out_ND.shape, generator=torch.Generator().manual_seed(2)).to(out_ND.dtype)
    (out_ND * target).sum().backward()
    found = {name: one.grad.clone() for name, one in base.model.named_parameters() if one.grad is not None}
    return {"out": out_ND.detach()} | found


def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels of whole layers that run from now on."""
    found: list[str] = []
    monkeypatch.setattr(learning, "run", lambda kernel, *given: found.append(kernel) or run(kernel, *given))
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("family", "rank"), [("llama", 8), ("qwen2", 3), ("llama", 20)])
def test_a_layer_by_two_kernels_learns_to_the_bit_what_its_parts_learn(
    family: str, rank: int, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, kernels = base_of(family, rank), ran(monkeypatch)
    assert learns_by_kernels(base.model)
    whole = learned(base, LAYOUTS[layout])
    layers = base.model.config.num_hidden_layers
    assert kernels == ["learn"] * layers + ["learn_backward"] * layers
    monkeypatch.setattr(learning, "_fits", lambda *_: False)
    parts = learned(base, LAYOUTS[layout])
    assert len(kernels) == 2 * layers
    assert len(parts) == 1 + 2 * 7 * layers
    assert whole.keys() == parts.keys()
    assert [name for name, one in parts.items() if not torch.equal(one, whole[name])] == []


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
    assert kernels == ["learn", "learn_backward"]
    monkeypatch.setattr(learning, "_fits", lambda *_: False)
    assert torch.equal(whole, grad())


def _narrower(base: Base) -> None:
    add = base.model.base_model.layers[0].self_attn.q_proj
    add.lora_a, add.lora_b = (
        torch.nn.Parameter(side) for side in (add.lora_a.data[:4], add.lora_b.data[:, :4].clone())
    )


def _moving_norm(base: Base) -> None:
    base.model.base_model.layers[0].input_layernorm.weight.requires_grad_()


def _merged(base: Base) -> None:
    base.model.base_model.layers[0].mlp.up_proj.merge()


@pytest.mark.parametrize("change", [_narrower, _moving_norm, _merged])
def test_what_kernels_do_not_know_goes_by_its_parts(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base, kernels = base_of("llama"), ran(monkeypatch)
    change(base)
    assert not learns_by_kernels(base.model)
    learned(base, LAYOUTS["two"])
    assert kernels == ["learn", "learn_backward"]  # of the other layer


@pytest.mark.parametrize(
    ("family", "dtype", "lengths"),
    [
        ("qwen3", torch.bfloat16, [50, 50]),  # norms over each head
        ("mistral", torch.bfloat16, [50, 50]),  # longer than its window
        ("llama", torch.bfloat16, [30, 40]),  # few tokens: torch's products are as fast
        ("llama", torch.float32, [50, 50]),
    ],
)
def test_other_layers_and_passes_go_by_their_parts(
    family: str, dtype: torch.dtype, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, kernels = base_of(family, dtype=dtype), ran(monkeypatch)
    learned(base, Segments(lengths))
    assert kernels == []
