"""`doctor`: checks what this machine provides for Trimtab, what is missing, and the command that installs it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.base.config import BASE_MODEL, EMBEDDING
from trimtab.base.files import cache_root
from trimtab.base.machine import cores, memory_use
from trimtab.base.show import Shown
from trimtab.model.catalog import CATALOGUE, resolve
from trimtab.model.suggestions import FittingModel, advice, free_memory, models_that_fit

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from rich.console import Console

    from trimtab.model.device_record import DeviceCheck
    from trimtab.model.devices import Compute

NEEDED_MEMORY_GB = 4.0  # the documented requirement of the demo
NEEDED_DISK_GB = 2.0  # both models, their download, and a study
DEMO_MODELS = (BASE_MODEL, EMBEDDING)
DISTRIBUTION = "trimtab"
REPORT_IT = "report it with the output of: trimtab doctor --device --json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something missing, with the command or change that resolves it."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DoctorReport(Shown):
    """The state of this machine. `missing`: prevents something from working. `optional`: only limits what is possible.

    `larger`: the largest instruct models of the catalogue's dated list that fit `model_memory_gb`, the free memory
    of the GPU or else of the machine. `checks`: comparisons of the devices with plain float32, none before the first.
    """

    system: str
    python: str
    cores: int
    memory_gb: float
    memory_free_gb: float
    cache: Path
    disk_free_gb: float
    compute: Compute | None
    models: tuple[str, ...]
    model_memory_gb: float
    larger: tuple[FittingModel, ...]
    missing: tuple[Gap, ...]
    optional: tuple[Gap, ...]
    checks: tuple[DeviceCheck, ...]

    def render(self, console: Console) -> None:
        """Draw the report."""
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for name, value in _lines(self):
            table.add_row(Text(name, style="dim"), Text(value))
        console.print(table)
        for line in advice(self.larger, self.model_memory_gb):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        for title, gaps in (("missing", self.missing), ("optional", self.optional)):
            by_remedy: dict[str, list[str]] = {}
            for gap in gaps:
                by_remedy.setdefault(gap.remedy, []).append(gap.what)
            for remedy, whats in by_remedy.items():
                console.print(f"{title}: {', '.join(whats)}; {remedy}", markup=False, highlight=False)
        if not self.missing:
            console.print("nothing is missing", markup=False)


def doctor(*, device: bool = False) -> DoctorReport:
    """Examine cores, memory, disk, libraries and the model cache; benchmark bfloat16 for half a second.

    `device`: compare the device anew with plain float32, part by part, which takes some seconds; else the report's
    `checks` are those that are kept on this machine.
    """
    missing, optional = _packages()
    compute = None
    checks: tuple[DeviceCheck, ...] = ()
    if not any(gap.what.startswith("package torch") for gap in missing):
        from trimtab.model.devices import inspect_compute

        compute = inspect_compute()
        checks = _device_checks(anew=device)
        for check in checks:
            if check.off:
                (missing if check.is_unusable else optional).append(Gap(what=check.headline, remedy=REPORT_IT))
        if not (compute.kernels or compute.accelerators):
            off = os.environ.get("TRIMTAB_KERNELS") == "0"
            remedy = "install gcc or clang, and see that the cache can be written"
            remedy = "unset TRIMTAB_KERNELS, which turns them off" if off else remedy
            optional.append(Gap(what="kernels for this processor, with which models answer faster", remedy=remedy))
    held, free_for_models = memory_use(), free_memory()
    total, free = held.total / 1e9, held.available / 1e9
    root = cache_root()
    disk = shutil.disk_usage(_existing(root)).free / 1e9
    models = tuple(name for name in CATALOGUE if _is_here(name))
    lacking = [name for name in DEMO_MODELS if name not in models]
    if lacking:
        missing.append(Gap(what=f"models {' and '.join(lacking)}", remedy=f"run: trimtab pull {' '.join(lacking)}"))
    if not os.access(_existing(root), os.W_OK):
        gap = Gap(what=f"a cache that can be written: {root} cannot", remedy="set TRIMTAB_CACHE to another folder")
        (missing if lacking else optional).append(gap)
    if total < NEEDED_MEMORY_GB:
        missing.append(
            Gap(what=f"memory: {total:.1f} of {NEEDED_MEMORY_GB:.0f} GB", remedy="use a machine or container with more")
        )
    if disk < NEEDED_DISK_GB:
        missing.append(
            Gap(what=f"disk: {disk:.1f} of {NEEDED_DISK_GB:.0f} GB free", remedy="free some, or set TRIMTAB_CACHE")
        )
    return DoctorReport(
        system=platform.platform(terse=True),
        python=platform.python_version(),
        cores=cores(),
        memory_gb=round(total, 1),
        memory_free_gb=round(free, 1),
        cache=root,
        disk_free_gb=round(disk, 1),
        compute=compute,
        models=models,
        model_memory_gb=round(free_for_models.bytes / 1e9, 1),
        larger=models_that_fit(free_for_models),
        missing=tuple(missing),
        optional=tuple(optional),
        checks=checks,
    )


def _device_checks(*, anew: bool) -> tuple[DeviceCheck, ...]:
    """Return the comparisons of the devices with plain float32: made now, or those that are kept."""
    from trimtab.arms.device_check import check_anew
    from trimtab.model.device_record import kept_check, preferred_device

    if anew:
        return check_anew()
    kept = map(kept_check, dict.fromkeys((preferred_device(), "cpu")))
    return tuple(check for check in kept if check is not None)


def _lines(report: DoctorReport) -> list[tuple[str, str]]:
    lines = [
        ("system", f"{report.system}, Python {report.python}"),
        ("cores", str(report.cores)),
        ("memory", f"{report.memory_gb:.1f} GB, {report.memory_free_gb:.1f} GB free"),
    ]
    if report.compute is not None:
        lines.append(
            ("torch", f"{report.compute.torch}, {report.compute.threads} thread{'s' * (report.compute.threads != 1)}")
        )
        lines.append(
            ("accelerator", ", ".join(report.compute.accelerators) or "none; training and answering use the cores")
        )
        lines.append(
            ("precision", "bf16 is faster here" if report.compute.faster_in_bf16 else "fp32; bf16 is not faster here")
        )
        if not report.compute.accelerators:
            lines.append(("kernels", "compiled for this processor" if report.compute.kernels else "torch's own"))
        lines += [("compared with float32", check.headline) for check in report.checks if not check.off]
    lines.append(("cache", f"{report.cache}, {report.disk_free_gb:.1f} GB free"))
    lines.append(("models", ", ".join(report.models) or "none"))
    return lines


def _packages() -> tuple[list[Gap], list[Gap]]:
    """Return the missing or outdated required and optional packages, by this installation's metadata."""
    from packaging.requirements import Requirement

    missing, optional = [], []
    extras = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    for wanted in map(Requirement, importlib.metadata.requires(DISTRIBUTION) or []):
        found = _installed(wanted.name)
        if found is not None and wanted.specifier.contains(found, prereleases=True):
            continue
        what = f"package {wanted.name}" + (f" {wanted.specifier}; {found} is here" if found else "")
        if _asked_for(wanted, ""):
            missing.append(Gap(what=what, remedy=f"run: pip install '{wanted.name}{wanted.specifier}'"))
        optional += [
            Gap(what=what, remedy=f"run: pip install '{DISTRIBUTION}[{extra}]'")
            for extra in extras
            if extra != "dev" and not _asked_for(wanted, "") and _asked_for(wanted, extra)
        ]
    return missing, optional


def _asked_for(wanted: Requirement, extra: str) -> bool:
    return wanted.marker is None or wanted.marker.evaluate({"extra": extra})


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _is_here(name: str) -> bool:
    from trimtab.base.errors import MissingError

    try:
        resolve(name)
    except MissingError:
        return False
    return True
