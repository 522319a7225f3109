"""`trimtab demo surface`: audits a bundled site with known faults, and asks it the questions of its visitors."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from trimtab.base.progress import Progress
from trimtab.base.show import Shown
from trimtab.publishing.audit import surface_audit
from trimtab.publishing.coverage import EMBEDDING, surface_coverage
from trimtab.publishing.records import SurfaceAudit, SurfaceCoverage
from trimtab.studies.demo import copy_example, fetch_model

ORIGIN = "https://saltmere.example/"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SurfaceDemo(Shown):
    """The audit of the bundled site, and which questions of its visitors a simulated assistant answers from it."""

    audit: SurfaceAudit
    coverage: SurfaceCoverage

    @property
    def headline(self) -> str:
        """Return both in one line."""
        return f"{self.audit.headline} {self.coverage.headline}"


def demo_surface(folder: str | Path | None = None, *, progress: Progress | None = None) -> SurfaceDemo:
    """Copy the bundled site to a folder (`trimtab-demo-surface` here unless given), audit it, and ask the questions
    of its visitors.

    Its pages are `audit.html` and `coverage.html` there. The site's faults were planted: `truth.json` beside it has
    each. Raises InputError for a folder that holds something else, MissingError where the embedding model cannot be
    fetched.
    """
    place = Path("trimtab-demo-surface" if folder is None else folder)
    with as_file(files("trimtab.publishing") / "example") as source:
        copy_example(source, place)
    site, questions = place / "site", place / "questions.txt"
    fetch_model(EMBEDDING, place)
    sys.stderr.write(
        f"Trimtab demo in {place}: a made-up site, whose faults were planted and stand in truth.json. "
        "The same by hand:\n"
        f"trimtab surface audit {site} --base {ORIGIN} --page {place / 'audit.html'}\n"
        f"trimtab surface coverage {site} --questions {questions} --page {place / 'coverage.html'}\n"
    )
    audit = surface_audit(site, base=ORIGIN, page=place / "audit.html", cache=place / ".trimtab", progress=progress)
    coverage = surface_coverage(
        site, questions, page=place / "coverage.html", cache=place / ".trimtab", progress=progress
    )
    return SurfaceDemo(audit=audit, coverage=coverage)
