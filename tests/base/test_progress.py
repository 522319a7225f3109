"""Events: the stop that no library can swallow."""

import signal
import subprocess
import sys

import pytest

from trimtab.base import progress
from trimtab.base.progress import Progress
from trimtab.cli.main import _interrupt


def test_a_signal_that_was_lost_ends_the_work_at_the_next_event(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.unraisablehook", None)
    path = tmp_path / "events.jsonl"
    try:
        with pytest.raises(KeyboardInterrupt):
            _interrupt(signal.SIGTERM, None)
        with pytest.raises(KeyboardInterrupt):
            Progress(path=path).emit("train")
    finally:
        progress.stop_asked.clear()
    assert not path.exists()
    Progress(path=path).emit("train")
    assert path.exists()


DROPPED = """
import os, signal, time, weakref
from trimtab.cli.main import _interrupt
signal.signal(signal.SIGTERM, _interrupt)
class Thing: ...
def wait():  # a function: Python 3.13.0 lets an interrupt at the end of a loop pass by the `except` around it
    while time.process_time() < 20: pass  # no event comes
thing = Thing()
kept = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
try:
    del thing
    print("dropped", flush=True)
    wait()
except KeyboardInterrupt:
    print("stopped")
"""


def test_a_signal_that_python_dropped_is_raised_again() -> None:
    done = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, timeout=15, check=True)
    assert done.stdout.split() == ["dropped", "stopped"]
