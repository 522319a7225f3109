"""What the pages of the documentation show to copy is understood: commands by the command line, TOML by the task
file, Python by Python."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_lines import understand
from pydantic import ValidationError

from trimtab.base.task import Task
from trimtab.studies.consent import Configuration

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page for room in ("start", "how-to", "concepts") for page in (DOCS / room).glob("*.md"))
LEAST = {"task": {"kind": "answer"}, "data": {"examples": ["rows.jsonl"]}}  # what every task file has


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page: Path) -> Iterator[list[str]]:
    """Arguments of every `trimtab …` of the page's shell blocks, also of those behind another program's own words."""
    for line in "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            words = shlex.split(part.partition(" < ")[0].partition(" > ")[0], comments=True)
            if "trimtab" in words[:1] or (words[:2] == ["docker", "run"] and "trimtab" in words):
                yield words[words.index("trimtab") + 1 :]


def test_there_are_pages_with_each_kind_of_block():
    assert len(PAGES) > 20
    assert sum(len(list(commands(page))) for page in PAGES) > 50
    assert sum(len(blocks(page, "toml")) for page in PAGES) > 10
    assert sum(len(blocks(page, "python")) for page in PAGES) > 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_what_a_page_shows_is_understood(page):
    assert page.read_text(encoding="utf-8").startswith("# ")
    for arguments in commands(page):
        understand(arguments)
    for block in blocks(page, "toml"):
        tables = tomllib.loads(block)
        if tables.keys() <= Configuration.model_fields.keys():
            Configuration(**tables)
        else:
            Task(
                **{
                    **tables,
                    "task": LEAST["task"] | tables.get("task", {}),
                    "data": LEAST["data"] | tables.get("data", {}),
                }
            )
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


@pytest.mark.parametrize("line", ["study --budged 20m", "studie", "export --out x"])
def test_a_command_that_does_not_exist_is_not_understood(line):
    with pytest.raises(Exception, match=r"(?i)no such|missing|studie"):
        understand(line.split())


def test_a_key_that_does_not_exist_is_not_understood():
    with pytest.raises(ValidationError):
        Task(**LEAST, study={"budged": "20m"})


def test_the_glossary_has_each_term_once_in_order():
    terms = re.findall(r"^\| \*\*(.+?)\*\* \|", (DOCS / "reference" / "glossary.md").read_text(encoding="utf-8"), re.M)
    assert terms == sorted(set(terms), key=str.lower)
