"""Generation routes: chat completions, plain and raw completions, and responses; whole or as server-sent events."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from trimtab.arms.online import AnswerPiece, OnlineQuestion, OnlineReply
from trimtab.base.records import Message
from trimtab.inference.constraints import Constraint
from trimtab.inference.sampling import Sampling
from trimtab.serving.dispatcher import ClientDisconnectedError, CompleteAnswer, Dispatcher, ServedModel, new_id
from trimtab.serving.middleware import Refused
from trimtab.serving.replies import (
    DONE,
    FunctionCall,
    annotations_of,
    chat_logprobs,
    chat_reply,
    completion_logprobs,
    completion_reply,
    delta_of,
    finish_reason,
    first_delta,
    message_item,
    response_reply,
    sse_event,
    stream_chunk,
    text_part,
    trimtab_field,
    usage_of,
)
from trimtab.serving.schema import (
    AnswerFormat,
    ChatRequest,
    CompletionOptions,
    CompletionRequest,
    ConversationTurn,
    RawCompletionRequest,
    ResponsesRequest,
    SamplingRequest,
)


@dataclass(frozen=True, slots=True)
class _ReplyFormat:
    """The shape of a reply: OpenAI's object name, chat or plain, `draws` answers to each prompt, and the forced
    function."""

    object: str
    prefix: str
    chat: bool
    logprobs: bool = False
    call: FunctionCall | None = None
    draws: int = 1


CHAT, PLAIN = _ReplyFormat("chat.completion.chunk", "chatcmpl", True), _ReplyFormat("text_completion", "cmpl", False)


def chat_routes(dispatcher: Dispatcher) -> APIRouter:
    """Return the router of `/v1/chat/completions`, `/v1/completions`, `/v1/raw/completions` and `/v1/responses`."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation with an arm."""
        served, questions = await dispatcher.route(body.model, request), _chat_questions(body)
        kind = replace(CHAT, logprobs=bool(body.logprobs), call=_forced_call(body), draws=body.n or 1)
        if body.stream:
            events = await _start_events(dispatcher, served, questions, request)
            return _event_stream(_sse_chunks(events, served, kind, usage=_wants_usage(body)))
        answers = await _answer_all(dispatcher, served, questions, request)
        return JSONResponse(chat_reply(new_id("chatcmpl"), served, answers, logprobs=kind.logprobs, call=kind.call))

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
            return _event_stream(_response_stream(await _start_events(dispatcher, served, [question], request), served))
        answer = await dispatcher.answer(served, question, request)
        return JSONResponse(response_reply(new_id("resp"), served, answer, status=_status(answer.reply)))

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


def to_messages(turns: Sequence[ConversationTurn]) -> tuple[Message, ...]:
    """Convert the turns of a request to messages; `developer` means `system`, and leading system turns are joined.

    Raises Refused for a system turn in another place, and for a last turn that is not the user's or is empty.
    """
    messages = [Message(role="system" if one.role == "developer" else one.role, content=one.text) for one in turns]
    leading = list(takewhile(lambda one: one.role == "system", messages))
    if len(leading) > 1:
        joined = Message(role="system", content="\n\n".join(one.content for one in leading))
        messages = [joined, *messages[len(leading) :]]
    if any(one.role == "system" for one in messages[1:]):
        raise Refused(400, "a system turn stands first, or not at all", code="messages")
    if messages[-1].role != "user" or not messages[-1].content.strip():
        raise Refused(400, "the last turn must be the user's, and say something", code="messages")
    return tuple(messages)


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


def _forced_call(body: ChatRequest) -> FunctionCall | None:
    """Return the function call that the answer fills in, None if the answer is text."""
    return FunctionCall(body.forced.name, named=body.tool_choice != "required") if body.forced else None


def _chat_questions(body: ChatRequest) -> list[OnlineQuestion]:
    max_new = body.max_completion_tokens or body.max_tokens
    with_logprobs, top_logprobs = bool(body.logprobs), (body.top_logprobs or 0) if body.logprobs else 0
    messages = to_messages([one.turn for one in body.messages])
    questions = _questions(body, messages, max_new, logprobs=with_logprobs, top_logprobs=top_logprobs)
    constraint = constraint_of(body.response_format)
    if body.forced:
        constraint = Constraint(schema=json.dumps(body.forced.parameters or {"type": "object", "properties": {}}))
    return [replace(one, constraint=constraint) for one in questions]


def _completion_questions(body: CompletionRequest) -> list[OnlineQuestion]:
    questions: list[OnlineQuestion] = []
    for prompt in body.prompts:
        messages = to_messages([ConversationTurn(role="user", content=prompt)])
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
    turns: list[ConversationTurn] = (
        [ConversationTurn(role="user", content=body.input)] if isinstance(body.input, str) else list(body.input)
    )
    if body.instructions:
        turns.insert(0, ConversationTurn(role="system", content=body.instructions))
    return OnlineQuestion(
        id=new_id("q"),
        messages=to_messages(turns),
        max_new=body.max_output_tokens,
        sampling=sampling_of(body),
        constraint=constraint_of(body.text.format if body.text else None),
    )


async def _answer_all(
    dispatcher: Dispatcher, served: ServedModel, questions: Sequence[OnlineQuestion], request: Request
) -> list[CompleteAnswer]:
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
            characters[index] = 0
            if kind.chat:
                yield sse_chunk([_choice(index, {"delta": first_delta(kind.call)})])
        if isinstance(item, AnswerPiece):
            tokens = None
            if kind.logprobs:
                tokens = (
                    chat_logprobs(item.tokens) if kind.chat else completion_logprobs(item.tokens, characters[index])
                )
                characters[index] += sum(len(token.text) for token in item.tokens)
            piece = {"delta": delta_of(item.text, kind.call)} if kind.chat else {"text": item.text}
            yield sse_chunk([_choice(index, piece, tokens)])
            continue
        replies[index] = item
        last: dict[str, Any] = {"delta": {"annotations": annotations_of(item)}} if kind.chat else {"text": ""}
        yield sse_chunk(
            [_choice(index, last, finish=finish_reason(item, kind.call))], trimtab=trimtab_field(served, item)
        )
    if usage:
        yield sse_chunk([], usage=usage_of([replies[index] for index in sorted(replies)], kind.draws))
    yield DONE


def _choice(
    index: int, fields: dict[str, Any], tokens: dict[str, Any] | None = None, finish: str | None = None
) -> dict[str, Any]:
    return {"index": index, **fields, "logprobs": tokens, "finish_reason": finish}


async def _response_stream(events: AsyncIterator[IndexedEvent], served: ServedModel) -> AsyncIterator[bytes]:
    """Yield the numbered events of `/v1/responses`."""
    answer_id, number = new_id("resp"), 0
    position = {"output_index": 0, "content_index": 0, "item_id": f"msg-{answer_id}"}

    def numbered(name: str, **more: Any) -> bytes:
        nonlocal number
        number += 1
        return sse_event({"type": name, "sequence_number": number - 1, **more}, name)

    begun = response_reply(answer_id, served, None, status="in_progress")
    yield numbered("response.created", response=begun)
    yield numbered("response.in_progress", response=begun)
    yield numbered("response.output_item.added", output_index=0, item=message_item(answer_id, None))
    yield numbered("response.content_part.added", **position, part=text_part(None))
    async for _, item in events:
        if isinstance(item, AnswerPiece):
            yield numbered("response.output_text.delta", **position, delta=item.text, logprobs=[])
            continue
        yield numbered("response.output_text.done", **position, text=item.text, logprobs=[])
        yield numbered("response.content_part.done", **position, part=text_part(item))
        yield numbered("response.output_item.done", output_index=0, item=message_item(answer_id, item))
        status = _status(item)
        whole = response_reply(answer_id, served, CompleteAnswer(item), status=status)
        yield numbered(f"response.{status}", response=whole)


def _status(reply: OnlineReply) -> str:
    return "completed" if reply.generation.finished else "incomplete"
