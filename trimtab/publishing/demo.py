"""`demo surface`: the audit of a bundled site with known faults."""

from __future__ import annotations

import sys
from pathlib import Path

from trimtab.base.progress import Progress
from trimtab.base.surface import SurfaceAudit
from trimtab.publishing.audit import surface_audit
from trimtab.studies.demo import copy_example

ORIGIN = "https://saltmere.example/"


def demo_surface(folder: str | Path | None = None, *, progress: Progress | None = None) -> SurfaceAudit:
    """Copy the bundled site to a folder (`trimtab-demo-surface` here unless given) and audit it; its page is `audit.html` there.

    No model and no network is needed. The site's faults were planted: `truth.json` beside it has each. Raises InputError for a folder
    that holds something else.
    """
    place = Path("trimtab-demo-surface" if folder is None else folder)
    copy_example("surface", place, "truth.json")
    sys.stderr.write(
        f"Trimtab demo in {place}: audit of a made-up site, whose faults were planted and stand in truth.json. Again by hand:\n"
        f"trimtab surface audit {place / 'site'} --base {ORIGIN} --page {place / 'audit.html'}\n"
    )
    return surface_audit(
        place / "site", base=ORIGIN, page=place / "audit.html", cache=place / ".trimtab", progress=progress
    )
