"""A server under more load than it can carry: goodput, latency, the time of a refusal, memory.

Run: python benchmarks/serving_load.py --task FILE --arm NAME  →  benchmarks/results/serving_load.json, in about
eight minutes. `trimtab serve` runs in a process of its own on loopback; this process sends it the task's test
questions. First as many at a time as keep it busy, each client waiting for its answer (closed loop): what it can do.
Then questions come at random moments, whether or not earlier ones are answered (open loop), at five times that rate,
at that rate and at five times it again; then as at first. An answer counts where it comes within the deadline; a
client leaves then. Goodput is counted once a stretch has gone on for as long as that: by then whoever cannot be
served in time has left. The deadline is what clients are thought to wait; the server takes in what it expects to
answer in two thirds of it. `--soak MINUTES` adds a stretch at 1x in which memory is looked at every five seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from trimtab.arms.workspace import open_for_answering
from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine
from trimtab.base.task import load_task
from trimtab.serving.middleware import PATIENCE_SECONDS

RESULT = Path(__file__).resolve().parent / "results" / "serving_load.json"
DEADLINE = 1.5 * PATIENCE_SECONDS
MOST_SENT = 20_000  # questions in one stretch, whatever the rate
PATH = "/v1/chat/completions"


@dataclass(kw_only=True)
class Told:
    """The outcomes of the questions of some stretches of a kind: seconds of answers and of refusals, and the clients
    that left or saw an error.

    `counted`: from when to when goodput is counted.
    """

    counted: list[tuple[float, float]] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    given: list[float] = field(default_factory=list)  # when
    refusals: list[float] = field(default_factory=list)
    left: int = 0
    errors: int = 0


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server: its address, its key and its process."""

    host: str
    port: int
    key: str
    process: psutil.Process

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def memory_mb(self) -> float:
        return float(self.process.memory_info().rss) / 2**20


@contextmanager
def serving(task: Path, arm: str, most: int) -> Iterator[Server]:
    """`trimtab serve` until the block ends."""
    command = [sys.executable, "-m", "trimtab", "serve", arm, "--task", str(task), "--port", "0", "--most", str(most)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    up = threading.Event()

    def read() -> None:
        assert process.stderr
        for line in process.stderr:
            if not up.is_set():
                lines.append(line)
                if line.startswith("API:"):
                    up.set()
        up.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        up.wait(600)
        found = re.search(r"API: +http://(\S+):(\d+)/v1 +key: (\S+)", "".join(lines))
        if found is None:
            raise SystemExit("".join(lines))
        yield Server(host=found[1], port=int(found[2]), key=found[3], process=psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(60)


class Load:
    """Questions to a server, each counted by what became of it."""

    def __init__(self, server: Server, arm: str, questions: Sequence[str], deadline: float) -> None:
        self._server, self._arm, self._questions, self._deadline = server, arm, questions, deadline
        self._sent = 0
        head = f"POST {PATH} HTTP/1.1\r\nHost: {server.host}:{server.port}\r\nAuthorization: Bearer {server.key}\r\n"
        self._head = (
            head + "Content-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        ).encode()

    async def one(self, told: Told) -> None:
        """Ask the next question over a connection of its own, with as little work as that takes: the server has the
        same cores."""
        text = self._questions[self._sent % len(self._questions)]
        self._sent += 1
        body = json.dumps({"model": self._arm, "messages": [{"role": "user", "content": text}]}).encode()
        began, status = time.perf_counter(), b""
        try:
            async with asyncio.timeout(self._deadline):
                reader, writer = await asyncio.open_connection(self._server.host, self._server.port)
                try:
                    writer.write(self._head % len(body) + body)
                    status = (await reader.readline())[9:12]
                    await reader.read()
                finally:
                    writer.close()
        except TimeoutError:
            told.left += 1
            return
        except OSError:
            told.errors += 1
            return
        seconds = time.perf_counter() - began
        if status == b"200":
            told.answers.append(seconds)
            told.given.append(began + seconds)
        elif status == b"429":
            told.refusals.append(seconds)
        else:
            told.errors += 1

    async def closed(self, told: Told, workers: int, lead: float, seconds: float) -> None:
        """Run `workers` clients, each asking again once it is answered."""
        end = self._counts(told, lead, seconds)

        async def work() -> None:
            while time.perf_counter() < end:
                await self.one(told)

        await asyncio.gather(*(work() for _ in range(workers)))

    async def open(self, told: Told, rate: float, lead: float, seconds: float, seed: int) -> None:
        """Questions at random moments, so many a second in the mean."""
        end, draw, tasks = self._counts(told, lead, seconds), random.Random(seed), set()
        due, self._sent = time.perf_counter(), 0
        while (due := due + draw.expovariate(rate)) < end and self._sent < MOST_SENT:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.create_task(self.one(told))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    def _counts(self, told: Told, lead: float, seconds: float) -> float:
        """Begin to count after `lead` seconds; when that ends."""
        begin = time.perf_counter() + lead
        told.counted.append((begin, begin + seconds))
        return begin + seconds

    def summed(self, told: Told) -> dict[str, Any]:
        """The figures of its stretches: goodput, the seconds of answers and the milliseconds of refusals at their
        percentiles."""
        seconds = sum(end - begin for begin, end in told.counted)
        by_stretch = [sum(begin <= given < end for given in told.given) / (end - begin) for begin, end in told.counted]

        def at(values: Sequence[float], scale: float) -> dict[str, float] | None:
            points = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
            return (
                {name: round(scale * float(np.percentile(values, q)), 3) for name, q in points.items()}
                if values
                else None
            )

        return {
            "goodput_per_second": round(statistics.fmean(by_stretch), 3),
            "by_stretch": [round(value, 3) for value in by_stretch],
            "answered": len(told.answers),
            "refused": len(told.refusals),
            "left": told.left,
            "errors": told.errors,
            "seconds": round(seconds, 1),
            "answer_seconds": at(told.answers, 1),
            "refusal_ms": at(told.refusals, 1000),
            "memory_mb": round(self._server.memory_mb, 1),
        }

    async def soak(self, rate: float, minutes: float) -> dict[str, Any]:
        """Load at `rate` with memory looked at every five seconds; `growth_mb` compares the middle of the last fifth
        with that of the second."""
        seen: list[float] = []

        async def look() -> None:
            while True:
                seen.append(round(self._server.memory_mb, 1))
                await asyncio.sleep(5)

        looking = asyncio.create_task(look())
        parts = []
        for seed in range(10):
            told = Told()
            await self.open(told, rate, 0.0, 60 * minutes / 10, seed)
            parts.append(self.summed(told))
        looking.cancel()
        fifth = max(1, len(seen) // 5)
        growth = float(np.median(seen[-fifth:]) - np.median(seen[fifth : 2 * fifth] or seen))
        return {"parts": parts, "memory_mb": seen, "growth_mb": round(growth, 1)}


async def measured(server: Server, given: argparse.Namespace, questions: Sequence[str]) -> dict[str, Any]:
    """Stretches of each kind: kept busy, five times that, once, five times, kept busy; so that a machine which
    changes does so for both."""
    load = Load(server, given.arm, questions, given.deadline)
    lead, seconds = given.deadline, given.seconds
    await load.closed(Told(), given.workers, 0.0, min(5.0, seconds))  # the first, cold ones are not counted
    found: dict[str, Any] = {"memory_mb_before": round(server.memory_mb, 1), "lead_seconds": lead}
    found["deadline_seconds"] = given.deadline
    closed, opened = Told(), {1: Told(), 5: Told()}
    await load.closed(closed, given.workers, lead, seconds)
    rate = load.summed(closed)["goodput_per_second"]
    for seed, times in enumerate((5, 1, 5)):
        await load.open(opened[times], times * rate, lead, seconds, seed)
    await load.closed(closed, given.workers, lead, seconds)
    found["closed"] = load.summed(closed)
    for times, told in opened.items():
        found[f"open_{times}x"] = load.summed(told) | {"asked_per_second": round(times * rate, 3)}
    peak = max(found["closed"]["goodput_per_second"], found["open_1x"]["goodput_per_second"])
    found["share_of_peak_at_5x"] = round(found["open_5x"]["goodput_per_second"] / peak, 3)
    if given.soak:
        found["soak"] = await load.soak(rate, given.soak)
    found["memory_mb_after"] = round(server.memory_mb, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--arm", default="lora+rag")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each stretch, at most 600")
    parser.add_argument("--deadline", type=float, default=DEADLINE, help="seconds after which an answer is of no use")
    parser.add_argument("--workers", type=int, default=16, help="clients that keep the server busy")
    parser.add_argument("--most", type=int, default=128, help="requests that the server lets run or wait")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    given.seconds = min(600.0, given.seconds)
    task = load_task(given.task)
    questions = [row.messages[-1].content for row in open_for_answering(task, rows=True).splits["test"]]
    with serving(given.task, given.arm, given.most) as server:
        found = asyncio.run(measured(server, given, questions))
    settings = {name: getattr(given, name) for name in ("arm", "seconds", "deadline", "workers", "most", "soak")}
    write_json(given.out, {"settings": settings, **found, "machine": describe_machine()})
    print({name: value for name, value in found.items() if name != "soak"})


if __name__ == "__main__":
    main()
