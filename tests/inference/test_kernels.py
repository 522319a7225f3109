"""One question, one answer: the same tokens and log-probabilities, bit for bit, whatever shares a request's passes and
whatever is cached; by kernels and by torch, in bf16 and fp32. And what kernels say is what torch says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.base.errors import InputError
from trimtab.inference import attention_layouts as layouts
from trimtab.inference.engine import Completion, Engine, Request
from trimtab.inference.kv_cache import KVCache
from trimtab.inference.label_scoring import LabelRequest, label_probabilities, prefill_prefix, score_labels
from trimtab.inference.last_hidden import last_hidden_states
from trimtab.model.attention import ATTENTION
from trimtab.model.fast import inference_layers as decoder
from trimtab.model.fast import packed_weights
from trimtab.model.fast.forwards import INFERENCE_FORWARDS
from trimtab.model.fast.packed_weights import packed
from trimtab.model.fast.patch import accelerate
from trimtab.model.kernels import build as compiled
from trimtab.model.kernels.linear import supports_linear
from trimtab.model.load import Base
from trimtab.model.share_weights import share_weights
from trimtab.model.threads import threads

needs_kernels = pytest.mark.skipif(not compiled.library(), reason="no C compiler, so no kernels")

VOCABULARY = 96


def base_of(kind: str, dtype: torch.dtype, **settings: object) -> Base:
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
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    model = model.to(dtype).eval().requires_grad_(False)
    return accelerate(Base(model=model, tokenizer=None, precision="", folder=Path()))


FAMILIES: dict[str, dict[str, object]] = {
    "llama": {},
    "qwen3": {},  # norms over each head
    "mistral": {"sliding_window": 40},
    "gemma2": {"sliding_window": 40, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 64},  # layers are torch's
}
BASES = {family: base_of(family, torch.bfloat16, **settings) for family, settings in FAMILIES.items()}
WIDE = {family: base_of(family, torch.float32, **settings) for family, settings in FAMILIES.items()}


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


def said(completions: list[Completion]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    return [(completion.ids, completion.log_probabilities) for completion in completions]


def needs_kernels_of(bases: dict[str, Base]) -> None:
    if not supports_linear(bases["llama"].model.get_output_embeddings().weight):
        pytest.skip("products of this dtype are torch's or oneDNN's here")


@contextmanager
def kernels(on: bool, bases: dict[str, Base]) -> Iterator[None]:
    if on:
        needs_kernels_of(bases)
    with nullcontext() if on else compiled.kernels_off():
        yield


@pytest.mark.parametrize("by_kernels", [True, False], ids=["kernels", "torch"])
@pytest.mark.parametrize("bases", [BASES, WIDE], ids=["bf16", "fp32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_one_question_has_one_answer_to_the_bit(family: str, bases: dict[str, Base], by_kernels: bool) -> None:
    base, asked = bases[family], requests()
    with kernels(by_kernels, bases), packed(base):
        together = said(Engine(base, frozenset()).generate(asked))
        for settings in ({"slots": 2}, {"prefill_tokens": 33}, {"min_shared_tokens": 999}):
            assert said(Engine(base, frozenset(), **settings).generate(asked)) == together  # type: ignore[arg-type]
        assert said(Engine(base, frozenset()).generate(asked[::-1]))[::-1] == together
        assert said(answers(base, asked)) == together  # with beginnings that are kept
        for number in (0, 4, 8):
            with threads(1 + number % 2):
                assert said(answers(base, [asked[number]])) == [together[number]]


@needs_kernels
@pytest.mark.parametrize("bases", [BASES, WIDE], ids=["bf16", "fp32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_that_were_not_packed_give_the_same(
    family: str, bases: dict[str, Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_kernels_of(bases)
    base, asked = bases[family], requests(3)
    whole = answers(base, asked)
    monkeypatch.setattr(packed_weights, "SPARE", 1e9)  # as on a machine without memory for copies
    assert said(answers(base, asked)) == said(whole)


@needs_kernels
@pytest.mark.parametrize("bases", [BASES, WIDE], ids=["bf16", "fp32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_said_is_as_likely_as_torch_says(family: str, bases: dict[str, Base]) -> None:
    ours = answers(bases[family], requests())
    with compiled.kernels_off():
        plain = answers(bases[family], requests())
    near = 0.08 if bases is BASES else 1e-4
    for one, other in zip(ours, plain, strict=True):
        same = [a == b for a, b in zip(one.ids, other.ids, strict=True)]
        first = same.index(False) if False in same else len(same)
        assert one.log_probabilities[:first] == pytest.approx(other.log_probabilities[:first], abs=near)
        assert first == len(same) or bases is BASES


@pytest.mark.skipif("decoder_layers" not in compiled.library(), reason="layers are torch's here")
@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
def test_all_layers_in_one_call_say_what_they_say_one_by_one(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(decoder, "call", lambda kernel, *given: ran.append(kernel) or compiled.call(kernel, *given))
    at_once = answers(BASES[family], requests())
    assert set(ran) == {"decoder_layers"}
    ran.clear()
    monkeypatch.setattr(layouts.CachedLayout, "kernel_attention", lambda *_: None)
    one_by_one = answers(BASES[family], requests())
    assert not ran
    assert said(one_by_one) == said(at_once)


@needs_kernels
@pytest.mark.parametrize("family", BASES)
def test_a_base_that_answers_has_a_twin_that_answers_by_itself(family: str) -> None:
    base = BASES[family]
    with packed(base):
        other = share_weights(base)
        assert not any(module in INFERENCE_FORWARDS for module in other.model.modules())
        ours, theirs = answers(base, requests(3)), answers(other, requests(3))
    assert [one.ids for one in ours] == [one.ids for one in theirs]


@needs_kernels
@pytest.mark.parametrize("heads", [1, 3])
def test_slots_of_a_single_block_hold_what_those_of_many_hold(heads: int) -> None:
    """Those for plain products, and those for kernels: written in parts, moved, and laid out anew with more room."""
    draw = torch.Generator().manual_seed(0)
    held = {dtype: KVCache() for dtype in (torch.bfloat16, torch.float64)}  # kernels have no float64
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
            assert all(torch.equal(one.double(), other) for one, other in zip(ours, theirs, strict=True))


@needs_kernels
def test_layers_that_the_kernel_does_not_take_behind_one_that_it_does_are_refused_in_one_line() -> None:
    cache = KVCache([1])
    cache.reserve(1)
    cache.write(0, 0, 0, *torch.zeros(2, 2, 1, 64))
    with pytest.raises(InputError, match=r"heads of 40 numbers in layer 1.*TRIMTAB_KERNELS=0"):
        cache.write(1, 0, 0, *torch.zeros(2, 2, 1, 40))


def labels_and_requests() -> tuple[list[tuple[int, ...]], list[LabelRequest]]:
    draw = random.Random(1)
    labels = {tuple(draw.randrange(3, 7) for _ in range(draw.choice([2, 4, 6]))) for _ in range(60)}
    start = tuple(draw.randrange(3, 90) for _ in range(20))
    prompts = [(*start, *(draw.randrange(3, 90) for _ in range(10 + number))) for number in range(5)]
    return [(*label, 2) for label in sorted(labels)], [
        LabelRequest(id=str(number), ids=ids) for number, ids in enumerate(prompts)
    ]


@pytest.mark.parametrize("by_kernels", [True, False], ids=["kernels", "torch"])
@pytest.mark.parametrize("bases", [BASES, WIDE], ids=["bf16", "fp32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_labels_have_one_probability_to_the_bit(family: str, bases: dict[str, Base], by_kernels: bool) -> None:
    labels, asked = labels_and_requests()
    base = bases[family]
    with kernels(by_kernels, bases), packed(base):
        together = label_probabilities(base, asked, labels)
        kept = prefill_prefix(base, asked[0].ids[:17])
        for request, among in zip(asked, together, strict=True):
            for pinned in (None, kept):
                with threads(1):
                    (alone,) = label_probabilities(base, [request], labels, pinned=pinned)
                assert (alone.best, alone.probabilities) == (among.best, among.probabilities)
        sums_NL = score_labels(base, asked, labels)
        assert sums_NL.argmax(-1).tolist() == [choice.best for choice in together]
        hidden_PD = last_hidden_states(base, [request.ids for request in asked])
        for request, hidden_D in zip(asked, hidden_PD, strict=True):
            assert torch.equal(last_hidden_states(base, [request.ids], pinned=kept)[0], hidden_D)


@needs_kernels
@pytest.mark.parametrize("bases", [BASES, WIDE], ids=["bf16", "fp32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_labels_are_as_likely_as_torch_says(family: str, bases: dict[str, Base]) -> None:
    labels, asked = labels_and_requests()
    ours = score_labels(bases[family], asked, labels)
    with compiled.kernels_off():
        theirs = score_labels(bases[family], asked, labels)
    assert torch.allclose(ours, theirs, atol=0.3 if bases is BASES else 1e-4)
    assert (ours - theirs).abs().mean() < (0.05 if bases is BASES else 1e-5)
