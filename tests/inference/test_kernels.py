"""Answers by our kernels, with heads of a size that they take: what a request gets beside others it gets alone, and
what torch says."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.inference import attention_layouts as layouts
from trimtab.inference.engine import Completion, Engine, Request
from trimtab.inference.kv_cache import KVCache
from trimtab.inference.label_scoring import LabelRequest, score_labels
from trimtab.model.attention import ATTENTION
from trimtab.model.fast import kernel_layers as decoder
from trimtab.model.fast.forwards import INFERENCE_FORWARDS
from trimtab.model.fast.packed_weights import packed
from trimtab.model.kernels import build as compiled
from trimtab.model.load import Base
from trimtab.model.share_weights import share_weights

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
    with packed(base):
        for start in (30, 200):
            engine.pin(next(one.ids[:start] for one in requests() if len(one.ids) > start))
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
    monkeypatch.setattr(layouts, "attend_decode", None)  # whoever called it now would fail
    with compiled.kernels_off():
        plain = answers(BASES[family], requests())
    for one, other in zip(ours, plain, strict=True):
        same = [a == b for a, b in zip(one.ids, other.ids, strict=True)]
        first = same.index(False) if False in same else len(same)
        assert one.log_probabilities[:first] == pytest.approx(other.log_probabilities[:first], abs=0.08)


@pytest.mark.skipif("go_through_layers" not in compiled.library(), reason="layers are torch's here")
@pytest.mark.parametrize("family", BASES)
def test_all_layers_in_one_call_say_what_they_say_one_by_one(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(decoder, "call", lambda kernel, *given: ran.append(kernel) or compiled.call(kernel, *given))
    at_once = answers(BASES[family], requests())
    assert {"go_through_layers", "enter_layer"} <= set(ran)  # those behind a shared beginning go layer by layer
    ran.clear()
    monkeypatch.setattr(layouts.DecodeLayout, "own", None)
    one_by_one = answers(BASES[family], requests())
    assert set(ran) == {"enter_layer", "leave_layer"}
    for ours, theirs in zip(at_once, one_by_one, strict=True):
        assert (ours.ids, ours.log_probabilities) == (theirs.ids, theirs.log_probabilities)


@pytest.mark.parametrize("family", BASES)
def test_a_base_that_answers_has_a_twin_that_answers_by_itself(family: str) -> None:
    base = BASES[family]
    with packed(base):
        other = share_weights(base)
        assert not any(module in INFERENCE_FORWARDS for module in other.model.modules())
        ours, theirs = answers(base, requests(3)), answers(other, requests(3))
    assert [one.ids for one in ours] == [one.ids for one in theirs]


@pytest.mark.parametrize("heads", [1, 3])
def test_slots_of_a_single_block_hold_what_those_of_many_hold(heads: int) -> None:
    """Those for plain products, and those for kernels: written in parts, moved, and laid out anew with more room."""
    draw = torch.Generator().manual_seed(0)
    held = {dtype: KVCache() for dtype in (torch.bfloat16, torch.float32)}
    parts = [(0, 0, 70), (0, 70, 3), (1, 0, 5), (0, 73, 120), (2, 0, 64), (1, 5, 130)]
    ends = {slot: start + count for slot, start, count in parts}
    for slot, start, count in parts:
        key, value = torch.randn(2, heads, count, 64, generator=draw).to(torch.bfloat16)
        for dtype, slots in held.items():
            slots.lengths = [0, 0, 0]
            slots.reserve(start + count)
            slots.write(0, slot, start, key.to(dtype), value.to(dtype))
    blocks, single = held.values()
    assert (blocks.keys[0].shape[2], single.keys[0].shape[2]) == (4, 1)
    for slots in held.values():
        slots.lengths = [ends[slot] for slot in range(3)]
        slots.release(0, 1)
    assert blocks.lengths == single.lengths == [ends[1], ends[2]]
    for slot, end in enumerate(blocks.lengths):
        for places in (slice(0, end), slice(1, 3), slice(end - 2, end), slice(63, min(end, 65))):
            ours, theirs = (slots.part(0, slot, places) for slots in held.values())
            assert all(torch.equal(one.float(), other) for one, other in zip(ours, theirs, strict=True))
    ours, theirs = (slots.first(0, 2, 60) for slots in held.values())
    assert all(torch.equal(one.float(), other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("family", BASES)
def test_labels_are_as_likely_as_torch_says(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(1)
    labels = list({tuple(draw.randrange(3, 7) for _ in range(draw.choice([2, 4, 6]))) for _ in range(60)})
    labels = [(*label, 2) for label in labels]
    asked = [LabelRequest(id=str(n), ids=tuple(draw.randrange(3, 90) for _ in range(20 + n))) for n in range(5)]
    ours = score_labels(BASES[family], asked, labels)
    monkeypatch.setattr(layouts, "attend_tree", None)
    with compiled.kernels_off():
        theirs = score_labels(BASES[family], asked, labels)
    assert torch.allclose(ours, theirs, atol=0.3)
    assert (ours - theirs).abs().mean() < 0.05
