"""The annotated tree in the README is the package: every module stands in it once, and nothing that does not exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "trimtab"


def shown(text: str) -> list[str]:
    """Paths under trimtab/ that the tree names, folders with a slash behind them."""
    tree = text.split("<!-- tree:", 1)[1].split("```text\n", 1)[1].split("```", 1)[0]
    found, room = [], ""
    for line in tree.splitlines()[1:]:
        depth = len(line) - len(line.lstrip())
        names = re.match(r"\s*((?:[\w.]+(?:\.py|\.c|/) ?)+)", line)
        assert names, f"a line of the tree names nothing: {line!r}"
        room = "" if depth == 2 else room
        for name in names[1].split():
            if name.endswith("/"):
                room = name
                found.append(name)
            else:
                found.append(room + name)
    return found


def test_the_tree_names_every_module_once_and_nothing_else():
    modules = {str(path.relative_to(PACKAGE)) for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.c")]}
    modules = {name for name in modules if not name.startswith("demos/")}
    inner = {name for name in modules if name.endswith("/__init__.py")}
    rooms = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    names = shown((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(names) == len(set(names))
    assert set(names) == (modules - inner) | rooms


def test_every_line_of_the_tree_says_what_the_file_is_for():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("```text\ntrimtab/\n", 1)[1].split("```", 1)[0]
    for line in tree.splitlines():
        several = line.count(".py") > 1  # the verbs' own files, named after what they are
        assert several or len(line.split(maxsplit=1)) == 2, line


def anchors(page: Path) -> set[str]:
    """What `page#…` may name: the headings as the forges that render them spell them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_of_the_documentation_lead_to_files_and_headings():
    pages = (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md"))
    assert {"README.md", "guide.md", "SECURITY.md"} <= {page.name for page in pages}
    for page in pages:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
            other = page.parent / target if target else page
            assert other.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(other), f"{page.name}: {target}#{anchor}"
