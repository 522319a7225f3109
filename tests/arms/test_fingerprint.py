"""Fingerprint of a result: every file of every model that is used; changed files are named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from study_tasks import write_task

from trimtab.arms.fingerprint import FILES, WEIGHTS, differences, fingerprint_of, task_settings
from trimtab.arms.session import Session
from trimtab.arms.workspace import open_workspace
from trimtab.base import files
from trimtab.base.task import Task, load_task


@pytest.fixture
def task(tiny_model_folder: Path, tiny_embedding_folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "a.md").write_text("# Bonn\nThe bridge of Bonn is old.\n")
    shutil.copytree(tiny_model_folder, tmp_path / "model")
    shutil.copytree(tiny_embedding_folder, tmp_path / "embedding")
    return write_task(
        *(tmp_path, "model", ["rag", "lora"]),
        data='documents = ["a.md"]\nleakage = "report"',
        base='embedding = "embedding"\nreranker = "embedding"',
    )


def depends(task: Path) -> dict[str, str]:
    session = Session(open_workspace(load_task(task)))
    return fingerprint_of(session, session.task.arms)


def test_a_file_of_a_model_that_changed_is_named(task: Path) -> None:
    before = depends(task)
    (pooling,) = (task.parent / "embedding").glob("*_Pooling/config.json")
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "pooling_mode": "cls", "x": 1}))
    name = pooling.relative_to(task.parent / "embedding").as_posix()
    assert differences(before, depends(task)) == (f"{name} of the embedding model", f"{name} of the re-ranking model")
    (task.parent / "model" / "generation_config.json").unlink()
    assert "generation_config.json (gone) of the base model" in differences(before, depends(task))


def test_hashes_that_an_earlier_version_did_not_keep_are_no_difference(task: Path) -> None:
    now = depends(task)
    assert {FILES[name] for name in ("base", "embedding", "reranker")} <= set(now)
    then = {name: value for name, value in now.items() if name not in FILES.values()}
    assert differences(then, now) == ()
    assert differences({**then, WEIGHTS["base"]: "other"}, now) == ("weights of the base model",)


def test_a_model_is_hashed_once_however_often_it_is_asked_for(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    real = files.sha256_file
    monkeypatch.setattr(files, "sha256_file", lambda path: hashed.append(path) or real(path))
    for _ in range(3):
        depends(task)
    of_models = [path for path in hashed if "model" in path.parts or "embedding" in path.parts]
    assert len(of_models) == len(set(of_models)) > 10


def test_labels_that_are_not_merged_leave_what_was_made_before_as_it_is() -> None:
    tables = {"task": {"name": "t", "kind": "classify"}, "data": {"examples": ["a.csv"]}}
    assert not [key for key in task_settings(Task.model_validate(tables)) if key.startswith("labels.")]
    merged = Task.model_validate({**tables, "labels": {"merge": {"A": "a"}}})
    assert task_settings(merged)["labels.merge.A"] == '"a"'


def test_a_teacher_counts_where_it_rewrites_instructions(task: Path, tiny_model_folder: Path) -> None:
    plain = depends(task)
    assert not [name for name in plain if "teacher" in name]
    named = f'[teacher]\nmodel = "{tiny_model_folder}"\n'
    text = task.read_text()
    task.write_text(f"{text}\n{named}")
    assert WEIGHTS["teacher"] not in depends(task)
    task.write_text(f"{text}\n{named}proposes = true\n")
    assert depends(task)[WEIGHTS["teacher"]] == plain[WEIGHTS["base"]]
