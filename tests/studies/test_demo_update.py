"""A bundled example is brought to its later edition: documents replaced, questions added, nothing of the user's own
touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import trimtab.demos
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError, MissingError
from trimtab.base.task import load_task
from trimtab.studies.demo import copy_demo, update_demo

HANDBOOK = Path(trimtab.demos.__file__).parent / "handbook"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_update_gives_the_later_documents_and_both_sheets_the_later_questions(tmp_path: Path) -> None:
    copy_demo("handbook", tmp_path, cut=True)
    before = contents(tmp_path)
    differing = update_demo("handbook", tmp_path)
    later = contents(HANDBOOK / "documents-2026-10")
    assert contents(tmp_path / "documents") == later
    assert set(differing) == {
        name for name in {*later, "brannock-headquarters.md"} if before.get(f"documents/{name}") != later.get(name)
    }
    added = (HANDBOOK / "questions-2026-10.jsonl").read_bytes()
    after = contents(tmp_path)
    for sheet in ("questions.jsonl", "questions-cut.jsonl"):
        assert after[sheet] == before[sheet] + added
    rest = {name for name in before if not name.startswith("documents/") and not name.startswith("questions")}
    assert all(after[name] == before[name] for name in rest)


def test_an_update_that_was_cut_off_is_finished_and_a_second_changes_nothing(tmp_path: Path) -> None:
    copy_demo("handbook", tmp_path, cut=True)
    (tmp_path / "documents" / "payday.md").write_bytes((HANDBOOK / "documents-2026-10" / "payday.md").read_bytes())
    (tmp_path / "documents" / "brannock-headquarters.md").unlink()
    first = update_demo("handbook", tmp_path)
    after = contents(tmp_path)
    assert update_demo("handbook", tmp_path) == first
    assert contents(tmp_path) == after


def test_an_own_document_is_never_overwritten_and_own_files_stay(tmp_path: Path) -> None:
    copy_demo("handbook", tmp_path, cut=True)
    (tmp_path / "documents" / "own.md").write_text("# Own\n")
    (tmp_path / "documents" / "payday.md").write_text("# Mine\n")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"payday\.md: is of neither edition"):
        update_demo("handbook", tmp_path)
    assert contents(tmp_path) == before
    (tmp_path / "documents" / "payday.md").unlink()
    update_demo("handbook", tmp_path)
    assert (tmp_path / "documents" / "own.md").read_text() == "# Own\n"


def test_what_has_no_later_edition_and_a_folder_without_the_example_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no bundled example 'spam' with a later edition"):
        update_demo("spam", tmp_path)
    with pytest.raises(MissingError, match="copy the example with `trimtab demo handbook` first"):
        update_demo("handbook", tmp_path)


@pytest.mark.parametrize("cut", [True, False])
def test_the_updated_example_opens_and_no_row_moves(tmp_path: Path, cut: bool) -> None:
    task = load_task(copy_demo("handbook", tmp_path, cut=cut))
    before = {row.id: split for split, rows in open_workspace(task).splits.items() for row in rows}
    update_demo("handbook", tmp_path)
    opened = open_workspace(load_task(task.file))
    after = {row.id: split for split, rows in opened.splits.items() for row in rows}
    assert {name: after[name] for name in before} == before
    added = [json.loads(line) for line in (HANDBOOK / "questions-2026-10.jsonl").read_text().splitlines()]
    assert {row["id"] for row in added} == after.keys() - before.keys()
    assert {document.source for document in opened.documents} == {
        f"documents/{path.name}" for path in (HANDBOOK / "documents-2026-10").iterdir()
    }
