"""The process that cleans up after a Ray of this machine whose driver was killed: `ray_cleaner.py FOLDER DRIVER`.

It waits until the process DRIVER is gone. Then it kills the processes of Ray that keep files open in FOLDER, and
removes FOLDER. It imports nothing of Trimtab, so that it starts at once.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

WATCH_SECONDS = 0.5  # between two looks at the driver
KILL_SECONDS = 15.0  # for the processes of Ray to end; those that were just starting open their files late


def users_of(folder: Path) -> Iterator[psutil.Process]:
    """Yield the processes that keep a file open in a folder. Ray's own have a log there; some overwrite the memory
    that shows their arguments and environment, by which they would be found more simply.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # of other users, or gone
            if any(Path(file.path).is_relative_to(folder) for file in process.open_files()):
                yield process


def clean(folder: Path) -> None:
    """Kill all processes that use a folder, and remove it."""
    deadline = time.monotonic() + KILL_SECONDS
    while (users := list(users_of(folder))) and time.monotonic() < deadline:
        for process in users:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(WATCH_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    driver = int(sys.argv[2])
    while os.getppid() == driver:
        time.sleep(WATCH_SECONDS)
    clean(Path(sys.argv[1]))
