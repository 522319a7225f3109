"""A file system that is filled up to so many bytes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def fill(disk: Path, leave: int = 0) -> None:
    """Fill a file system up, all but `leave` bytes of it."""
    with open(disk / "filler", "wb", buffering=0) as filler:
        with suppress(OSError):
            while filler.write(bytes(4096)):
                pass
        filler.truncate(max(0, filler.tell() - leave))
