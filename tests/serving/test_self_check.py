"""The self-check tells ties from other answers: by the tokens where two texts part, and by a label's probability."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest

from tests.helpers.serving_tasks import Here
from trimtab.arms.online import OnlineQuestion, TokenLogprob
from trimtab.arms.store import StoredQuestion
from trimtab.base.errors import InputError
from trimtab.base.records import Message
from trimtab.serving.self_check import check_answers, require_alike, token_gap
from trimtab.serving.served_model import SelfCheck


def token(text: str, value: float, *likeliest: tuple[str, float]) -> TokenLogprob:
    others = tuple(
        TokenLogprob(text=other, raw_bytes=other.encode(), log_probability=lower) for other, lower in likeliest
    )
    return TokenLogprob(text=text, raw_bytes=text.encode(), log_probability=value, likeliest=others)


@pytest.mark.parametrize(
    ("other", "gap"),
    [
        ("the blue door", 0.2),
        ("the b door", 0.5),  # a shorter token stays on it
        ("the green door", math.inf),
        ("a red door", 1.0),  # at the first token, whose blank an answer is kept without
        ("the red", math.inf),  # one begins the other
    ],
)
def test_gap_is_that_of_the_token_where_two_texts_part(other: str, gap: float) -> None:
    tokens = [
        token(" the", -0.5, (" the", -0.5), (" a", -1.5)),
        token(" red", -1.0, (" red", -1.0), (" blue", -1.2), (" b", -1.5)),
        token(" door", -0.1, (" door", -0.1)),
    ]
    assert token_gap(tokens, other) == pytest.approx(gap)


@pytest.mark.parametrize("arm", ["tiny:prompt", "tiny:rag"])
def test_another_text_is_tied_within_the_bound_and_different_beyond_it(arm: str, writing: Here) -> None:
    """The stored answer is changed to the likeliest other way of going on, whose lead is known."""

    async def check() -> None:
        dispatcher = writing.parts.dispatcher
        served = dispatcher.find_model(arm)
        first = StoredQuestion(messages=(Message(role="user", content="Where is the bridge of Bonn?"),), answer="")
        question = OnlineQuestion(id="apart", messages=first.messages, logprobs=True, top_logprobs=20)
        answer = await dispatcher.answer(served, question)
        lead = answer.tokens[0]
        other = next(
            one
            for one in lead.likeliest
            if one.text.strip() and not lead.text.lstrip().startswith(one.text.lstrip()) and one.raw_bytes
        )
        assert lead.log_probability is not None
        assert other.log_probability is not None
        gap = lead.log_probability - other.log_probability
        stored = [replace(first, answer=answer.text), replace(first, answer=other.text.lstrip() + "...")]
        wide, narrow = [await check_answers(dispatcher, served, stored, tie) for tie in (gap + 1e-3, gap - 1e-3)]
        assert wide == SelfCheck(equal=1, tied=1, different=0)
        assert narrow == SelfCheck(equal=1, tied=0, different=1)

    asyncio.run(check())


@pytest.mark.parametrize("arm", ["prompt", "linear"])
def test_another_label_is_tied_within_the_bound_and_different_beyond_it(arm: str, deciding: Here) -> None:
    async def check() -> None:
        dispatcher = deciding.parts.dispatcher
        served = dispatcher.find_model(arm)
        messages = (Message(role="user", content="The bridge of Bonn"),)
        answer = await dispatcher.answer(served, OnlineQuestion(id="label", messages=messages))
        (first, most), (second, next_most) = sorted(answer.generation.probabilities.items(), key=lambda pair: -pair[1])[
            :2
        ]
        gap = math.log(most / next_most)
        stored = [StoredQuestion(messages=messages, answer=label) for label in (first, second, "no label")]
        wide, narrow = [await check_answers(dispatcher, served, stored, tie) for tie in (gap + 1e-9, gap - 1e-9)]
        assert wide == SelfCheck(equal=1, tied=1, different=1)
        assert narrow == SelfCheck(equal=1, tied=0, different=2)

    asyncio.run(check())


def test_ties_never_stop_a_start_and_one_different_answer_of_twenty_does_not() -> None:
    require_alike({"rag": SelfCheck(equal=4, tied=15, different=1), "linear": None})
    with pytest.raises(InputError, match=r"rag: 16 of 20 stored answers equal, 2 tied, 2 different; .*--unequal"):
        require_alike({"rag": SelfCheck(equal=16, tied=2, different=2)})
