"""Stores which device was seen by whom: the table of `trimtab doctor --device`, of this machine or of a report.

BY is a name for the table in docs/trust/devices.md. REPORT is a file with the output of `trimtab doctor --device
--json` on another machine, as a bug report has it; without one, the device of this machine is checked.

    python benchmarks/devices.py BY [REPORT]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import trimtab
from trimtab.base.codec import to_plain
from trimtab.base.errors import InputError
from trimtab.base.files import read_object, write_json

RESULTS = Path(__file__).parent / "results" / "devices"


def main(by: str, report: str | None = None) -> None:
    """Write a file for each device that was checked, named after it."""
    found = read_object(Path(report), "checks") if report else to_plain(trimtab.doctor(device=True))
    if not found["checks"]:
        raise InputError("holds no check of a device", "make it with: trimtab doctor --device --json", file=report)
    for check in found["checks"]:
        name = re.sub(r"[^a-z0-9]+", "-", f"{check['device']} {check['name']}".lower()).strip("-")
        write_json(RESULTS / f"{name}.json", {"by": by, **check})
        print(f"{RESULTS / name}.json")


if __name__ == "__main__":
    main(*sys.argv[1:])
