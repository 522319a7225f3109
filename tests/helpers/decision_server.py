"""A real server on loopback that decides: both public APIs, answering by whether a label stands in the text, with
faults on order."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from openai_server import listening

KEY = "sk-decides-0123456789"


@dataclass
class DecisionServer:
    """Where it listens, the faults still to come (one a request), and the bodies it got by path."""

    url: str = ""
    faults: list[str] = field(default_factory=list)
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


def chances(state: Any, labels: list[str]) -> dict[str, float]:
    """Nine tenths for the label that stands last in the text, the rest for all alike."""
    text = state if isinstance(state, str) else state[-1]["content"]
    places = {label: text.lower().rfind(label.lower()) for label in labels}
    best = max(labels, key=places.__getitem__)
    return {label: 0.1 / len(labels) + (0.9 if label == best else 0.0) for label in labels}


def build(server: DecisionServer) -> FastAPI:
    app, lock = FastAPI(), threading.Lock()

    def fault(path: str, body: dict[str, Any], request: Request) -> Response | None:
        with lock:
            server.bodies.append((path, body))
            fault = server.faults.pop(0) if server.faults else ""
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return JSONResponse({"error": "no such key"}, 401)
        if body["model"] != "tiny":
            return JSONResponse({"error": "no such model"}, 404)
        return {
            "busy": JSONResponse({"error": "busy"}, 429, headers={"Retry-After": "0"}),
            "overloaded": JSONResponse({"error": "overloaded"}, 529),
            "garbage": Response('{"answers": ['),
            "too many": JSONResponse({"error": "at most 255 options"}, 422),
        }.get(fault)

    @app.post("/v1/systemone")
    def systemone(body: dict[str, Any], request: Request) -> Response:
        answers = {}
        for name, question in body["questions"].items():
            found = chances(body["state"], list(question["criteria"]))
            answers[name] = {"type": "choice", "choice": max(found, key=found.__getitem__), "confidence": 0.9}
            answers[name]["probabilities"] = found
        usage = {"input_tokens": len(json.dumps(body)), "output_tokens": 1}
        return fault("systemone", body, request) or JSONResponse(
            {"model": "tiny-1.0", "answers": answers, "usage": usage}
        )

    @app.post("/v1/decisions")
    def decisions(body: dict[str, Any], request: Request) -> Response:
        answers = []
        for question in body["questions"]:
            found = chances(body["input"], [choice["value"] for choice in question["choices"]])
            pairs = [{"value": label, "probability": chance} for label, chance in found.items()]
            best = max(found, key=found.__getitem__)
            answers.append({"type": "choice", "name": question["name"], "choice": best, "confidence": 0.9})
            answers[-1]["probabilities"] = pairs
        usage = {"input_tokens": len(json.dumps(body)), "output_tokens": 0, "total_tokens": 0}
        return fault("decisions", body, request) or JSONResponse({"model": "tiny", "answers": answers, "usage": usage})

    return app


@contextmanager
def deciding() -> Iterator[DecisionServer]:
    """The server, listening until the block ends."""
    server = DecisionServer()
    with listening(build(server)) as server.url:
        yield server
