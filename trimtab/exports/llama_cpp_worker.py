"""Program of the subprocess that runs llama.cpp's server for `llama_cpp`.

It runs apart, as its threads and torch's slow each other down and a fault of native code must not end the caller. The
first line has `file`, `tokens` (the context) and `threads`; each later line a `path` of the server and the `body` to
post to it. Every answer is one line of JSON: `status` and `reply`.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import xllamacpp


def main() -> None:
    """Load the file, and answer requests until standard input ends. What prevents loading is the answer to each."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of the library must not count as an answer
    key = secrets.token_hex()  # no other program on this machine can ask
    address = problem = ""
    try:
        server = start(json.loads(sys.stdin.buffer.readline()), key)
        address = urlsplit(server.listening_address).netloc
    except (AttributeError, RuntimeError, ValueError) as error:
        problem = str(error)
    out.write(b"{}\n")
    out.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        answer = post(address, key, request["path"], request["body"]) if address else {"status": 0, "reply": problem}
        out.write(json.dumps(answer).encode() + b"\n")
        out.flush()


def start(settings: Mapping[str, Any], key: str) -> Any:
    """Return the server with llama.cpp's own defaults, which the file's users have; it listens on loopback alone."""
    params = xllamacpp.CommonParams()
    params.model.path = settings["file"]
    params.n_ctx = settings["tokens"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [key]
    params.n_parallel, params.offline, params.verbosity = 1, True, -1
    params.ui = params.endpoint_slots = params.warmup = params.fit_params = False
    return xllamacpp.Server(params)


def post(address: str, key: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status and the reply to a request."""
    connection = HTTPConnection(address)
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        reply = connection.getresponse()
        return {"status": reply.status, "reply": json.loads(reply.read())}
    finally:
        connection.close()


if __name__ == "__main__":
    main()
