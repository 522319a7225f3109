"""The self-check at the start: stored test questions are asked again through the server, and the answers compared."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trimtab.arms.online import OnlineQuestion, TokenLogprob
from trimtab.arms.store import ANSWERS, StoredQuestion
from trimtab.arms.workspace import Workspace
from trimtab.measurement.evaluate import load_answers
from trimtab.serving.dispatcher import CompleteAnswer, Dispatcher, new_id
from trimtab.serving.middleware import Refused
from trimtab.serving.served_model import SelfCheck, ServedModel

QUESTIONS_PER_ARM = 20
ALTERNATIVES = 20  # tokens to which the stored answer may have gone on


def stored_answers(workspace: Workspace, folder: Path | None) -> tuple[StoredQuestion, ...]:
    """Return the first stored answers to test questions that still exist; none if the arm was not measured."""
    file = folder / ANSWERS if folder else None
    if file is None or not file.is_file():
        return ()
    rows = {row.id: row for row in workspace.splits["test"]}
    answers = (one for one in load_answers(file) if one.split == "test" and one.seed == 0 and one.item_id in rows)
    found = [StoredQuestion(messages=rows[one.item_id].messages, answer=one.answer) for one in answers]
    return tuple(found[:QUESTIONS_PER_ARM])


async def check_answers(
    dispatcher: Dispatcher, served: ServedModel, stored: Sequence[StoredQuestion], tie: float
) -> SelfCheck | None:
    """Return how the arm's answers compare with the stored ones, which tie within `tie` nats; None without stored ones.

    Raises Refused if a question gets no answer, for example from an endpoint that is down.
    """
    if not stored:
        return None
    answers = await _ask(dispatcher, served, stored)
    unequal = [
        (answer, question)
        for answer, question in zip(answers, stored, strict=True)
        if answer.reply.text != question.answer
    ]
    tied = sum([await _is_tied(dispatcher, served, answer, question, tie) for answer, question in unequal])
    return SelfCheck(equal=len(stored) - len(unequal), tied=tied, different=len(unequal) - tied)


async def _ask(
    dispatcher: Dispatcher, served: ServedModel, stored: Sequence[StoredQuestion], **options: Any
) -> list[CompleteAnswer]:
    pending = [
        dispatcher.answer(served, OnlineQuestion(id=new_id("self"), messages=question.messages, **options))
        for question in stored
    ]
    answers = await asyncio.gather(*pending, return_exceptions=True)  # all have ended when one fails
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]


async def _is_tied(
    dispatcher: Dispatcher, served: ServedModel, answer: CompleteAnswer, stored: StoredQuestion, tie: float
) -> bool:
    """True if both answers are equally likely where they part: by the labels' probabilities, or else by the tokens of
    the same question asked again.
    """
    if probabilities := answer.reply.generation.probabilities:
        own, other = (probabilities.get(text, 0.0) for text in (answer.reply.text, stored.answer))
        return other > 0 and math.log(own / other) <= tie
    try:
        (again,) = await _ask(dispatcher, served, [stored], logprobs=True, top_logprobs=ALTERNATIVES)
    except Refused:  # an arm without tokens to ask for
        return False
    return again.reply.text == stored.answer or gap_where_they_part(again.tokens, stored.answer) <= tie


def gap_where_they_part(tokens: Sequence[TokenLogprob], other: str) -> float:
    """Return by how many nats the first token that leaves the text `other` beat the likeliest one that stays on it;
    infinite if none of the alternatives does, or one text begins the other.
    """
    text, end = other.encode(), b""  # answers are kept without the blanks around them
    for token in tokens:
        staying = [
            alternative.log_probability
            for alternative in token.likeliest
            if alternative.raw_bytes and text.startswith((end + alternative.raw_bytes).lstrip())
        ]
        end += token.raw_bytes or b""
        if not text.startswith(end.lstrip()):
            return _nats(token.log_probability) - max(map(_nats, staying), default=-math.inf)
    return math.inf


def _nats(log_probability: float | None) -> float:
    return -math.inf if log_probability is None else log_probability
