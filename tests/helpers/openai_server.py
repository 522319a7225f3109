"""A real OpenAI-compatible server on loopback, answering with a tiny model through our engine, with faults on order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from answering_models import EOS, pair
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from trimtab.inference.engine import Completion, Engine
from trimtab.inference.engine import Request as EngineRequest

KEY = "sk-~Qh7v~Xw2K~z9Rj~4Np8~"  # no six letters of it stand in any path: tests look for parts of it in every file


@dataclass
class Server:
    """Where it listens, the faults still to come (one a request), and the requests it got."""

    url: str = ""
    says: str = ""  # in place of what the model would
    script: list[str] = field(default_factory=list)  # what it says next, before `says`
    faults: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


def encode(messages: list[dict[str, str]]) -> tuple[int, ...]:
    return tuple(1 + ord(letter) % (EOS - 1) for message in messages for letter in message["content"])


def decode(ids: tuple[int, ...]) -> str:
    return "".join(chr(97 + token % 26) for token in ids)


def completion(messages: list[dict[str, str]], max_new: int) -> Completion:
    engine = Engine(pair("llama")[0], frozenset({EOS}))
    return engine.generate([EngineRequest(id="a", ids=encode(messages), max_new=max_new)])[0]


def build(server: Server) -> FastAPI:
    app, lock = FastAPI(), threading.Lock()

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any], request: Request) -> Response:
        with lock:
            server.bodies.append(body)
            server.times.append(time.monotonic())
            fault = server.faults.pop(0) if server.faults else ""
            says = server.script.pop(0) if server.script and not fault else server.says
        if fault == "slow":
            time.sleep(1.5)
        with lock:
            if request.headers.get("Authorization") != f"Bearer {KEY}":
                return JSONResponse({"error": "no such key: " + request.headers.get("Authorization", "")}, 401)
            if body["model"] != "tiny":
                return JSONResponse({"error": "no such model"}, 404)
            if fault.startswith("busy"):
                return JSONResponse({"error": "busy"}, 429, headers={"Retry-After": fault.removeprefix("busy ")})
            if fault == "broken":
                return JSONResponse({"error": "broken"}, 500)
            if fault == "garbage":
                return PlainTextResponse('{"choices": [')
            if fault == "other":
                return JSONResponse({"choices": []})
            if says:
                asked, said = len(encode(body["messages"])), says
                usage = {"prompt_tokens": asked, "completion_tokens": len(said.split())}
                message = {"role": "assistant", "content": said}
                return JSONResponse(
                    {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
                )
            answer = completion(body["messages"], body["max_tokens"])
        usage = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": len(answer.ids)}
        message = {"role": "assistant", "content": decode(answer.ids)}
        reason = "stop" if answer.finished else "length"
        return JSONResponse({"choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": usage})

    return app


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The app on a free port until the block ends; its url, `/v1` included."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws="none")
    process = uvicorn.Server(config)
    thread = threading.Thread(target=process.run, daemon=True)
    thread.start()
    try:
        while not process.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{process.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        process.should_exit = True
        thread.join()


@contextmanager
def serving() -> Iterator[Server]:
    """The server, listening until the block ends."""
    server = Server()
    with listening(build(server)) as server.url:
        yield server
