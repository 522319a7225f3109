"""Replies in OpenAI's JSON formats, with Trimtab's own figures in the extra field `trimtab`."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from trimtab.arms.online import OnlineReply, TokenLogprob
from trimtab.measurement.citations import used_sentences
from trimtab.serving.dispatcher import CompleteAnswer, ServedModel


def usage_of(replies: Sequence[OnlineReply], draws: int = 1) -> dict[str, Any]:
    """Return the token counts; a prompt counts once for its `draws` consecutive replies."""
    prompt_tokens = sum(one.generation.prompt_tokens for one in replies[::draws])
    cached_tokens = sum(one.generation.cached_tokens for one in replies[::draws])
    new_tokens = sum(one.generation.new_tokens for one in replies)
    return {
        "prompt_tokens": prompt_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
        "completion_tokens": new_tokens,
        "total_tokens": prompt_tokens + new_tokens,
    }


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function that is called with the answer as arguments; with `named` the request named it, and OpenAI reports
    "stop"."""

    name: str
    named: bool


def finish_reason(reply: OnlineReply, call: FunctionCall | None = None) -> str:
    """Return OpenAI's finish reason: stop, length or tool_calls."""
    if not reply.generation.finished:
        return "length"
    return "tool_calls" if call and not call.named else "stop"


def _message(reply: OnlineReply, call: FunctionCall | None) -> dict[str, Any]:
    """Return the assistant's message, with the answer as its text or as the arguments of the called function."""
    message: dict[str, Any] = {"role": "assistant", "content": None if call else reply.text, "refusal": None}
    if call:
        function = {"name": call.name, "arguments": reply.text}
        message["tool_calls"] = [{"id": _call_id(), "type": "function", "function": function}]
    return {**message, "annotations": annotations_of(reply)}


def first_delta(call: FunctionCall | None) -> dict[str, Any]:
    """Return the first delta of a streamed answer."""
    if not call:
        return {"role": "assistant", "content": ""}
    function = {"name": call.name, "arguments": ""}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"index": 0, "id": _call_id(), "type": "function", "function": function}],
    }


def delta_of(text: str, call: FunctionCall | None) -> dict[str, Any]:
    """Return the delta of a piece of an answer."""
    return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]} if call else {"content": text}


def _call_id() -> str:
    return f"call-{uuid.uuid4().hex}"


def trimtab_field(served: ServedModel, reply: OnlineReply) -> dict[str, Any]:
    """Return the field `trimtab` of a reply: the arm, its version, the passages, and probabilities."""
    fields: dict[str, Any] = {
        "arm": served.arm,
        "version": served.version,
        "abstained": reply.abstained,
        "seconds": round(reply.generation.seconds, 4),
        "passages": [
            {
                "id": hit.passage.id,
                "title": hit.passage.title,
                "source": hit.passage.source,
                "rank": hit.rank,
                "score": round(hit.score, 4),
                "text": hit.passage.text,
                "cited": hit.rank in reply.cited,
                "used": used_sentences(reply.text, hit.passage.text) if hit.rank in reply.cited else (),
            }
            for hit in reply.hits
        ],
    }
    if served.release is not None:
        fields["release"] = {"alias": served.release.alias, "version": served.release.version}
    if reply.generation.probabilities:
        fields["probabilities"] = dict(reply.generation.probabilities)
    return fields


def annotations_of(reply: OnlineReply) -> list[dict[str, Any]]:
    """Return the cited passages as OpenAI's URL citations."""
    span = {"start_index": 0, "end_index": len(reply.text)}
    return [
        {"type": "url_citation", "url_citation": {**span, "title": hit.passage.title, "url": hit.passage.source}}
        for hit in reply.hits
        if hit.rank in reply.cited
    ]


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return the tokens' log-probabilities in the format of chat completions."""
    return {"content": [token_logprob(token) for token in tokens], "refusal": None}


def token_logprob(token: TokenLogprob) -> dict[str, Any]:
    """Return the log-probabilities of a token and of the likeliest alternatives."""
    return {**_logprob(token), "top_logprobs": [_logprob(other) for other in token.likeliest]}


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    raw_bytes = None if token.raw_bytes is None else list(token.raw_bytes)
    return {"token": token.text, "logprob": token.log_probability, "bytes": raw_bytes}


def chat_reply(
    answer_id: str,
    served: ServedModel,
    answers: Sequence[CompleteAnswer],
    *,
    logprobs: bool,
    call: FunctionCall | None = None,
) -> dict[str, Any]:
    """Return a complete chat completion."""
    return {
        "id": answer_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": served.id,
        "choices": [
            {
                "index": index,
                "message": _message(one.reply, call),
                "logprobs": chat_logprobs(one.tokens) if logprobs else None,
                "finish_reason": finish_reason(one.reply, call),
            }
            for index, one in enumerate(answers)
        ],
        "usage": usage_of([one.reply for one in answers], len(answers)),
        "trimtab": trimtab_field(served, answers[0].reply),
    }


def completion_reply(
    answer_id: str, served: ServedModel, answers: Sequence[CompleteAnswer], *, draws: int, logprobs: bool
) -> dict[str, Any]:
    """Return a complete plain completion, one choice for each prompt and draw."""
    return {
        "id": answer_id,
        "object": "text_completion",
        "created": int(time.time()),
        "model": served.id,
        "choices": [
            {
                "index": index,
                "text": one.reply.echo + one.reply.text,
                "logprobs": completion_logprobs([*one.reply.echo_tokens, *one.tokens]) if logprobs else None,
                "finish_reason": finish_reason(one.reply),
            }
            for index, one in enumerate(answers)
        ],
        "usage": usage_of([one.reply for one in answers], draws),
    }


def completion_logprobs(tokens: Sequence[TokenLogprob], start: int = 0) -> dict[str, Any]:
    """Return the tokens' log-probabilities in the format of plain completions; `start`: characters of the answer before
    them."""
    lengths = [len(token.text) for token in tokens]
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.log_probability for token in tokens],
        "top_logprobs": [_by_text(token) for token in tokens],
        "text_offset": [start + before for before in accumulate([0, *lengths[:-1]])] if tokens else [],
    }


def _by_text(token: TokenLogprob) -> dict[str, float] | None:
    """Return the log-probabilities of a token and its alternatives by text; of equal texts (parts of a character) the
    highest counts."""
    if token.log_probability is None:
        return None
    by_text: dict[str, float] = {}
    for one in (token, *token.likeliest):
        if one.log_probability is not None:
            by_text[one.text] = max(one.log_probability, by_text.get(one.text, one.log_probability))
    return by_text


def stream_chunk(
    answer_id: str, served: ServedModel, created: int, choices: Sequence[Mapping[str, Any]], kind: str
) -> dict[str, Any]:
    """Return one chunk of a stream."""
    return {"id": answer_id, "object": kind, "created": created, "model": served.id, "choices": list(choices)}


def sse_event(data: Mapping[str, Any], name: str = "") -> bytes:
    """Encode one server-sent event; JSON escapes line breaks in strings, so one line is enough."""
    text = f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
    return (f"event: {name}\n{text}" if name else text).encode()


DONE = b"data: [DONE]\n\n"


def response_reply(
    answer_id: str, served: ServedModel, answer: CompleteAnswer | None, *, status: str
) -> dict[str, Any]:
    """Return the object of `/v1/responses`; without an answer, its state at the start."""
    output = [message_item(answer_id, answer.reply)] if answer else []
    used = usage_of([answer.reply]) if answer else None
    return {
        "id": answer_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "model": served.id,
        "output": output,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": False,
        "temperature": None,
        "tool_choice": "none",
        "tools": [],
        "top_p": None,
        "usage": used
        and {
            "input_tokens": used["prompt_tokens"],
            "input_tokens_details": used["prompt_tokens_details"],
            "output_tokens": used["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": used["total_tokens"],
        },
        **({"trimtab": trimtab_field(served, answer.reply)} if answer else {}),
    }


def message_item(answer_id: str, reply: OnlineReply | None) -> dict[str, Any]:
    """Return the message of a response; empty before the answer."""
    return {
        "id": f"msg-{answer_id}",
        "type": "message",
        "role": "assistant",
        "status": "completed" if reply else "in_progress",
        "content": [text_part(reply)] if reply else [],
    }


def text_part(reply: OnlineReply | None) -> dict[str, Any]:
    """Return the text of a message with its citations."""
    cited = annotations_of(reply) if reply else []
    flat = [{"type": one["type"], **one["url_citation"]} for one in cited]
    return {"type": "output_text", "text": reply.text if reply else "", "annotations": flat, "logprobs": []}
