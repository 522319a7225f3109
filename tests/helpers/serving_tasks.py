"""Servers of tiny tasks: within this process, where its parts can be seen, and as a process of the command line."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import httpx
import pytest
from forked import Forked
from study_tasks import CITIES, CLASSIFY, LABELLED, QUICK, write_task

from trimtab.serving import serve as verb
from trimtab.serving import server as listening
from trimtab.serving.app import AppParts, build
from trimtab.serving.middleware import App
from trimtab.serving.options import ServerOptions
from trimtab.serving.serve import RunningServer, serve


@dataclass(kw_only=True)
class Here:
    """A server within this process: where it listens, its key, and what it is made of."""

    folder: Path
    url: str
    key: str
    parts: AppParts
    models: tuple[str, ...]
    silent: dict[str, str]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def app(self) -> App:
        """The same server as an application, for calls without a socket."""
        return build(self.parts)

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=30, **options)

    def metric(self, name: str) -> float:
        """The sum of a figure over its labels."""
        page = self.parts.metrics.page().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE))


@contextmanager
def serving_here(task: Path, *arms: str, **options: Any) -> Iterator[Here]:
    """A server of these arms until the block ends; `options` of `serve`, and fields of its `ServerOptions`."""
    names = {item.name for item in fields(ServerOptions)} & options.keys()
    server = ServerOptions(**{"port": 0, **{name: options.pop(name) for name in names}})
    told: list[RunningServer] = []
    parts: list[AppParts] = []
    servers: list[Any] = []
    errors: list[BaseException] = []
    up = threading.Event()

    class Server(listening._Server):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            servers.append(self)

    def ready(serving: RunningServer) -> None:
        told.append(serving)
        up.set()

    def work() -> None:
        try:
            serve(arms, task=task, server=server, listeners=[], on_ready=ready, **options)
        except BaseException as error:  # noqa: BLE001  (told to whoever asked for the server)
            errors.append(error)
        finally:
            up.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listening, "_Server", Server)
        patch.setattr(verb, "build", lambda given: [parts.append(given), build(given)][1])
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert up.wait(300)
    if errors:
        raise errors[0]
    try:
        (serving,) = told
        yield Here(
            folder=task.parent,
            url=serving.url,
            key=serving.token or "",
            parts=parts[0],
            models=serving.models,
            silent=serving.silent,
        )
    finally:
        servers[0].should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@dataclass(kw_only=True)
class Apart:
    """A server of the command line: its process, and what it has written to standard error so far."""

    process: Forked
    url: str = ""
    key: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@contextmanager
def serving_apart(task: Path, *arguments: str) -> Iterator[Apart]:
    """`trimtab serve` in a process of its own until the block ends."""
    command = [sys.executable, "-m", "trimtab", "serve", *arguments, "--task", str(task), "--port", "0"]
    process = Forked(command, stderr=subprocess.PIPE)
    server = Apart(process=process)

    def read() -> None:
        assert process.stderr
        server.lines.extend(iter(process.stderr.readline, ""))

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    try:
        wait_until(lambda: any(line.startswith("API:") for line in server.lines) or process.poll() is not None, 300)
        found = re.search(r"API: +(\S+)/v1(?: +key: (\S+))?", "".join(server.lines))
        assert found, server.lines
        server.url, server.key = found[1], found[2] or ""
        yield server
    finally:
        process.kill()
        process.wait()
        reading.join()
        if process.stderr:
            process.stderr.close()


def wait_until(holds: Callable[[], bool], seconds: float) -> float:
    """Wait until something holds, and tell how long that took; fail where it does not within `seconds`."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds
        time.sleep(0.005)
    return time.monotonic() - began


def writing_task(folder: Path, model: Path, embedding: Path, more: str = "", arms: tuple[str, ...] = ()) -> Path:
    """A task whose arms write: `prompt`, `rag` over a few documents, `quick` trained."""
    (folder / "docs").mkdir()
    for city in CITIES:
        (folder / "docs" / f"{city}.md").write_text(f"# {city}\n\nThe town of {city} has a bridge.\n")
    return write_task(
        folder,
        model,
        arms or ("prompt", "rag", "quick"),
        data='documents = ["docs"]',
        base=f'embedding = "{embedding}"',
        more=f"{QUICK}\n{more}" if "quick" in (arms or ("quick",)) else more,
    )


def deciding_task(folder: Path, model: Path, embedding: Path, more: str = "", arms: tuple[str, ...] = ()) -> Path:
    """A task of a closed set: `prompt` and `linear`."""
    return write_task(
        folder,
        model,
        arms or ("prompt", "linear"),
        task=CLASSIFY,
        data=LABELLED,
        base=f'embedding = "{embedding}"',
        more=more,
    )
