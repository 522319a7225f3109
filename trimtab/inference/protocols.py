"""Requests and replies of remote APIs: OpenAI-compatible chat, OpenAI's Decisions API and TypeSafe's System One.

Sources: TypeSafe's System One API (docs.typesafe.ai, `POST /v1/systemone`), and OpenAI's Decisions API in public beta
(`POST /v1/decisions`, types in openai-python `types/decision*.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.base.records import Prompt
from trimtab.base.sanitize import visible
from trimtab.inference.bounded_http import token_count

QUESTION = "label"  # name of the question in a request
INSTRUCTION = "Which of the labels fits?"  # if the task has none
EARLIER_TURNS_NOTE = "Decide for the last turn; those before it are worked examples, or what was said before."
ROUNDING = 0.005  # rounding error of two decimals: the sum may be off by this much per label
MIN_TOLERANCE, MAX_TOLERANCE = 0.02, 0.5  # of the sum, for few and for many labels


class ReplyError(Exception):
    """A reply that cannot be used; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One API: the `path` after the url, the `body` of a request, and how to `read` a reply.

    `body(model, prompt, max_new, labels)` returns JSON; `read(reply, labels)` returns `text`, token counts, `finished`,
    and `probabilities` in the labels' order if the API gives them. It raises ReplyError, or the errors of a value of
    another shape, for which `expected` and `remedy` are the message.
    """

    path: str
    expected: str
    remedy: str
    body: Callable[[str, Prompt, int, Sequence[str]], dict[str, Any]]
    read: Callable[[Any, Sequence[str]], dict[str, Any]]


def _chat_body(model: str, prompt: Prompt, max_new: int, labels: Sequence[str]) -> dict[str, Any]:  # noqa: ARG001
    return {"model": model, "messages": _turns(prompt), "max_tokens": max_new, "temperature": 0}


def _chat_read(reply: Any, labels: Sequence[str]) -> dict[str, Any]:  # noqa: ARG001
    choice = reply["choices"][0]
    text = choice["message"]["content"] or ""
    if not isinstance(text, str):
        raise TypeError
    tokens = _tokens(reply, "prompt_tokens", "completion_tokens")
    served = reply.get("model")
    named = {"model": visible(served)[:200]} if isinstance(served, str) and served else {}
    return {"text": text, **tokens, **named, "finished": choice.get("finish_reason") != "length"}


def _systemone_body(model: str, prompt: Prompt, max_new: int, labels: Sequence[str]) -> dict[str, Any]:  # noqa: ARG001
    instruction, state = _question_and_state(prompt)
    question = {"type": "choice", "instructions": instruction, "criteria": dict.fromkeys(labels)}
    return {"model": model, "state": state, "questions": {QUESTION: question}}


def _systemone_read(reply: Any, labels: Sequence[str]) -> dict[str, Any]:
    answer = reply["answers"][QUESTION]
    if answer["type"] != "choice":
        raise TypeError
    return {**_decision(answer, answer["probabilities"], labels), **_tokens(reply, "input_tokens", "output_tokens")}


def _decisions_body(model: str, prompt: Prompt, max_new: int, labels: Sequence[str]) -> dict[str, Any]:  # noqa: ARG001
    """Only user turns may be sent, so earlier turns are sent as JSON text."""
    instruction, state = _question_and_state(prompt)
    text = state if isinstance(state, str) else json.dumps(state, ensure_ascii=False)
    choices = [{"value": label} for label in labels]
    question = {"type": "choice", "name": QUESTION, "instructions": instruction, "choices": choices}
    return {"model": model, "input": text, "questions": [question]}


def _decisions_read(reply: Any, labels: Sequence[str]) -> dict[str, Any]:
    """A question that is declined counts as an empty, wrong answer."""
    (answer,) = reply["answers"]
    tokens = _tokens(reply, "input_tokens", "output_tokens")
    if answer["type"] == "refusal":
        return {"text": "", "finished": True, **tokens}
    if answer["type"] != "choice":
        raise TypeError
    pairs = [(one["value"], one["probability"]) for one in answer["probabilities"]]
    if len(dict(pairs)) < len(pairs):
        raise ReplyError("the probabilities name a label twice")
    return {**_decision(answer, dict(pairs), labels), **tokens}


CHAT = Protocol(
    path="/chat/completions",
    expected="a chat completion",
    remedy="check that the url is an OpenAI-compatible one, ending in /v1",
    body=_chat_body,
    read=_chat_read,
)
SYSTEM_ONE = Protocol(
    path="/systemone",
    expected="a System One answer to a choice",
    remedy='check the url, which ends in /v1, or set api = "chat" or "decisions"',
    body=_systemone_body,
    read=_systemone_read,
)
DECISIONS = Protocol(
    path="/decisions",
    expected="a decision on a choice",
    remedy='check the url, which ends in /v1, or set api = "chat" or "systemone"',
    body=_decisions_body,
    read=_decisions_read,
)


def _turns(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def _question_and_state(prompt: Prompt) -> tuple[str, str | list[dict[str, str]]]:
    """Return the question, and the state that it is about: the last turn's text, or all turns if there are earlier
    ones.
    """
    instruction = "\n\n".join(turn.content for turn in prompt.messages if turn.role == "system") or INSTRUCTION
    turns = [turn for turn in _turns(prompt) if turn["role"] != "system"]
    return (instruction, turns[0]["content"]) if len(turns) == 1 else (f"{instruction}\n\n{EARLIER_TURNS_NOTE}", turns)


def _tokens(reply: Any, read: str, written: str) -> dict[str, int]:
    usage = reply.get("usage") or {}
    return {"prompt_tokens": token_count(usage.get(read)), "new_tokens": token_count(usage.get(written))}


def _decision(answer: Any, probabilities: Any, labels: Sequence[str]) -> dict[str, Any]:
    """Return the likeliest label (of equals the endpoint's choice), and the probabilities, normalised to sum to 1."""
    if not isinstance(probabilities, dict):
        raise TypeError
    lacking = next((label for label in labels if label not in probabilities), None)
    if lacking is not None:
        raise ReplyError(f"the probabilities lack the label {visible(lacking[:80])!r}")
    if len(probabilities) > len(labels):
        raise ReplyError("the probabilities name a label that was not requested")
    values = [_probability(probabilities[label], label) for label in labels]
    total, tolerance = sum(values), min(MAX_TOLERANCE, max(MIN_TOLERANCE, ROUNDING * len(labels)))
    if abs(total - 1) > tolerance:
        raise ReplyError(f"the probabilities add up to {total:.3g}, not 1")
    best = max(range(len(labels)), key=lambda number: (values[number], labels[number] == answer["choice"]))
    return {"text": labels[best], "finished": True, "probabilities": [value / total for value in values]}


def _probability(value: Any, label: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= 1 + ROUNDING:
        raise ReplyError(f"the probability of {visible(label[:80])!r} is no number from 0 to 1")
    return float(value)
