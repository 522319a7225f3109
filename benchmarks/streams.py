"""16 streams from server to client: `trimtab serve` and llama.cpp's own server, the same model and questions, on this
machine.

Run: python benchmarks/streams.py --llama-server PATH  →  benchmarks/results/streams.json, in about four minutes,
alone on the machine. llama.cpp is not installed with the project: its source comes with llama-cpp-python's source
package (`vendor/llama.cpp`). To make the server:

    cmake -B build -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_UI=OFF
    cmake --build build --target llama-server

So many clients ask GSM8K questions over loopback, each the next one once it has its answer; answers are streamed,
greedy, and up to 64 tokens long. New tokens a second as the servers count them, seconds to the first piece of an
answer, the highest memory of each server; A B C C B A, medians. llama.cpp has the model as GGUF in f16, and in bf16
too; one slot for each client, as many threads as there are cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
from serving_load import PATH, Server, serving
from shared import SHARED, machine

from trimtab.base.files import write_json
from trimtab.base.machine import versions
from trimtab.data.prompts import ChatEncoder
from trimtab.exports.gguf import write_gguf
from trimtab.exports.hf import merged_config, merged_weights
from trimtab.model.catalog import resolve
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import load_base

RESULT = Path(__file__).resolve().parent / "results" / "streams.json"
MODEL, INSTRUCTION = "smollm2-135m-q4", "Solve the problem step by step. End with #### and the number."
NEW, SLOT_TOKENS = 64, 1024
GOAL = 1.0


@dataclass(kw_only=True)
class Told:
    """The outcomes of the questions of one run."""

    prompt_tokens: list[int] = field(default_factory=list)
    new_tokens: int = 0
    first: list[float] = field(default_factory=list)  # seconds to the first piece
    answers: list[str] = field(default_factory=list)


def questions(source: Path) -> list[str]:
    """GSM8K's test questions."""
    lines = (source / "gsm8k.test-300.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["question"] for line in lines]


def copy_demo(folder: Path, asked: Sequence[str]) -> Path:
    """A task whose arm `prompt` is the base model with an instruction."""
    rows = "".join(
        json.dumps({"question": text, "answer": str(number % 7)}) + "\n" for number, text in enumerate(asked)
    )
    (folder / "rows.jsonl").write_text(rows, encoding="utf-8")
    file = folder / "trimtab.toml"
    file.write_text(
        f'[task]\nname = "streams"\nkind = "answer"\ninstruction = "{INSTRUCTION}"\noutput_tokens = {NEW}\n'
        f'[data]\nexamples = ["rows.jsonl"]\n[base]\nmodel = "{MODEL}"\nprecision = "bf16"\n[study]\n'
        'arms = ["prompt"]\n',
        encoding="utf-8",
    )
    return file


def save_gguf(folder: Path, kind: str) -> Path:
    """Save the same model for llama.cpp."""
    base = accelerate(load_base(resolve(MODEL), "fp32"))
    encoder, weights = ChatEncoder(base.tokenizer), merged_weights(base)
    path, config = folder / f"{MODEL}-{kind}.gguf", merged_config(base, weights)
    end = encoder.answer("")[-1]
    write_gguf(path, config, weights, base.tokenizer, template=encoder.chat_template, end=end, kind=kind)
    return path


@contextmanager
def llama(program: Path, model: Path, clients: int) -> Iterator[Server]:
    """llama.cpp's server until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = str(psutil.cpu_count(logical=True))
    command = [
        *(str(program), "-m", str(model), "--port", str(port), "--jinja"),
        *("-np", str(clients), "-c", str(clients * SLOT_TOKENS), "-t", threads, "-tb", threads),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = Server(host="127.0.0.1", port=port, key="", process=psutil.Process(process.pid))
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{server.url}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait(60)


async def ask(client: httpx.AsyncClient, server: Server, turns: list[dict[str, str]], told: Told) -> None:
    """One question, its answer piece by piece."""
    body = {"model": "prompt", "messages": turns, "max_tokens": NEW, "temperature": 0, "stream": True}
    body["stream_options"] = {"include_usage": True}
    began, first, text, usage = time.perf_counter(), None, "", None
    async with client.stream("POST", server.url + PATH, json=body) as reply:
        if reply.status_code != 200:
            raise SystemExit(f"{server.url}: {reply.status_code} {(await reply.aread()).decode()}")
        async for line in reply.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            usage = chunk.get("usage") or usage
            piece = (chunk["choices"][0]["delta"].get("content") if chunk["choices"] else None) or ""
            if piece and first is None:
                first = time.perf_counter() - began
            text += piece
    if usage is None:
        raise SystemExit(f"{server.url} tells no usage")
    told.prompt_tokens.append(usage["prompt_tokens"])
    told.new_tokens += usage["completion_tokens"]
    told.first.append(time.perf_counter() - began if first is None else first)
    told.answers.append(text)


async def load(server: Server, asked: Sequence[str], clients: int, *, own: bool) -> tuple[Told, float]:
    """Run `clients` clients, each asking the next question; return the outcomes, and the seconds.

    `own`: the arm adds the instruction itself.
    """
    told, waiting = Told(), list(reversed(asked))
    before = [] if own else [{"role": "system", "content": INSTRUCTION}]
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}

    async def work(client: httpx.AsyncClient) -> None:
        while waiting:
            await ask(client, server, [*before, {"role": "user", "content": waiting.pop()}], told)

    async with httpx.AsyncClient(headers=headers, limits=limits, timeout=600) as client:
        began = time.perf_counter()
        await asyncio.gather(*(work(client) for _ in range(clients)))
        return told, time.perf_counter() - began


def run(server: Server, asked: Sequence[str], clients: int, *, own: bool) -> dict[str, Any]:
    """The figures of one run; a first round of other questions is not counted."""
    asyncio.run(load(server, asked[-clients:], clients, own=own))
    told, seconds = asyncio.run(load(server, asked[:-clients], clients, own=own))
    return {
        "tokens_per_second": round(told.new_tokens / seconds, 2),
        "first_seconds": round(median(told.first), 3),
        "seconds": round(seconds, 2),
        "new_tokens": told.new_tokens,
        "prompt_tokens": sum(told.prompt_tokens),
        "memory_mb": round(server.memory_mb),
        "answers": told.answers[:3],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-server", type=Path, required=True, help="the program")
    parser.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--questions", type=int, default=96)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    asked = questions(given.source)[: given.questions + given.clients]
    with tempfile.TemporaryDirectory() as scratch:
        task = copy_demo(Path(scratch), questions(given.source))
        models = {f"llama.cpp {kind}": save_gguf(Path(scratch), kind) for kind in ("f16", "bf16")}
        runs: list[tuple[str, dict[str, Any]]] = []
        for side in ("trimtab", *models, *reversed(models), "trimtab"):
            with (
                serving(task, "prompt", 128)
                if side == "trimtab"
                else llama(given.llama_server, models[side], given.clients)
            ) as server:
                runs.append((side, run(server, asked, given.clients, own=side == "trimtab")))
            print(*runs[-1], flush=True)
    sides = {
        side: {
            figure: median(one[figure] for name, one in runs if name == side)
            for figure in ("tokens_per_second", "first_seconds", "memory_mb", "prompt_tokens")
        }
        for side in ("trimtab", *models)
    }
    peer = max(models, key=lambda side: sides[side]["tokens_per_second"])
    version = subprocess.run([given.llama_server, "--version"], capture_output=True, text=True, check=False)
    found = {
        "what": f"{given.clients} streams, server to client, {NEW} new tokens at most",
        "sides": sides,
        "peer": peer,
        "goal": GOAL,
        "times_as_fast": round(sides["trimtab"]["tokens_per_second"] / sides[peer]["tokens_per_second"], 2),
        "runs": runs,
        "llama.cpp": (version.stdout + version.stderr).strip().splitlines()[:1],
        "machine": machine(),
        "versions": versions(),
    }
    write_json(given.out, found)
    print({key: found[key] for key in ("sides", "peer", "times_as_fast")})


if __name__ == "__main__":
    main()
