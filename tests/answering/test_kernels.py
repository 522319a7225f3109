"""Answers by our kernels, with heads of a size that they take: what a request gets beside others it gets alone, and what torch says."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.answering import layouts
from trimtab.answering.choose import ChoiceRequest, score_labels
from trimtab.answering.engine import Completion, Engine, Request
from trimtab.model import attention, compiled, operations
from trimtab.model.attention import ATTENTION
from trimtab.model.laid_out import laid_out
from trimtab.model.load import Base

pytestmark = pytest.mark.skipif(not compiled.library(), reason="no C compiler, so no kernels")

VOCABULARY = 96


def base_of(kind: str, **settings: object) -> Base:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        **{
            **{"vocab_size": VOCABULARY, "hidden_size": 96, "intermediate_size": 96, "num_hidden_layers": 2},
            **{"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 512},
            **{"initializer_range": 0.1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
            **settings,
        },
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    model = model.to(torch.bfloat16).eval().requires_grad_(False)
    return Base(model=model, tokenizer=None, precision="bf16", folder=".")  # type: ignore[arg-type]


BASES = {
    "llama": base_of("llama"),
    "qwen3": base_of("qwen3"),  # norms over each head
    "mistral": base_of("mistral", sliding_window=40),
}


def requests(count: int = 9) -> list[Request]:
    """Some behind a beginning that is copied into each slot, some behind one that stays shared, some behind none."""
    draw = random.Random(0)
    ids = [draw.randrange(3, VOCABULARY) for _ in range(400)]
    starts = [[], ids[:30], ids[:200]]
    return [
        Request(
            id=str(number),
            ids=(*starts[number % 3], *(draw.randrange(3, VOCABULARY) for _ in range(draw.choice([2, 20, 70])))),
            max_new=draw.choice([3, 40, 80]),
            logprobs=True,
        )
        for number in range(count)
    ]


def answers(base: Base, asked: list[Request]) -> list[Completion]:
    engine = Engine(base, frozenset())
    with laid_out(base):
        for start in (30, 200):
            engine.hold(next(one.ids[:start] for one in requests() if len(one.ids) > start))
        return engine.generate(asked)


@pytest.mark.parametrize("family", BASES)
def test_an_answer_beside_others_is_that_of_a_request_alone(family: str) -> None:
    together = answers(BASES[family], requests())
    for one, among in zip(requests(), together, strict=True):
        (alone,) = answers(BASES[family], [one])
        same = [a == b for a, b in zip(alone.ids, among.ids, strict=True)]
        first = same.index(False) if False in same else len(same)
        # a product of another number of rows may round otherwise, and of two likely tokens the other is said then
        assert first > 0
        assert alone.log_probabilities[:first] == pytest.approx(among.log_probabilities[:first], abs=0.05)


@pytest.mark.parametrize("family", BASES)
def test_what_is_said_is_as_likely_as_torch_says(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = answers(BASES[family], requests())
    for room in (operations, attention):
        monkeypatch.setattr(room, "can", lambda *_: False)
    monkeypatch.setattr(layouts, "attend_own", None)  # whoever called it now would fail
    plain = answers(BASES[family], requests())
    for one, other in zip(ours, plain, strict=True):
        same = [a == b for a, b in zip(one.ids, other.ids, strict=True)]
        first = same.index(False) if False in same else len(same)
        assert one.log_probabilities[:first] == pytest.approx(other.log_probabilities[:first], abs=0.08)


@pytest.mark.parametrize("family", BASES)
def test_labels_are_as_likely_as_torch_says(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(1)
    labels = list({tuple(draw.randrange(3, 7) for _ in range(draw.choice([2, 4, 6]))) for _ in range(60)})
    labels = [(*label, 2) for label in labels]
    asked = [ChoiceRequest(id=str(n), ids=tuple(draw.randrange(3, 90) for _ in range(20 + n))) for n in range(5)]
    ours = score_labels(BASES[family], asked, labels)
    for room in (operations, attention):
        monkeypatch.setattr(room, "can", lambda *_: False)
    monkeypatch.setattr(layouts, "attend_ways", None)
    theirs = score_labels(BASES[family], asked, labels)
    assert torch.allclose(ours, theirs, atol=0.3)
    assert (ours - theirs).abs().mean() < 0.05
