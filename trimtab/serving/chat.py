"""Generation routes: chat completions, plain and raw completions, and responses; whole or as server-sent events."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from trimtab.arms.online import AnswerPiece, OnlineQuestion, OnlineReply
from trimtab.base.records import Message
from trimtab.inference.constraints import Constraint
from trimtab.inference.sampling import Sampling
from trimtab.serving.dispatcher import ClientDisconnectedError, Dispatcher, new_id
from trimtab.serving.middleware import Refused
from trimtab.serving.replies import (
    DONE,
    NO_FUNCTIONS,
    CallableFunctions,
    ChatCall,
    ResponseItems,
    annotations_of,
    chat_logprobs,
    chat_reply,
    completion_logprobs,
    completion_reply,
    finish_reason,
    first_delta,
    response_reply,
    sse_event,
    stream_chunk,
    trimtab_field,
    usage_of,
)
from trimtab.serving.schema import (
    AnswerFormat,
    ChatRequest,
    CompletionOptions,
    CompletionRequest,
    RawCompletionRequest,
    ResponsesRequest,
    SamplingRequest,
    ToolOptions,
)
from trimtab.serving.served_model import ServedModel


@dataclass(frozen=True, slots=True)
class _ReplyFormat:
    """The shape of a reply: OpenAI's object name, chat or plain, `draws` answers to each prompt, and the functions that
    may be called."""

    object: str
    prefix: str
    chat: bool
    logprobs: bool = False
    functions: CallableFunctions = NO_FUNCTIONS
    draws: int = 1


CHAT, PLAIN = _ReplyFormat("chat.completion.chunk", "chatcmpl", True), _ReplyFormat("text_completion", "cmpl", False)


def chat_routes(dispatcher: Dispatcher) -> APIRouter:
    """Return the router of `/v1/chat/completions`, `/v1/completions`, `/v1/raw/completions` and `/v1/responses`."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation with an arm."""
        served, questions = await dispatcher.route(body.model, request), _chat_questions(body)
        kind = replace(CHAT, logprobs=bool(body.logprobs), functions=body.callable_functions, draws=body.n or 1)
        if body.stream:
            events = await _start_events(dispatcher, served, questions, request)
            return _event_stream(_sse_chunks(events, served, kind, usage=_wants_usage(body)))
        answers = await _answer_all(dispatcher, served, questions, request)
        return JSONResponse(
            chat_reply(new_id("chatcmpl"), served, answers, logprobs=kind.logprobs, functions=kind.functions)
        )

    @router.post("/v1/completions")
    async def complete(body: CompletionRequest, request: Request) -> Response:
        """Answer each prompt as a separate question."""
        return await completed(body, _completion_questions(body), request)

    @router.post("/v1/raw/completions")
    async def complete_raw(body: RawCompletionRequest, request: Request) -> Response:
        """Continue each prompt as it is, without template, instruction or passages; the arm was not measured this
        way."""
        return await completed(body, _raw_questions(body), request)

    async def completed(
        body: CompletionRequest | RawCompletionRequest, questions: Sequence[OnlineQuestion], request: Request
    ) -> Response:
        served = await dispatcher.route(body.model, request)
        kind = replace(PLAIN, logprobs=body.logprobs is not None, draws=body.n or 1)
        if body.stream:
            events = await _start_events(dispatcher, served, questions, request)
            return _event_stream(_sse_chunks(events, served, kind, usage=_wants_usage(body)))
        answers = await _answer_all(dispatcher, served, questions, request)
        return JSONResponse(completion_reply(new_id("cmpl"), served, answers, draws=kind.draws, logprobs=kind.logprobs))

    @router.post("/v1/responses")
    async def respond(body: ResponsesRequest, request: Request) -> Response:
        """Answer text or a conversation in the format of OpenAI's Responses API."""
        served, question = await dispatcher.route(body.model, request), _response_question(body)
        if body.stream:
            events = await _start_events(dispatcher, served, [question], request)
            return _event_stream(_response_stream(events, served, body))
        reply = await dispatcher.answer(served, question, request)
        items = ResponseItems(answer_id := new_id("resp"), body.callable_functions)
        for _ in (*items.add(reply.text), *items.end(reply)):
            pass  # the events of a stream
        return JSONResponse(response_reply(answer_id, served, reply, items.output, status=_status(reply)))

    return router


def _event_stream(parts: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(_with_error_event(parts), media_type="text/event-stream")


async def _with_error_event(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the parts of a stream; an error after its start becomes the last event, in OpenAI's error format."""
    try:
        async for part in parts:
            yield part
    except Refused as refused:
        yield sse_event(refused.body, "error")
    except ClientDisconnectedError:
        return


def _wants_usage(body: CompletionOptions) -> bool:
    return body.stream_options is not None and body.stream_options.include_usage


def to_messages(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the turns of a request with leading system turns joined.

    Raises Refused if the last turn, system turns apart, is neither the user's nor a function's, or nobody asks.
    """
    leading = list(takewhile(lambda message: message.role == "system", messages))
    joined = [Message(role="system", content="\n\n".join(message.content for message in leading))] if leading else []
    roles = [message.role for message in messages if message.role != "system"]
    asked = next((message.content for message in reversed(messages) if message.role == "user"), "")
    if roles[-1:] not in (["user"], ["tool"]) or not asked.strip():
        raise Refused(400, "the last turn must be the user's or a function's, and a user must ask", code="messages")
    return (*joined, *messages[len(leading) :])


def sampling_of(body: SamplingRequest, draw: int = 0) -> Sampling:
    """Return the sampling settings of a request; without a seed one is drawn, and choice number `draw` adds `draw` to
    it."""
    seed = body.seed if body.seed is not None else random.getrandbits(62)
    return Sampling(
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k or 0,
        min_p=body.min_p or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        repetition_penalty=body.repetition_penalty or 1.0,
        seed=seed + draw,
    )


def constraint_of(form: AnswerFormat | None) -> Constraint | None:
    """Return the constraint that a response format puts on the answer, None for free text."""
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return Constraint(json_object=True)
    if form.type == "regex":
        return Constraint(regex=form.pattern or "")
    if form.type == "choice":
        return Constraint(choices=tuple(form.choices or ()))
    schema = form.json_schema.schema_ if form.json_schema else form.schema_
    return Constraint(schema=json.dumps(schema))


def _questions(
    body: CompletionOptions, messages: Sequence[Message], max_new: int | None, *, logprobs: bool, top_logprobs: int
) -> list[OnlineQuestion]:
    """Return one question for each of the `n` choices that a request asks for."""
    return [
        OnlineQuestion(
            id=new_id("q"),
            messages=tuple(messages),
            max_new=max_new,
            sampling=sampling_of(body, draw),
            stops=body.stops,
            logprobs=logprobs,
            top_logprobs=top_logprobs,
            draws=body.n or 1,
        )
        for draw in range(body.n or 1)
    ]


def _answer_constraint(body: ToolOptions, form: AnswerFormat | None) -> Constraint | None:
    """Return the constraint of an answer that has a format, may call functions, or both."""
    constraint = constraint_of(form)
    if not body.functions:
        return constraint
    calls = tuple((function.name, function.arguments_schema) for function in body.offered)
    if constraint is None:
        return Constraint(calls=calls, must_call=body.must_call)
    return replace(constraint, calls=calls, must_call=body.must_call)


def _chat_questions(body: ChatRequest) -> list[OnlineQuestion]:
    max_new = body.max_completion_tokens or body.max_tokens
    with_logprobs, top_logprobs = bool(body.logprobs), (body.top_logprobs or 0) if body.logprobs else 0
    messages = to_messages([turn.message for turn in body.messages])
    questions = _questions(body, messages, max_new, logprobs=with_logprobs, top_logprobs=top_logprobs)
    constraint, shown = _answer_constraint(body, body.response_format), body.definitions
    return [replace(question, constraint=constraint, functions=shown) for question in questions]


def _completion_questions(body: CompletionRequest) -> list[OnlineQuestion]:
    questions: list[OnlineQuestion] = []
    for prompt in body.prompts:
        messages = to_messages([Message(role="user", content=prompt)])
        with_logprobs, top_logprobs = body.logprobs is not None, body.logprobs or 0
        questions += _questions(body, messages, body.max_tokens, logprobs=with_logprobs, top_logprobs=top_logprobs)
    return questions


def _raw_questions(body: RawCompletionRequest) -> list[OnlineQuestion]:
    questions: list[OnlineQuestion] = []
    for prompt in body.prompts:
        raw = prompt if isinstance(prompt, str) else tuple(prompt)
        with_logprobs, top_logprobs = body.logprobs is not None, body.logprobs or 0
        choices = _questions(body, (), body.max_tokens, logprobs=with_logprobs, top_logprobs=top_logprobs)
        questions += [replace(one, raw=raw, echo=bool(body.echo)) for one in choices]
    return questions


def _response_question(body: ResponsesRequest) -> OnlineQuestion:
    messages = [turn.message for turn in body.turns]
    if body.instructions:
        messages.insert(0, Message(role="system", content=body.instructions))
    return OnlineQuestion(
        id=new_id("q"),
        messages=to_messages(messages),
        max_new=body.max_output_tokens,
        sampling=sampling_of(body),
        constraint=_answer_constraint(body, body.answer_format),
        functions=body.definitions,
    )


async def _answer_all(
    dispatcher: Dispatcher, served: ServedModel, questions: Sequence[OnlineQuestion], request: Request
) -> list[OnlineReply]:
    """Answer all questions at once; the first error cancels the others."""
    tasks = [asyncio.create_task(dispatcher.answer(served, one, request)) for one in questions]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


IndexedEvent = tuple[int, AnswerPiece | OnlineReply]
"""An event, with the index of its question among those of the request."""


async def _start_events(
    dispatcher: Dispatcher, served: ServedModel, questions: Sequence[OnlineQuestion], request: Request
) -> AsyncIterator[IndexedEvent]:
    """Return the events of all questions, after waiting for the first one.

    An error before the first event is raised here, so it can still become an HTTP status.
    """
    events = _merge_streams([dispatcher.events(served, one, request) for one in questions])
    first = await anext(events)

    async def all_events() -> AsyncIterator[IndexedEvent]:
        yield first
        async for event in events:
            yield event

    return all_events()


async def _merge_streams(streams: Sequence[AsyncIterator[AnswerPiece | OnlineReply]]) -> AsyncIterator[IndexedEvent]:
    """Yield the events of several streams in order of arrival; an error in one ends all."""
    inbox = asyncio.Queue[IndexedEvent | None]()

    async def read(index: int, stream: AsyncIterator[AnswerPiece | OnlineReply]) -> None:
        async for event in stream:
            inbox.put_nowait((index, event))

    tasks = [asyncio.create_task(read(index, stream)) for index, stream in enumerate(streams)]
    for task in tasks:
        task.add_done_callback(lambda _: inbox.put_nowait(None))
    try:
        running = len(tasks)
        while running:
            event = await inbox.get()
            if event is not None:
                yield event
                continue
            running -= 1
            for task in tasks:
                if task.done():
                    task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _sse_chunks(
    events: AsyncIterator[IndexedEvent], served: ServedModel, kind: _ReplyFormat, *, usage: bool
) -> AsyncIterator[bytes]:
    """Yield the chunks of all answers in OpenAI's streaming format."""
    answer_id, created = new_id(kind.prefix), int(time.time())
    characters: dict[int, int] = {}
    replies: dict[int, OnlineReply] = {}
    calls: dict[int, ChatCall] = {}

    def sse_chunk(choices: Sequence[dict[str, Any]], **more: Any) -> bytes:
        return sse_event(
            {
                **stream_chunk(answer_id, served, created, choices, kind.object),
                **({"usage": None} if usage else {}),
                **more,
            }
        )

    async for index, item in events:
        if index not in characters:
            characters[index], calls[index] = 0, ChatCall(kind.functions)
            if kind.chat:
                yield sse_chunk([_choice(index, {"delta": first_delta(kind.functions)})])
        if isinstance(item, AnswerPiece):
            tokens = None
            if kind.logprobs:
                tokens = (
                    chat_logprobs(item.tokens) if kind.chat else completion_logprobs(item.tokens, characters[index])
                )
                characters[index] += sum(len(token.text) for token in item.tokens)
            piece = {"delta": calls[index].delta(item.text)} if kind.chat else {"text": item.text}
            if tokens or piece != {"delta": {}}:
                yield sse_chunk([_choice(index, piece, tokens)])
            continue
        replies[index] = item
        last: dict[str, Any] = {"text": ""}
        if kind.chat:
            last = {"delta": {**calls[index].last_delta(), "annotations": annotations_of(item)}}
        finish = finish_reason(item, kind.functions if calls[index].is_called else NO_FUNCTIONS)
        yield sse_chunk([_choice(index, last, finish=finish)], trimtab=trimtab_field(served, [item]))
    if usage:
        yield sse_chunk([], usage=usage_of([replies[index] for index in sorted(replies)], kind.draws))
    yield DONE


def _choice(
    index: int, fields: dict[str, Any], tokens: dict[str, Any] | None = None, finish: str | None = None
) -> dict[str, Any]:
    return {"index": index, **fields, "logprobs": tokens, "finish_reason": finish}


async def _response_stream(
    events: AsyncIterator[IndexedEvent], served: ServedModel, body: ResponsesRequest
) -> AsyncIterator[bytes]:
    """Yield the numbered events of `/v1/responses`."""
    answer_id = new_id("resp")
    items, number = ResponseItems(answer_id, body.callable_functions), 0

    def numbered(new: Iterable[dict[str, Any]]) -> Iterator[bytes]:
        nonlocal number
        for event in new:
            yield sse_event({**event, "sequence_number": number}, event["type"])
            number += 1

    initial = response_reply(answer_id, served, None, (), status="in_progress")
    for chunk in numbered({"type": name, "response": initial} for name in ("response.created", "response.in_progress")):
        yield chunk
    async for _, item in events:
        if isinstance(item, AnswerPiece):
            for chunk in numbered(items.add(item.text)):
                yield chunk
            continue
        for chunk in numbered(items.end(item)):
            yield chunk
        status = _status(item)
        whole = response_reply(answer_id, served, item, items.output, status=status)
        for chunk in numbered([{"type": f"response.{status}", "response": whole}]):
            yield chunk


def _status(reply: OnlineReply) -> str:
    return "completed" if reply.generation.finished else "incomplete"
