"""A model's chat template, rendered in a process of its own that has little memory and little time."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from trimtab.base.errors import InputError
from trimtab.base.visible import visible

MEGABYTES, SECONDS, LONGEST = 512, 5, 1_000_000
"""What a template may take: memory, processor time, and letters that it gives."""
WALL_SECONDS = 60.0  # until the process is ended whatever it waits for
_LONGEST_LINE = 8 * LONGEST  # of JSON, its escapes counted
_OTHER = "choose another base model, or mend its chat template"


def render(template: str, variables: Mapping[str, Any]) -> str:
    """The text that `template` gives for `variables` (JSON values).

    Raises InputError where the template takes more than the limits, and ValueError, in its own words, where it refuses or fails.
    """
    return _rendered(json.dumps({"template": template, "variables": variables}))


@lru_cache(maxsize=4096)
def _rendered(request: str) -> str:
    answer = _renderer.ask(request)
    if "error" in answer:
        raise ValueError(visible(" ".join(answer["error"].split())))
    if "over" in answer:
        raise InputError(f"the chat template {answer['over']}", _OTHER, field="base.model")
    return str(answer["text"])


class _Renderer:
    """One process for all templates, started with the first; one that was ended for what it took is followed by another."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, request: str) -> dict[str, str]:
        with self._lock:
            process = self._running()
            end = threading.Timer(WALL_SECONDS, process.kill)
            end.start()
            try:
                line = self._line(process, request.encode() + b"\n")
            except BaseException:  # what was asked is not answered yet: the next one must not read it
                self.close()
                raise
            finally:
                end.cancel()
            if line.endswith(b"\n"):
                answer: dict[str, str] = json.loads(line)
                return answer
            self.close()
            return {"over": f"takes more than {SECONDS} s of processor time or {MEGABYTES} MB of memory"}

    def _line(self, process: subprocess.Popen[bytes], request: bytes) -> bytes:
        if process.stdin is None or process.stdout is None:
            return b""
        try:
            process.stdin.write(request)
            process.stdin.flush()
            return process.stdout.readline(_LONGEST_LINE)
        except BrokenPipeError:
            return b""

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            worker = str(Path(__file__).with_name("template_worker.py"))
            self._process = subprocess.Popen(
                [sys.executable, "-P", worker, *map(str, (MEGABYTES, SECONDS, LONGEST))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the one who asks
            )
        return self._process

    def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


_renderer = _Renderer()
atexit.register(_renderer.close)
