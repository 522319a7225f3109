"""The example `trimtab demo surface`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.base.errors import InputError
from trimtab.publishing.cli.audit import draw_site_audit, progress_display
from trimtab.publishing.cli.coverage import draw_coverage
from trimtab.publishing.demo import demo_surface

if TYPE_CHECKING:
    from rich.console import Console

    from trimtab.cli.output import Output


def demo(output: Output, folder: Path | None, *, cut: bool) -> bool:
    """Audit the bundled site, ask it the questions of its visitors, and print both; return True, whatever they show."""
    if cut:
        raise InputError("the audit of a site takes seconds and has no smaller part", "leave it out", field="--cut")
    with progress_display() as progress:
        result = demo_surface(folder, progress=progress)

    def draw(console: Console) -> None:
        draw_site_audit(console, result.audit)
        console.print("")
        draw_coverage(console, result.coverage)

    output.show(result, draw)
    return True
