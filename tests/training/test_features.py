"""Hidden states as features: those of the plain model, whatever they are read beside."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from trimtab.model.fast.forwards import INFERENCE_FORWARDS
from trimtab.model.load import Base, load_base
from trimtab.training.features import mean_hidden

pytestmark = pytest.mark.no_kernels

PROMPTS = [tuple(4 + (place * 7 + number) % 250 for place in range(3 + 11 * number % 40)) for number in range(30)]


@pytest.fixture(scope="module")
def base(tiny_model_folder: Path) -> Base:
    return load_base(tiny_model_folder, "fp32")


def test_they_are_the_middle_layers_mean_over_the_prompt(base: Base, tiny_model_folder: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_folder).eval()
    found = mean_hidden(base, PROMPTS)
    for ids, row in zip(PROMPTS, found, strict=True):
        with torch.no_grad():
            states = plain(torch.tensor([ids]), output_hidden_states=True).hidden_states
        middle = states[(len(states) - 1) // 2][0]
        assert torch.allclose(row, middle.mean(0), atol=1e-5)
        assert not torch.allclose(row, states[0][0].mean(0), atol=1e-2)


def test_a_prompt_alone_gives_what_it_gives_among_others_and_nothing_stays_on_the_model(base: Base) -> None:
    together = mean_hidden(base, PROMPTS)
    for number in (0, 7, 29):
        assert torch.allclose(mean_hidden(base, [PROMPTS[number]])[0], together[number], atol=1e-5)
    assert mean_hidden(base, []).shape == (0, together.shape[1])
    layers = base.model.base_model.layers
    assert not any(layer._forward_hooks or layer in INFERENCE_FORWARDS for layer in layers)


def test_layers_above_the_middle_are_not_read(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise AssertionError

    expected = mean_hidden(base, PROMPTS)
    layers = base.model.base_model.layers
    assert len(layers) > 1
    for layer in layers[len(layers) // 2 :]:
        monkeypatch.setattr(layer, "forward", fails)
    assert torch.equal(mean_hidden(base, PROMPTS), expected)
