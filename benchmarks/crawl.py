"""Crawls 10,000 pages of a local server, ours beside scrapy on the same site, each as a whole process, with no limit
of rate on either side.

Run: python benchmarks/crawl.py --scrapy PYTHON  →  benchmarks/results/crawl.json PYTHON is that of an environment
with scrapy. The server makes the pages on the fly: 100 sections of 100 pages, some 12 KB each with 40 links, a
robots.txt, no sitemap. Both sides obey robots.txt, have 16 requests under way, follow the links of the host only,
hold every page's content until the end and print how many bytes they have; ours also keeps them in its cache, scrapy
writes nothing. In the order A B B A; wall and processor seconds of the process with its children (the server is
another process), and the largest resident set of all of them together, sampled ten times a second. Then ours once
more, with the cache of the run before: conditional requests (304).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine

RESULT = Path(__file__).resolve().parent / "results" / "crawl.json"
SECTIONS, EACH, LINKS, WORDS = 100, 100, 40, 1_600
ROBOTS = b"User-agent: *\nDisallow: /private/\nAllow: /\n"
NAMES = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "lmnrs"]
VOCABULARY = [f"{name}{end}" for name in NAMES for end in ("ta", "ko", "ri", "se", "mu")]

OURS = """
import math, sys
from pathlib import Path
from trimtab.publishing.crawl import crawl
site = crawl(sys.argv[1], cache=Path(sys.argv[2]), rate=math.inf)
print(len(site.pages), sum(len(page.content) for page in site.pages))
"""
SCRAPY = str(Path(__file__).resolve().parent / "peers" / "scrapy_pages.py")


def page_of(path: str) -> bytes | None:
    """The page of a path, the same each time: `/` links to the sections, a page to its neighbours and to others."""
    if path == "/robots.txt":
        return ROBOTS
    if path == "/":
        links = [f"/{section(n)}/{section(0)}.html" for n in range(SECTIONS)]
    else:
        place = places().get(path)
        if place is None:
            return None
        draw = random.Random(path)
        here, number = divmod(place, EACH)
        near = [(here, (number + step) % EACH) for step in range(1, LINKS // 2 + 1)]
        far = [(draw.randrange(SECTIONS), draw.randrange(EACH)) for _ in range(LINKS - len(near))]
        links = [f"/{section(a)}/{section(b)}.html" for a, b in (*near, *far)]
    draw = random.Random(path + "text")
    text = " ".join(draw.choices(VOCABULARY, k=WORDS))
    menu = "".join(f'<li><a href="{link}">{link}</a></li>' for link in links)
    return (
        f"<!doctype html><html><head><title>{path}</title></head><body><nav><ul>{menu}</ul></nav>"
        f"<main><h1>{path}</h1><p>{text}</p></main></body></html>"
    ).encode()


def section(number: int) -> str:
    """A name without digits, as addresses by number could be a trap."""
    return NAMES[number]


def places() -> dict[str, int]:
    """The number of each page by its path."""
    if not _PLACES:
        _PLACES.update({f"/{section(a)}/{section(b)}.html": a * EACH + b for a in range(SECTIONS) for b in range(EACH)})
    return _PLACES


_PLACES: dict[str, int] = {}


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split(b" ", 2)[1].decode()
            body = page_of(path)
            tag = b'"1"'
            if body is None:
                status, body = b"404 Not Found", b"not there"
            elif b"if-none-match: " + tag in head.lower():
                status, body = b"304 Not Modified", b""
            else:
                status = b"200 OK"
            kind = b"text/plain" if path == "/robots.txt" else b"text/html; charset=utf-8"
            writer.write(
                b"HTTP/1.1 %s\r\nContent-Type: %s\r\nETag: %s\r\nContent-Length: %d\r\n\r\n"
                % (status, kind, tag, len(body))
                + body
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def serve(ready: Any) -> None:
    """Answer on a free port of loopback until the process is ended."""

    async def run() -> None:
        server = await asyncio.start_server(_answer, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def measured(command: list[str]) -> dict[str, Any]:
    """A process to its end: wall and processor seconds, the largest resident set with its children, pages and bytes."""
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process, peak, seconds = psutil.Process(child.pid), 0, {}
    while child.poll() is None:
        resident = 0
        try:
            for one in (process, *process.children(recursive=True)):
                resident += one.memory_info().rss
                times = one.cpu_times()
                seconds[one.pid] = times.user + times.system
        except psutil.Error:
            pass
        peak = max(peak, resident)
        time.sleep(0.1)
    wall = time.perf_counter() - began
    told = child.stdout.read().split() if child.stdout else []
    if child.returncode or len(told) != 2:
        raise SystemExit(f"{command[0]} ended with {child.returncode}")
    return {
        "seconds": round(wall, 2),
        "processor_seconds": round(sum(seconds.values()), 2),
        "peak_mb": round(peak / 1e6),
        "pages": int(told[0]),
        "bytes": int(told[1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scrapy", required=True, help="the Python of an environment with scrapy")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    version = subprocess.run(
        [options.scrapy, "-c", "import scrapy; print(scrapy.__version__)"], capture_output=True, text=True, check=True
    )
    receiving, sending = multiprocessing.Pipe(False)
    server = multiprocessing.Process(target=serve, args=(sending,), daemon=True)
    server.start()
    origin = f"http://127.0.0.1:{receiving.recv()}/"
    runs: dict[str, list[dict[str, Any]]] = {"trimtab": [], "scrapy": []}
    load = []
    with tempfile.TemporaryDirectory() as folder:
        for number, side in enumerate(("trimtab", "scrapy", "scrapy", "trimtab")):
            cache = Path(folder) / str(number)
            command = (
                [sys.executable, "-c", OURS, origin, str(cache)]
                if side == "trimtab"
                else [options.scrapy, SCRAPY, origin]
            )
            load.append(round(psutil.getloadavg()[0], 1))
            runs[side].append(measured(command))
            print(side, json.dumps(runs[side][-1]), flush=True)
        again = measured([sys.executable, "-c", OURS, origin, str(cache)])
        print("again", json.dumps(again), flush=True)
    server.terminate()
    result = {
        "pages": SECTIONS * EACH + 1,
        "median": {
            side: {
                key: round(statistics.median(run[key] for run in found), 2)
                for key in ("seconds", "processor_seconds", "peak_mb")
            }
            for side, found in runs.items()
        },
        "runs": runs,
        "again_under_conditions": again,
        "scrapy": version.stdout.strip(),
        "load_before_each": load,
        "machine": describe_machine(),
    }
    write_json(options.out, result)


if __name__ == "__main__":
    main()
