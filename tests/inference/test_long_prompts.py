"""A prompt longer than a pass is read in parts, to the same answer; what runs goes on between them, and a cancelled
one leaves nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from answering_models import EOS, FAMILIES, pair
from hypothesis import given
from hypothesis import strategies as st

from trimtab.inference.engine import Completion, Engine, GeneratedToken, Request
from trimtab.model.adapters.apply import attach
from trimtab.model.load import Base

pytestmark = pytest.mark.no_kernels

STOP = frozenset({EOS})


def prompt(draw: random.Random, length: int) -> tuple[int, ...]:
    return tuple(draw.randrange(1, EOS) for _ in range(length))


def drained(engine: Engine) -> dict[str, Completion]:
    events = []
    while engine.in_flight:
        events += engine.step()
    return {event.id: event for event in events if isinstance(event, Completion)}


def read_by_pass(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens that the model reads, pass by pass."""
    passes: list[int] = []
    hidden = Base.hidden

    def counted(self: Base, ids_N: torch.Tensor, positions_N: torch.Tensor, layout: Any) -> torch.Tensor:
        passes.append(len(ids_N))
        return hidden(self, ids_N, positions_N, layout)

    monkeypatch.setattr(Base, "hidden", counted)
    return passes


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefill_tokens", [1, 7, 32])
def test_answers_behind_long_prompts_are_those_of_transformers(family: str, prefill_tokens: int) -> None:
    base, reference = pair(family)
    draw = random.Random(family)
    prompts = [prompt(draw, length) for length in (90, 33, 8, 61)]
    completions = Engine(base, STOP, slots=3, prefill_tokens=prefill_tokens).generate(
        [Request(id=str(number), ids=ids, max_new=8) for number, ids in enumerate(prompts)]
    )
    for ids, completion in zip(prompts, completions, strict=True):
        said = list(completion.ids)
        with torch.inference_mode():
            logits = reference(torch.tensor([[*ids, *said]])).logits[0]
        expected = logits[len(ids) - 1 :].argmax(-1).tolist()
        assert said == expected[: len(said)]
        assert len(said) == 8 or expected[len(said)] == EOS


@given(
    family=st.sampled_from(sorted(FAMILIES)),
    method=st.sampled_from([None, "soft-prompt", "prefix"]),
    lengths=st.lists(st.sampled_from([1, 5, 17, 40, 70]), min_size=1, max_size=6),
    pauses=st.lists(st.integers(0, 5), min_size=6, max_size=6),
    cancelled=st.dictionaries(st.integers(0, 5), st.integers(0, 6), max_size=2),
    shared=st.sampled_from([0, 3, 20]),
    slots=st.integers(1, 4),
    cache_tokens=st.sampled_from([90, 200, 32768]),
    prefill_tokens=st.sampled_from([1, 4, 16, 30]),
)
def test_no_mix_of_parts_changes_an_answer(
    family: str,
    method: str | None,
    lengths: list[int],
    pauses: list[int],
    cancelled: dict[int, int],
    shared: int,
    slots: int,
    cache_tokens: int,
    prefill_tokens: int,
) -> None:
    """`pauses`: steps before each next request; `cancelled`: the step after its arrival in which a request is given
    up."""
    base, _ = pair(family) if method is None else pair.__wrapped__(family)
    if method:
        attach(base, method, seed=1, virtual_tokens=5)
    draw = random.Random(f"{family} {lengths} {shared}")
    start = prompt(draw, shared)
    requests = [
        Request(id=str(number), ids=(*start, *prompt(draw, length)), max_new=draw.choice([1, 3, 9]))
        for number, length in enumerate(lengths)
    ]
    alone = {request.id: Engine(base, STOP).generate([request])[0] for request in requests}
    engine = Engine(base, STOP, slots=slots, cache_tokens=cache_tokens, prefill_tokens=prefill_tokens)
    engine.pin(start)
    done: dict[str, Completion] = {}
    due = {str(number): sum(pauses[: number + 1]) for number in range(len(requests))}
    now = 0
    while len(done) < len(requests):
        for request in requests:
            if due[request.id] == now:
                engine.submit(request)
            if request.id not in done and due[request.id] + cancelled.get(int(request.id), 10_000) == now:
                cut = engine.cancel(request.id)
                assert cut is not None
                done[request.id] = cut
        done.update({event.id: event for event in engine.step() if isinstance(event, Completion)})
        now += 1
        assert now < 2000
    assert engine.in_flight == 0
    assert engine._scheduler.cache.keys == []
    for name, completion in done.items():
        if int(name) in cancelled:
            assert completion.ids == alone[name].ids[: len(completion.ids)]
        else:
            assert (completion.ids, completion.finished) == (alone[name].ids, alone[name].finished)


def test_what_runs_goes_on_between_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(pair("llama")[0], frozenset(), prefill_tokens=16)
    engine.submit(Request(id="runs", ids=(3, 4, 5), max_new=40))
    engine.step()
    engine.step()
    engine.submit(Request(id="long", ids=(7,) * 50, max_new=3))
    passes = read_by_pass(monkeypatch)
    told = [{event.id for event in engine.step()} for _ in range(8)]
    assert told == [set(), {"runs"}, set(), {"runs"}, set(), {"runs"}, {"long"}, {"runs", "long"}]
    assert passes == [16, 1, 16, 1, 16, 1, 2, 2]


def test_where_nothing_runs_the_parts_follow_each_other_and_the_last_is_filled_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(pair("llama")[0], frozenset(), prefill_tokens=32, min_shared_tokens=999)
    passes = read_by_pass(monkeypatch)
    engine.generate([Request(id=str(length), ids=(7,) * length, max_new=1) for length in (9, 70, 2, 20)])
    assert passes == [32, 32, 6 + 20, 9 + 2]


def test_a_prompt_that_fits_into_a_pass_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(pair("llama")[0], frozenset(), prefill_tokens=50, min_shared_tokens=999)
    passes = read_by_pass(monkeypatch)
    draw = random.Random(0)
    engine.generate([Request(id=str(number), ids=prompt(draw, 20), max_new=1) for number in range(7)])
    assert passes == [40, 40, 40, 20]


def test_cancelled_between_its_parts_a_prompt_leaves_nothing() -> None:
    engine = Engine(pair("llama")[0], frozenset(), prefill_tokens=16)
    engine.submit(Request(id="runs", ids=(3, 4, 5), max_new=12))
    engine.step()
    engine.step()
    for name in ("first", "second"):
        engine.submit(Request(id=name, ids=(7,) * 60, max_new=3))
    engine.step()
    assert engine._scheduler.cache.lengths == [4, 16]
    cut = engine.cancel("first")
    assert cut is not None
    assert cut.ids == ()
    assert cut.prefill_seconds > 0
    assert engine._scheduler.cache.lengths == [4]
    alone = Engine(pair("llama")[0], frozenset()).generate([Request(id="second", ids=(7,) * 60, max_new=3)])[0]
    done = drained(engine)
    assert set(done) == {"runs", "second"}
    assert done["second"].ids == alone.ids
    assert engine._scheduler.cache.keys == []


def test_one_that_ends_beside_a_part_leaves_its_slot_and_the_part_its_place() -> None:
    base = pair("grouped llama")[0]
    engine = Engine(base, frozenset(), prefill_tokens=16)
    short = [Request(id=str(number), ids=(3, 4, 5 + number), max_new=2 + number) for number in range(4)]
    for request in short:
        engine.submit(request)
    engine.step()
    long = Request(id="long", ids=tuple(range(1, 90)), max_new=4)
    engine.submit(long)
    done = drained(engine)
    for request in [*short, long]:
        assert done[request.id].ids == Engine(base, frozenset()).generate([request])[0].ids


def test_a_part_alone_says_nothing_and_its_first_token_comes_with_the_last_part() -> None:
    engine = Engine(pair("llama")[0], frozenset(), prefill_tokens=16)
    engine.submit(Request(id="long", ids=(7,) * 33, max_new=2))
    assert [engine.step(), engine.step()] == [[], []]
    assert [type(event) for event in engine.step()] == [GeneratedToken]
