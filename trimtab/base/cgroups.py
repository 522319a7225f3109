"""CPU cores and memory available to this process, within the limits of its control groups (cgroup v1 and v2)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
    """Return the number of cores that this process may keep busy: its allowed cores, at most its CPU quota (rounded
    up), at least 1.
    """
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
        inside = root / path.lstrip("/")
        yield from (folder for folder in (inside, *inside.parents) if folder.is_relative_to(root) and folder.is_dir())


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
