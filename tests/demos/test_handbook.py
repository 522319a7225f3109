"""The handbook example: it is what its script writes, and every question can be answered from the page that it
names."""

import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import trimtab.demos

FOLDER = Path(trimtab.demos.__file__).parent / "handbook"
UNKNOWN = "I don't know"


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def normalised(text: str) -> str:
    return " ".join(re.findall(r"[\w.,:&€%-]*\w%?", text.lower()))


QUESTIONS = rows_of("questions.jsonl")
ANSWERED = [row for row in QUESTIONS if "passage" in row]
DOCUMENTS = {path.name: path.read_text(encoding="utf-8") for path in (FOLDER / "documents").iterdir()}


def test_the_script_writes_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(FOLDER / "make.py"), str(tmp_path)], check=True, timeout=60)
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    kept = {
        path.relative_to(FOLDER) for path in FOLDER.rglob("*") if path.suffix == ".jsonl" or "documents" in str(path)
    }
    assert made == {path for path in kept if (FOLDER / path).is_file()}
    for path in made:
        assert (tmp_path / path).read_bytes() == (FOLDER / path).read_bytes(), path


def test_the_counts_that_the_readme_states() -> None:
    assert len(DOCUMENTS) == 34
    assert len(QUESTIONS) == 825
    assert len({row["group"] for row in ANSWERED}) == 249
    cut = rows_of("questions-cut.jsonl")
    assert {row["id"] for row in cut} < {row["id"] for row in QUESTIONS}
    assert (
        len({row["group"] for row in cut})
        == (249 + len({row["group"] for row in QUESTIONS if "passage" not in row}) + 1) // 2
    )
    assert len(QUESTIONS) - len(ANSWERED) == 78


def test_documents_are_short_pages_with_headings() -> None:
    for name, text in DOCUMENTS.items():
        assert 100 <= len(text.split()) <= 250, name
        assert text.startswith("# "), name
        assert "\n## " in text, name
        assert "{" not in text, name


def test_ids_and_questions_are_unique() -> None:
    for field in ("id", "question"):
        assert max(Counter(row[field] for row in QUESTIONS).values()) == 1


def test_a_group_is_one_fact_asked_in_several_ways() -> None:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in QUESTIONS:
        groups.setdefault(row["group"], []).append(row)
    for name, rows in groups.items():
        assert len(rows) >= 3, name
        for field in ("answer", "topic", "passage"):
            assert len({json.dumps(row.get(field)) for row in rows}) == 1, name


def test_the_named_page_states_the_answer_and_the_question_does_not() -> None:
    pages = {name: f" {normalised(text)} " for name, text in DOCUMENTS.items()}
    for row in ANSWERED:
        answers = [f" {normalised(answer)} " for answer in row["answer"]]
        assert any(answer in pages[row["passage"]] for answer in answers), row
        assert answers[0] not in f" {normalised(row['question'])} ", row
        assert all(len(answer.split()) <= 8 for answer in answers), row


def test_unanswered_questions_abstain() -> None:
    for row in QUESTIONS:
        if "passage" not in row:
            assert row["answer"] == [UNKNOWN]


LATER = {path.name: path.read_text(encoding="utf-8") for path in (FOLDER / "documents-2026-10").iterdir()}
SECTIONS = {"annual-leave.md": "\n## Sabbaticals\n", "offices-and-rooms.md": "\n## Dogs\n"}
RENAMED = {"brannock-headquarters.md": "headquarters.md"}


def test_the_later_edition_differs_in_the_listed_facts_two_sections_and_a_name() -> None:
    changes = rows_of("changes.jsonl")
    assert LATER.keys() == {RENAMED.get(name, name) for name in DOCUMENTS}
    bodies = {name: LATER[RENAMED.get(name, name)].split(SECTIONS.get(name, "\0"))[0] for name in DOCUMENTS}
    assert all(heading in LATER[name] and heading not in DOCUMENTS[name] for name, heading in SECTIONS.items())
    assert {name for name in bodies if bodies[name] != DOCUMENTS[name]} == {change["document"] for change in changes}
    answers = {row["group"]: row["answer"] for row in ANSWERED}
    for change in changes:
        assert answers[change["fact"]][0] == change["before"]
        assert change["after"] not in answers[change["fact"]]
        lines = set(bodies[change["document"]].splitlines()) - set(DOCUMENTS[change["document"]].splitlines())
        assert any(change["after"] in line for line in lines), change


def test_later_questions_have_the_answers_of_the_later_edition() -> None:
    rows, changed = rows_of("questions-2026-10.jsonl"), {change["fact"]: change for change in rows_of("changes.jsonl")}
    before = {row["group"]: row for row in QUESTIONS}
    pages = {name: f" {normalised(text)} " for name, text in LATER.items()}
    for field in ("id", "question"):
        assert max(Counter(row[field] for row in [*QUESTIONS, *rows]).values()) == 1
    kinds: Counter[str] = Counter()
    for row in rows:
        assert row.keys() == ANSWERED[0].keys()
        answers = [f" {normalised(answer)} " for answer in row["answer"]]
        assert answers[0] in pages[row["passage"]], row
        assert answers[0] not in f" {normalised(row['question'])} ", row
        if row["group"] in changed:
            kinds["changed"] += 1
            assert row["answer"] == [changed[row["group"]]["after"]]
        elif row["group"] not in before or "passage" not in before[row["group"]]:
            kinds["new"] += 1
            assert answers[0] not in f" {normalised(DOCUMENTS[row['passage']])} ", row
        else:
            kinds["as before"] += 1
            assert row["answer"] == before[row["group"]]["answer"]
    assert kinds == {"changed": 39, "new": 16, "as before": 56}
    assert {row["group"] for row in rows} >= changed.keys()


@pytest.mark.parametrize("name", ["trimtab.toml", "demo.toml"])
def test_task_files_name_data_that_exist(name: str) -> None:
    task = tomllib.loads((FOLDER / name).read_text(encoding="utf-8"))
    for path in [*task["data"]["examples"], *task["data"]["documents"]]:
        assert (FOLDER / path).exists()
    assert task["task"]["unknown"] == UNKNOWN
    assert UNKNOWN in task["task"]["instruction"]
