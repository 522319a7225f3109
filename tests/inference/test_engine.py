"""A batched answer is the answer alone, whatever the batch, the slots and the sharing; and it is transformers'
answer."""

from __future__ import annotations

import functools
import random

import pytest
import torch
from answering_models import EOS, FAMILIES, pair
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.errors import InputError
from trimtab.inference import attention_layouts
from trimtab.inference.engine import Completion, Engine, Request
from trimtab.inference.kv_cache import shared_length
from trimtab.inference.sampling import Sampling

pytestmark = pytest.mark.no_kernels

STOP = frozenset({EOS})


@functools.cache
def reference(family: str, ids: tuple[int, ...], max_new: int) -> tuple[tuple[int, ...], bool]:
    _, model = pair(family)
    prompt = torch.tensor([ids])
    with torch.inference_mode():
        out = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=max_new, do_sample=False, pad_token_id=0
        )
    new = out[0, len(ids) :].tolist()
    return (tuple(new[:-1]), True) if new[-1] == EOS else (tuple(new), False)


def answer(family: str, requests: list[Request], **options: int) -> list[Completion]:
    return Engine(pair(family)[0], STOP, **options).generate(requests)


def mixed(family: str, shared: int, seed: int = 0, count: int = 7) -> list[Request]:
    draw = random.Random(f"{family} {shared} {seed}")
    start = [draw.randrange(1, EOS) for _ in range(shared)]
    return [
        Request(
            id=str(number),
            ids=(*start, *(draw.randrange(1, EOS) for _ in range(draw.choice([1, 2, 5, 11, 23])))),
            max_new=draw.choice([1, 3, 8, 16]),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("shared", "slots", "min_shared_tokens"), [(0, 3, 16), (20, 4, 16), (20, 4, 999), (5, 2, 1)])
def test_greedy_answers_are_those_of_transformers(family: str, shared: int, slots: int, min_shared_tokens: int) -> None:
    requests = mixed(family, shared)
    completions = answer(family, requests, slots=slots, min_shared_tokens=min_shared_tokens, prefill_tokens=40)
    assert [c.id for c in completions] == [r.id for r in requests]
    for request, completion in zip(requests, completions, strict=True):
        assert (completion.ids, completion.finished) == reference(family, request.ids, request.max_new)
        assert completion.prompt_tokens == len(request.ids)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefill_tokens", [7, 40])
def test_prompts_that_are_read_in_blocks_are_answered_alike(
    family: str, prefill_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_layouts, "_BLOCK_QUERIES", 3)
    requests = mixed(family, 20)
    for request, completion in zip(requests, answer(family, requests, prefill_tokens=prefill_tokens), strict=True):
        assert (completion.ids, completion.finished) == reference(family, request.ids, request.max_new)


@given(
    family=st.sampled_from(sorted(FAMILIES)),
    shared=st.integers(0, 30),
    seed=st.integers(0, 3),
    slots=st.integers(1, 5),
    min_shared_tokens=st.sampled_from([1, 16, 999]),
    prefill_tokens=st.sampled_from([1, 50, 2048]),
    cache_tokens=st.sampled_from([1, 60, 32768]),
)
def test_no_batch_changes_an_answer(
    family: str, shared: int, seed: int, slots: int, min_shared_tokens: int, prefill_tokens: int, cache_tokens: int
) -> None:
    requests = mixed(family, shared, seed, count=5)
    together = answer(
        family,
        requests,
        slots=slots,
        min_shared_tokens=min_shared_tokens,
        prefill_tokens=prefill_tokens,
        cache_tokens=cache_tokens,
    )
    alone = [answer(family, [request])[0] for request in requests]
    assert [c.ids for c in together] == [c.ids for c in alone]
    assert [c.finished for c in together] == [c.finished for c in alone]


def test_identical_prompts_share_all_but_their_last_token() -> None:
    ids = tuple(range(1, 30))
    requests = [Request(id=str(number), ids=ids, max_new=8) for number in range(3)]
    assert {c.ids for c in answer("llama", requests)} == {reference("llama", ids, 8)[0]}


def test_a_prompt_that_all_others_begin_with() -> None:
    ids = tuple(range(1, 30))
    requests = [Request(id="short", ids=ids, max_new=5), Request(id="long", ids=(*ids, 7, 8, 9), max_new=5)]
    for request, completion in zip(requests, answer("qwen3", requests, min_shared_tokens=4), strict=True):
        assert completion.ids == reference("qwen3", request.ids, 5)[0]


def test_no_prompts_no_answers() -> None:
    assert answer("llama", []) == []


def test_stopping_at_the_first_token() -> None:
    ids = (3, 4, 5)
    first = reference("llama", ids, 1)[0][0]
    engine = Engine(pair("llama")[0], frozenset({first}))
    (completion,) = engine.generate([Request(id="a", ids=ids, max_new=9)])
    assert completion.ids == ()
    assert completion.finished


def test_held_tokens_are_read_once_and_change_nothing() -> None:
    requests = mixed("gemma2", 20)
    engine = Engine(pair("gemma2")[0], STOP)
    engine.pin((*requests[0].ids[:20], 9, 9, 9))
    for request in requests:
        (completion,) = engine.generate([request])
        assert completion.ids == reference("gemma2", request.ids, request.max_new)[0]


def test_draws_depend_on_the_seed_and_not_on_the_batch() -> None:
    def request(seed: int, temperature: float = 1.0) -> Request:
        sampling = Sampling(temperature=temperature, top_p=0.95, top_k=40, seed=seed)
        return Request(id=f"{seed}", ids=(5, 6, 7, 8), max_new=12, sampling=sampling)

    together = answer("llama", [request(seed) for seed in range(6)], slots=4)
    assert [c.ids for c in together] == [answer("llama", [request(seed)])[0].ids for seed in range(6)]
    assert len({c.ids for c in together}) > 1
    (cold,) = answer("llama", [request(0, temperature=1e-6)])
    assert cold.ids == reference("llama", (5, 6, 7, 8), 12)[0]


def test_the_callback_sees_every_token_and_can_end_an_answer() -> None:
    seen: list[int] = []

    def told(_: str, token: int) -> bool:
        seen.append(token)
        return len(seen) == 3

    (completion,) = Engine(pair("llama")[0], STOP).generate([Request(id="a", ids=(3, 4, 5), max_new=9)], on_token=told)
    assert completion.ids == tuple(seen) == reference("llama", (3, 4, 5), 3)[0]
    assert completion.finished


@pytest.mark.parametrize(("length", "max_new"), [(120, 9), (0, 4), (4, 0)])
def test_what_does_not_fit_is_refused_by_name(length: int, max_new: int) -> None:
    with pytest.raises(InputError, match=r"output_tokens.*q7"):
        answer("llama", [Request(id="q7", ids=(3,) * length, max_new=max_new)])


def test_the_seconds_of_a_batch_add_up_to_its_time() -> None:
    import time

    started = time.perf_counter()
    completions = answer("llama", mixed("llama", 20))
    assert 0 < sum(c.seconds for c in completions) <= time.perf_counter() - started


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=2, max_size=5))
def test_what_prompts_share_leaves_each_its_last_token(prompts: list[tuple[int, ...]]) -> None:
    length = shared_length(prompts)
    assert len({prompt[:length] for prompt in prompts}) == 1
    assert length == min(map(len, prompts)) - 1 or len({prompt[length] for prompt in prompts}) > 1
