"""The hidden states that a head reads are those of each prompt alone in the plain model, whatever is read together
or beforehand."""

from __future__ import annotations

import random

import pytest
import torch
from answering_models import pair

from trimtab.inference import last_hidden as reading
from trimtab.inference.label_scoring import prefill_prefix
from trimtab.inference.last_hidden import last_hidden_states

pytestmark = pytest.mark.no_kernels

SHARED = tuple(3 + number % 20 for number in range(20))


def prompts(count: int, beginning: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    draw = random.Random(0)
    return [(*beginning, *(draw.randrange(3, 60) for _ in range(draw.randint(1, 12)))) for _ in range(count)]


def alone(model, ids: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        return model.base_model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1]


@pytest.mark.parametrize("tokens", [1, 40, 10_000])
@pytest.mark.parametrize("beginning", [(), SHARED])
@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral"])
def test_each_prompt_ends_as_it_does_alone_in_the_plain_model(family, beginning, tokens, monkeypatch) -> None:
    monkeypatch.setattr(reading, "ROW_TOKENS", tokens)
    base, plain = pair(family)
    asked = prompts(9, beginning)
    expected = torch.stack([alone(plain, ids) for ids in asked])
    assert torch.allclose(last_hidden_states(base, asked), expected, atol=1e-4)
    assert torch.allclose(torch.cat([last_hidden_states(base, [ids]) for ids in asked]), expected, atol=1e-4)
    held = prefill_prefix(base, SHARED)
    assert torch.allclose(last_hidden_states(base, asked, pinned=held), expected, atol=1e-4)
    assert torch.allclose(
        torch.cat([last_hidden_states(base, [ids], pinned=held) for ids in asked]), expected, atol=1e-4
    )
    assert last_hidden_states(base, []).shape == (0, expected.shape[1])


def test_what_is_held_is_not_read_again_and_as_far_as_prompts_begin_with_it(monkeypatch) -> None:
    base, plain = pair("llama")
    read: list[int] = []
    monkeypatch.setattr(reading, "_last_hidden", _counting(read, reading._last_hidden))
    held = prefill_prefix(base, SHARED)
    cut = (*SHARED[:17], 59, 58)
    for ids, fresh in (((*SHARED, 7, 9), 2), (SHARED, 1), (cut, 2), ((9, 9, 9), 3)):
        assert torch.allclose(last_hidden_states(base, [ids], pinned=held)[0], alone(plain, ids), atol=1e-4)
        assert read.pop() == fresh
    assert prefill_prefix(base, SHARED[:15]) is None


def _counting(read, function):
    def counted(base, fresh, prefix):
        read.append(sum(map(len, fresh)))
        return function(base, fresh, prefix)

    return counted
