"""Processes that begin with everything imported: forked from one that has no threads, a worker of the tests each.

Importing torch, transformers and the package takes seconds of the processor, and more than a hundred processes that
tests start do nothing else for most of their time. `Forked([sys.executable, ...])` takes the place of
`subprocess.Popen` for a process of Python (`-c`, `-m` or a script) where a test needs a real process (signals, exit
codes, sockets, a death) but not how it begins: what is read as Python or torch starts (the environment of threads,
lazy imports) is that of the tests.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from typing import IO, Any

PRELOADED = (
    *(
        "sentence_transformers",
        "sklearn.linear_model",
        "scipy.stats",
        "jsonschema",
        "httpx",
        "transformers.models.llama",
    ),
    *("trimtab.cli.main", "trimtab.cli.study", "trimtab.studies.study", "trimtab.arms.run", "trimtab.arms.trainer"),
    *("trimtab.inference.engine", "trimtab.reports.page"),
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
spent = 0.0  # processor seconds of processes that have ended, and of the first one; see times_of_tests


class Forked:
    """A process that a test started: the part of `subprocess.Popen` that tests use."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        text: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        assert words[0] == sys.executable
        assert text
        self.args, self.returncode = words, None
        self._told, told = os.pipe()
        ours, theirs = [], []
        for number, given in enumerate((stdin, stdout, stderr)):
            if given == subprocess.PIPE:
                reads, writes = os.pipe()
                ours.append(open(writes, "w") if number == 0 else open(reads))  # noqa: SIM115
                theirs.append(reads if number == 0 else writes)
            else:
                ours.append(None)
                theirs.append(
                    os.open(os.devnull, os.O_RDWR) if given == subprocess.DEVNULL else os.dup(given or number)
                )
        self.stdin, self.stdout, self.stderr = ours
        request = {
            "words": list(words[1:]),
            "environment": dict(os.environ if env is None else env),
            "folder": os.fspath(cwd or os.getcwd()),
            "ignored": [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN],
        }
        sent = json.dumps(request).encode()
        with LOCK:
            control = first_process()
            socket.send_fds(control, [len(sent).to_bytes(4)], [*theirs, told])
            control.sendall(sent)
        for descriptor in (*theirs, told):
            os.close(descriptor)
        self._answers = open(self._told)  # noqa: SIM115
        self.pid = int(self._answers.readline())
        self._ended = threading.Event()
        threading.Thread(target=self._wait_for_end, daemon=True).start()

    def _wait_for_end(self) -> None:
        global spent
        status, seconds = self._answers.readline().split()
        self._answers.close()
        self._status = os.waitstatus_to_exitcode(int(status))
        with LOCK:
            spent += float(seconds)
        self._ended.set()

    def poll(self) -> int | None:
        if self._ended.is_set():
            self.returncode = self._status
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.returncode = self._status
        return self.returncode

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        read: dict[int, str] = {}

        def drain(number: int, stream: IO[str]) -> None:
            read[number] = stream.read()
            stream.close()

        streams = {number: stream for number, stream in enumerate((self.stdout, self.stderr)) if stream}
        threads = [threading.Thread(target=drain, args=pair, daemon=True) for pair in streams.items()]
        for thread in threads:
            thread.start()
        if self.stdin:
            self.stdin.write(input or "")
            self.stdin.close()
        end = None if timeout is None else time.monotonic() + timeout
        for thread in threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        self.wait(None if end is None else max(0.0, end - time.monotonic()))
        return read.get(0, ""), read.get(1, "")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()


def run(
    words: Sequence[str], *, input: str | None = None, timeout: float | None = None, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with captured text."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Forked(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        printed, told = process.communicate(input, timeout)
    done = subprocess.CompletedProcess(words, process.returncode or 0, printed, told)
    if check:
        done.check_returncode()
    return done


LOCK = threading.RLock()


@cache
def first_process() -> socket.socket:
    """The way to the process that forks; it ends with this one, whose end of the way it watches."""
    global spent
    ours, theirs = socket.socketpair()
    code = "import sys; sys.path[0] = sys.argv[1]; import forked; forked.serve(int(sys.argv[2]))"
    words = [sys.executable, "-c", code, os.path.dirname(__file__), str(theirs.fileno())]
    with theirs:
        silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        process = subprocess.Popen(words, **silent, pass_fds=[theirs.fileno()])
    spent += float(ours.recv(64))  # empty where a module cannot be imported

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def take_request(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for every request; return in the process that was asked for, with its standard streams."""
    while True:
        size, descriptors, *_ = socket.recv_fds(control, 4, 4)
        if not size:
            os._exit(0)  # the tests are over
        sent = b""
        while len(sent) < int.from_bytes(size):
            sent += control.recv(int.from_bytes(size) - len(sent))
        if not os.fork():
            control.close()
            if not (child := os.fork()):
                os.close(descriptors.pop())
                return json.loads(sent), descriptors
            watch(child, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        reap()


def reap() -> None:
    """Forget the processes that watched others and have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def watch(child: int, descriptors: list[int]) -> None:
    """Tell a process's number, its end and its processor seconds, and end."""
    *streams, told = descriptors
    for descriptor in streams:
        os.close(descriptor)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.write(told, f"{child}\n".encode())
    _, status, usage = os.wait4(child, 0)
    os.write(told, f"{status} {usage.ru_utime + usage.ru_stime}\n".encode())
    os._exit(0)


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Take on streams, folder, environment and signals of a request."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1 if os.isatty(1) else -1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    added = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    sys.path[1:1] = added
    for number in SIGNALS:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else usual)


def execute(words: list[str]) -> None:
    """Run what follows `python` on a command line."""
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path[0] = ""
        exec(compile(words[1], "<string>", "exec"), sys.modules["__main__"].__dict__)
    elif words[0] == "-m":
        sys.argv = words[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = os.path.dirname(os.path.abspath(words[0]))
        runpy.run_path(words[0], run_name="__main__")


def serve(descriptor: int) -> None:
    """What the first process does, and each that it forks."""
    sys.path[0] = ""  # where this file was found
    for name in PRELOADED:
        importlib.import_module(name)
    assert threading.active_count() == 1, threading.enumerate()
    channel = socket.socket(fileno=descriptor)
    channel.sendall(str(time.process_time()).encode())
    gc.freeze()  # nobody's garbage: a search would copy every page
    request, descriptors = take_request(channel)
    become(request, descriptors)
    end_like_python(request["words"])


def end_like_python(words: list[str]) -> None:
    """Run to the end, and spare the second that taking down all modules takes."""
    code: Any = 0
    try:
        execute(words)
    except SystemExit as error:
        code = error.code
    except BaseException as error:  # noqa: BLE001  (told as Python tells it)
        traceback.print_exc()
        code = error if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads any more
            stream.flush()
    if isinstance(code, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code or 0)
