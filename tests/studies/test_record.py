"""How often a test set was opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from study_tasks import write_task

from trimtab.arms.workspace import Workspace, open_workspace
from trimtab.base.task import load_task
from trimtab.studies.record import count_opening


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(load_task(write_task(tmp_path, "nowhere", ["prompt", "lora"])))


def test_test_questions_opened_again_are_counted_once_a_study(workspace: Workspace) -> None:
    assert [count_opening(workspace, name) for name in ("a", "b", "a", "c")] == [1, 2, 2, 3]
    other = {**workspace.splits, "test": workspace.splits["test"][1:]}
    assert count_opening(replace(workspace, splits=other), "d") == 1
