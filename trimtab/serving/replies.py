"""Replies in OpenAI's JSON formats, with Trimtab's own figures in the extra field `trimtab`."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from trimtab.arms.online import OnlineReply, TokenLogprob
from trimtab.data.function_calls import AnswerPart, CallReader
from trimtab.measurement.citations import used_sentences
from trimtab.serving.served_model import ServedModel


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
class CallableFunctions:
    """The names of the functions that an answer may call; `is_named`: the request named the one that it must call."""

    names: tuple[str, ...] = ()
    is_named: bool = False


NO_FUNCTIONS = CallableFunctions()


def finish_reason(reply: OnlineReply, called: CallableFunctions = NO_FUNCTIONS) -> str:
    """Return OpenAI's finish reason: stop, length or tool_calls; stop for a call that the request named. `called`: the
    functions, if the answer is a call of one.
    """
    if not reply.generation.finished:
        return "length"
    return "tool_calls" if called.names and not called.is_named else "stop"


class ChatCall:
    """Reads one answer of a chat, in which a function may be called, and says it in OpenAI's deltas."""

    def __init__(self, functions: CallableFunctions) -> None:
        self._reader = CallReader(functions.names) if functions.names else None

    @property
    def is_called(self) -> bool:
        """True once a call has begun."""
        return self._reader is not None and self._reader.is_called

    def delta(self, text: str) -> dict[str, Any]:
        """Return the delta of a piece of the answer; empty while it may be the beginning of a call."""
        return _delta(self._reader.add(text)) if self._reader else {"content": text}

    def last_delta(self) -> dict[str, Any]:
        """Return the delta of what was kept back to the end."""
        return _delta(self._reader.end()) if self._reader else {}


def _delta(parts: Iterable[AnswerPart]) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    for part in parts:
        if part.text:
            delta["content"] = delta.get("content", "") + part.text
        elif part.name:
            function = {"name": part.name, "arguments": ""}
            delta["tool_calls"] = [{"index": 0, "id": _call_id(), "type": "function", "function": function}]
        else:
            (call,) = delta.setdefault("tool_calls", [{"index": 0, "function": {"arguments": ""}}])
            call["function"]["arguments"] += part.arguments
    return delta


def first_delta(functions: CallableFunctions) -> dict[str, Any]:
    """Return the first delta of a streamed answer; its content is null if there may be none."""
    return {"role": "assistant", "content": None if functions.names else ""}


def _chat_choice(index: int, reply: OnlineReply, functions: CallableFunctions, logprobs: bool) -> dict[str, Any]:
    """Return a choice: the assistant's message, with its text, the function that it calls, or both."""
    call = ChatCall(functions)
    first, last = call.delta(reply.text), call.last_delta()
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    if functions.names:
        message["content"] = (first.get("content", "") + last.get("content", "")) or None
    if call.is_called:
        (start,), (rest,) = first["tool_calls"], last.get("tool_calls", [{"function": {"arguments": ""}}])
        arguments = start["function"]["arguments"] + rest["function"]["arguments"]
        function = {**start["function"], "arguments": arguments}
        message["tool_calls"] = [{"id": start["id"], "type": "function", "function": function}]
    return {
        "index": index,
        "message": {**message, "annotations": annotations_of(reply)},
        "logprobs": chat_logprobs(reply.tokens) if logprobs else None,
        "finish_reason": finish_reason(reply, functions if call.is_called else NO_FUNCTIONS),
    }


def _call_id() -> str:
    return f"call-{uuid.uuid4().hex}"


def trimtab_field(served: ServedModel, replies: Sequence[OnlineReply]) -> dict[str, Any]:
    """Return the field `trimtab` of one or several replies: the arm and its version, the passages and probabilities of
    the first, and the receipts by which they can be judged."""
    reply, *_ = replies
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
    if reply.receipt:
        fields["receipts"] = [one.receipt for one in replies]
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
    replies: Sequence[OnlineReply],
    *,
    logprobs: bool,
    functions: CallableFunctions = NO_FUNCTIONS,
) -> dict[str, Any]:
    """Return a complete chat completion."""
    return {
        "id": answer_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": served.id,
        "choices": [_chat_choice(index, reply, functions, logprobs) for index, reply in enumerate(replies)],
        "usage": usage_of(replies, len(replies)),
        "trimtab": trimtab_field(served, replies),
    }


def completion_reply(
    answer_id: str, served: ServedModel, replies: Sequence[OnlineReply], *, draws: int, logprobs: bool
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
                "text": reply.echo + reply.text,
                "logprobs": completion_logprobs([*reply.echo_tokens, *reply.tokens]) if logprobs else None,
                "finish_reason": finish_reason(reply),
            }
            for index, reply in enumerate(replies)
        ],
        "usage": usage_of(replies, draws),
        "trimtab": trimtab_field(served, replies),
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
    answer_id: str, served: ServedModel, reply: OnlineReply | None, output: Sequence[dict[str, Any]], *, status: str
) -> dict[str, Any]:
    """Return the object of `/v1/responses`; without a reply, its state at the start."""
    used = usage_of([reply]) if reply else None
    return {
        "id": answer_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "model": served.id,
        "output": list(output),
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": False,
        "temperature": None,
        "tool_choice": "auto",
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
        **({"trimtab": trimtab_field(served, [reply])} if reply else {}),
    }


class ResponseItems:
    """The output items of a response: a message, a function call, or both; yields their events while they stream."""

    def __init__(self, answer_id: str, functions: CallableFunctions) -> None:
        self.output: list[dict[str, Any]] = []
        self._answer_id = answer_id
        self._reader = CallReader(functions.names) if functions.names else None
        self._text = ""
        self._call: dict[str, Any] | None = None

    def add(self, text: str) -> Iterator[dict[str, Any]]:
        """Yield the events of a piece of the answer."""
        for part in self._reader.add(text) if self._reader else [AnswerPart(text=text)]:
            yield from self._part(part)

    def end(self, reply: OnlineReply) -> Iterator[dict[str, Any]]:
        """Yield the events of the end of the answer."""
        for part in self._reader.end() if self._reader else ():
            yield from self._part(part)
        if self._call is None and not self._text:
            yield from self._begin_message()
        if self._call is None:
            yield from self._end_message(reply)
        else:
            yield from self._end_call(self._call, reply)

    def _part(self, part: AnswerPart) -> Iterator[dict[str, Any]]:
        if part.text:
            if not self._text:
                yield from self._begin_message()
            self._text += part.text
            yield {"type": "response.output_text.delta", **self._position, "delta": part.text, "logprobs": []}
        elif part.name:
            if self._text:
                yield from self._end_message(None)
            item_id, call_id = f"fc-{self._answer_id}", _call_id()
            self._call = {"id": item_id, "type": "function_call", "call_id": call_id, "name": part.name}
            self._call |= {"arguments": "", "status": "in_progress"}
            added = {"output_index": len(self.output), "item": dict(self._call)}
            yield {"type": "response.output_item.added", **added}
        elif self._call:
            self._call["arguments"] += part.arguments
            where = {"item_id": self._call["id"], "output_index": len(self.output)}
            yield {"type": "response.function_call_arguments.delta", **where, "delta": part.arguments}

    @property
    def _position(self) -> dict[str, Any]:
        return {"output_index": len(self.output), "content_index": 0, "item_id": f"msg-{self._answer_id}"}

    def _begin_message(self) -> Iterator[dict[str, Any]]:
        item = _message_item(self._answer_id, [], "in_progress")
        yield {"type": "response.output_item.added", "output_index": len(self.output), "item": item}
        yield {"type": "response.content_part.added", **self._position, "part": _text_part("", None)}

    def _end_message(self, reply: OnlineReply | None) -> Iterator[dict[str, Any]]:
        """Yield the events of the end of the message; citations belong to a reply that is text alone."""
        part = _text_part(self._text, reply)
        item = _message_item(self._answer_id, [part], "completed")
        yield {"type": "response.output_text.done", **self._position, "text": self._text, "logprobs": []}
        yield {"type": "response.content_part.done", **self._position, "part": part}
        yield {"type": "response.output_item.done", "output_index": len(self.output), "item": item}
        self.output.append(item)

    def _end_call(self, call: dict[str, Any], reply: OnlineReply) -> Iterator[dict[str, Any]]:
        call["status"] = "completed" if reply.generation.finished else "incomplete"
        where = {"item_id": call["id"], "output_index": len(self.output)}
        done = {"name": call["name"], "arguments": call["arguments"]}
        yield {"type": "response.function_call_arguments.done", **where, **done}
        yield {"type": "response.output_item.done", "output_index": len(self.output), "item": call}
        self.output.append(call)


def _message_item(answer_id: str, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
    return {"id": f"msg-{answer_id}", "type": "message", "role": "assistant", "status": status, "content": content}


def _text_part(text: str, reply: OnlineReply | None) -> dict[str, Any]:
    """Return the text of a message with its citations."""
    cited = annotations_of(reply) if reply else []
    flat = [{"type": one["type"], **one["url_citation"]} for one in cited]
    return {"type": "output_text", "text": text, "annotations": flat, "logprobs": []}
