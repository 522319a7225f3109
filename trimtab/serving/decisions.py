"""Routes for closed questions: one forward pass gives a calibrated probability for each option (System One and
Decisions APIs).

An arm answers the question that it was measured on, so the instructions of a request are ignored. Its options are the
task's labels or a subset of them, whose probabilities are renormalised to add up to 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request

from trimtab.arms.online import OnlineQuestion, OnlineReply
from trimtab.base.records import Message
from trimtab.serving.chat import to_messages
from trimtab.serving.dispatcher import Dispatcher, new_id
from trimtab.serving.middleware import Refused
from trimtab.serving.replies import usage_of
from trimtab.serving.schema import MOST_LETTERS, DecisionsRequest, SystemOneRequest
from trimtab.serving.served_model import ServedModel


def decision_routes(dispatcher: Dispatcher) -> APIRouter:
    """Return the router of `/v1/systemone` and `/v1/decisions`."""
    router = APIRouter()

    @router.post("/v1/systemone")
    async def systemone(body: SystemOneRequest, request: Request) -> dict[str, Any]:
        """Answer questions by name about one state."""
        served = await _route_classifier(dispatcher, body.model, request)
        options = {name: _options(served, list(asked.criteria or ()), name) for name, asked in body.questions.items()}
        question, reply = await _classify(dispatcher, served, _state_messages(body.state), request)
        answers, receipts = {}, []
        for name, chosen_options in options.items():
            probabilities = _renormalized(reply, chosen_options)
            best = max(probabilities, key=probabilities.__getitem__)
            answers[name] = {
                "type": "choice",
                "choice": best,
                "probabilities": probabilities,
                "confidence": _confidence(list(probabilities.values())),
            }
            receipts.append(await dispatcher.receipt(served, question, best, request))
        return {"model": served.id, "answers": answers, "usage": _usage(reply), "trimtab": {"receipts": receipts}}

    @router.post("/v1/decisions")
    async def decisions(body: DecisionsRequest, request: Request) -> dict[str, Any]:
        """Answer a list of questions about one input."""
        served = await _route_classifier(dispatcher, body.model, request)
        questions = [
            (one.name, _options(served, [option.value for option in one.choices or ()], one.name))
            for one in body.questions
        ]
        given = body.input if isinstance(body.input, str) else [turn.model_dump() for turn in body.input]
        question, reply = await _classify(dispatcher, served, _state_messages(given), request)
        answers, receipts = [], []
        for name, chosen_options in questions:
            probabilities = _renormalized(reply, chosen_options)
            best = max(probabilities, key=probabilities.__getitem__)
            listed = [{"value": label, "probability": chance} for label, chance in probabilities.items()]
            answers.append(
                {
                    "type": "choice",
                    "name": name,
                    "choice": best,
                    "probabilities": listed,
                    "confidence": _confidence(list(probabilities.values())),
                }
            )
            receipts.append(await dispatcher.receipt(served, question, best, request))
        return {
            "id": new_id("dec"),
            "object": "decision",
            "model": served.id,
            "answers": answers,
            "usage": _usage(reply),
            "trimtab": {"receipts": receipts},
        }

    return router


async def _route_classifier(dispatcher: Dispatcher, name: str, request: Request) -> ServedModel:
    served = await dispatcher.route(name, request)
    if served.kind != "classify":
        raise Refused(400, f"{served.id} writes its answers; decisions are for arms of a closed set", code="model")
    return served


def _options(served: ServedModel, options: Sequence[str], question: str) -> tuple[str, ...]:
    """Return the options of a question, all labels if it names none; raises Refused for an unknown or repeated one."""
    unknown = next((option for option in options if option not in served.labels), None)
    if unknown is not None or len(set(options)) < len(options):
        problem = f"does not know the option {unknown[:80]!r}" if unknown else "is given an option twice"
        known = ", ".join(served.labels[:20]) + (" …" if len(served.labels) > 20 else "")
        raise Refused(400, f"question {question[:80]!r}: {served.id} {problem}; it knows: {known}", code="options")
    return tuple(options) or served.labels


def _state_messages(state: Any) -> tuple[Message, ...]:
    """Convert a state to messages: text, a list of turns, or any JSON as its text."""
    text = state if isinstance(state, str) else json.dumps(state, ensure_ascii=False)
    if len(text) > MOST_LETTERS:
        raise Refused(400, f"the state is longer than {MOST_LETTERS} letters", code="state")
    if (
        isinstance(state, list)
        and state
        and all(isinstance(one, dict) and {"role", "content"} <= one.keys() for one in state)
    ):
        turns = [one for one in state if one["role"] != "system"]
        if turns and all(one["role"] in ("user", "assistant") and isinstance(one["content"], str) for one in turns):
            return to_messages([Message(role=one["role"], content=one["content"]) for one in turns])
    return to_messages([Message(role="user", content=text)])


async def _classify(
    dispatcher: Dispatcher, served: ServedModel, messages: tuple[Message, ...], request: Request
) -> tuple[OnlineQuestion, OnlineReply]:
    question = OnlineQuestion(id=new_id("q"), messages=messages)
    reply = await dispatcher.answer(served, question, request)
    if not reply.generation.probabilities:
        raise Refused(400, f"{served.id} gives no probabilities", code="model")
    return question, reply


def _renormalized(reply: OnlineReply, options: Sequence[str]) -> dict[str, float]:
    """Return the probabilities of some labels, scaled to add up to 1; equal ones if the arm gives all of them 0."""
    probabilities: Mapping[str, float] = reply.generation.probabilities
    total = sum(probabilities[option] for option in options)
    return {option: probabilities[option] / total if total else 1 / len(options) for option in options}


def _confidence(probabilities: Sequence[float]) -> float:
    """Return 1 minus the normalised entropy: 1 if one option has all the probability, 0 if all are equal."""
    if len(probabilities) < 2:
        return 1.0
    entropy = -sum(chance * math.log(chance) for chance in probabilities if chance > 0)
    return max(0.0, min(1.0, 1 - entropy / math.log(len(probabilities))))


def _usage(reply: OnlineReply) -> dict[str, int]:
    used = usage_of([reply])
    return {"input_tokens": used["prompt_tokens"], "output_tokens": 0, "total_tokens": used["prompt_tokens"]}
