"""Rows in a temporary file are the rows in memory: the same examples, splits, ids, remarks and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.arms.workspace import Workspace, open_workspace
from trimtab.base.errors import InputError
from trimtab.base.records import Example, Message
from trimtab.base.task import load_task
from trimtab.data import duplicates, row_store
from trimtab.data.row_store import RowChanges, RowView, RowWriter, join_rows, select_rows

WORDS = [f"{a}{b}{c}" for a in ("ka", "lo", "mi", "nu") for b in ("ra", "se", "to") for c in ("x", "ben", "dor", "al")]
text = st.text(st.characters(exclude_categories=()), max_size=12)  # lone surrogates, too
message = st.builds(Message, role=st.sampled_from(["user", "assistant", "system", "tool"]), content=text)
example = st.builds(
    Example,
    id=st.text(max_size=5),
    messages=st.lists(message, min_size=1, max_size=3).map(tuple),
    references=st.lists(text, min_size=1, max_size=3).map(tuple),
    group=st.none() | text,
    slice=st.none() | text,
    weight=st.floats(0, 1e9),
    source=st.none() | text,
    passages=st.lists(text, max_size=2).map(tuple),
    tests=text,
    time=st.none() | text,
    split=st.sampled_from([None, "dev", "test"]),
    file=text,
    line=st.integers(0, 10**9),
)


@pytest.fixture
def in_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than ten rows go to the file, and are decoded seven at a time."""
    monkeypatch.setattr(row_store, "IN_MEMORY", 10)
    monkeypatch.setattr(row_store, "BLOCK", 7)


def written(rows: list[Example], folder: Path) -> RowView:
    writer = RowWriter(folder)
    for row in rows:
        writer.append(row)
    stored = writer.finish()
    assert isinstance(stored, RowView)
    return stored


@given(st.lists(example, min_size=12, max_size=30), st.data())
def test_stored_rows_are_read_as_they_were(tmp_path_factory, rows: list[Example], data) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_store, "IN_MEMORY", 10)
        patch.setattr(row_store, "BLOCK", 7)
        stored = written(rows, tmp_path_factory.mktemp("rows"))
        assert list(stored) == rows
        assert len(stored) == len(rows)
        at = data.draw(st.integers(-len(rows), len(rows) - 1))
        assert stored[at] == rows[at]
        assert list(stored[2:9:3]) == rows[2:9:3]
        numbers = np.array(data.draw(st.permutations(range(len(rows)))), np.int32)
        assert list(select_rows(stored, numbers)) == [rows[n] for n in numbers]
        assert list(select_rows(join_rows(stored, tuple(rows)), numbers + len(rows) // 2)) == [
            (rows + rows)[n + len(rows) // 2] for n in numbers
        ]


def test_changes_rename_rows_and_name_their_groups(tmp_path: Path, in_file: None) -> None:
    rows = [Example(id=f"r{n}", messages=(Message(role="user", content="q"),), references=("a",)) for n in range(20)]
    rows[3] = replace(rows[3], group="three")
    renamed, named_by = np.zeros(20, bool), np.full(20, -1, np.int32)
    renamed[5], named_by[[3, 4, 5, 6]] = True, [3, 3, 5, 5]
    view = select_rows(written(rows, tmp_path), np.arange(20, dtype=np.int32), RowChanges(renamed, named_by))
    in_memory = select_rows(tuple(rows), np.arange(20, dtype=np.int32), RowChanges(renamed, named_by))
    assert list(view) == list(in_memory)
    assert [(row.id, row.group) for row in list(view)[3:8]] == [
        ("r3", "three"),
        ("r4", "three"),
        ("r5-test", "row:r5-test"),
        ("r6", "row:r5-test"),
        ("r7", None),
    ]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, in_file: None) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        written([Example(id="a", messages=(), references=())] * 20, tmp_path / "file")


def write_task(folder: Path, kind: str, count: int, **columns: str) -> None:
    """A task of rows that repeat each other in every way, with and without ids, groups, slices and times."""
    draw, rows = np.random.default_rng(count), []
    for n in range(count):
        question = " ".join(draw.choice(WORDS, 9))
        if rows and draw.random() < 0.2:
            other = rows[draw.integers(len(rows))]["question"]
            question = [other, f" {other}", f"{other}!".upper(), f"{other} {WORDS[n % 48]}"][draw.integers(4)]
        row = {"question": question, "answer": str(draw.choice(WORDS[:3] if kind == "classify" else WORDS))}
        row |= {"id": f"r{n}"} if "id" in columns and n % 2 else {}
        row |= {"group": f"g{draw.integers(count)}"} if draw.random() < 0.3 else {}
        row |= {"slice": str(draw.choice(["x", "y"])), "time": f"2026-03-{draw.integers(1, 29):02d}"}
        row["question"] += " ask me@example.com" if n % 50 == 7 else "\u200b" if n % 60 == 9 else ""
        rows.append(row)
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tests = [{**row, "id": f"r{n}", "group": ""} for n, row in enumerate(rows[: count // 10])]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tests))
    listed = ", ".join(f'{role} = "{name}"' for role, name in columns.items())
    (folder / "trimtab.toml").write_text(
        f'[task]\nkind = "{kind}"\n[data]\nexamples = ["rows.jsonl"]\ncolumns = {{ {listed} }}\n'
        + ('test = ["test.jsonl"]\n' if "passage" not in columns and "time" not in columns and "id" in columns else "")
        + '[base]\nmodel = "nowhere"\n'
    )


def facts_of(workspace: Workspace) -> object:
    """Everything that a workspace says, and its ledger."""
    from trimtab.data.ledger import read_ledger

    return (
        {name: list(rows) for name, rows in workspace.splits.items()},
        workspace.notes,
        workspace.refusals,
        workspace.remarks,
        workspace.findings,
        workspace.overlaps,
        list(read_ledger(workspace.folder / "splits.parquet").values()),
    )


CASES = [
    ("answer", {}),
    ("answer", {"id": "id", "slice": "slice"}),
    ("classify", {"id": "id", "group": "group"}),
    ("classify", {"time": "time", "group": "group"}),
]


@pytest.mark.parametrize(("kind", "columns"), CASES)
@pytest.mark.parametrize("leakage", ["report", "drop"])
def test_a_workspace_of_stored_rows_is_that_of_rows_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, columns: dict[str, str], leakage: str
) -> None:
    folder = tmp_path / "task"
    write_task(folder, kind, 400, **columns)
    file = folder / "trimtab.toml"
    file.write_text(file.read_text().replace("[data]\n", f'[data]\nleakage = "{leakage}"\n'))
    whole = (folder / "rows.jsonl").read_text().splitlines(keepends=True)
    found = []
    for limit in (100_000, 10):
        monkeypatch.setattr(row_store, "IN_MEMORY", limit)
        (folder / ".trimtab" / "splits.parquet").unlink(missing_ok=True)
        steps = []
        for lines in (whole[:300], whole, whole[50:]):  # rows are added, then some taken out: no row moves
            (folder / "rows.jsonl").write_text("".join(lines))
            try:
                steps.append(facts_of(open_workspace(load_task(file), refuse_leaks=False)))
            except InputError as error:
                steps.append(str(error))
        (folder / ".trimtab" / "splits.parquet").unlink()
        sampled = open_workspace(load_task(file).model_copy(update={"rows": 60}), refuse_leaks=False)
        found.append([*steps, facts_of(sampled)])
    assert found[0] == found[1]
    assert not isinstance(found[0][0], str)


def test_errors_of_stored_rows_are_those_of_rows_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path / "task", "answer", 60, id="id")
    rows = tmp_path / "task" / "rows.jsonl"
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[1] + "\n")
    said = []
    for limit in (100_000, 10):
        monkeypatch.setattr(row_store, "IN_MEMORY", limit)
        with pytest.raises(InputError) as error:
            open_workspace(load_task(tmp_path / "task" / "trimtab.toml"))
        said.append(str(error.value))
    assert said[0] == said[1]
    assert "'r1' stands already at" in said[0]


def test_rows_beyond_the_exact_join_are_joined_by_minhash_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_task(tmp_path / "task", "answer", 400)
    file = tmp_path / "task" / "trimtab.toml"
    exact = open_workspace(load_task(file), refuse_leaks=False)
    monkeypatch.setattr(duplicates, "MOST_COMPARED", 50)
    estimated = open_workspace(load_task(file), refuse_leaks=False)
    assert [remark for remark in estimated.remarks if "these are too many to compare all" in remark.text]
    assert not [remark for remark in exact.remarks if "MinHash" in remark.text]
    assert estimated.splits == exact.splits
