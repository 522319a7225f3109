"""The self-check at the start: stored test questions are asked again through the server, and the answers compared."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from trimtab.arms.online import OnlineQuestion, OnlineReply, TokenLogprob
from trimtab.arms.store import ANSWERS, StoredQuestion
from trimtab.arms.workspace import Workspace
from trimtab.measurement.evaluate import load_answers
from trimtab.serving.dispatcher import Dispatcher, new_id
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
    """Return how the arm's answers compare with the stored ones; None without stored ones.

    `tie`: by how many nats at most a tied answer is preferred to the stored one where they part.

    Raises Refused if a question gets no answer, for example from an endpoint that is down.
    """
    if not stored:
        return None
    answers = await _ask(dispatcher, served, stored)
    pairs = zip(answers, stored, strict=True)
    unequal = [(answer, question) for answer, question in pairs if answer.text != question.answer]
    tied = sum(gap <= tie for gap in await _gaps(dispatcher, served, unequal))
    return SelfCheck(equal=len(stored) - len(unequal), tied=tied, different=len(unequal) - tied)


async def _ask(
    dispatcher: Dispatcher, served: ServedModel, stored: Sequence[StoredQuestion], **options: Any
) -> list[OnlineReply]:
    questions = [OnlineQuestion(id=new_id("self"), messages=one.messages, **options) for one in stored]
    asked = [asyncio.ensure_future(dispatcher.answer(served, question)) for question in questions]
    await asyncio.wait(asked)  # all have ended when the first failure is raised
    return [answer.result() for answer in asked]


async def _gaps(
    dispatcher: Dispatcher, served: ServedModel, unequal: Sequence[tuple[OnlineReply, StoredQuestion]]
) -> list[float]:
    """Return by how many nats each answer was preferred to the stored one where they part, infinite if unknown: by the
    probabilities of the labels, or else by those of the tokens, for which the questions are asked again.
    """
    if not unequal:
        return []
    if all(answer.generation.probabilities for answer, _ in unequal):
        return [
            _label_gap(answer.generation.probabilities, answer.text, question.answer) for answer, question in unequal
        ]
    stored = [question for _, question in unequal]
    try:
        answers = await _ask(dispatcher, served, stored, logprobs=True, top_logprobs=ALTERNATIVES)
    except Refused as refused:
        if refused.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        return [math.inf] * len(stored)  # the arm chooses whole texts
    return [
        0.0 if answer.text == question.answer else token_gap(answer.tokens, question.answer)
        for answer, question in zip(answers, stored, strict=True)
    ]


def _label_gap(probabilities: Mapping[str, float], label: str, stored: str) -> float:
    return math.log(probabilities[label] / probabilities[stored]) if probabilities.get(stored) else math.inf


def token_gap(tokens: Sequence[TokenLogprob], stored: str) -> float:
    """Return by how many nats the first token that leaves the text `stored` beat the likeliest one that stays on it;
    infinite if no alternative stays on it, or if one text is the beginning of the other.
    """
    text, end = stored.encode(), b""  # stored without the blanks around it
    for token in tokens:
        staying = [
            _nats(alternative)
            for alternative in token.likeliest
            if alternative.raw_bytes and text.startswith((end + alternative.raw_bytes).lstrip())
        ]
        end += token.raw_bytes or b""
        if not text.startswith(end.lstrip()):
            return _nats(token) - max(staying, default=-math.inf)
    return math.inf


def _nats(token: TokenLogprob) -> float:
    return -math.inf if token.log_probability is None else token.log_probability
