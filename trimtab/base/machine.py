"""This machine: the cores and memory that this process may use, its peak memory, disk use, processor and library
versions; who uses it; and control of allocator and GC.

Cores and memory are counted within the limits of control groups (cgroup v1 and v2).
"""

from __future__ import annotations

import ctypes
import gc
import getpass
import math
import os
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# Each pair: the file name in cgroup v2 and in v1.
_LIMIT, _USED = ("memory.max", "memory.limit_in_bytes"), ("memory.current", "memory.usage_in_bytes")


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory in bytes. `available`: free memory and memory that can be freed at once."""

    total: int
    available: int


def cpu_ids() -> list[int]:
    """Return the numbers of the CPU cores that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def cores() -> int:
    """Return the number of cores that this process may keep busy, within its CPU quota."""
    return max(1, min([len(cpu_ids()), *(math.ceil(quota) for quota in _quotas())]))


def memory_use() -> MemoryUse:
    """Return the memory of the machine, or of this process's control groups where these are more limited."""
    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    for folder in _folders("memory"):
        limit, used = (_number(folder, names) for names in (_LIMIT, _USED))
        if limit is not None and used is not None and limit < machine.total:
            left = limit - used + _inactive_files(folder)
            total, available = min(total, limit), min(available, max(0, left))
    return MemoryUse(total, available)


def _quotas() -> Iterator[float]:
    """Yield the CPU quota of each control group that has one, in cores."""
    for folder in _folders("cpu"):
        both = _text(folder / "cpu.max").split() or [
            _text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
        ]
        if len(both) == 2 and all(text.isdecimal() for text in both) and int(both[1]):
            yield int(both[0]) / int(both[1])


def _folders(controller: str) -> Iterator[Path]:
    """Yield this process's control-group folders for a controller, each with its parent groups."""
    for line in _text(OWN).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        root = GROUPS / controller if controllers else GROUPS
        # in a container the path may be the host's, where nothing is mounted; its own group is then the root
        start = root / path.lstrip("/")
        yield from (folder for folder in (start, *start.parents) if folder.is_relative_to(root) and folder.is_dir())


def _inactive_files(folder: Path) -> int:
    """Return the bytes of cached, inactive files: the kernel counts them as used and frees them first."""
    statistics = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
    value = statistics.get("total_inactive_file", statistics.get("inactive_file", "0"))
    return int(value) if value.isdecimal() else 0


def _number(folder: Path, names: tuple[str, ...]) -> int | None:
    texts = (_text(folder / name).strip() for name in names)
    return next((int(text) for text in texts if text.isdecimal()), None)


def _text(file: Path) -> str:
    """Return the text of a file; empty if the file is absent or unreadable."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return ""


QUIET = 0.9  # share of the processor from which on a machine counts as quiet
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt, malloc.h


class MemoryPeak:
    """Context manager that samples this process's resident memory; `megabytes` is the peak."""

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

    def above_present(self) -> float:
        """Return the peak above the present resident memory (MB), after releasing freed memory."""
        release_memory()
        return max(0.0, self.megabytes - float(psutil.Process().memory_info().rss) / 1e6)

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.megabytes = max(self.megabytes, process.memory_info().rss / 1e6)
            if self._done.wait(self._every):
                return


def is_busy(share: float | None) -> bool:
    """True if the share is below QUIET, so that timings do not hold for a quiet machine."""
    return share is not None and share < QUIET


def release_memory() -> None:
    """Return freed memory to the system.

    glibc keeps the freed memory of tensors under 32 MB: half a gigabyte after training and after answering, each
    time. Arrow keeps what its arrays took.
    """
    gc.collect()
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)


_gc_is_frozen = False  # True inside `gc_frozen`


@contextmanager
def gc_frozen() -> Iterator[None]:
    """Context manager: excludes all present objects from garbage collection (`gc.freeze`).

    Half a million objects of libraries cost a quarter of a second per collection, and a trial of a search has
    several. Afterwards everything is collected again, so that models of the caller are freed when the caller drops
    them. Nested uses change nothing.
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
    """Let this process reuse freed memory for its next tensors, up to a gigabyte; `release_memory` still returns it.

    glibc returns large blocks to the system as soon as they are free, and faulting their pages in again takes longer
    than many operations on them. Environment settings (MALLOC_…_) take precedence.
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
    """Return the bytes of all files below `folder`; 0 if it is absent."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def describe_machine() -> dict[str, Any]:
    """Return the system, the processor, and the cores and memory that this process may use, for the manifest."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "memory_gb": round(memory_use().total / 1e9, 1),
    }


def versions() -> dict[str, str]:
    """Return the versions of the libraries that affect results."""
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
    """Return the processor's name with family and model, as clouds give many generations one name."""
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in cpuinfo.splitlines())}
    name = fields.get("model name", "")
    if not name or not {"cpu family", "model"} <= fields.keys():
        return name
    return f"{name} (family {fields['cpu family']} model {fields['model']})"


def user_name() -> str:
    """Return the name of the user who runs this, as the system has it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "unknown"
