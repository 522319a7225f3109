"""The part of a machine that this process may use: a container's control groups, of either version, may allow it less than there is."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# Names of the same figure in the second version and in the first.
_LIMIT, _USED = ("memory.max", "memory.limit_in_bytes"), ("memory.current", "memory.usage_in_bytes")


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes there are, and those that are free or can be freed at once."""

    total: int
    available: int


def cpu_ids() -> list[int]:
    """The cores that this process may run on, by number."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def cores() -> int:
    """Cores that this process may keep busy: those it may run on, and no more than its quota of their time, rounded up."""
    return max(1, min([len(cpu_ids()), *(math.ceil(quota) for quota in _quotas())]))


def memory_use() -> MemoryUse:
    """Memory of the machine, or of the groups that this process is in where they are allowed less."""
    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    for folder in _folders("memory"):
        limit, used = (_number(folder, names) for names in (_LIMIT, _USED))
        if limit is not None and used is not None and limit < machine.total:
            left = limit - used + _inactive_files(folder)
            total, available = min(total, limit), min(available, max(0, left))
    return MemoryUse(total, available)


def _quotas() -> Iterator[float]:
    """In cores, of every group that has one."""
    for folder in _folders("cpu"):
        both = _text(folder / "cpu.max").split() or [
            _text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
        ]
        if len(both) == 2 and all(text.isdecimal() for text in both) and int(both[1]):
            yield int(both[0]) / int(both[1])


def _folders(controller: str) -> Iterator[Path]:
    """Those of this process's groups that speak of a controller, each with the groups around it."""
    for line in _text(OWN).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        root = GROUPS / controller if controllers else GROUPS
        # inside a container the path may be that of the machine, where nothing is mounted; its own group is the root then
        inside = root / path.lstrip("/")
        yield from (folder for folder in (inside, *inside.parents) if folder.is_relative_to(root) and folder.is_dir())


def _inactive_files(folder: Path) -> int:
    """Bytes of files that were read and are not in use, which count as used and are let go first."""
    statistics = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
    value = statistics.get("total_inactive_file", statistics.get("inactive_file", "0"))
    return int(value) if value.isdecimal() else 0


def _number(folder: Path, names: tuple[str, ...]) -> int | None:
    texts = (_text(folder / name).strip() for name in names)
    return next((int(text) for text in texts if text.isdecimal()), None)


def _text(file: Path) -> str:
    """What a file says, nothing where there is none or it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return ""
