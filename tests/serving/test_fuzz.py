"""Random and mutated bodies to every route, and what the description allows: a 500 is always a defect."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import random
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from serving_calls import VALID, calling, routes
from serving_tasks import Here

TRIES = int(os.environ.get("TRIMTAB_FUZZ", "1500"))  # of each server; 100000 in a few minutes
MEANT = {200, 400, 401, 404, 413, 415, 429}
WORDS = ("prompt", "rag", "linear", "tiny", "Bonn?", "", " ", "user", "system", "assistant", "choice", "text",
         "a\x00b", "\u202e", "😀", "a" * 3_000,
         "<|im_end|>", "../..", "float", "base64", "json_object")  # fmt: skip
NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    8,
    9,
    256,
    257,
    2**31,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**300,
    0.5,
    1e-300,
    1e308,
    -0.0,
    2.0001,
)
FIELDS = ("model", "messages", "prompt", "input", "state", "questions", "stop", "n", "seed", "temperature", "top_p",
          "top_k", "max_tokens", "stream",
          "logprobs", "echo", "stream_options", "instructions", "max_output_tokens", "encoding_format", "dimensions",
          "choices", "criteria", "value",
          "name", "type", "role", "content", "text", "tools", "logit_bias", "response_format", "key",
          "include_usage")  # fmt: skip


def value(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.randrange(9 if depth < 4 else 5)
    if kind == 0:
        return draw.choice((None, True, False))
    if kind in (1, 2):
        return draw.choice(WORDS)
    if kind in (3, 4):
        return draw.choice(NUMBERS)
    if kind < 7:
        return [value(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {draw.choice((*FIELDS, *WORDS)): value(draw, depth + 1) for _ in range(draw.randrange(5))}


def mutated(draw: random.Random, given: Any, depth: int = 0) -> Any:
    """One place of a body changed: replaced, taken out, doubled, or put beside."""
    if isinstance(given, dict) and given and draw.random() < 0.85:
        name = draw.choice(list(given))
        if draw.random() < 0.1:
            return {key: one for key, one in given.items() if key != name}
        if draw.random() < 0.2:
            return {**given, draw.choice(FIELDS): value(draw)}
        return {**given, name: mutated(draw, given[name], depth + 1)}
    if isinstance(given, list) and given and draw.random() < 0.7:
        place = draw.randrange(len(given))
        if draw.random() < 0.3:
            return given * draw.choice((0, 2, 40))
        return [*given[:place], mutated(draw, given[place], depth + 1), *given[place + 1 :]]
    return value(draw)


def body(draw: random.Random, path: str, embedding: str) -> bytes:
    found: Any = copy.deepcopy(VALID.get(path, {"key": "a"}))
    if path == "/v1/embeddings":
        found["model"] = embedding
    if draw.random() < 0.15:
        found = value(draw)
    for _ in range(draw.choice((1, 1, 2, 4))):
        found = mutated(draw, found)
    if isinstance(found, dict):  # answers are short here: time is spent on what is odd
        for name in ("max_tokens", "max_output_tokens"):
            if name in VALID.get(path, {}) and draw.random() < 0.9:
                found[name] = 1
    said = json.dumps(found).encode()
    if draw.random() < 0.1:  # and bytes
        place = draw.randrange(len(said) + 1)
        said = said[:place] + draw.randbytes(draw.randrange(3)) + said[place + draw.randrange(3) :]
    return said


@pytest.mark.parametrize("server", ["writing", "deciding"])
def test_no_body_makes_a_server_fail(server: str, request: pytest.FixtureRequest) -> None:
    here: Here = request.getfixturevalue(server)
    paths = [path for method, path in routes(here) if method == "POST"]
    draw = random.Random(20261126)
    seen: set[int] = set()

    async def work(client: httpx.AsyncClient) -> None:
        async def one(path: str, sent: bytes) -> None:
            headers = {**here.headers, "Content-Type": "application/json"}
            reply = await client.post(path, content=sent, headers=headers)
            assert reply.status_code in MEANT, (reply.status_code, path, sent[:2_000])
            assert b"event: error" not in reply.content, (path, sent[:2_000])
            seen.add(reply.status_code)

        for _ in range(TRIES // 10):
            several = [draw.choice(paths) for _ in range(10)]
            await asyncio.gather(*(one(path, body(draw, path, here.parts.embedding)) for path in several))

    calling(here, work)
    assert {200, 400, 404} <= seen  # neither all refused nor all fine
    assert here.parts.limiter.inside == 0
    with here.client() as client:
        assert client.get("/health/ready").status_code == 200


def test_what_the_description_allows_is_never_a_fault(writing: Here) -> None:
    with writing.client() as client:
        described = client.get("/openapi.json").json()
        schema = schemathesis.openapi.from_dict(described)
        for operation in (one.ok() for one in schema.get_all_operations()):

            @settings(
                max_examples=12,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy())
            def never_a_fault(case: Any) -> None:
                if isinstance(case.body, dict):
                    case.body["max_tokens"] = case.body["max_output_tokens"] = 1
                reply = case.call(base_url=writing.url, headers=writing.headers)
                assert reply.status_code in {*MEANT, 405, 421}, (reply.status_code, case.path, case.body)

            never_a_fault()
