"""Subprocess for work on untrusted input, which can be killed at any time: one line of JSON in, one line of JSON out.

`Worker` starts it and sends requests; `answer_requests`, `limit_memory` and `limit_time` are for the subprocess
itself.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any


class Worker:
    """A subprocess that answers requests; one that was killed is replaced by a new one. Thread-safe.

    `script` gets `arguments` and sets its own limits; `seconds` is the time limit for a request, enforced from here.
    It can import this package, but should import little of it, to start quickly. Each new process gets `first`
    before anything else, unless empty, and answers with a line when it is ready, within `start_seconds`. No answer
    may be longer than `longest` bytes.
    """

    def __init__(
        self,
        script: Path,
        arguments: Sequence[str],
        *,
        seconds: float,
        longest: int,
        first: str = "",
        start_seconds: float = 60.0,
    ) -> None:
        self._command = [sys.executable, "-P", str(script), *arguments]
        self._seconds, self._longest = seconds, longest
        self._first, self._start_seconds = first, start_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, request: str, attached: bytes = b"", *, seconds: float | None = None) -> Any | None:
        """Return the answer to one line and the bytes after it; None if the process was killed.

        `seconds` replaces the worker's limit for this request.
        """
        with self._lock:
            try:
                process = self._running()
                line = self._line(process, request, attached, seconds or self._seconds) if process else b""
            except BaseException:  # the request is not answered yet: the next one must not read its answer
                self.close()
                raise
            if line.endswith(b"\n"):
                return json.loads(line)
            self.close()
            return None

    def close(self) -> None:
        """Kill the process, whatever it is doing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # what was written and never read
                        pipe.close()

    def _running(self) -> subprocess.Popen[bytes] | None:
        """Return the process, ready for requests; None if it could not be started in time."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        self._process = process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": _pythonpath(os.environ.get("PYTHONPATH"))},
            start_new_session=True,  # Ctrl-C is for the parent process
        )
        is_ready = not self._first or self._line(process, self._first, b"", self._start_seconds).endswith(b"\n")
        return process if is_ready else None

    def _line(self, process: subprocess.Popen[bytes], request: str, attached: bytes, seconds: float) -> bytes:
        if process.stdin is None or process.stdout is None:
            return b""
        end = threading.Timer(seconds, process.kill)
        end.start()
        try:
            with suppress(BrokenPipeError):  # it has ended, perhaps with an answer
                process.stdin.write(request.encode() + b"\n")
                process.stdin.write(attached)
                process.stdin.flush()
            return process.stdout.readline(self._longest)
        finally:
            end.cancel()


def _pythonpath(path: str | None) -> str:
    """Return a PYTHONPATH with the folder of this package, as `-P` leaves out the current one."""
    return os.pathsep.join(filter(None, (path, str(Path(__file__).parents[2]))))


def answer_requests(answer: Callable[[dict[str, Any], bytes], str]) -> None:
    """Answer requests from standard input until it ends.

    A request is a line of JSON with `size`, `seconds` and `megabytes`, then `size` bytes: the process may use that
    much more time and memory for it. `answer` gets both and returns the answer as one line of JSON.
    """
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not count as an answer
    for line in sys.stdin.buffer:
        request = json.loads(line)
        limit_memory(request["megabytes"], beyond_present=True)
        limit_time(request["seconds"])
        out.write(answer(request, sys.stdin.buffer.read(request["size"])).encode() + b"\n")
        out.flush()


def limit_memory(megabytes: int, *, beyond_present: bool = False) -> None:
    """Limit the address space of this process, in total or beyond its present size, where that is possible."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        now = 0
        if beyond_present:
            with open("/proc/self/statm", encoding="ascii") as file:
                now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + (megabytes << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))


def limit_time(seconds: int) -> None:
    """Limit the further processor time of this process in seconds; without effect on systems without such limits."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        most = int(used.ru_utime + used.ru_stime) + 1 + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))
