"""The result of a device check: kept in the cache for this machine and these versions, and asked what may be used.

A device is `cpu` or `cuda`. `trimtab/arms/device_check.py` makes the check.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.base.codec import read_record, write_record
from trimtab.base.errors import InputError
from trimtab.base.files import cache_root
from trimtab.base.machine import describe_machine
from trimtab.base.show import Shown, ShownRow

if TYPE_CHECKING:
    from rich.console import Console

KERNELS, BF16, DEVICE = "kernels", "bf16", "device"  # what can be switched off
_FORM = 1  # of the check: its parts and tolerances; a result of another form does not count
AGAIN = "trimtab doctor --device"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """One part of a check in one variant. `difference`: the largest one, as a share of the largest value; None if the
    part failed (`error`) or gave no finite numbers.
    """

    what: str
    precision: str
    kernels: bool
    difference: float | None
    tolerance: float
    equal: bool
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DeviceCheck(Shown):
    """The comparison of a device with plain eager float32 on the processor; `off` names what is switched off for it.

    `key`: hash of the device, the processor, the kernels and the versions that the result holds for.
    """

    device: str
    name: str
    system: str
    date: str
    seconds: float
    versions: Mapping[str, str]
    kernels: bool
    key: str
    rows: tuple[CheckRow, ...]
    off: tuple[str, ...]

    @property
    def headline(self) -> str:
        """Return the outcome in one sentence."""
        if not self.off:
            return f"{self.name}: all {len(self.rows)} parts equal plain float32; nothing is switched off"
        return f"{self.name}: {_consequence(self)} ({_reason(self)})"

    @property
    def is_unusable(self) -> bool:
        """True if nothing is left to compute with: the processor itself is switched off."""
        return self.device == "cpu" and DEVICE in self.off

    def screen(self) -> Sequence[ShownRow]:
        """Return the rows for a terminal."""
        return [_shown(row) for row in self.rows]

    def render(self, console: Console) -> None:
        """Draw the table and the outcome."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        rows = self.screen()
        for name in rows[0] if rows else ():
            table.add_column(name, justify="left" if name in ("part", "by", "equal") else "right")
        for row in rows:
            table.add_row(*(Text(str(value)) for value in row.values()))
        console.print(table)
        console.print(self.headline, markup=False, highlight=False, soft_wrap=True)


def _shown(row: CheckRow) -> ShownRow:
    return {
        "part": row.what,
        "by": f"{row.precision}{', kernels' if row.kernels else ''}",
        "difference": "failed" if row.difference is None else f"{row.difference:.1e}" if row.difference else "0",
        "tolerance": f"{row.tolerance:g}",
        "equal": "yes" if row.equal else row.error or "NO",
        "seconds": f"{row.seconds:.2f}",
    }


def _consequence(check: DeviceCheck) -> str:
    if DEVICE in check.off:
        return "it is not used" if check.device == "cpu" else f"{check.device} is switched off, the processor is used"
    names = {BF16: "bf16", KERNELS: "the C kernels"}
    words = [text for name, text in names.items() if name in check.off]
    return f"{' and '.join(words)} {'are' if KERNELS in check.off or len(words) > 1 else 'is'} switched off"


def _reason(check: DeviceCheck) -> str:
    """Return the first part that differs, with the number of others."""
    first, *others = (row for row in check.rows if not row.equal)
    by = f"{first.precision}{' by kernels' if first.kernels else ''}"
    apart = f"by {first.difference:.2g}, and {first.tolerance:g} is allowed" if first.difference is not None else "fail"
    more = f"; so do {len(others)} more" if others else ""
    return f"{first.what} in {by} {'differ ' if first.difference is not None else ''}{apart}{more}"


def what_to_switch_off(rows: Sequence[CheckRow]) -> tuple[str, ...]:
    """Return what a check switches off: the kernels, bfloat16, or the whole device, by the variant that differs."""
    wrong = {(row.precision, row.kernels) for row in rows if not row.equal}
    if ("fp32", False) in wrong:
        return (DEVICE,)
    bf16, kernels = ("bf16", False) in wrong, any(by_kernels for _, by_kernels in wrong)
    return tuple(name for name, is_wrong in ((BF16, bf16), (KERNELS, kernels)) if is_wrong)


def new_check(device: str, rows: Sequence[CheckRow], seconds: float, date: str) -> DeviceCheck:
    """Return the result of a check that was just made on this machine."""
    facts = _facts(device)
    return DeviceCheck(
        device=device,
        name=facts["name"],
        system=f"{platform.system()} {platform.machine()}",
        date=date,
        seconds=seconds,
        versions={name: facts[name] for name in ("trimtab", "torch", "transformers")},
        kernels=facts["kernels"] != "none",
        key=_key(facts),
        rows=tuple(rows),
        off=what_to_switch_off(rows),
    )


def _facts(device: str) -> dict[str, str]:
    """Return everything that a result holds for: device, processor, kernels and versions."""
    import torch

    from trimtab.model.kernels.build import library, library_hash

    name = describe_machine()["processor"]
    if device == "cuda":
        name = f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda})"
    return {
        "form": str(_FORM),
        "device": device,
        "name": name,
        "processor": library_hash(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # the environment may allow torch fewer
        "kernels": "there" if library() else "none",
        **{package: version(package) for package in ("trimtab", "torch", "transformers")},
    }


def _key(facts: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


_known: dict[str, DeviceCheck | None] = {}  # of this process, by device


def is_wanted() -> bool:
    """True unless `TRIMTAB_DEVICE_CHECK=0`: then nothing is checked and nothing is switched off."""
    return os.environ.get("TRIMTAB_DEVICE_CHECK") != "0"


def kept_check(device: str) -> DeviceCheck | None:
    """Return the result for this machine and these versions; None if there is none, or it is not wanted.

    The cache is read once a process.
    """
    if not is_wanted():
        return None
    if device not in _known:
        key = _key(_facts(device))
        check = None
        with suppress(InputError, OSError, ValueError):  # none there, damaged, or of another version
            check = read_record(_file(key), DeviceCheck)
        _known[device] = check if check is not None and check.key == key else None
    return _known[device]


def keep(check: DeviceCheck) -> None:
    """Keep a result in the cache, where it can be written, and for this process."""
    _known[check.device] = check
    with suppress(OSError):
        write_record(_file(check.key), check)


def _file(key: str) -> Path:
    return cache_root() / "devices" / f"{key}.json"


def switched_off(device: str) -> tuple[str, ...]:
    """Return what must not be used of a device: some of KERNELS, BF16 and DEVICE. Empty if it was never checked."""
    check = kept_check(device)
    return () if check is None else check.off


def preferred_device() -> str:
    """Return `cuda` if torch finds a GPU, else `cpu`: the device that is checked first."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device() -> str:
    """Return the preferred device, or `cpu` if the check has switched that off."""
    device = preferred_device()
    return "cpu" if DEVICE in switched_off(device) else device


def require_usable(device: str, precision: str) -> None:
    """Raise InputError if the check has switched off a device, or bf16 on it and `precision` is bf16."""
    off = switched_off(device)
    if DEVICE in off:
        raise InputError(f"{device} computes other numbers than float32", f"look at them with: {AGAIN}", field=device)
    if BF16 in off and precision == "bf16":
        remedy = f'set precision = "fp32" under [base], or look at the numbers with: {AGAIN}'
        raise InputError(f"bf16 on this {device} differs from float32 by more than rounding", remedy, field="precision")


def check_summary() -> dict[str, Any] | None:
    """Return the outcome for the device in use, for the manifest; None if it was never checked."""
    check = kept_check(usable_device())
    if check is None:
        return None
    return {"device": check.device, "date": check.date, "key": check.key, "off": list(check.off)}
