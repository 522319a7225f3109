"""What work takes from this machine: peak memory, bytes on disk, and what the machine is."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from trimtab.base.cgroups import cores, memory_use

QUIET = 0.9  # share of the processor from which on a timing counts as that of a quiet machine
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt, malloc.h


class MemoryPeak:
    """Context manager that samples this process's resident memory; `megabytes` is the highest seen while inside."""

    def __init__(self, every: float = 0.05) -> None:
        self.megabytes = 0.0
        self._every = every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def beyond(self) -> float:
        """What it was more than what the process holds now, once freed memory is given back."""
        release_memory()
        return max(0.0, self.megabytes - float(psutil.Process().memory_info().rss) / 1e6)

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.megabytes = max(self.megabytes, process.memory_info().rss / 1e6)
            if self._done.wait(self._every):
                return


def is_busy(share: float | None) -> bool:
    """True if the share is below QUIET, so that timings do not hold for a quiet machine. False if the share is unknown."""
    return share is not None and share < QUIET


def release_memory() -> None:
    """Give freed memory back to the system between one kind of work and the next.

    glibc keeps what tensors under 32 MB left behind: half a gigabyte after training and after answering, each time.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)


_gc_is_frozen = False  # inside `gc_frozen`


@contextmanager
def gc_frozen() -> Iterator[None]:
    """Inside, all that is in memory now, above all the imported libraries, is left out of every search for garbage.

    Half a million objects of libraries take a quarter of a second each time, and a trial of a search has several such times. Behind it
    all is looked through again, so that models of the caller's own are freed when the caller drops them. An inner use changes nothing.
    """
    global _gc_is_frozen
    if _gc_is_frozen:
        yield
        return
    gc.collect()
    gc.freeze()
    _gc_is_frozen = True
    try:
        yield
    finally:
        _gc_is_frozen = False
        gc.unfreeze()


def keep_freed_memory() -> None:
    """Let this process keep freed memory for its next tensors, up to a gigabyte; `release_memory` gives it back all the same.

    glibc returns large blocks to the system as soon as they are free, and touching their pages anew takes longer than many an operation
    on them. Settings of the environment (MALLOC_…_) stand.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    set_to = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_to is not None:
        # older versions of glibc take no threshold above 32 MB
        any(set_to(_MMAP_THRESHOLD, megabytes << 20) for megabytes in (256, 32))
        set_to(_TRIM_THRESHOLD, 1 << 30)
        set_to(_TOP_PAD, 64 << 20)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`; 0 where it is absent."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def describe_machine() -> dict[str, Any]:
    """Processor, the cores and memory of it that this process may use, and system, for the manifest."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "memory_gb": round(memory_use().total / 1e9, 1),
    }


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    packages = (
        "trimtab",
        "torch",
        "transformers",
        "numpy",
        "scipy",
        "scikit-learn",
        "lancedb",
        "sentence-transformers",
    )
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return processor_name(text) or platform.processor() or platform.machine()


def processor_name(cpuinfo: str) -> str:
    """The processor by Linux's description, family and model with it: clouds give many generations one name. Empty without a name."""
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in cpuinfo.splitlines())}
    name = fields.get("model name", "")
    if not name or not {"cpu family", "model"} <= fields.keys():
        return name
    return f"{name} (family {fields['cpu family']} model {fields['model']})"
