"""The routes that write: chat completions, plain and raw completions, responses; whole or as streams."""

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
from trimtab.serving.dispatcher import Desk, LeftError, Served, Told, new_id
from trimtab.serving.middleware import Refused
from trimtab.serving.replies import (
    DONE,
    Call,
    annotations_of,
    chat_reply,
    chunk,
    completion_reply,
    delta_of,
    event,
    finish_of,
    known_of,
    logprobs_of,
    message_item,
    opening_of,
    plain_logprobs_of,
    response_reply,
    text_part,
    usage_of,
)
from trimtab.serving.schema import (
    ChatRequest,
    CompletionRequest,
    ConversationTurn,
    Drawing,
    RawCompletionRequest,
    ResponsesRequest,
    SchemaModel,
    WrittenReply,
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a stream or a reply is of: `draws` answers to each prompt, as chat or plain; `call` the function that is called with them."""

    object: str
    prefix: str
    chat: bool
    logprobs: bool = False
    call: Call | None = None
    draws: int = 1


CHAT, PLAIN = _Kind("chat.completion.chunk", "chatcmpl", True), _Kind("text_completion", "cmpl", False)


def chat_routes(desk: Desk) -> APIRouter:
    """`/v1/chat/completions`, `/v1/completions`, `/v1/raw/completions` and `/v1/responses`."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation with an arm."""
        served, asked = await desk.chosen(body.model, request), _chat_questions(body)
        kind = replace(CHAT, logprobs=bool(body.logprobs), call=_call(body), draws=body.n or 1)
        if body.stream:
            events = await _begun(desk, served, asked, request)
            return _streamed(_stream(events, served, kind, usage=_wants_usage(body)))
        told = await _all_told(desk, served, asked, request)
        return JSONResponse(chat_reply(new_id("chatcmpl"), served, told, logprobs=kind.logprobs, call=kind.call))

    @router.post("/v1/completions")
    async def complete(body: CompletionRequest, request: Request) -> Response:
        """Answer each prompt as a question of its own."""
        return await completed(body, _completion_questions(body), request)

    @router.post("/v1/raw/completions")
    async def complete_raw(body: RawCompletionRequest, request: Request) -> Response:
        """Go on from each prompt as it is: without template, instruction or passages, so not as the arm was measured."""
        return await completed(body, _raw_questions(body), request)

    async def completed(
        body: CompletionRequest | RawCompletionRequest, asked: Sequence[OnlineQuestion], request: Request
    ) -> Response:
        served = await desk.chosen(body.model, request)
        kind = replace(PLAIN, logprobs=body.logprobs is not None, draws=body.n or 1)
        if body.stream:
            events = await _begun(desk, served, asked, request)
            return _streamed(_stream(events, served, kind, usage=_wants_usage(body)))
        told = await _all_told(desk, served, asked, request)
        return JSONResponse(completion_reply(new_id("cmpl"), served, told, draws=kind.draws, logprobs=kind.logprobs))

    @router.post("/v1/responses")
    async def respond(body: ResponsesRequest, request: Request) -> Response:
        """Answer text or a conversation, in the shape of OpenAI's Responses."""
        served, question = await desk.chosen(body.model, request), _response_question(body)
        if body.stream:
            return _streamed(_response_stream(await _begun(desk, served, [question], request), served))
        told = await desk.told(served, question, request)
        return JSONResponse(response_reply(new_id("resp"), served, told, status=_status(told.reply)))

    return router


def _streamed(parts: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(_with_its_end(parts), media_type="text/event-stream")


async def _with_its_end(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What fails once the stream has begun is its last event, in words that OpenAI's clients raise."""
    try:
        async for part in parts:
            yield part
    except Refused as refused:
        yield event(refused.body, "error")
    except LeftError:
        return


def _wants_usage(body: WrittenReply) -> bool:
    return body.stream_options is not None and body.stream_options.include_usage


def turns(given: Sequence[ConversationTurn]) -> tuple[Message, ...]:
    """Turns as rows have them; `developer` is a later word for `system`, and several of them in front are one.

    Raises Refused for one that stands elsewhere.
    """
    said = [Message(role="system" if one.role == "developer" else one.role, content=one.text) for one in given]
    leading = list(takewhile(lambda one: one.role == "system", said))
    if len(leading) > 1:
        joined = Message(role="system", content="\n\n".join(one.content for one in leading))
        said = [joined, *said[len(leading) :]]
    if any(one.role == "system" for one in said[1:]):
        raise Refused(400, "a system turn stands first, or not at all", code="messages")
    if said[-1].role != "user" or not said[-1].content.strip():
        raise Refused(400, "the last turn must be the user's, and say something", code="messages")
    return tuple(said)


def sampling_of(body: Drawing, draw: int = 0) -> Sampling:
    """How tokens are drawn; a seed that is not given is drawn itself, and each of several choices has its own."""
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


def constraint_of(form: SchemaModel | None) -> Constraint | None:
    """What an answer has to fit, None for any text."""
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
    body: WrittenReply, messages: Sequence[Message], most: int | None, *, logprobs: bool, likeliest: int
) -> list[OnlineQuestion]:
    """One question for each choice that is asked for."""
    return [
        OnlineQuestion(
            id=new_id("q"),
            messages=tuple(messages),
            max_new=most,
            sampling=sampling_of(body, draw),
            stops=body.stops,
            logprobs=logprobs,
            top_logprobs=likeliest,
            draws=body.n or 1,
        )
        for draw in range(body.n or 1)
    ]


def _call(body: ChatRequest) -> Call | None:
    """How the function that is forced is called."""
    return Call(body.forced.name, named=body.tool_choice != "required") if body.forced else None


def _chat_questions(body: ChatRequest) -> list[OnlineQuestion]:
    most = body.max_completion_tokens or body.max_tokens
    wanted, likeliest = bool(body.logprobs), (body.top_logprobs or 0) if body.logprobs else 0
    said = turns([one.turn for one in body.messages])
    asked = _questions(body, said, most, logprobs=wanted, likeliest=likeliest)
    form = constraint_of(body.response_format)
    if body.forced:
        form = Constraint(schema=json.dumps(body.forced.parameters or {"type": "object", "properties": {}}))
    return [replace(one, constraint=form) for one in asked]


def _completion_questions(body: CompletionRequest) -> list[OnlineQuestion]:
    found: list[OnlineQuestion] = []
    for prompt in body.prompts:
        said = turns([ConversationTurn(role="user", content=prompt)])
        wanted, likeliest = body.logprobs is not None, body.logprobs or 0
        found += _questions(body, said, body.max_tokens, logprobs=wanted, likeliest=likeliest)
    return found


def _raw_questions(body: RawCompletionRequest) -> list[OnlineQuestion]:
    found: list[OnlineQuestion] = []
    for prompt in body.prompts:
        raw = prompt if isinstance(prompt, str) else tuple(prompt)
        wanted, likeliest = body.logprobs is not None, body.logprobs or 0
        asked = _questions(body, (), body.max_tokens, logprobs=wanted, likeliest=likeliest)
        found += [replace(one, raw=raw, echo=bool(body.echo)) for one in asked]
    return found


def _response_question(body: ResponsesRequest) -> OnlineQuestion:
    given: list[ConversationTurn] = (
        [ConversationTurn(role="user", content=body.input)] if isinstance(body.input, str) else list(body.input)
    )
    if body.instructions:
        given.insert(0, ConversationTurn(role="system", content=body.instructions))
    return OnlineQuestion(
        id=new_id("q"),
        messages=turns(given),
        max_new=body.max_output_tokens,
        sampling=sampling_of(body),
        constraint=constraint_of(body.text.format if body.text else None),
    )


async def _all_told(desk: Desk, served: Served, asked: Sequence[OnlineQuestion], request: Request) -> list[Told]:
    """All answers; when one cannot be had, none is waited for any more."""
    tasks = [asyncio.create_task(desk.told(served, one, request)) for one in asked]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


Numbered = tuple[int, AnswerPiece | OnlineReply]
"""An event of a question by its place among those of a request."""


async def _begun(
    desk: Desk, served: Served, asked: Sequence[OnlineQuestion], request: Request
) -> AsyncIterator[Numbered]:
    """The events of all questions as they come, the first there already: what is wrong with it is told before a stream begins."""
    events = _merged([desk.events(served, one, request) for one in asked])
    first = await anext(events)

    async def all_of_them() -> AsyncIterator[Numbered]:
        yield first
        async for said in events:
            yield said

    return all_of_them()


async def _merged(streams: Sequence[AsyncIterator[AnswerPiece | OnlineReply]]) -> AsyncIterator[Numbered]:
    """What comes from several, as it comes; where one fails all end, and the others are waited for no more."""
    inbox = asyncio.Queue[Numbered | None]()

    async def read(place: int, stream: AsyncIterator[AnswerPiece | OnlineReply]) -> None:
        async for said in stream:
            inbox.put_nowait((place, said))

    tasks = [asyncio.create_task(read(place, stream)) for place, stream in enumerate(streams)]
    for task in tasks:
        task.add_done_callback(lambda _: inbox.put_nowait(None))
    try:
        waiting = len(tasks)
        while waiting:
            said = await inbox.get()
            if said is not None:
                yield said
                continue
            waiting -= 1
            for task in tasks:
                if task.done():
                    task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stream(events: AsyncIterator[Numbered], served: Served, kind: _Kind, *, usage: bool) -> AsyncIterator[bytes]:
    """Chunks of all answers, as OpenAI's clients add them up."""
    answer_id, created = new_id(kind.prefix), int(time.time())
    letters: dict[int, int] = {}
    replies: dict[int, OnlineReply] = {}

    def told(choices: Sequence[dict[str, Any]], **more: Any) -> bytes:
        return event(
            {**chunk(answer_id, served, created, choices, kind.object), **({"usage": None} if usage else {}), **more}
        )

    async for place, said in events:
        if place not in letters:
            letters[place] = 0
            if kind.chat:
                yield told([_choice(place, {"delta": opening_of(kind.call)})])
        if isinstance(said, AnswerPiece):
            tokens = None
            if kind.logprobs:
                tokens = logprobs_of(said.tokens) if kind.chat else plain_logprobs_of(said.tokens, letters[place])
                letters[place] += sum(len(token.text) for token in said.tokens)
            piece = {"delta": delta_of(said.text, kind.call)} if kind.chat else {"text": said.text}
            yield told([_choice(place, piece, tokens)])
            continue
        replies[place] = said
        last: dict[str, Any] = {"delta": {"annotations": annotations_of(said)}} if kind.chat else {"text": ""}
        yield told([_choice(place, last, finish=finish_of(said, kind.call))], trimtab=known_of(served, said))
    if usage:
        yield told([], usage=usage_of([replies[place] for place in sorted(replies)], kind.draws))
    yield DONE


def _choice(
    place: int, said: dict[str, Any], tokens: dict[str, Any] | None = None, finish: str | None = None
) -> dict[str, Any]:
    return {"index": place, **said, "logprobs": tokens, "finish_reason": finish}


async def _response_stream(events: AsyncIterator[Numbered], served: Served) -> AsyncIterator[bytes]:
    """The events of `/v1/responses`, numbered."""
    answer_id, number = new_id("resp"), 0
    place = {"output_index": 0, "content_index": 0, "item_id": f"msg-{answer_id}"}

    def told(name: str, **more: Any) -> bytes:
        nonlocal number
        number += 1
        return event({"type": name, "sequence_number": number - 1, **more}, name)

    begun = response_reply(answer_id, served, None, status="in_progress")
    yield told("response.created", response=begun)
    yield told("response.in_progress", response=begun)
    yield told("response.output_item.added", output_index=0, item=message_item(answer_id, None))
    yield told("response.content_part.added", **place, part=text_part(None))
    async for _, said in events:
        if isinstance(said, AnswerPiece):
            yield told("response.output_text.delta", **place, delta=said.text, logprobs=[])
            continue
        yield told("response.output_text.done", **place, text=said.text, logprobs=[])
        yield told("response.content_part.done", **place, part=text_part(said))
        yield told("response.output_item.done", output_index=0, item=message_item(answer_id, said))
        status = _status(said)
        whole = response_reply(answer_id, served, Told(said), status=status)
        yield told(f"response.{status}", response=whole)


def _status(reply: OnlineReply) -> str:
    return "completed" if reply.generation.finished else "incomplete"
