"""Worker process that tests one answer: code and tests on standard input, a token back if they pass. It imports nothing
of ours.

The code is foreign. Before it runs, the process gives up what it can: processor time, memory, files and folders but
its own, and on Linux (Landlock and seccomp; x86-64 and ARM64) other processes, programs and the network too. What a
system lacks is left out.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
import sys
import types
from contextlib import suppress
from importlib.abc import InspectLoader
from typing import Any

SIZE_OF_FILE, OPEN_FILES = 1 << 20, 32
# Calls that are refused, by their numbers on x86-64 and ARM64 (None: not there): network, processes and programs,
# signals to and the memory of others, rights of files, and io_uring, which would do all of these unseen.
_REFUSED: tuple[tuple[int | None, int | None], ...] = (
    (41, 198),  # socket
    (56, 220),  # clone
    (435, 435),  # clone3
    (57, None),  # fork
    (58, None),  # vfork
    (59, 221),  # execve
    (322, 281),  # execveat
    (62, 129),  # kill
    (200, 130),  # tkill
    (234, 131),  # tgkill
    (424, 424),  # pidfd_send_signal
    (101, 117),  # ptrace
    (311, 271),  # process_vm_writev
    (272, 97),  # unshare
    (90, None),  # chmod
    (91, 52),  # fchmod
    (268, 53),  # fchmodat
    (452, 452),  # fchmodat2
    (92, None),  # chown
    (93, 55),  # fchown
    (94, None),  # lchown
    (260, 54),  # fchownat
    (425, 425),  # io_uring_setup
)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # place above, and the kernel's name (audit.h)
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # of classic BPF (filter.h)
_ALLOW, _NOT_PERMITTED = 0x7FFF0000, 0x00050001  # what a filter returns (seccomp.h)
_X32 = 0x40000000  # from here on numbers are those of another interface of x86-64
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2  # of prctl
_CREATE_RULES, _ADD_RULE, _RESTRICT = 444, 445, 446  # of Landlock, on every machine
_WRITES = sum(1 << bit for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12))  # write, remove and make (landlock.h)
_TRUNCATE, _KNOWS_TRUNCATE = 1 << 14, 3
_CAPABILITIES = 0x20080522  # version 3


class _Text(InspectLoader):
    """A module loader whose source is a text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def get_source(self, fullname: str) -> str:  # noqa: ARG002 - as importlib calls it
        return self.text


def main(megabytes: int, seconds: int) -> None:
    """Read the request, drop what rights can be dropped, and write the token back if the code passes its tests."""
    asked = json.loads(sys.stdin.buffer.read())
    report = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    _limit(megabytes, seconds)
    if sys.platform == "linux":
        _confine(os.getcwd())
    if _passes(asked["code"], asked["tests"]):
        os.write(report, asked["token"].encode())
    os._exit(0)  # nothing that the code left behind runs


def _passes(code: str, tests: str) -> bool:
    """True if the tests run without error after the code: their top level, then their functions `test…`, which take no
    arguments."""
    try:
        names = {name: value for name, value in vars(_run("answer", code, {})).items() if not name.startswith("__")}
        asked = vars(_run("tests", tests, names))
        for name, value in list(asked.items()):
            if name.startswith("test") and getattr(value, "__module__", "") == "tests":
                value()
    except BaseException:  # noqa: BLE001 - whatever the code raises, SystemExit among it, it has not passed
        return False
    return True


def _run(name: str, text: str, names: dict[str, Any]) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(names)
    sys.modules[name] = module  # where dataclasses and the like look for it
    _Text(text).exec_module(module)
    return module


def _limit(megabytes: int, seconds: int) -> None:
    with suppress(ImportError):
        import resource

        most = {
            "RLIMIT_AS": megabytes << 20,
            "RLIMIT_CPU": seconds,
            "RLIMIT_FSIZE": SIZE_OF_FILE,
            "RLIMIT_NOFILE": OPEN_FILES,
            "RLIMIT_NPROC": 0,
            "RLIMIT_CORE": 0,
        }
        for name, value in most.items():
            with suppress(AttributeError, ValueError, OSError):  # a system without it
                resource.setrlimit(getattr(resource, name), (value, value))


def _confine(folder: str) -> None:
    """Restrict writing to this folder, and refuse the system calls above; each as far as the kernel supports it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with suppress(AttributeError):
        libc.capset(struct.pack("=Ii", _CAPABILITIES, 0), struct.pack("=6I", *[0] * 6))  # where it runs as root
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _write_below(libc, folder)
    _refuse(libc)


def _write_below(libc: Any, folder: str) -> None:
    """Apply Landlock, from Linux 5.13 on: files can be created, changed and removed only below the folder."""
    version = libc.syscall(_CREATE_RULES, None, 0, 1)
    if version < 1:
        return
    handled = _WRITES | (_TRUNCATE if version >= _KNOWS_TRUNCATE else 0)
    rules = libc.syscall(_CREATE_RULES, struct.pack("=Q", handled), 8, 0)
    below = os.open(folder, os.O_PATH)
    libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", handled, below), 0)
    libc.syscall(_RESTRICT, rules, 0)
    os.close(below)
    os.close(rules)


def _refuse(libc: Any) -> None:
    """Apply seccomp: the calls above are refused, and so are those of other architectures."""
    if platform.machine() not in _MACHINES:
        return
    place, name = _MACHINES[platform.machine()]
    numbers = [number for pair in _REFUSED if (number := pair[place]) is not None]
    tests = [(_AT_LEAST, _X32), *((_EQUAL, number) for number in numbers)]
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, name), (_RETURN, 0, 0, _NOT_PERMITTED), (_LOAD, 0, 0, 0)]
    steps += [(code, len(tests) - at, 0, value) for at, (code, value) in enumerate(tests)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOT_PERMITTED)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    whole = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
    libc.prctl(_SET_SECCOMP, _FILTER, whole, 0, 0)


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:]))
