"""A study as a process of its own, which a test may stop or kill."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forked import Forked


@contextmanager
def started_study(task: Path, *more: str) -> Iterator[Forked]:
    """A study as a process of its own, which does not outlive the test."""
    command = [sys.executable, "-c", "from trimtab.cli.main import run; run()", "study", "--task", str(task), *more]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    with Forked(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=quiet) as process:
        try:
            yield process
        finally:
            process.kill()
