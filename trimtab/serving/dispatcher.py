"""Routes requests to the worker threads that own the models, streams their events back, and cancels when a client
disconnects."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from fastapi import Request

from trimtab.arms.online import AnswerPiece, FailedQuestion, OnlineEvent, OnlineQuestion, OnlineReply, TokenLogprob
from trimtab.base.errors import (
    ContextLengthError,
    InputError,
    MissingError,
    PackageError,
    RemoteError,
    is_out_of_memory,
)
from trimtab.serving.metrics import Metrics, RequestLog
from trimtab.serving.middleware import Refused
from trimtab.serving.receipts import GivenAnswer, Receipts
from trimtab.serving.releases import Canary
from trimtab.serving.served_model import SelfCheck, ServedModel
from trimtab.serving.traffic import Recorder, voter_of
from trimtab.serving.worker import ModelWorker

T = TypeVar("T")
LIVENESS_SECONDS = 1.0  # between two checks that the worker thread is alive
CANARY_KEY = "trimtab.canary"  # key of a request's scope: the canary that its user is in, and the user's bucket


class ClientDisconnectedError(Exception):
    """The client has disconnected; nobody waits for the answer."""


@dataclass(slots=True, kw_only=True)
class ActiveCanary:
    """A canary with its candidate, and the answers and failed answers counted by bucket of all users."""

    canary: Canary
    served: ServedModel
    answers: Counter[int] = field(default_factory=Counter)
    failed: Counter[int] = field(default_factory=Counter)


class Dispatcher:
    """The served models by name, and the questions in progress; the first model is the one that the task's name stands
    for.

    At most `most` requests run or wait; with several workers each gets half of them, so an endpoint that hangs does not
    block the others. `traffic` records a sample of the answers, if the task file asks for it.
    """

    def __init__(
        self,
        task: str,
        models: Sequence[ServedModel],
        metrics: Metrics,
        log: RequestLog,
        most: int,
        receipts: Receipts,
        traffic: Recorder | None = None,
    ) -> None:
        self.task, self._metrics, self._log, self._traffic = task, metrics, log, traffic
        self._receipts = receipts
        self.models: dict[str, ServedModel] = {model.id: model for model in models}
        self.canary: ActiveCanary | None = None
        # of each worker, the request of every question in progress
        self._requests_of: dict[ModelWorker, dict[object, Request]] = {model.worker: {} for model in models}
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="preparing")
        self._share = max(1, most // 2 if len(self._requests_of) > 1 else most)

    def find_model(self, name: str) -> ServedModel:
        """Return the model that a request names: TASK:ARM, the arm, the task, or the alias; raises Refused for another
        name."""
        for key in (name, f"{self.task}:{name}"):
            if key in self.models:
                return self.models[key]
        first = next(iter(self.models.values()))
        if name == self.task or (first.release and name in (first.release.alias, f"{self.task}:{first.release.alias}")):
            return first
        known = ", ".join(self.models)
        raise Refused(404, f"no model {name[:80]!r} here; there are: {known}", code="model_not_found")

    async def route(self, name: str, request: Request) -> ServedModel:
        """Return the model that a request names, or the candidate if a canary assigns its user to it.

        An unknown user is answered by production and not counted. Raises as `find_model`.
        """
        model = self.find_model(name)
        if self.canary is None:
            return model
        user, active = voter_of(request, (await request.json()).get("user")), self.canary  # the body was parsed before
        if user is None or active is None:
            return model
        request.scope[CANARY_KEY] = active, active.canary.bucket(user)
        return active.served if active.canary.takes(user) else model

    def record_self_check(self, checks: Mapping[str, SelfCheck | None]) -> None:
        """Store the self-check of each arm, by its name."""
        self.models = {key: replace(model, check=checks.get(model.arm)) for key, model in self.models.items()}

    def replace_model(self, model: ServedModel) -> None:
        """Make one model answer from now on; running requests keep theirs. Call it in the event loop only."""
        self._requests_of.setdefault(model.worker, {})  # a candidate is known already
        self.models, self.canary = {model.id: model}, None

    def start_canary(self, canary: Canary, model: ServedModel) -> None:
        """Make a candidate answer the users that its canary assigns to it. Call it in the event loop only."""
        self._requests_of[model.worker] = {}
        self.canary = ActiveCanary(canary=canary, served=model)

    def end_canary(self) -> None:
        """Make production answer everybody; running requests keep the candidate. Call it in the event loop only."""
        self.canary = None

    def forget_worker(self, worker: ModelWorker) -> bool:
        """Remove a worker that answers no more; return False while a request still uses it."""
        if self._requests_of.get(worker):
            return False
        self._requests_of.pop(worker, None)
        return True

    async def answer(self, model: ServedModel, question: OnlineQuestion, request: Request | None = None) -> OnlineReply:
        """Return the complete answer to a question, with its tokens if requested; raises as `events` does."""
        tokens: list[TokenLogprob] = []
        async for event in self.events(model, question, request):
            if isinstance(event, AnswerPiece):
                tokens += event.tokens
            else:
                return replace(event, tokens=tuple(tokens))
        raise ClientDisconnectedError

    async def events(
        self, model: ServedModel, question: OnlineQuestion, request: Request | None = None
    ) -> AsyncIterator[AnswerPiece | OnlineReply]:
        """Yield the pieces of an answer and then the reply; the question is cancelled however the iteration ends.

        Raises Refused if there is no answer, ClientDisconnectedError if the client of `request` disconnects.
        """
        loop, inbox = asyncio.get_running_loop(), asyncio.Queue[OnlineEvent | None]()

        def on_event(event: OnlineEvent) -> None:
            with suppress(RuntimeError):  # the event loop has ended, and the caller with it
                loop.call_soon_threadsafe(inbox.put_nowait, event)

        question = replace(question, cache_salt=_cache_salt(request))
        free_slot, is_submitted, has_started = self._admit(model, request), False, False
        self._metrics.question_started(model.id)
        try:
            await self._prepare(model, question, request)
            model.worker.ask(model.arm, question, on_event, free_slot)
            is_submitted, began = True, time.monotonic()
            with _watch_disconnect(request, inbox):
                while True:
                    event = await self._next_event(model, inbox)
                    if not has_started:
                        has_started = True
                        self._metrics.first_token(model.id, time.monotonic() - began)
                    if isinstance(event, OnlineReply):
                        await self._record_answer(model, question, event, request, time.monotonic() - began)
                        event = replace(event, receipt=await self.receipt(model, question, event.text, request))
                    yield event
                    if isinstance(event, OnlineReply):
                        return
        except Refused as refused:
            if refused.status >= 500:
                _count(request, failed=True)
            raise
        finally:
            self._metrics.question_ended(model.id, has_started=has_started)
            if is_submitted:
                model.worker.cancel(question.id)
            else:
                free_slot()

    async def _next_event(
        self, model: ServedModel, inbox: asyncio.Queue[OnlineEvent | None]
    ) -> AnswerPiece | OnlineReply:
        """Return the next piece or the reply; raises Refused if the question failed, ClientDisconnectedError if its
        client left."""
        event = await _next(inbox, model.worker)
        if event is None:
            self._metrics.client_left(model.id)
            raise ClientDisconnectedError
        if isinstance(event, FailedQuestion):
            raise self._to_refused(model, event.error)
        return event

    async def receipt(self, model: ServedModel, question: OnlineQuestion, text: str, request: Request | None) -> str:
        """Return the receipt by which whoever asked can judge an answer; empty for raw prompts, as arms are not
        measured on them, and for the server's own questions."""
        if request is None or question.raw is not None:
            return ""
        voter = voter_of(request, (await request.json()).get("user"))  # the body was parsed before
        given = GivenAnswer(id=question.id, arm=model.arm, version=model.recorded_version)
        return self._receipts.write(given, voter, question.messages, text)

    async def _record_answer(
        self, model: ServedModel, question: OnlineQuestion, reply: OnlineReply, request: Request | None, seconds: float
    ) -> None:
        """Record an answer, `seconds` after its question was submitted: metrics, log, and the sample of traffic."""
        self._metrics.question_answered(model.id, reply)
        self._log.answered(model.id, question, reply)
        _count(request, failed=False)
        if self._traffic and request:
            await self._traffic.answered(model, question, reply, request, 1000 * seconds)

    def _admit(self, model: ServedModel, request: Request | None) -> Callable[[], None]:
        """Reserve a place among a worker's questions, and the request's slot; return the function that frees both.

        That function may be called twice, and from any thread. Raises Refused if other requests use the worker's share.
        """
        if request is None:
            return lambda: None
        requests = self._requests_of[model.worker]
        slot = request.scope.get("trimtab.slot")  # None if the middleware does not limit this route
        if len({id(other) for other in list(requests.values()) if other is not request}) >= self._share:
            busy = f"{self._share} requests to {model.id} wait or run already"
            raise Refused(429, busy, kind="rate_limit_error", code="busy", wait=1.0)
        token = object()
        requests[token] = request
        if slot:
            slot.hold()

        def free_slot() -> None:
            if requests.pop(token, None) is not None and slot:
                slot.release()

        return free_slot

    async def _prepare(self, model: ServedModel, question: OnlineQuestion, request: Request | None) -> None:
        """Compile the constraint of an answer; one is compiled at a time, the others queue.

        A client that disconnects leaves the queue.
        """
        online_arm = model.worker.arms[model.arm]
        if online_arm.is_prepared(question):
            return
        loop = asyncio.get_running_loop()
        preparing = loop.run_in_executor(self._preparing, online_arm.prepare, question)
        try:
            await unless_disconnected(request, preparing)
        except ClientDisconnectedError:
            self._metrics.client_left(model.id)
            raise
        except Exception as error:  # noqa: BLE001  (an error in a constraint ends this question only)
            raise self._to_refused(model, error) from None

    def _to_refused(self, model: ServedModel, error: Exception) -> Refused:
        """Convert an error to an HTTP error; what the question did not cause is logged."""
        refused = refusal(error)
        if refused.status == 500:
            self._log.internal_error(model.id, error)
        return refused


def _count(request: Request | None, *, failed: bool) -> None:
    """Count an answer of a user who takes part in a canary."""
    assigned: tuple[ActiveCanary, int] | None = request.scope.get(CANARY_KEY) if request else None
    if assigned:
        active, bucket = assigned
        active.answers[bucket] += 1
        active.failed[bucket] += failed


def _cache_salt(request: Request | None) -> str:
    """Return the hash of the request's key, which separates prefix caches by client; empty for the server's own
    questions."""
    key = request.scope.get("trimtab.key") if request else None
    return key.sha256 if key else ""


async def unless_disconnected(request: Request | None, work: Awaitable[T]) -> T:
    """Return the result of `work`; raises ClientDisconnectedError if the client of `request` disconnects first.

    Work that has not started then never does.
    """
    working = asyncio.ensure_future(work)
    awaited: set[asyncio.Future[Any]] = {working}
    if request is not None:
        awaited.add(asyncio.create_task(_wait_for_disconnect(request)))
    try:
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnectedError
        return working.result()
    finally:
        for future in awaited:
            future.cancel()


@contextmanager
def _watch_disconnect(request: Request | None, inbox: asyncio.Queue[OnlineEvent | None]) -> Iterator[None]:
    """Context manager: puts None into `inbox` once the client of `request` has disconnected."""
    if request is None:
        yield
        return

    async def watch() -> None:
        await _wait_for_disconnect(request)
        inbox.put_nowait(None)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    """Return once the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _next(inbox: asyncio.Queue[OnlineEvent | None], worker: ModelWorker) -> OnlineEvent | None:
    """Return the next event; raises Refused if the worker has crashed."""
    while True:
        try:
            async with asyncio.timeout(LIVENESS_SECONDS):
                return await inbox.get()
        except TimeoutError:
            if not worker.is_alive:
                raise Refused(500, "the model thread has crashed; see the log", kind="server_error") from None


def refusal(error: Exception) -> Refused:
    """Convert an error to the HTTP error that tells why there is no answer."""
    if isinstance(error, ContextLengthError):
        return Refused(400, f"{error.problem}; {error.remedy}", code="context_length_exceeded")
    if isinstance(error, InputError):
        return Refused(400, f"{error.problem}; {error.remedy}", code="invalid")
    if isinstance(error, PackageError):
        return Refused(501, str(error), kind="server_error", code="not_installed")
    if isinstance(error, MissingError):
        return Refused(503, str(error), kind="server_error", code="missing")
    if isinstance(error, RemoteError):
        return Refused(502, str(error), kind="server_error", code="endpoint")
    if is_out_of_memory(error):
        return Refused(503, "no memory left for this question", kind="server_error", code="memory", wait=5.0)
    problem = f"the question could not be answered ({type(error).__name__}); the server's log says where"
    return Refused(500, problem, kind="server_error")


def new_id(prefix: str) -> str:
    """Return a random id that nobody can guess."""
    return f"{prefix}-{uuid.uuid4().hex}"
