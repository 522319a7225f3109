"""Waits for what comes at once on a quiet machine, and much later on a busy one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

WAIT = 600.0  # seconds
Found = TypeVar("Found")


def until(found: Callable[[], Found], process: subprocess.Popen[str] | None = None) -> Found:
    """Return what is found, once it is. `process`: goes on meanwhile."""
    end = time.monotonic() + WAIT
    while not (value := found()):
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"nothing within {WAIT:.0f} s"
        time.sleep(0.05)
    return value
