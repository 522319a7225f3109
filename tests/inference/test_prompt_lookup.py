"""Guessed tokens change when an answer is told and nothing else of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from answering_models import EOS, FAMILIES, pair, speller
from hypothesis import given
from hypothesis import strategies as st

from trimtab.inference import prompt_lookup as guesses
from trimtab.inference.constraints import Constraint
from trimtab.inference.engine import Completion, Engine, Request
from trimtab.inference.prompt_lookup import GRAM_LENGTHS, PromptLookup, draft_length
from trimtab.inference.request import ActiveSequence
from trimtab.inference.sampling import Sampling

pytestmark = pytest.mark.no_kernels

STOP = frozenset({EOS})


@contextmanager
def guessing(monkeypatch: pytest.MonkeyPatch, right: float, answers: dict[str, tuple[int, ...]]) -> Iterator[list[int]]:
    """Guesses that are right so often, whatever stands in the prompt; tells how many were asked for each time."""
    draw, asked = random.Random(0), []

    def guessed(self: ActiveSequence, most: int) -> list[int]:
        asked.append(most)
        told = answers[self.request.id][len(self.ids) :][: draw.randrange(most + 1)]
        return [token if draw.random() < right else draw.randrange(EOS) for token in told]

    with monkeypatch.context() as patched:
        patched.setattr(ActiveSequence, "draft", guessed)
        yield asked


def alone(requests: Sequence[Request], family: str, monkeypatch: pytest.MonkeyPatch) -> list[Completion]:
    """Answers without a guess."""
    with monkeypatch.context() as patched:
        patched.setattr(guesses, "ROWS", 0)
        return Engine(pair(family)[0], STOP).generate(requests)


def some(family: str, shared: int, sampling: Sampling) -> list[Request]:
    draw = random.Random(f"{family} {shared}")
    start = [draw.randrange(1, EOS) for _ in range(shared)]
    return [
        Request(
            id=str(number),
            ids=(*start, *(draw.randrange(1, EOS) for _ in range(length))),
            max_new=24,
            sampling=sampling,
        )
        for number, length in enumerate((1, 4, 9))
    ]


def same(found: Completion, wanted: Completion) -> None:
    assert (found.ids, found.finished) == (wanted.ids, wanted.finished)
    assert found.log_probabilities == pytest.approx(wanted.log_probabilities, abs=1e-4)
    assert [[token for token, _ in one] for one in found.likeliest] == [
        [token for token, _ in one] for one in wanted.likeliest
    ]


@pytest.mark.parametrize("family", FAMILIES)
# no beginning, one in each slot, one that is attended to apart
@pytest.mark.parametrize("shared", [0, 20])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, seed=3)])
@pytest.mark.parametrize("right", [0.0, 0.8, 1.0])
def test_answers_are_those_without_a_guess(
    family: str,
    shared: int,
    sampling: Sampling,
    right: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests = [replace(one, logprobs=True, top_logprobs=2) for one in some(family, shared, sampling)]
    wanted = alone(requests, family, monkeypatch)
    with guessing(monkeypatch, right, {one.id: one.ids for one in wanted}) as asked:
        for found, one in zip(Engine(pair(family)[0], STOP).generate(requests), wanted, strict=True):
            same(found, one)
    assert asked


@pytest.mark.parametrize("count", [1, 2, 4])
def test_right_guesses_take_fewer_passes(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    base, _ = pair("llama")
    requests = [Request(id=str(number), ids=(3 + number, 4, 5), max_new=60) for number in range(count)]
    wanted = {one.id: one.ids for one in alone(requests, "llama", monkeypatch)}
    engine, passes = Engine(base, STOP), 0
    for request in requests:
        engine.submit(request)
    with guessing(monkeypatch, 1.0, wanted):
        while engine.in_flight:
            for event in engine.step():
                if isinstance(event, Completion):
                    assert event.ids == wanted[event.id]
            passes += 1
    assert passes < 0.9 * max(map(len, wanted.values()))


def test_an_answer_that_its_callback_ends_says_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(id="a", ids=(3, 4, 5), max_new=24)
    (whole,) = Engine(pair("llama")[0], frozenset()).generate([request])
    told: list[int] = []

    def tell(_: str, token: int) -> bool:
        told.append(token)
        return len(told) == 9

    with guessing(monkeypatch, 1.0, {"a": whole.ids}):
        (ended,) = Engine(pair("llama")[0], frozenset()).generate([request], on_token=tell)
    assert (ended.ids, ended.finished) == (whole.ids[:9], True)
    assert told == list(whole.ids[:9])


def test_tokens_behind_the_end_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(id="a", ids=(3, 4, 5), max_new=24)
    (whole,) = Engine(pair("llama")[0], frozenset()).generate([request])
    place = next(place for place, token in enumerate(whole.ids) if place > 3 and token not in whole.ids[:place])
    told: list[int] = []
    with guessing(monkeypatch, 1.0, {"a": whole.ids}):
        (ended,) = Engine(pair("llama")[0], frozenset({whole.ids[place]})).generate(
            [request], on_token=lambda _, token: told.append(token)
        )
    assert (ended.ids, ended.finished) == (whole.ids[:place], True)
    assert told == list(whole.ids[: place + 1])


@pytest.mark.parametrize(
    "bound", [{"sampling": Sampling(frequency_penalty=0.5)}, {"constraint": Constraint(regex="[a-z]+")}]
)
def test_nothing_is_guessed_where_a_token_depends_on_those_before(
    bound: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, end = speller()
    requests = [Request(id="a", ids=(3, 4, 5), max_new=4, **bound), Request(id="b", ids=(4, 5), max_new=4)]
    with guessing(monkeypatch, 1.0, {"a": (), "b": ()}) as asked:
        Engine(base, frozenset({end})).generate(requests[:1])
        assert not asked
        Engine(base, frozenset({end})).generate(requests[1:])
        assert asked


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40), st.lists(st.integers(0, 3), max_size=20), st.integers(1, 6)
)
def test_a_guess_is_what_stood_behind_the_longest_gram(prompt: list[int], said: list[int], most: int) -> None:
    drafts, ids = PromptLookup(prompt), prompt + said
    for token in said:
        drafts.extend([token])
    wanted: list[int] = []
    for length in GRAM_LENGTHS:
        starts = [end for end in range(length, len(ids)) if ids[end - length : end] == ids[-length:]]
        if starts and len(ids) >= length:
            wanted = ids[starts[-1] :][:most]
            break
    assert drafts.next(most) == wanted
    assert len(drafts) == len(ids)


def test_how_many_are_guessed() -> None:
    assert [draft_length(count) for count in (1, 2, 3, 8, 9, 64)] == [7, 3, 1, 1, 0, 0]
