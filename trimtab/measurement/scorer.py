"""The user's own scorers: a program that is started once and speaks JSON lines, or a Python function; consent comes
first."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from trimtab.base.errors import InputError

ScorerFunction = Callable[[str, str, str], float]
ScorerRow = tuple[str, str, Sequence[str], str]
_PROTOCOL = (
    'it must read lines {"id", "input", "reference", "answer"}, and write and flush one line {"id", "score"} for each'
)
_LONGEST_LINE = 1 << 20


def check_score(value: object, whose: str) -> float:
    """Return `value` as a score, 0 to 1; raises InputError that names whose it is."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{whose} gave the score {value!r}", "a score is a number from 0 to 1")
    return float(value)


class RowScorer(ABC):
    """Interface of what scores many answers at once."""

    @abstractmethod
    def score(self, rows: Sequence[ScorerRow]) -> dict[str, float]:
        """Return scores by id, one for every row, from 0 to 1."""


class ScorerProgram(RowScorer):
    """A program that reads lines `{"id", "input", "reference", "answer"}` and writes lines `{"id", "score"}`, in any
    order.

    It runs in `folder`, without a shell, and stays up between calls of `score`, so it must flush every line (Python
    programs are started unbuffered); after a fault the next call starts it anew. `reference` is text, or a list
    where several count. `seconds` limits each call. `what` it is called in messages, and `field` the key of the task
    file that names it. The caller asks for consent first: see `studies/consent.py`.
    """

    def __init__(
        self,
        argv: Sequence[str],
        folder: Path,
        seconds: float = 600.0,
        *,
        what: str = "scorer",
        field: str = "task.scorer",
    ) -> None:
        self.argv, self.folder, self.seconds, self.field = tuple(argv), folder, seconds, field
        self._name = f"{what} {' '.join(self.argv)!r}"
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._said: deque[bytes | None] = deque(maxlen=20)
        self._readers: list[threading.Thread] = []
        self._writer: threading.Thread | None = None
        self._open = False

    def __enter__(self) -> ScorerProgram:
        self._start()
        self._open = True
        return self

    def _start(self) -> subprocess.Popen[bytes]:
        self._lines, self._said = queue.Queue(), deque(maxlen=20)  # nothing of a process before
        try:
            process = subprocess.Popen(
                self.argv,
                bufsize=0,
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        except (OSError, ValueError, IndexError) as error:
            raise InputError(
                f"{self._name} does not start ({error})", "give the argv list of a program", field=self.field
            ) from None
        self._process = process
        self._readers = [
            threading.Thread(target=_read_lines, args=(process.stdout, self._lines.put), daemon=True),
            threading.Thread(target=_read_lines, args=(process.stderr, self._said.append), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        return process

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._stop(grace=2.0 if kind is None else 0.0)

    def score(self, rows: Sequence[ScorerRow]) -> dict[str, float]:
        """Return scores by id, one for every row.

        Raises InputError that names the program when it exits, writes anything else, answers an id that was not
        asked or twice, gives a score outside 0..1, or takes longer than its limit; it is stopped then, and started
        anew by the next call.
        """
        if not self._open:
            raise InputError(f"{self._name} is not running", "use it in a with statement")
        wanted = {row[0] for row in rows}
        if len(wanted) < len(rows):
            raise InputError("two answers to score have one id", "give every example an id of its own")
        process = self._process
        if process is None or process.stdin is None or process.stdin.closed:
            process = self._start()
        content = b"".join(map(_encode, rows))
        self._writer = threading.Thread(target=_write, args=(process.stdin, content), daemon=True)
        self._writer.start()  # beside the reading: a program that answers while it reads would fill both pipes
        scores: dict[str, float] = {}
        deadline = time.monotonic() + self.seconds
        try:
            while wanted:
                name, score = self._parse(self._next(deadline, len(wanted)))
                if name not in wanted:
                    raise self._fault(f"answered the id {name!r} {'twice' if name in scores else 'unasked'}")
                wanted.remove(name)
                scores[name] = score
        except BaseException:
            self._stop(grace=0.0)
            raise
        return scores

    def _next(self, deadline: float, missing: int) -> bytes:
        try:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise self._fault(f"left {missing} answers without a score after {self.seconds:g} s") from None
        if line is None:
            self._stop(grace=1.0)
            code = self._process.returncode if self._process else None
            raise self._fault(f"ended (exit code {code}) with {missing} answers left without a score")
        return line

    def _parse(self, line: bytes) -> tuple[str, float]:
        try:
            value = json.loads(line)
            name, score = value["id"], value["score"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise self._fault(f"wrote {line[:80].decode(errors='replace').strip()!r}") from None
        if not isinstance(name, str):
            raise self._fault(f"gave the id {name!r}, which is not text")
        return name, check_score(score, self._name)

    def _fault(self, problem: str) -> InputError:
        self._stop(grace=0.0)
        said = [line.decode(errors="replace").strip() for line in self._said if line]
        last = next((line for line in reversed(said) if line), "")
        return InputError(f"{self._name} {problem}" + (f" (it said: {last[:200]})" if last else ""), _PROTOCOL)

    def _stop(self, grace: float) -> None:
        """End the program and its processes: its input is closed, then after `grace` seconds it is killed."""
        process = self._process
        if process is None:
            return
        if grace and process.stdin is not None:
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for thread in (*self._readers, *([self._writer] if self._writer else ())):
            thread.join(timeout=1.0)  # the writer too: a pipe that is closed under it may be another file by then
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _encode(row: ScorerRow) -> bytes:
    name, question, references, answer = row
    reference = references[0] if len(references) == 1 else list(references)
    # escaped to ASCII, so that the program's encoding does not matter
    return json.dumps({"id": name, "input": question, "reference": reference, "answer": answer}).encode() + b"\n"


def _write(pipe: IO[bytes], content: bytes) -> None:
    rest = memoryview(content)
    with suppress(OSError, ValueError):  # the program has ended or was stopped; the reading side says so
        while rest:
            rest = rest[pipe.write(rest) :]


def _read_lines(pipe: IO[bytes], keep: Callable[[bytes | None], None]) -> None:
    """Hand over every line, longer ones in pieces, then None."""
    with suppress(ValueError), open(os.dup(pipe.fileno()), "rb") as buffered:  # closed by _stop
        while line := buffered.readline(_LONGEST_LINE):
            if line.strip():
                keep(line)
    keep(None)
