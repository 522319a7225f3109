"""Precision and recall of every check of `surface audit` on the example site, whose faults were planted with their
truth.

Faults that the whole site or its server would have (no sitemap, an error of the server) are planted one by one in
copies of it.

    python benchmarks/surface_checks.py [--render]

writes benchmarks/results/surface_checks.json. `--render` needs Chromium.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine
from trimtab.publishing.check_table import CHECKS
from trimtab.publishing.checks import findings_of
from trimtab.publishing.crawl import crawl
from trimtab.publishing.pages import read_pages
from trimtab.publishing.records import Site, SurfaceFinding
from trimtab.publishing.rendering import with_rendered
from trimtab.publishing.site_pages import CrawledPages

RESULT = Path(__file__).with_name("results") / "surface_checks.json"
EXAMPLE = Path(str(files("trimtab.publishing") / "example"))
Fault = tuple[str, tuple[str, ...]]
"""A check, and the pages on which its fault may be told."""


def findings(
    folder: Path, origin: str, *, render: int = 0, change: Callable[[Site], Site] | None = None
) -> tuple[SurfaceFinding, ...]:
    """Return the findings of the checks in a folder, `change`d as a server might answer otherwise."""
    site = crawl(str(folder), cache=folder, base=f"{origin}/")
    site = change(site) if change else site
    pages = read_pages(site.pages)
    if render:
        pages = with_rendered(site, pages, most=render)
    return findings_of(CrawledPages(site=site, pages=pages))


def scored(
    found: Iterable[SurfaceFinding], faults: Sequence[Fault], origin: str, names: Iterable[str]
) -> dict[str, dict[str, int]]:
    """Count, by check: faults planted, faults found, findings, and findings on pages without the fault."""
    places = [(one.check, one.page.removeprefix(origin) or origin) for one in found]
    table = {}
    for name in names:
        planted = [pages for check, pages in faults if check == name]
        told = [page for check, page in places if check == name]
        table[name] = {
            "planted": len(planted),
            "found": sum(any(page in told for page in pages) for pages in planted),
            "told": len(told),
            "wrong": sum(not any(page in pages for pages in planted) for page in told),
        }
    return table


def variants(folder: Path, origin: str, render: bool) -> dict[str, dict[str, int]]:
    """Faults of the whole site, each in a copy of it."""
    table = {}

    def tried(*faults: Fault, edit: Callable[[Path], object] | None = None, **how: object) -> None:
        names = [name for name, _ in faults]
        copy = folder / names[0]
        shutil.copytree(EXAMPLE / "site", copy)
        if edit:
            edit(copy)
        found = findings(copy, origin, **how)  # type: ignore[arg-type]
        table.update(scored(found, faults, origin, names))

    def fails(site: Site) -> Site:
        return replace(
            site,
            pages=tuple(replace(one, status=503) if one.url == f"{origin}/tickets/" else one for one in site.pages),
        )

    def cut(site: Site) -> Site:
        return replace(site, pages=tuple(replace(one, cut=one.url == f"{origin}/visit/") for one in site.pages))

    def same_dates(copy: Path) -> None:
        file = copy / "sitemap.xml"
        file.write_text(
            re.sub("<lastmod>[^<]*", "<lastmod>2026-11-30", file.read_text(encoding="utf-8")), encoding="utf-8"
        )

    def nested(copy: Path) -> None:
        (copy / "visit" / "index.html").write_text("<html><body>" + "<div>" * 120_000, encoding="utf-8")

    def empty(copy: Path) -> None:
        (copy / "visit" / "packing" / "index.html").write_text(
            "<html><head><title>Pack</title></head><body></body></html>", encoding="utf-8"
        )

    def partly(copy: Path) -> None:
        file = copy / "ferries" / "orrin" / "index.html"
        brought = '<div id="map"></div><script src="/js/map.js"></script></article>'
        file.write_text(file.read_text(encoding="utf-8").replace("</article>", brought), encoding="utf-8")

    tried(("sitemap-missing", (origin,)), edit=lambda copy: (copy / "sitemap.xml").unlink())
    tried(("sitemap-same-date", ("/sitemap.xml",)), edit=same_dates)
    tried(("server-error", ("/tickets/",)), change=fails)
    tried(("page-cut", ("/visit/",)), change=cut)
    tried(("no-text", ("/visit/packing/",)), edit=empty)
    tried(("unreadable", ("/visit/",)), edit=nested)
    if render:
        by_script = ("text-by-script", ("/visit/old-map/",)), ("text-partly-by-script", ("/ferries/orrin/",))
        tried(*by_script, edit=partly, render=5)
    return table


def main(arguments: Sequence[str]) -> None:
    """Audit the example, and write the result."""
    truth = json.loads((EXAMPLE / "truth.json").read_text(encoding="utf-8"))
    origin = truth["origin"]
    faults = [(one["check"], tuple(one["pages"])) for one in truth["faults"]]
    site = crawl(str(EXAMPLE / "site"), cache=EXAMPLE, base=f"{origin}/")
    table = scored(findings(EXAMPLE / "site", origin), faults, origin, [check.name for check in CHECKS])
    with tempfile.TemporaryDirectory() as folder:
        apart = variants(Path(folder), origin, "--render" in arguments)
    table = {name: (row if row["planted"] else apart.get(name, row)) for name, row in table.items()}
    severities = {check.name: check.severity for check in CHECKS}
    write_json(
        RESULT,
        {
            "pages": len(site.pages),
            "faults": len(faults) + len(apart),
            "checks": {
                name: {"severity": severities[name], **row, "in_a_copy": name in apart} for name, row in table.items()
            },
            "machine": describe_machine(),
        },
    )
    print(
        json.dumps(
            {name: row for name, row in table.items() if row["wrong"] or row["found"] < row["planted"]}, indent=1
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
