"""A process for work on input from strangers, which can be ended whatever it does: a line of JSON in, a line of JSON out.

`Worker` starts it and asks it; `answer_requests`, `limit_memory` and `limit_time` are for the process itself.
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
    """Started with what it is asked first; one that was ended for what it took is followed by another. Threads may share it.

    `script` gets `arguments` and sets its own limits; `seconds` is until it is ended from here. It can import this package, of which it
    should import little, so that it starts at once.
    Each new process is told `first` before anything else, where that is not empty, and answers with a line when it is ready, within
    `start_seconds`. No answer may be longer than `longest` bytes.
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
        """The answer to one line and the bytes behind it; None where the process was ended, by its limits or from here.

        `seconds` replaces those of the worker for this request.
        """
        with self._lock:
            try:
                process = self._running()
                line = self._line(process, request, attached, seconds or self._seconds) if process else b""
            except BaseException:  # what was asked is not answered yet: the next one must not read it
                self.close()
                raise
            if line.endswith(b"\n"):
                return json.loads(line)
            self.close()
            return None

    def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _running(self) -> subprocess.Popen[bytes] | None:
        """The process, ready to be asked; None where it could not be started in time."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        self._process = process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": _pythonpath(os.environ.get("PYTHONPATH"))},
            start_new_session=True,  # Ctrl-C is for the one who asks
        )
        is_ready = not self._first or self._line(process, self._first, b"", self._start_seconds).endswith(b"\n")
        return process if is_ready else None

    def _line(self, process: subprocess.Popen[bytes], request: str, attached: bytes, seconds: float) -> bytes:
        if process.stdin is None or process.stdout is None:
            return b""
        end = threading.Timer(seconds, process.kill)
        end.start()
        try:
            process.stdin.write(request.encode() + b"\n")
            process.stdin.write(attached)
            process.stdin.flush()
            return process.stdout.readline(self._longest)
        except BrokenPipeError:
            return b""
        finally:
            end.cancel()


def _pythonpath(path: str | None) -> str:
    """A PYTHONPATH that ends with the folder of this package: `-P` leaves out the current one, where it may have been found."""
    return os.pathsep.join(filter(None, (path, str(Path(__file__).parents[2]))))


def answer_requests(answer: Callable[[dict[str, Any], bytes], str]) -> None:
    """Answer requests from standard input until it ends.

    A request is a line of JSON with `size`, `seconds` and `megabytes`, and `size` bytes after it: the process may take so much further
    time and memory for it. `answer` gets both and returns the answer as one line of JSON.
    """
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin.buffer:
        request = json.loads(line)
        limit_memory(request["megabytes"], beyond_present=True)
        limit_time(request["seconds"])
        out.write(answer(request, sys.stdin.buffer.read(request["size"])).encode() + b"\n")
        out.flush()


def limit_memory(megabytes: int, *, beyond_present: bool = False) -> None:
    """Limit the address space of this process, or what it may take beyond its present one; a system without such limits has none."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        now = 0
        if beyond_present:
            with open("/proc/self/statm", encoding="ascii") as file:
                now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + (megabytes << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))


def limit_time(seconds: int) -> None:
    """Let the system end this process after so many further seconds of processor time; a system without such limits does not."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        most = int(used.ru_utime + used.ru_stime) + 1 + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))
