"""The name of the machine; the limits of a container, by made trees of control groups of both versions."""

from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from trimtab.base import machine
from trimtab.base.machine import processor_name

AMD = (
    "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n"
    "bogomips\t: 5192.24\n"
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (AMD + "\n" + AMD, "AMD EPYC (family 26 model 2)"),
        ("processor\t: 0\nBogoMIPS\t: 243.75\nCPU part\t: 0xd40\n", ""),  # Arm: the system's own word is taken then
        ("model name\t: A: B\n", "A: B"),
        ("", ""),
    ],
)
def test_a_processor_is_told_with_its_generation(text: str, name: str) -> None:
    assert processor_name(text) == name


MACHINE = psutil.virtual_memory().total
HERE = len(machine.cpu_ids())
Lay = Callable[[str, Mapping[str, str]], None]


@pytest.fixture
def lay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lay:
    """Lay what /proc/self/cgroup says, and files below /sys/fs/cgroup."""
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OWN", tmp_path / "own")

    def made(own: str, files: Mapping[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            file = tmp_path / "cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return made


@pytest.mark.parametrize(
    ("own", "files", "allowed"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, HERE),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1),  # the group around it
        ("0::/machine/x\n", {"cpu.max": "100000 100000\n"}, 1),  # a path of the machine, seen from inside
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, HERE),
        ("0::/\n", {"cpu.max": "100000 0\n"}, HERE),
        ("0::/\n", {"cpu.max": "\n"}, HERE),
        ("nonsense\n", {}, HERE),
    ],
)
def test_no_more_cores_than_the_quota(lay: Lay, own: str, files: Mapping[str, str], allowed: int) -> None:
    lay(own, files)
    assert machine.cores() == allowed


def test_part_of_a_core_is_a_core(lay: Lay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_ids", lambda: list(range(64)))
    lay("0::/\n", {"cpu.max": "150000 100000\n"})
    assert machine.cores() == 2


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        ("0::/\n", {"memory.max": "1000000", "memory.current": "400000"}, 600_000),
        (
            "0::/\n",
            {"memory.max": "1000000", "memory.current": "400000", "memory.stat": "anon 1\ninactive_file 300000"},
            900_000,
        ),
        ("0::/\n", {"memory.max": "1000000", "memory.current": "1200000"}, 0),
        (
            "5:memory:/x\n",
            {"memory/x/memory.limit_in_bytes": "1000000", "memory/x/memory.usage_in_bytes": "1"},
            999_999,
        ),
    ],
)  # fmt: skip
def test_memory_is_that_of_the_container(lay: Lay, own: str, files: Mapping[str, str], left: int) -> None:
    lay(own, files)
    assert machine.memory_use() == machine.MemoryUse(1_000_000, left)


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", ""])
def test_without_a_limit_it_is_the_machines(lay: Lay, limit: str) -> None:
    lay("0::/\n", {"memory.max": limit, "memory.current": "1"})
    assert machine.memory_use().total == MACHINE


def test_without_control_groups_it_is_the_machines(lay: Lay) -> None:
    lay("", {})
    assert machine.cores() == HERE
    assert machine.memory_use().total == MACHINE
