"""The ASGI application: all routes behind the middleware, with health checks, metrics and the page's files."""

from __future__ import annotations

import base64
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from trimtab.base.errors import TrimtabError
from trimtab.base.plugins import plugins
from trimtab.serving.access import AllowedHosts, ApiKeys, cookie_name
from trimtab.serving.chat import chat_routes
from trimtab.serving.decisions import decision_routes
from trimtab.serving.dispatcher import ClientDisconnectedError, Dispatcher, refusal, unless_disconnected
from trimtab.serving.feedback import FeedbackStore
from trimtab.serving.metrics import CLIENT_CLOSED, CONTENT_TYPE_LATEST, Metrics, MetricsMiddleware, RequestLog
from trimtab.serving.middleware import AccessMiddleware, App, Refused, RequestLimiter
from trimtab.serving.receipts import Receipts
from trimtab.serving.schema import EmbeddingsRequest
from trimtab.serving.served_model import ServedModel
from trimtab.serving.traffic import Recorder

PAGE_FOLDER = Path(__file__).parent / "page"
PAGE_FILES = {
    "playground.js": "text/javascript",
    "asking.js": "text/javascript",
    "drawing.js": "text/javascript",
    "door.js": "text/javascript",
    "playground.css": "text/css",
    "mark.svg": "image/svg+xml",
}
LIMITED_PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/raw/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/systemone",
    "/v1/decisions",
)
# If OpenTelemetry is configured, FastAPI would report URLs with their start tokens, and errors with their texts.
NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
Embed = Callable[[Sequence[str]], Awaitable[tuple[list[list[float]], int]]]


@dataclass(frozen=True, kw_only=True)
class AppParts:
    """The components that a server is made of; `traffic` records a sample of its answers, None for none."""

    dispatcher: Dispatcher
    limiter: RequestLimiter
    hosts: AllowedHosts
    keys: ApiKeys
    metrics: Metrics
    log: RequestLog
    embedding: str
    embed: Embed
    store: FeedbackStore
    receipts: Receipts
    traffic: Recorder | None = None


def build(parts: AppParts) -> App:
    """Return the whole server as one ASGI application."""
    app = routes(parts)
    known = {*app.openapi()["paths"], "/", "/session"}
    guarded = AccessMiddleware(app, hosts=parts.hosts, keys=parts.keys, limiter=parts.limiter, limited=LIMITED_PATHS)
    return MetricsMiddleware(guarded, parts.metrics, parts.log, lambda path: path if path in known else "other")


def routes(parts: AppParts) -> FastAPI:
    """Return every route with its OpenAPI description, without the middleware."""
    app = FastAPI(title="Trimtab", version=version("trimtab"), docs_url=None, redoc_url=None, telemetry=NO_TELEMETRY)
    app.include_router(chat_routes(parts.dispatcher))
    app.include_router(decision_routes(parts.dispatcher))
    for plugin_routes in plugins("routes").values():  # `/feedback` is one
        app.include_router(plugin_routes(parts))
    _models(app, parts)
    _embeddings(app, parts)
    _health(app, parts)
    _page(app, parts)
    _errors(app)
    return app


def _models(app: FastAPI, parts: AppParts) -> None:
    embedding = {"id": parts.embedding, "object": "model", "created": 0, "owned_by": "trimtab"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the arms that are served. The first is the one that the task's name stands for."""
        entries = [model_entry(served) for served in parts.dispatcher.models.values()]
        return {"object": "list", "data": [*entries, embedding]}

    @app.get("/v1/models/{name:path}")  # an embedding model's name may hold slashes
    async def model(name: str) -> dict[str, Any]:
        """Describe one model; without a name, list them."""
        if not name:
            return await models()
        return embedding if name == parts.embedding else model_entry(parts.dispatcher.find_model(name))


def model_entry(served: ServedModel) -> dict[str, Any]:
    """Return a model as `/v1/models` lists it, with its measured figures under `trimtab`."""
    result = served.result
    appearance = {"family": served.family, "shape": served.shape}
    fields: dict[str, Any] = {"arm": served.arm, "version": served.version, "kind": served.kind, **appearance}
    measured: dict[str, Any] = {}
    if result is not None and result.score is not None:
        score = result.score
        measured = {
            "score": {"value": score.value, "low": score.low, "high": score.high, "n": score.n},
            "latency_p50_ms": result.latency_p50_ms,
            "latency_p95_ms": result.latency_p95_ms,
            "calibration_error": result.extras.get("ece"),
        }
        if result.cost is not None and served.questions:  # without questions there is no cost per question
            per_question = result.cost.total / served.questions
            measured["cost"] = {"per_question": per_question, "currency": result.cost.currency}
    if served.check is not None:
        measured["self_check"] = asdict(served.check)
    if served.release is not None:
        fields["release"] = {"alias": served.release.alias, "version": served.release.version}
    if served.labels:
        fields["labels"] = served.labels
    return {
        "id": served.id,
        "object": "model",
        "created": served.created,
        "owned_by": "trimtab",
        "trimtab": {**fields, "measured": measured},
    }


def _embeddings(app: FastAPI, parts: AppParts) -> None:
    @app.post("/v1/embeddings")
    async def embeddings(body: EmbeddingsRequest, request: Request) -> dict[str, Any]:
        """Embed texts with the task's embedding model. A client that disconnects while it waits is skipped."""
        if body.model != parts.embedding:
            raise Refused(
                404, f"no embedding model {body.model[:80]!r}; it is {parts.embedding}", code="model_not_found"
            )
        texts = [body.input] if isinstance(body.input, str) else body.input
        vectors, tokens = await unless_disconnected(request, parts.embed(texts))
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _to_base64(vector) if body.encoding_format == "base64" else vector,
            }
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": parts.embedding, "usage": usage}


def _to_base64(vector: Sequence[float]) -> str:
    """Return a vector as base64 of little-endian float32, which is what OpenAI's clients request by default."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _has_crashed(parts: AppParts) -> bool:
    """True once the thread of a served model has ended, so that its questions cannot be answered."""
    return any(not model.worker.is_alive for model in parts.dispatcher.models.values())


def _health(app: FastAPI, parts: AppParts) -> None:
    @app.get("/health/live")
    async def live() -> Response:
        """Report whether the server can go on at all; 500 once a worker thread has crashed."""
        crashed = _has_crashed(parts)
        return JSONResponse({"status": "crashed" if crashed else "alive"}, 500 if crashed else 200)

    @app.get("/health")
    @app.get("/health/ready")
    async def ready() -> Response:
        """Report whether the server accepts questions, and the smallest share of an arm's stored answers that it
        reproduces."""
        status = "crashed" if _has_crashed(parts) else parts.limiter.status
        checks = [model.check for model in parts.dispatcher.models.values() if model.check]
        least = min((check.equal / check.questions for check in checks), default=None)
        return JSONResponse({"status": status, "equal_answers": least}, 200 if status == "ready" else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(parts.metrics.page(), media_type=CONTENT_TYPE_LATEST)


def _page(app: FastAPI, parts: AppParts) -> None:
    @app.get("/", include_in_schema=False)
    async def playground(request: Request) -> Response:
        """Serve the playground to clients with a key; a key in the address is moved into a cookie.

        A key that a page of another site put into the address is ignored: its visitors would ask and judge under a
        foreign key.
        """
        token = request.query_params.get("token", "")
        if token and parts.hosts.is_sent_by_another_site(request.headers):
            return RedirectResponse("/", 303)
        if token:
            return _set_session_cookie(parts, token, RedirectResponse("/", 303), request)
        known = request.scope["trimtab.key"] is not None
        return FileResponse(PAGE_FOLDER / ("playground.html" if known else "door.html"), 200 if known else 401)

    @app.post("/session", include_in_schema=False)
    async def session(body: dict[str, Any], request: Request) -> Response:
        """Set the session cookie for a key that the page sends."""
        return _set_session_cookie(parts, str(body.get("key", "")), JSONResponse({"status": "ok"}), request)

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str) -> Response:
        """Serve one of the page's own files."""
        if name not in PAGE_FILES:
            raise Refused(404, "no such file", code="not_found")
        return FileResponse(PAGE_FOLDER / name, media_type=PAGE_FILES[name])


def _set_session_cookie(parts: AppParts, sent: str, response: Response, request: Request) -> Response:
    if parts.keys.find(sent) is None:
        raise Refused(401, "this key is not known here", kind="authentication_error", code="invalid_api_key")
    secure = request.url.scheme == "https"
    response.set_cookie(cookie_name(request.scope), sent, httponly=True, samesite="strict", path="/", secure=secure)
    return response


def _error_path(parts: Sequence[str | int], body: Any, *, lacks: bool) -> Iterator[str]:
    """Yield the keys that lead to an error in a body, without pydantic's names of union members.

    With `lacks` the last key is missing in the body.
    """
    for number, part in enumerate(parts, 1):
        is_key = isinstance(body, dict) and part in body
        if is_key or (isinstance(body, list) and isinstance(part, int) and part < len(body)):
            body = body[part]
            yield str(part)
        elif lacks and number == len(parts):
            yield str(part)


def _errors(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(TrimtabError)
    async def trimtab_error(_: Request, error: TrimtabError) -> Response:
        return await refused(_, refusal(error))

    @app.exception_handler(Exception)
    async def internal_error(_: Request, error: Exception) -> Response:  # the log has its traceback
        return await refused(_, refusal(error))

    @app.exception_handler(ClientDisconnectedError)
    async def client_left(_: Request, __: ClientDisconnectedError) -> Response:
        return Response(status_code=CLIENT_CLOSED)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = max(error.errors(), key=lambda one: len(one["loc"]))  # of a union, the error that is nested deepest
        path = ".".join(_error_path(first["loc"][1:], error.body, lacks=first["type"] == "missing"))
        message = first["msg"].removeprefix("Value error, ")
        body = Refused(400, f"{path}: {message}" if path else message).body
        body["error"]["param"] = path or None
        return JSONResponse(body, 400)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        return JSONResponse(
            Refused(error.status_code, str(error.detail), code="http").body, error.status_code, error.headers
        )
