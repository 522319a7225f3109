"""Closed questions: a probability for each option in one pass, calibrated as measured, by the two public APIs for decisions.

An arm answers the question that it was measured on, so instructions of a request are not read; its options are the task's labels,
or some of them, whose probabilities then add up to 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request

from trimtab.arms.online import OnlineQuestion, OnlineReply
from trimtab.base.records import Message
from trimtab.serving.chat import turns
from trimtab.serving.dispatcher import Desk, Served, new_id
from trimtab.serving.middleware import Refused
from trimtab.serving.replies import usage_of
from trimtab.serving.schema import MOST_LETTERS, ConversationTurn, DecisionsRequest, SystemOneRequest


def decision_routes(desk: Desk) -> APIRouter:
    """`/v1/systemone` and `/v1/decisions`."""
    router = APIRouter()

    @router.post("/v1/systemone")
    async def systemone(body: SystemOneRequest, request: Request) -> dict[str, Any]:
        """Answer questions by name about one state."""
        served = await _deciding(desk, body.model, request)
        options = {name: _options(served, list(asked.criteria or ()), name) for name, asked in body.questions.items()}
        reply = await _decided(desk, served, _state(body.state), request)
        answers = {}
        for name, some in options.items():
            chances = _among(reply, some)
            best = max(chances, key=chances.__getitem__)
            answers[name] = {
                "type": "choice",
                "choice": best,
                "probabilities": chances,
                "confidence": _confidence(list(chances.values())),
            }
        return {"model": served.id, "answers": answers, "usage": _usage(reply)}

    @router.post("/v1/decisions")
    async def decisions(body: DecisionsRequest, request: Request) -> dict[str, Any]:
        """Answer a list of questions about one input."""
        served = await _deciding(desk, body.model, request)
        asked = [
            (one.name, _options(served, [option.value for option in one.choices or ()], one.name))
            for one in body.questions
        ]
        given = body.input if isinstance(body.input, str) else [turn.model_dump() for turn in body.input]
        reply = await _decided(desk, served, _state(given), request)
        answers = []
        for name, some in asked:
            chances = _among(reply, some)
            best = max(chances, key=chances.__getitem__)
            listed = [{"value": label, "probability": chance} for label, chance in chances.items()]
            answers.append(
                {
                    "type": "choice",
                    "name": name,
                    "choice": best,
                    "probabilities": listed,
                    "confidence": _confidence(list(chances.values())),
                }
            )
        return {
            "id": new_id("dec"),
            "object": "decision",
            "model": served.id,
            "answers": answers,
            "usage": _usage(reply),
        }

    return router


async def _deciding(desk: Desk, name: str, request: Request) -> Served:
    served = await desk.chosen(name, request)
    if served.kind != "classify":
        raise Refused(400, f"{served.id} writes its answers; decisions are for arms of a closed set", code="model")
    return served


def _options(served: Served, given: Sequence[str], question: str) -> tuple[str, ...]:
    """The options of a question: all labels where none are named; raises Refused for one that the arm does not know."""
    stranger = next((option for option in given if option not in served.labels), None)
    if stranger is not None or len(set(given)) < len(given):
        what = f"does not know the option {stranger[:80]!r}" if stranger else "is given an option twice"
        known = ", ".join(served.labels[:20]) + (" …" if len(served.labels) > 20 else "")
        raise Refused(400, f"question {question[:80]!r}: {served.id} {what}; it knows: {known}", code="options")
    return tuple(given) or served.labels


def _state(state: Any) -> tuple[Message, ...]:
    """A state as turns: text, a list of turns, or any JSON as its text."""
    text = state if isinstance(state, str) else json.dumps(state, ensure_ascii=False)
    if len(text) > MOST_LETTERS:
        raise Refused(400, f"the state is longer than {MOST_LETTERS} letters", code="state")
    if (
        isinstance(state, list)
        and state
        and all(isinstance(one, dict) and {"role", "content"} <= one.keys() for one in state)
    ):
        said = [one for one in state if one["role"] != "system"]
        if said and all(one["role"] in ("user", "assistant") and isinstance(one["content"], str) for one in said):
            return turns([ConversationTurn(role=one["role"], content=one["content"]) for one in said])
    return turns([ConversationTurn(role="user", content=text)])


async def _decided(desk: Desk, served: Served, messages: tuple[Message, ...], request: Request) -> OnlineReply:
    told = await desk.told(served, OnlineQuestion(id=new_id("q"), messages=messages), request)
    if not told.reply.generation.probabilities:
        raise Refused(400, f"{served.id} gives no probabilities", code="model")
    return told.reply


def _among(reply: OnlineReply, options: Sequence[str]) -> dict[str, float]:
    """The probabilities of some labels, which then add up to 1; even ones where the arm gives none of them any."""
    chances: Mapping[str, float] = reply.generation.probabilities
    total = sum(chances[option] for option in options)
    return {option: chances[option] / total if total else 1 / len(options) for option in options}


def _confidence(chances: Sequence[float]) -> float:
    """1 where one option has everything, 0 where all are alike: 1 minus the entropy over its greatest."""
    if len(chances) < 2:
        return 1.0
    entropy = -sum(chance * math.log(chance) for chance in chances if chance > 0)
    return max(0.0, min(1.0, 1 - entropy / math.log(len(chances))))


def _usage(reply: OnlineReply) -> dict[str, int]:
    used = usage_of([reply])
    return {"input_tokens": used["prompt_tokens"], "output_tokens": 0, "total_tokens": used["prompt_tokens"]}
