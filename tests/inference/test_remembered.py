"""What is public of a prompt is read once: later prompts that begin alike get a copy of it, and the answers that
they get alone."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from answering_models import EOS, FAMILIES, pair
from hypothesis import given
from hypothesis import strategies as st

from trimtab.inference.engine import Completion, Engine, Request
from trimtab.inference.request import ActiveSequence
from trimtab.inference.sampling import Sampling
from trimtab.model.attention import Layout
from trimtab.model.load import Base

pytestmark = pytest.mark.no_kernels

DRAW = random.Random(4)
FIRST, SECOND = (tuple(DRAW.randrange(1, EOS) for _ in range(length)) for length in (21, 34))
PASSAGES = [tuple(DRAW.randrange(1, EOS) for _ in range(length)) for length in (20, 9, 3)]


def asked(number: int, beginning: tuple[int, ...], passages: tuple[int, ...], question: int = 3) -> Request:
    """A question of so many tokens behind passages, which are public with all that stands before them."""
    before = (*beginning, *(token for passage in passages for token in PASSAGES[passage]))
    tail = tuple(1 + (7 * number + place) % (EOS - 1) for place in range(question))
    return Request(id=str(number), ids=(*before, *tail), max_new=5, logprobs=True, public_tokens=len(before))


def drain(engine: Engine) -> dict[str, Completion]:
    events = []
    while engine.in_flight:
        events += engine.step()
    return {event.id: event for event in events if isinstance(event, Completion)}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of each pass from here on."""
    found: list[int] = []
    hidden = Base.hidden

    def counted(self: Base, ids_N: torch.Tensor, positions_N: torch.Tensor, layout: Layout) -> torch.Tensor:
        found.append(len(ids_N))
        return hidden(self, ids_N, positions_N, layout)

    monkeypatch.setattr(Base, "hidden", counted)
    return found


def test_a_passage_that_comes_again_is_not_read_again(read: list[int]) -> None:
    engine = Engine(pair("llama")[0], frozenset())
    engine.pin(FIRST)
    for number, (passages, expected) in enumerate([((0, 1), 32), ((0, 2), 6), ((0, 1), 3), ((1,), 12), ((0, 1, 2), 6)]):
        read.clear()
        request = asked(number, FIRST, passages)
        engine.submit(request)
        (told,) = drain(engine).values()
        assert read[0] == expected
        assert told.cached_tokens == len(request.ids) - expected
        assert told.ids == Engine(pair("llama")[0], frozenset()).generate([request])[0].ids


def test_nothing_of_what_was_asked_is_kept_and_nothing_once_the_weights_have_changed() -> None:
    engine = Engine(pair("llama")[0], frozenset())
    for number in range(2):
        engine.submit(replace(asked(7, FIRST, (0,), question=20), id=str(number)))
        told = drain(engine)[str(number)]
        assert told.cached_tokens == (41 if number else 0)
    engine.reset_prefix_cache()
    engine.submit(asked(8, FIRST, (0,)))
    assert drain(engine)["8"].cached_tokens == 0
    engine.submit(replace(asked(9, SECOND, (0,)), public_tokens=0))
    drain(engine)
    engine.submit(asked(10, SECOND, (0,)))
    assert drain(engine)["10"].cached_tokens == 0


def test_the_least_recently_used_leaves_first_and_what_is_too_long_is_not_kept() -> None:
    engine = Engine(pair("llama")[0], frozenset(), prefix_cache_tokens=120, min_shared_tokens=8)
    said = []
    order: list[tuple[int, ...]] = [(0,), (1,), (0,), (0, 1, 2), (0,), (1,), (0, 1, 2), (0, 1, 0, 0), (0, 1, 0, 0)]
    for number, passages in enumerate(order):  # no two that begin otherwise fit
        engine.submit(asked(number, (5 + passages[0], *FIRST), passages))
        said.append(drain(engine)[str(number)].cached_tokens)
    assert said == [0, 0, 0, 42, 42, 0, 0, 51, 51]


@given(
    family=st.sampled_from(sorted(FAMILIES)),
    prompts=st.lists(
        st.tuples(
            st.sampled_from([(), FIRST, SECOND, SECOND[:18]]),
            st.lists(st.integers(0, 2), max_size=3).map(tuple),
            st.sampled_from([1, 3, 12]),
            st.integers(0, 3),
        ),
        min_size=2,
        max_size=8,
    ),
    slots=st.integers(1, 6),
    cache_tokens=st.sampled_from([60, 32768]),
    prefill_tokens=st.sampled_from([1, 11, 2048]),
    prefix_cache_tokens=st.sampled_from([60, 8192]),
)
def test_answers_are_those_of_prompts_that_were_read_whole(
    family: str,
    prompts: list[tuple[tuple[int, ...], tuple[int, ...], int, int]],
    slots: int,
    cache_tokens: int,
    prefill_tokens: int,
    prefix_cache_tokens: int,
) -> None:
    base = pair(family)[0]
    engine = Engine(
        base,
        frozenset(),
        slots=slots,
        cache_tokens=cache_tokens,
        prefill_tokens=prefill_tokens,
        prefix_cache_tokens=prefix_cache_tokens,
        min_shared_tokens=2,
    )
    engine.pin(FIRST)
    engine.pin(SECOND)
    requests, done = [], dict[str, Completion]()
    for number, (beginning, passages, question, pause) in enumerate(prompts):
        requests.append(asked(number, beginning, passages, question))
        engine.submit(requests[-1])
        for _ in range(pause):
            done |= {event.id: event for event in engine.step() if isinstance(event, Completion)}
    done |= drain(engine)
    for request in requests:
        expected = Engine(base, frozenset()).generate([request])[0]
        assert done[request.id].ids == expected.ids
        assert done[request.id].log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-4)


def turn(number: int, ids: tuple[int, ...], cache_salt: str = "ada") -> Request:
    return Request(id=str(number), ids=ids, max_new=9, logprobs=True, cache_salt=cache_salt)


def answered(engine: Engine, request: Request) -> Completion:
    engine.submit(request)
    return drain(engine)[request.id]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_next_turn_goes_on_behind_the_answer_for_whoever_was_answered(family: str) -> None:
    base = pair(family)[0]
    engine = Engine(base, frozenset())
    engine.pin(FIRST)
    asked = (*FIRST, *SECOND)
    said = answered(engine, turn(0, asked)).ids
    later = (*asked, *said, *PASSAGES[0])
    for number, (cache_salt, known) in enumerate(
        [("", 21), ("eve", 21), ("ada", len(later) - 21), ("ada", len(later) - 21)], 1
    ):
        told = answered(engine, turn(number, later, cache_salt))
        assert told.cached_tokens == known, cache_salt
        expected = Engine(base, frozenset()).generate([turn(9, later)])[0]
        assert told.ids == expected.ids
        assert told.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-4)
    third = (*later, *told.ids, 8)
    assert answered(engine, turn(5, third)).cached_tokens == len(third) - 2  # the last one said was never read
    engine.reset_prefix_cache()
    assert answered(engine, turn(6, later)).cached_tokens == 0


def test_a_question_that_is_asked_again_is_read_again() -> None:
    """Else its answer would hang, in its last bits, on having been asked before."""
    engine = Engine(pair("llama")[0], frozenset())
    for number in range(2):
        assert answered(engine, turn(number, SECOND)).cached_tokens == 0
    assert answered(engine, turn(2, (*SECOND[:30], 1, 2, 3, 4, 5, 6))).cached_tokens == 0


def test_guesses_behind_a_stop_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass in which an answer stops has read what was guessed right behind the stop."""
    base, _ = pair("llama")
    free = Engine(base, frozenset()).generate([replace(turn(0, SECOND), max_new=40)])[0].ids

    def guessed(self: ActiveSequence, most: int) -> list[int]:
        return list(free[len(self.ids) :][:most]) if self.request.ids == SECOND else []

    monkeypatch.setattr(ActiveSequence, "draft", guessed)
    for stop in set(free) - {free[0]}:
        engine = Engine(base, frozenset({stop}))
        said = answered(engine, replace(turn(0, SECOND), max_new=40)).ids
        assert said == free[: free.index(stop)]
        later = (*SECOND, *said, stop, 5, 6)
        told = answered(engine, turn(1, later))
        assert told.cached_tokens == len(later) - 3
        expected = Engine(base, frozenset({stop})).generate([turn(9, later)])[0]
        assert told.ids == expected.ids
        assert told.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-4)


def test_of_conversations_the_one_that_went_on_longest_ago_is_dropped_first() -> None:
    engine = Engine(pair("llama")[0], frozenset(), prefix_cache_tokens=200)
    talks = [(number, *SECOND) for number in (1, 2, 3)]
    said = [answered(engine, turn(number, talk)).ids for number, talk in enumerate(talks)]  # two fit into 100 tokens
    known = [answered(engine, turn(9, (*talks[one], *said[one], 5))).cached_tokens for one in (1, 2, 0, 2, 1)]
    assert known == [43, 43, 0, 43, 0]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_within_a_call_a_prompt_that_comes_several_times_is_read_once(family: str, read: list[int]) -> None:
    base = pair(family)[0]
    talks = [
        (*FIRST, *rest) for rest in (SECOND, SECOND, PASSAGES[0], SECOND, PASSAGES[0], PASSAGES[1], (1, 2), (1, 2))
    ]
    requests = [
        Request(id=str(number), ids=ids, max_new=4, logprobs=True, sampling=Sampling(temperature=1.0, seed=number))
        for number, ids in enumerate(talks)
    ]
    engine = Engine(base, frozenset())
    told = engine.generate(requests)
    # what all begin with; two prompts but for their last tokens; these tokens, and what comes once or is too short
    assert read[:4] == [21, 33, 19, 5 + 9 + 2 * 2]
    assert [one.cached_tokens for one in told] == [54, 54, 40, 54, 40, 21, 21, 21]
    for request, one in zip(requests, told, strict=True):
        expected = Engine(base, frozenset()).generate([request])[0]
        assert one.ids == expected.ids
        assert one.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-4)
    read.clear()
    engine.generate(requests[:1])
    assert read[0] == len(talks[0]), "nothing outlives the call"
    read.clear()
    Engine(base, frozenset(), prefix_cache_tokens=120).generate(requests)  # one of them alone may be kept
    assert read[:3] == [21, 33, 3 + 2 * 20 + 9 + 2 * 2]
