"""Prometheus metrics of the server, and its log of one JSON line for each request."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from traceback import extract_tb
from typing import Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from trimtab.arms.online import OnlineQuestion, OnlineReply
from trimtab.serving.middleware import App, Receive, RequestLimiter, Scope, Send, StatusRecorder

CLIENT_CLOSED = 499  # status that is recorded if the client disconnects before a reply (as nginx does)
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
__all__ = ["CLIENT_CLOSED", "CONTENT_TYPE_LATEST", "Metrics", "MetricsMiddleware", "RequestLog"]


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self, limiter: RequestLimiter) -> None:
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self._registry}
        self.requests = Counter("trimtab_requests", "Requests answered.", ["route", "status"], **own)
        self.seconds = Histogram("trimtab_request_seconds", "Time of a request.", ["route"], buckets=SECONDS, **own)
        self._first = Histogram(
            "trimtab_first_token_seconds", "Time to the first piece.", ["model"], buckets=SECONDS, **own
        )
        self._read = Counter("trimtab_prompt_tokens", "Tokens of prompts that were answered.", ["model"], **own)
        self._cached = Counter(
            "trimtab_cached_prompt_tokens",
            "Of these, tokens of beginnings that had been read before.",
            ["model"],
            **own,
        )
        self._written = Counter("trimtab_new_tokens", "Tokens of answers.", ["model"], **own)
        self._abstained = Counter("trimtab_abstained", "Answers that abstain.", ["model"], **own)
        self._left = Counter("trimtab_clients_left", "Questions whose client did not wait.", ["model"], **own)
        self._waiting = Gauge("trimtab_waiting", "Questions that wait for their first piece.", ["model"], **own)
        self._running = Gauge("trimtab_running", "Questions whose answer is being written.", ["model"], **own)
        self.traffic_written = Counter(
            "trimtab_traffic_written", "Answers of the sample of traffic that were kept.", **own
        )
        self.traffic_dropped = Counter(
            "trimtab_traffic_dropped", "Answers of the sample of traffic that were not kept.", ["reason"], **own
        )
        Gauge("trimtab_inside", "Requests that wait or run.", **own).set_function(lambda: limiter.inside)
        Gauge("trimtab_refused", "Requests refused for want of room.", **own).set_function(lambda: limiter.refused)

    def page(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def question_started(self, model: str) -> None:
        """Count a question that begins to wait."""
        self._waiting.labels(model).inc()

    def first_token(self, model: str, seconds: float) -> None:
        """Record the time to the first piece of an answer."""
        self._first.labels(model).observe(seconds)
        self._waiting.labels(model).dec()
        self._running.labels(model).inc()

    def question_ended(self, model: str, *, has_started: bool) -> None:
        """Count a question that has ended, however it ended."""
        (self._running if has_started else self._waiting).labels(model).dec()

    def question_answered(self, model: str, reply: OnlineReply) -> None:
        """Count the tokens of a complete answer."""
        self._read.labels(model).inc(reply.generation.prompt_tokens)
        self._cached.labels(model).inc(reply.generation.cached_tokens)
        self._written.labels(model).inc(reply.generation.new_tokens)
        if reply.abstained:
            self._abstained.labels(model).inc()

    def client_left(self, model: str) -> None:
        """Count a client that disconnected before its answer."""
        self._left.labels(model).inc()


class RequestLog:
    """A log of JSON lines; questions and answers appear only with `with_texts`."""

    def __init__(self, stream: TextIO | None = None, *, with_texts: bool = False) -> None:
        self._stream, self._with_texts = stream or sys.stderr, with_texts

    def line(self, what: str, **more: Any) -> None:
        """Write one line."""
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._stream.write(json.dumps({"time": when, "what": what, **more}) + "\n")
        self._stream.flush()

    def answered(self, model: str, question: OnlineQuestion, reply: OnlineReply) -> None:
        """Log the question and the answer, if texts are logged."""
        if self._with_texts:
            messages = [[turn.role, turn.content] for turn in question.messages]
            raw = {} if question.raw is None else {"prompt": question.raw}
            self.line("answer", model=model, messages=messages, **raw, answer=reply.text)

    def internal_error(self, model: str, error: Exception) -> None:
        """Log where a question failed; the error's message, which may quote the question, only with texts."""
        where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in extract_tb(error.__traceback__)]
        words = {"words": str(error)} if self._with_texts else {}
        self.line("fault", model=model, error=type(error).__name__, where=where, **words)


class MetricsMiddleware:
    """Counts and logs every request, including refused ones."""

    def __init__(self, app: App, metrics: Metrics, log: RequestLog, routes: Callable[[str], str]) -> None:
        self._app, self._metrics, self._log, self._routes = app, metrics, log, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to `app`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, recorder = time.perf_counter(), StatusRecorder(send)
        try:
            await self._app(scope, receive, recorder)
        finally:
            status = recorder.status or CLIENT_CLOSED
            seconds, route = time.perf_counter() - began, self._routes(scope["path"])
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            key = scope.get("trimtab.key")
            self._log.line(
                "request",
                route=route,
                method=scope["method"],
                status=status,
                ms=round(1000 * seconds, 1),
                key=key.name if key else None,
            )
