"""Requests that come and go while others run get what they get alone, whatever they hang on; a cancelled one makes
room at once."""

from __future__ import annotations

import functools
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from answering_models import EOS, FAMILIES, pair
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from trimtab.base.errors import InputError
from trimtab.inference import kv_cache as cache
from trimtab.inference import prefix_cache as memory
from trimtab.inference.engine import Completion, Engine, GeneratedToken, Request
from trimtab.inference.sampling import Sampling
from trimtab.model.kernels.ops import BLOCK

pytestmark = pytest.mark.no_kernels

STOP = frozenset({EOS})
SAMPLINGS = (
    Sampling(),
    Sampling(temperature=0.9, seed=3),
    Sampling(temperature=1.2, top_p=0.9, top_k=30, seed=2**40),
    Sampling(temperature=1.1, min_p=0.05, frequency_penalty=0.5, presence_penalty=-0.4, seed=5),
    Sampling(repetition_penalty=1.4),
)


def beginnings(family: str) -> list[tuple[int, ...]]:
    draw = random.Random(family)
    first, second = (tuple(draw.randrange(1, EOS) for _ in range(length)) for length in (21, 34))
    return [(), first, second, second[:18]]  # the last hangs on a part of one that is kept


def some(family: str, count: int, seed: int) -> list[Request]:
    draw = random.Random(f"{family} {seed}")
    return [
        Request(
            id=str(number),
            ids=(*draw.choice(beginnings(family)), *(draw.randrange(1, EOS) for _ in range(draw.choice([1, 3, 12])))),
            max_new=draw.choice([1, 4, 9, 20]),
            sampling=replace(draw.choice(SAMPLINGS)),
            logprobs=draw.random() < 0.5,
            top_logprobs=draw.choice([0, 0, 2, 5]),
        )
        for number in range(count)
    ]


def alone(family: str, request: Request) -> Completion:
    return Engine(pair(family)[0], STOP).generate([request])[0]


alone_once = functools.cache(alone)  # for a test of many examples, none of which changes weights


def drain(engine: Engine) -> dict[str, Completion]:
    events = []
    while engine.in_flight:
        events += engine.step()
    return {event.id: event for event in events if isinstance(event, Completion)}


def run_together(
    engine: Engine, requests: list[Request], due: dict[str, int], cancelled: dict[int, int]
) -> tuple[dict[str, list[int]], dict[str, Completion]]:
    """Return the streamed tokens and the completion of each request. Each is submitted in the step in which it is due,
    and given up as many steps later as `cancelled` says."""
    tokens: dict[str, list[int]] = {request.id: [] for request in requests}
    done: dict[str, Completion] = {}
    for now in range(1000):
        for request in requests:
            if due[request.id] == now:
                engine.submit(request)
            if due[request.id] + cancelled.get(int(request.id), 1000) == now:
                cut = engine.cancel(request.id)
                assert (cut is None) == (request.id in done)
                if cut:
                    assert not cut.finished
                    done[request.id] = cut
        for event in engine.step():
            if isinstance(event, Completion):
                done[event.id] = event
            else:
                tokens[event.id].append(event.token)
        if len(done) == len(requests) and not engine.in_flight:
            break
    return tokens, done


@given(
    family=st.sampled_from(sorted(FAMILIES)),
    seed=st.integers(0, 5),
    arrivals=st.lists(st.integers(0, 6), min_size=8, max_size=8),
    cancelled=st.dictionaries(st.integers(0, 7), st.integers(0, 12), max_size=4),
    slots=st.integers(1, 6),
    cache_tokens=st.sampled_from([1, 60, 32768]),
    prefill_tokens=st.sampled_from([1, 50, 2048]),
    prefix_cache_tokens=st.sampled_from([1, 30, 8192]),
)
def test_a_request_among_others_gets_the_tokens_it_gets_alone(
    family: str,
    seed: int,
    arrivals: list[int],
    cancelled: dict[int, int],
    slots: int,
    cache_tokens: int,
    prefill_tokens: int,
    prefix_cache_tokens: int,
) -> None:
    """`arrivals`: steps before each next request; `cancelled`: the step after its own arrival in which a request is
    given up."""
    engine = Engine(
        pair(family)[0],
        STOP,
        slots=slots,
        cache_tokens=cache_tokens,
        prefill_tokens=prefill_tokens,
        prefix_cache_tokens=prefix_cache_tokens,
    )
    _, first, second, _ = beginnings(family)
    engine.pin(first)
    engine.pin(second)
    requests = some(family, len(arrivals), seed)
    due, at = {}, 0
    for request, pause in zip(requests, arrivals, strict=True):
        at += pause
        due[request.id] = at
    tokens, done = run_together(engine, requests, due, cancelled)
    for request in requests:
        expected, given_here = alone_once(family, request), done[request.id]
        assert given_here.ids == expected.ids[: len(given_here.ids)]
        assert tuple(token for token in tokens[request.id] if token != EOS) == given_here.ids
        if int(request.id) not in cancelled:
            assert (given_here.ids, given_here.finished) == (expected.ids, expected.finished)
            assert given_here.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-4)
            assert len(given_here.likeliest) == (len(given_here.log_probabilities) if request.top_logprobs else 0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("penalty", [1.5, 0.8])
def test_a_repetition_penalty_gives_the_greedy_answer_of_transformers(family: str, penalty: float) -> None:
    base, reference = pair(family)
    draw = random.Random(family)
    requests = [
        Request(
            id=str(number),
            ids=tuple(draw.randrange(1, EOS) for _ in range(9 + number)),
            max_new=20,
            sampling=Sampling(repetition_penalty=penalty),
        )
        for number in range(3)
    ]
    plain = Request(id="plain", ids=requests[0].ids, max_new=20)
    *completions, beside = Engine(base, STOP).generate([*requests, plain])
    for request, completion in zip(requests, completions, strict=True):
        ids = torch.tensor([request.ids])
        out = reference.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=20,
            do_sample=False,
            pad_token_id=0,
            repetition_penalty=penalty,
        )
        said = out[0, len(request.ids) :].tolist()
        assert [*completion.ids, *([EOS] if completion.finished else [])] == said
    assert beside.ids == alone(family, plain).ids


def test_the_likeliest_tokens_are_those_of_transformers_whatever_is_drawn() -> None:
    base, reference = pair("grouped llama")
    requests = [
        Request(
            id=str(count),
            ids=(3, 4, 5 + count),
            max_new=6,
            top_logprobs=count,
            sampling=Sampling(temperature=1.5, presence_penalty=2.0, min_p=0.1, seed=count),
        )
        for count in (0, 1, 4)
    ]
    for request, completion in zip(requests, Engine(base, frozenset()).generate(requests), strict=True):
        assert len(completion.likeliest) == (6 if request.top_logprobs else 0)
        assert bool(completion.log_probabilities) == bool(request.top_logprobs)
        with torch.inference_mode():
            logits = reference(torch.tensor([[*request.ids, *completion.ids]])).logits[0]
        scores = logits[len(request.ids) - 1 : -1].log_softmax(-1)
        for place, found in enumerate(completion.likeliest):
            best = scores[place].topk(request.top_logprobs)
            assert [token for token, _ in found] == best.indices.tolist()
            assert [log for _, log in found] == pytest.approx(best.values.tolist(), abs=1e-4)
            assert completion.log_probabilities[place] == pytest.approx(
                float(scores[place, completion.ids[place]]), abs=1e-4
            )


@pytest.mark.parametrize("slots", [1, 2, 20])
def test_a_cancelled_request_makes_room_for_the_next_pass(slots: int) -> None:
    engine = Engine(pair("llama")[0], frozenset(), slots=slots)
    for number in range(slots + 3):
        engine.submit(Request(id=str(number), ids=(3, 4, 5 + number), max_new=30))
    engine.step()
    engine.step()
    cut = engine.cancel("0")
    assert cut is not None
    assert len(cut.ids) == 2
    assert {event.id for event in engine.step()} == {str(slots)}
    assert {event.id for event in engine.step()} == {str(number) for number in range(1, slots + 1)}


def test_one_that_waits_is_cancelled_before_it_costs_anything() -> None:
    engine = Engine(pair("llama")[0], frozenset(), slots=1)
    for name in "abc":
        engine.submit(Request(id=name, ids=(3, 4, 5), max_new=2))
    engine.step()
    waiting = engine.cancel("b")
    assert waiting is not None
    assert (waiting.ids, waiting.seconds) == ((), 0)
    assert engine.cancel("b") is None
    assert set(drain(engine)) == {"a", "c"}
    assert engine.step() == []


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_those_of_transformers(family: str) -> None:
    base, reference = pair(family)
    draw = random.Random(1)
    requests = [
        Request(
            id=str(number),
            ids=tuple(draw.randrange(1, EOS) for _ in range(4 + number)),
            max_new=24,
            sampling=sampling,
            logprobs=True,
        )
        for number, sampling in enumerate([*SAMPLINGS, *SAMPLINGS])
    ]
    completions = Engine(base, STOP).generate(requests)
    assert any(len(completion.log_probabilities) > len(completion.ids) for completion in completions)
    for request, completion in zip(requests, completions, strict=True):
        said = [*completion.ids, EOS] if completion.finished else [*completion.ids]
        with torch.inference_mode():
            logits = reference(torch.tensor([[*request.ids, *said]])).logits[0]
        scores = logits[len(request.ids) - 1 : -1].log_softmax(-1)
        assert completion.log_probabilities == pytest.approx(
            [float(scores[place, token]) for place, token in enumerate(said)], abs=1e-4
        )


def test_log_probabilities_are_only_given_where_asked_for() -> None:
    engine = Engine(pair("llama")[0], STOP)
    for name in "ab":
        engine.submit(Request(id=name, ids=(3, 4, 5), max_new=3, logprobs=name == "b"))
    told = [event for event in engine.step() if isinstance(event, GeneratedToken)]
    assert {event.id: event.log_probability is not None for event in told} == {"a": False, "b": True}


def test_each_beginning_that_is_kept_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    read_prefix = memory.read_prefix

    def reading(base: object, ids: tuple[int, ...]) -> cache.Prefix:
        read.append(len(ids))
        return read_prefix(base, ids)  # type: ignore[arg-type]

    monkeypatch.setattr(memory, "read_prefix", reading)
    engine = Engine(pair("llama")[0], frozenset())
    _, first, second, _ = beginnings("llama")
    for ids in (first, second, first):
        engine.pin(ids)
    assert read == [21, 34]
    for number, start in enumerate([first, second, (), first, second[:30], first]):
        engine.submit(Request(id=str(number), ids=(*start, 7, 8 + number), max_new=4))
    engine.step()
    assert read == [21, 34]


@given(
    family=st.sampled_from(sorted(FAMILIES)),
    shared=st.integers(0, 30),
    held=st.lists(st.integers(0, 40), max_size=3),
    min_shared_tokens=st.sampled_from([1, 16, 999]),
)
def test_what_is_held_changes_no_answer_of_generate(
    family: str, shared: int, held: list[int], min_shared_tokens: int
) -> None:
    draw = random.Random(shared)
    start = tuple(draw.randrange(1, EOS) for _ in range(shared))
    requests = [replace(request, ids=(*start, *request.ids)) for request in some(family, 5, 1)]
    engine = Engine(pair(family)[0], STOP, min_shared_tokens=min_shared_tokens, slots=4)
    for request, length in zip(requests, held, strict=False):
        engine.pin((*request.ids[:length], *range(1, length % 3)))
    together = engine.generate(requests)
    assert [completion.ids for completion in together] == [alone(family, request).ids for request in requests]


class Looks(TorchDispatchMode):
    """Counts how often the host looks at a number in a tensor, which on a device waits for all that was asked of it."""

    looks = frozenset({"aten.item", "aten.is_nonzero", "aten._local_scalar_dense", "aten.nonzero", "aten.equal"})

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += self.looks & {str(func.overloadpacket)}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_looks_at_no_tensor_but_the_tokens_it_reads_back(family: str) -> None:
    engine = Engine(pair(family)[0], frozenset())
    for held in beginnings(family)[1:3]:
        engine.pin(held)
    for request in some(family, 8, 0):
        engine.submit(replace(request, max_new=6))
    with Looks() as looks, torch.inference_mode():
        assert bool(torch.ones(1).any())
        assert looks.seen == ["aten.is_nonzero"]
        for _ in range(4):  # `tolist`, with which tokens come back, is not among them
            assert engine.step()
    assert looks.seen == ["aten.is_nonzero"]


def test_the_least_recently_used_prefix_leaves_and_what_was_held_can_be_forgotten() -> None:
    kept = memory.PinnedPrefixes(60)
    base, _ = pair("llama")
    prefixes = [tuple(range(start, start + 25)) for start in (1, 30, 60)]
    kept.add(base, prefixes[0])
    kept.add(base, prefixes[1])
    assert kept.longest((*prefixes[0], 1)) is not None
    kept.add(base, prefixes[2])
    found = [kept.longest((*prefix, 1)) for prefix in prefixes]
    assert [beginning.length if beginning else 0 for beginning in found] == [25, 0, 25]
    kept.add(base, tuple(range(1, 90)))
    assert kept.longest((*prefixes[2], 1)) is None
    kept.clear()
    assert kept.longest(tuple(range(1, 95))) is None


def test_what_is_forgotten_is_not_used_after_the_weights_have_changed() -> None:
    base, _ = pair("llama")
    request = Request(id="a", ids=tuple(range(1, 30)), max_new=6)
    engine = Engine(base, STOP)
    engine.pin(request.ids)
    inner = base.model.model.layers[0].self_attn.v_proj.weight
    before = inner.clone()
    try:
        inner.mul_(-1)
        engine.reset_prefix_cache()
        changed = engine.generate([request])[0].ids
        assert changed == alone("llama", request).ids
    finally:
        inner.copy_(before)
    assert changed != alone("llama", request).ids


def test_memory_stays_bounded_over_a_long_run_of_arrivals() -> None:
    engine = Engine(pair("llama")[0], frozenset(), slots=8, cache_tokens=240)
    draw = random.Random(0)
    most, submitted, finished = 0, 0, 0
    while finished < 120:
        while submitted < 120 and engine.in_flight < 12 and draw.random() < 0.7:
            length = draw.choice([2, 5, 9, 100])
            engine.submit(Request(id=str(submitted), ids=(3,) * length, max_new=draw.choice([1, 5, 20])))
            submitted += 1
        finished += sum(isinstance(event, Completion) for event in engine.step())
        stored = [store.shape[0] * store.shape[2] for store in engine._scheduler.cache.values]
        most = max([most, *stored])
    # slots are laid out in blocks, so each may hold up to one block more than it needs
    assert 0 < most <= 240 + 8 * BLOCK
    assert engine._scheduler.cache.keys == []


def test_short_requests_run_side_by_side_again_when_a_long_one_has_left() -> None:
    engine = Engine(pair("llama")[0], frozenset(), slots=8, cache_tokens=128)
    engine.submit(Request(id="long", ids=(3,) * 100, max_new=4))
    engine.step()
    for number in range(8):
        engine.submit(Request(id=str(number), ids=(3, 4, 5 + number), max_new=9))
    running = [len({event.id for event in engine.step()}) for _ in range(6)]
    assert running == [1, 1, 1, 8, 8, 8]


def test_a_request_that_cannot_be_answered_is_refused_and_leaves_the_others_alone() -> None:
    engine = Engine(pair("llama")[0], STOP)
    engine.submit(Request(id="a", ids=(3, 4, 5), max_new=4))
    with pytest.raises(InputError, match="a: a request of this id"):
        engine.submit(Request(id="a", ids=(3, 4), max_new=4))
    with pytest.raises(InputError, match="b: 0 prompt tokens"):
        engine.submit(Request(id="b", ids=(), max_new=4))
    with pytest.raises(InputError, match="b: 120 prompt tokens"):
        engine.submit(Request(id="b", ids=(3,) * 120, max_new=9))
    with pytest.raises(InputError, match="b: an empty stop"):
        engine.submit(Request(id="b", ids=(3,), max_new=9, stops=("",)))
    with pytest.raises(InputError, match="b: top_logprobs = 97"):
        engine.submit(Request(id="b", ids=(3,), max_new=9, top_logprobs=97))
    with pytest.raises(InputError, match="1 requests are in flight"):
        engine.generate([Request(id="b", ids=(3,), max_new=9)])
    assert set(drain(engine)) == {"a"}


def test_a_pass_that_fails_leaves_an_engine_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(pair("llama")[0], STOP)
    request = Request(id="a", ids=(3, 4, 5), max_new=4)
    with monkeypatch.context() as patch:
        patch.setattr(cache.KVCache, "append", lambda *_: (_ for _ in ()).throw(MemoryError("full")))
        with pytest.raises(MemoryError):
            engine.generate([request])
    assert engine.in_flight == 0
    assert engine.generate([request])[0].ids == alone("llama", request).ids


def test_tokens_of_a_beginning_that_was_read_before_are_told_apart() -> None:
    engine, start = Engine(pair("llama")[0], STOP), tuple(range(1, 41))
    engine.pin(start)
    asked = {"held": (*start, 50, 51), "a part": (*start[:33], 50), "too little": (*start[:9], 50), "nothing": (60, 61)}
    for name, ids in asked.items():
        engine.submit(Request(id=name, ids=ids, max_new=1))
    assert {name: one.cached_tokens for name, one in drain(engine).items()} == {
        "held": 40,
        "a part": 33,
        "too little": 0,
        "nothing": 0,
    }
