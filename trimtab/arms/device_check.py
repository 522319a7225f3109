"""Checks a device before its first use on a machine: in a process of its own, whose crash is a result, too."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from trimtab.base.codec import from_plain
from trimtab.base.errors import InputError
from trimtab.base.worker import Worker
from trimtab.model.device_record import (
    AGAIN,
    DEVICE,
    CheckRow,
    DeviceCheck,
    is_wanted,
    keep,
    kept_check,
    new_check,
    preferred_device,
)

SECONDS = 600.0  # after which a check is given up
LONGEST = 1_000_000  # bytes of its answer
SCRIPT = Path(__file__).with_name("device_worker.py")
Tell = Callable[[str], None]


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def ensure_checked(tell: Tell = _tell, script: Path = SCRIPT) -> None:
    """Check the device of this machine unless that was done before with the same versions; `tell` gets a line if not.

    A GPU that is switched off leaves the processor, which is then checked. Raises InputError if a check crashes.
    """
    if not is_wanted():
        return
    device = preferred_device()
    check = kept_check(device) or check_device(device, tell, script)
    if DEVICE in check.off and device != "cpu" and kept_check("cpu") is None:
        check_device("cpu", tell, script)


def check_anew() -> tuple[DeviceCheck, ...]:
    """Check the device of this machine whatever is kept, and the processor after a GPU that is switched off."""
    device = preferred_device()
    check = check_device(device)
    return (check, check_device("cpu")) if DEVICE in check.off and device != "cpu" else (check,)


def check_device(device: str, tell: Tell = _tell, script: Path = SCRIPT) -> DeviceCheck:
    """Check a device anew and keep the result. `tell` gets a line before it, and one if something is switched off.

    Raises InputError, and keeps nothing, if the check ends without a result or without memory.
    """
    names = {"cpu": "this processor", "cuda": "this GPU"}
    tell(f"Comparing {names.get(device, device)} with plain float32, once for these versions (some seconds)")
    began = time.perf_counter()
    rows = _rows(script, device, "kernels")
    if rows is None:  # an instruction that the processor lacks ends the process
        rows = _rows(script, device, "plain")
        if rows is None:
            remedy = f"try again, or report it with the output of: {AGAIN}"
            raise InputError("the comparison with plain float32 ended without a result", remedy, field=device)
        rows = [*rows, _CRASHED]
    date = datetime.now(UTC).isoformat(timespec="seconds")
    check = new_check(device, rows, round(time.perf_counter() - began, 1), date)
    keep(check)
    if check.off:
        tell(check.headline)
    return check


_CRASHED = CheckRow(
    what="all parts",
    precision="bf16",
    kernels=True,
    difference=None,
    tolerance=0.0,
    equal=False,
    seconds=0.0,
    error="the process crashed",
)


def _rows(script: Path, device: str, ways: str) -> Sequence[CheckRow] | None:
    """Return the rows of a check in a process of its own, with the C kernels or `plain`; None if it crashed."""
    worker = Worker(script, [device, ways], seconds=SECONDS, longest=LONGEST)
    try:
        answer = worker.ask("")
    finally:
        worker.close()
    if answer is None:
        return None
    if "error" in answer:
        raise InputError(f"the comparison with plain float32 failed: {answer['error']}", "try again", field=device)
    return from_plain(tuple[CheckRow, ...], answer["rows"])
