"""A check of a site: what it says, how it is run, and the table of all, which `checks` and `element_checks` fill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trimtab.publishing.records import ElementKind, Severity, SurfaceFinding
from trimtab.publishing.site_pages import CrawledPages, Fact, quoted

SPARSE_WORDS = 50  # of a page with fewer words a browser may show much more
FindFacts = Callable[[CrawledPages], Iterator[Fact]]
CHECKS: list[Check] = []
"""Every check, in the order in which they run; docs/how-to/surface-audit.md has them as a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check. `says`: in one sentence what it finds; `remedy`: what to do about it."""

    name: str
    severity: Severity
    says: str
    remedy: str
    find: FindFacts

    def findings(self, pages: CrawledPages) -> Iterator[SurfaceFinding]:
        """Run the check on a site."""
        for page, evidence, line in self.find(pages):
            yield SurfaceFinding(
                page=page, check=self.name, severity=self.severity, evidence=evidence, remedy=self.remedy, line=line
            )


def check(name: str, severity: Severity, says: str, remedy: str) -> Callable[[FindFacts], FindFacts]:
    """Add the decorated function to CHECKS."""

    def add(find: FindFacts) -> FindFacts:
        CHECKS.append(Check(name=name, severity=severity, says=says, remedy=remedy, find=find))
        return find

    return add


def elements_of(pages: CrawledPages, kind: ElementKind, what: str = "") -> Iterator[Fact]:
    """Yield every element of a kind as a fact, with `what` it is before its text."""
    for page in pages.read:
        for element in page.elements:
            if element.kind == kind:
                yield page.url, f"{what} {quoted(element.text)}".strip(), element.line
