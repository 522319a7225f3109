"""Folders whose names hold what a pattern reads, and pages made to hang a parser."""

import os
from pathlib import Path

import pytest

from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError
from trimtab.base.task import Task, load_task
from trimtab.data.documents import read_documents
from trimtab.data.formats import read_examples


def task_in(folder: Path, examples: str) -> Task:
    text = f'[task]\nname = "t"\nkind = "answer"\n[data]\nexamples = ["{examples}"]\n'
    (folder / "trimtab.toml").write_text(f'{text}documents = ["docs/"]\n[base]\nmodel = "m"\n')
    (folder / "docs").mkdir()
    return load_task(folder)


@pytest.mark.parametrize("name", ["data [2026]", "a*b", "x**", "what?"])
def test_a_folder_named_like_a_pattern_is_read(tmp_path: Path, name: str):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"question": "a b", "answer": "x"}\n{"question": "c d", "answer": "y"}\n')
    task = task_in(folder, "*.jsonl")
    assert len(read_examples(task, task.data.examples).examples) == 2


def test_a_link_to_itself_is_told_from_a_missing_file(tmp_path: Path):
    (tmp_path / "rows.jsonl").symlink_to("rows.jsonl")
    task = task_in(tmp_path, "rows.jsonl")
    with pytest.raises(InputError, match="leads to itself"):
        read_examples(task, task.data.examples)


@pytest.mark.parametrize(
    "page",
    [
        "<html><body " + " ".join(f"a{n}=1" for n in range(100_000)) + "><p>hello</p>",
        "<html><body " + "".join(f'a{n}=">"' for n in range(20_000)).replace(">", "") + "><p>hello</p>",
        "<html><body/" + "/".join(f"a{n}" for n in range(100_000)) + "><p>hello</p>",
        "<p>a\0b</p>",
        os.urandom(4000) + b"\0",
    ],
    ids=["attributes", "joined", "slashes", "nul", "binary"],
)
def test_a_page_made_to_hang_or_no_page_is_refused(tmp_path: Path, page: str | bytes):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    task = task_in(tmp_path, "rows.jsonl")
    (tmp_path / "docs" / "page.html").write_bytes(page.encode() if isinstance(page, str) else page)
    with pytest.raises(InputError) as caught:
        read_documents(task)
    assert caught.value.field == "data.documents"


def test_a_page_with_a_picture_in_a_tag_is_read(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    task = task_in(tmp_path, "rows.jsonl")
    picture = "/a+b=" * 40_000
    page = (
        "<html><body><p>There are twenty days of leave in a year.</p><img "
        f'src="data:image/png;base64,{picture}"></body>'
    )
    (tmp_path / "docs" / "page.html").write_text(page)
    assert "twenty days" in read_documents(task)[0].sections[0].text


def test_a_label_that_no_row_has_is_said(tmp_path: Path):
    rows = "".join(f"message {n * 7919} on {w},{w}\n" for n in range(10) for w in ("red", "blue"))
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}")
    (tmp_path / "trimtab.toml").write_text(
        '[task]\nname = "t"\nkind = "classify"\nlabels = ["red", "blue", "gren"]\n'
        '[data]\nexamples = ["rows.csv"]\n[base]\nmodel = "m"\n'
    )
    remarks = open_workspace(load_task(tmp_path)).remarks
    assert [remark.level for remark in remarks if "'gren'" in remark.text] == ["warn"]
