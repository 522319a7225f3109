"""Writes the data of this example from `source/*.toml`: both editions of the documents, the questions of each, and the changes.

Run `python make.py` to rewrite the files beside this script, or `python make.py FOLDER` to write them elsewhere.
"""

import json
import random
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 20261
HERE = Path(__file__).resolve().parent
UNKNOWN = "I don't know"
LATER = "2026-10"


@dataclass(frozen=True)
class Fact:
    """One value that a document states, its wording in the later edition, and the ways in which it is asked about."""

    name: str
    value: str
    also: tuple[str, ...]
    then: str
    asked: tuple[str, ...]
    group: str = ""  # that of an earlier question, where the fact answers it


@dataclass(frozen=True)
class Page:
    """One document; its text has `{name}` in place of the fact with that name."""

    path: str
    topic: str
    text: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Unanswered:
    """A group of questions close to the documents that none of them answers."""

    group: str
    topic: str
    asked: tuple[str, ...]


@dataclass(frozen=True)
class Later:
    """The changes of the later edition beside values: names of pages, sections added to pages, new questions."""

    renamed: dict[str, str]
    sections: tuple[Page, ...]
    asked: dict[str, str]


def read_source(folder: Path) -> tuple[list[Page], list[Unanswered]]:
    """Return the hand-written pages and unanswered questions, in the order of the file names."""
    pages, unanswered = [], []
    for file in sorted(folder.glob("[a-z]*.toml")):
        source = tomllib.loads(file.read_text(encoding="utf-8"))
        topic = source["topic"]
        for entry in source["document"]:
            facts = tuple(_fact(name, fields) for name, fields in entry["facts"].items())
            pages.append(Page(entry["path"], topic, entry["text"].strip() + "\n", facts))
        unanswered += [Unanswered(entry["id"], topic, tuple(entry["ask"])) for entry in source["unanswered"]]
    return pages, unanswered


def read_later(file: Path, pages: list[Page]) -> Later:
    """Return the changes of the later edition; an added section has the topic of its page."""
    source = tomllib.loads(file.read_text(encoding="utf-8"))
    topics = {page.path: page.topic for page in pages}
    sections = tuple(
        Page(
            entry["path"],
            topics[entry["path"]],
            entry["text"].strip() + "\n",
            tuple(_fact(name, fields) for name, fields in entry["facts"].items()),
        )
        for entry in source["section"]
    )
    return Later(source["renamed"], sections, source["ask"])


def _fact(name: str, fields: dict[str, Any]) -> Fact:
    value = fields["is"]
    also, asked = tuple(fields.get("also", ())), tuple(fields["ask"])
    return Fact(name, value, also, fields.get("then", value), asked, fields.get("of", ""))


def fill(page: Page, *, later: bool) -> str:
    """Return the text of a page in the first or the later edition; raises KeyError for a placeholder without a fact."""
    values = {fact.name: fact.then if later else fact.value for fact in page.facts}
    text = re.sub(r"\{(\w+)\}", lambda match: values.pop(match[1]), page.text)
    if values:
        raise ValueError(f"{page.path}: facts that the text does not state: {', '.join(values)}")
    return text


def questions(pages: list[Page], unanswered: list[Unanswered]) -> list[dict[str, Any]]:
    """Return all rows of `questions.jsonl`, shuffled."""
    rows: list[dict[str, Any]] = []
    for page in pages:
        for fact in page.facts:
            group = group_name(page, fact)
            answer = [fact.value, *fact.also]
            for number, question in enumerate(fact.asked, start=1):
                row = {"id": f"{group}-{number}", "question": question, "answer": answer}
                rows.append(row | {"group": group, "topic": page.topic, "passage": page.path})
    for entry in unanswered:
        for number, question in enumerate(entry.asked, start=1):
            row = {"id": f"{entry.group}-{number}", "question": question, "answer": [UNKNOWN]}
            rows.append(row | {"group": entry.group, "topic": entry.topic})
    random.Random(SEED).shuffle(rows)
    return rows


def later_questions(pages: list[Page], later: Later) -> list[dict[str, Any]]:
    """Return all rows of the later edition's questions, shuffled: facts of the new sections, and new wordings of other
    facts."""
    rows: list[dict[str, Any]] = []
    asked = dict(later.asked)
    for page in (*pages, *later.sections):
        for fact in page.facts:
            group = fact.group or group_name(page, fact)
            if page in later.sections:
                wordings = fact.asked
            else:
                wordings = (asked.pop(group),) if group in asked else ()
            answer = [fact.value, *fact.also] if fact.then == fact.value else [fact.then]
            passage = later.renamed.get(page.path, page.path)
            for number, question in enumerate(wordings, start=1):
                row = {"id": f"{group}-{LATER}-{number}", "question": question, "answer": answer}
                rows.append(row | {"group": group, "topic": page.topic, "passage": passage})
    if asked:
        raise ValueError(f"questions about facts that no page has: {', '.join(asked)}")
    random.Random(SEED).shuffle(rows)
    return rows


def half(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of every second group, in their order: the questions of `demo.toml`."""
    kept = set(sorted({row["group"] for row in rows})[::2])
    return [row for row in rows if row["group"] in kept]


def group_name(page: Page, fact: Fact) -> str:
    """Return the name of a fact, which all its paraphrases share."""
    return f"{page.path.removesuffix('.md')}.{fact.name}"


def changes(pages: list[Page]) -> Iterator[dict[str, str]]:
    """Yield the facts that the edition of October 2026 states differently."""
    for page in pages:
        for fact in page.facts:
            if fact.then != fact.value:
                group = group_name(page, fact)
                yield {"document": page.path, "fact": group, "before": fact.value, "after": fact.then}


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", newline="\n")


def main(target: Path) -> None:
    """Write every data file of the example into `target`."""
    pages, unanswered = read_source(HERE / "source")
    later = read_later(HERE / "source" / f"{LATER}.toml", pages)
    added = {section.path: "\n" + fill(section, later=True) for section in later.sections}
    now, then = target / "documents", target / f"documents-{LATER}"
    for folder in (now, then):
        folder.mkdir(parents=True, exist_ok=True)
    for page in pages:
        (now / page.path).write_text(fill(page, later=False), encoding="utf-8", newline="\n")
        text = fill(page, later=True) + added.get(page.path, "")
        (then / later.renamed.get(page.path, page.path)).write_text(text, encoding="utf-8", newline="\n")
    rows = questions(pages, unanswered)
    write_lines(target / "questions.jsonl", rows)
    write_lines(target / "questions-cut.jsonl", half(rows))
    write_lines(target / f"questions-{LATER}.jsonl", later_questions(pages, later))
    write_lines(target / "changes.jsonl", list(changes(pages)))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
