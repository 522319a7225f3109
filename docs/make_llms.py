"""Writes `llms.txt` (every page with its first sentence) and `llms-full.txt` (their whole text) beside the built
site."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCS, SITE = ROOT / "docs", ROOT / "site"


def pages(nav: list[Any]) -> Iterator[tuple[str, list[str]]]:
    """The sections of the navigation with their pages, in order."""
    for entry in nav:
        (title, inner), *_ = entry.items()
        yield title, [inner] if isinstance(inner, str) else inner


def first_sentence(text: str) -> str:
    """The first sentence below the title."""
    body = re.sub(r"<!--.*?-->", "", text.partition("\n")[2], flags=re.S).strip()
    paragraph = " ".join(body.split("\n\n")[0].split())
    return re.split(r"(?<=[.?!])\s", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph))[0]


def main() -> None:
    """Write both files."""
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    short = [f"# {settings['site_name']}\n\n> {settings['site_description']}"]
    whole = []
    for section, names in pages(settings["nav"]):
        short.append(f"## {section}\n")
        for name in names:
            text = (DOCS / name).read_text(encoding="utf-8")
            address = re.sub(r"(index|README)\.md$", "", name).replace(".md", "/")
            title = text.partition("\n")[0].removeprefix("# ")
            short[-1] += f"\n- [{title}]({address}): {first_sentence(text)}"
            whole.append(f"<!-- {address or '/'} -->\n{text.strip()}")
    (SITE / "llms.txt").write_text("\n\n".join(short) + "\n", encoding="utf-8")
    (SITE / "llms-full.txt").write_text("\n\n".join(whole) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
