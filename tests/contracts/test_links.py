"""Links of the documentation lead to files and headings that exist, and so do the pages that messages and comments
name."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def anchors(page: Path) -> set[str]:
    """What `page#…` may name: the headings as the forges that render them spell them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_of_the_documentation_lead_to_files_and_headings():
    pages = (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md"))
    assert {"README.md", "first-verdict.md", "SECURITY.md"} <= {page.name for page in pages}
    for page in pages:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
            other = page.parent / target if target else page
            assert other.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(other), f"{page.name}: {target}#{anchor}"


def test_pages_that_the_package_names_exist():
    found = 0
    for file in (
        *(ROOT / "trimtab").rglob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
        *(ROOT / "docs").glob("*.toml"),
    ):
        for target, anchor in re.findall(r"\b(docs/[\w./-]+\.md)(?:#([\w-]+))?", file.read_text(encoding="utf-8")):
            found += 1
            assert (ROOT / target).exists(), f"{file.name}: {target}"
            assert not anchor or anchor in anchors(ROOT / target), f"{file.name}: {target}#{anchor}"
    assert found > 3
