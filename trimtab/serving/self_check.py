"""The self-check at the start: stored test questions are asked again through the server, and the answers compared."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from trimtab.arms.online import OnlineQuestion, OnlineReply, TokenLogprob
from trimtab.arms.store import ANSWERS, StoredQuestion
from trimtab.arms.workspace import Workspace
from trimtab.base.errors import InputError
from trimtab.measurement.evaluate import load_answers
from trimtab.serving.dispatcher import Dispatcher, new_id
from trimtab.serving.follow import SelfCheckResult
from trimtab.serving.middleware import Refused
from trimtab.serving.served_model import SelfCheck, ServedModel

QUESTIONS_PER_ARM = 20
MOST_DIFFERENT = 0.05  # largest share of answers that differ from the stored ones by more than a tie
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


async def self_check_all(
    served: Sequence[ServedModel],
    stored: Mapping[str, Sequence[StoredQuestion]],
    tie: Callable[[str], float],
    dispatcher: Dispatcher,
    *,
    unequal: bool,
) -> SelfCheckResult:
    """Return, by arm, its self-check, and why it did not answer. `tie`: of an arm, that of `check_answers`.

    Raises InputError for an arm that does not answer, or not as measured, unless `unequal`.
    """
    checks: dict[str, SelfCheck | None] = {}
    silent: dict[str, str] = {}
    for model in served:
        try:
            checks[model.arm] = await check_answers(dispatcher, model, stored[model.arm], tie(model.arm))
        except Refused as refused:
            checks[model.arm], silent[model.arm] = None, refused.message
    if not unequal:
        require_answering(silent)
        require_alike(checks)
    return checks, silent


def require_answering(silent: Mapping[str, str]) -> None:
    """Raise InputError if an arm gave no answer to a stored question."""
    if silent:
        words = "; ".join(f"{arm} ({why})" for arm, why in silent.items())
        raise InputError(
            f"no answer to stored questions from {words}",
            "see to it, name the other arms alone, or serve all the same with --unequal",
        )


def require_alike(checks: Mapping[str, SelfCheck | None]) -> None:
    """Raise InputError for an arm of whose answers more than MOST_DIFFERENT differ from the stored ones."""
    failed = {
        arm: check for arm, check in checks.items() if check and check.different / check.questions > MOST_DIFFERENT
    }
    if failed:
        words = "; ".join(f"{arm}: {check.sentence}" for arm, check in failed.items())
        raise InputError(
            f"answers differ from those that were measured, {words}",
            "measure again (documents or settings may have changed since), or serve all the same with --unequal",
        )


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
