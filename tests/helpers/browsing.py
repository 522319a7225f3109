"""A server in a process of its own and a real Chromium in front of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that runs: its address, and the one that lets in."""

    url: str
    page: str


@contextmanager
def served(task: Path, *arms: str) -> Iterator[Served]:
    """Inside, `trimtab serve` answers on a free port; afterwards it is told to end, and must."""
    command = [sys.executable, "-m", "trimtab", "serve", *arms, "--task", str(task), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said: list[str] = []
    try:
        for line in process.stderr or ():
            said.append(line)
            if found := re.match(r"Page: (\S+)", line):
                break
        else:
            pytest.fail("".join(said))
        rest = Thread(target=said.extend, args=(process.stderr,))
        rest.start()
        yield Served(url=found[1].partition("?")[0], page=found[1])
        process.terminate()
        rest.join(60)
        assert process.wait(60) == 0, "".join(said)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def chromium() -> Iterator[Browser]:
    """The Chromium of this machine; without one the test is skipped."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser on PATH (looked for {', '.join(BROWSERS)})")
    expect.set_options(timeout=60_000)  # ms; a busy machine is no fault of the page
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a page asked for and complained of."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def watched(page: Page) -> Seen:
    """Take note from now on of all requests, and of errors in the console, those of the content security policy
    among them."""
    seen = Seen()
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda said: seen.complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    return seen
