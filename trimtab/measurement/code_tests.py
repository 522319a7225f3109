"""Runs tests on code that a model wrote: each answer in its own process, with limits, in a temporary folder."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from trimtab.base.machine import cores

MEGABYTES, SECONDS = 1024, 5
"""Memory and processor seconds that the code of an answer may take."""
WALL_SECONDS = 20.0  # until it is ended whatever it waits for
LONGEST = 100_000  # letters of an answer that is still run
_AT_ONCE = min(4, cores())
_FENCED = re.compile(r"```[a-z0-9]*\n(.*?)(?:```|\Z)", re.DOTALL)
_WORKER = Path(__file__).with_name("code_worker.py")


def passed(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Return, for each pair (answer, tests) of Python code, whether the answer passes; an answer may be in a Markdown
    code fence.

    Tests see the names of the answer. They pass where their top level runs through, and then each function `test…`
    of theirs. An answer has 5 s of processor time (20 s on the clock), 1 GB, files up to 1 MB in an empty folder,
    and no output. On Linux it can write nowhere else, and starts no process, no thread and no connection; elsewhere
    only what the system has limits for is held. What is tested and what tests stand in one interpreter: code that is
    made to look for a way to claim success finds one, as it does by answering what the tests ask and nothing else.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda pair: _passes(*pair), pairs))


def code_in(answer: str) -> str:
    """Return the code of an answer: the content of its first code fence, else the whole answer."""
    fenced = _FENCED.search(answer)
    return fenced[1] if fenced else answer


def _passes(answer: str, tests: str) -> bool:
    if len(answer) > LONGEST:
        return False
    token = secrets.token_hex(16)
    request = json.dumps({"code": code_in(answer), "tests": tests, "token": token}).encode()
    with TemporaryDirectory(prefix="trimtab-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(_WORKER), str(MEGABYTES), str(SECONDS)],
            bufsize=0,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(folder),
            start_new_session=True,
        )
        try:
            return _answer(process, request, len(token)) == token.encode()
        finally:
            _end(process)


def _answer(process: subprocess.Popen[bytes], request: bytes, most: int) -> bytes:
    """Return the process's output, up to `most` bytes, if it ended by itself; a process that fills the pipe blocks
    until it is killed."""
    if process.stdin is None or process.stdout is None:
        return b""
    with suppress(BrokenPipeError), process.stdin as pipe:
        rest = memoryview(request)
        while rest:
            rest = rest[pipe.write(rest) :]
    with suppress(subprocess.TimeoutExpired):
        process.wait(WALL_SECONDS)
        return process.stdout.read(most + 1)
    return b""


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group that has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _environment(folder: str) -> dict[str, str]:
    """Return an environment without our variables, which may hold keys; one thread, as more are refused."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", **one}
