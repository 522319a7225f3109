"""How often a test set was opened, and what was foretold of arms beside what they took."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from study_tasks import write_task

from trimtab.arms.plan import Allowance, ArmPlan, Plan, StagePlan
from trimtab.arms.workspace import Workspace, open_workspace
from trimtab.base.results import ArmResult
from trimtab.base.task import load_task
from trimtab.studies.record import _planned, count_opening


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(load_task(write_task(tmp_path, "nowhere", ["prompt", "lora"])))


def test_test_questions_opened_again_are_counted_once_a_study(workspace: Workspace) -> None:
    assert [count_opening(workspace, name) for name in ("a", "b", "a", "c")] == [1, 2, 2, 3]
    other = {**workspace.splits, "test": workspace.splits["test"][1:]}
    assert count_opening(replace(workspace, splits=other), "d") == 1


@pytest.mark.parametrize(("steps", "foretold"), [(100, 140.0), (75, 110.0), (None, 140.0)])
def test_seconds_are_foretold_for_the_steps_that_dev_let_happen(steps: int | None, foretold: float) -> None:
    """Four looks of 5 seconds, two epochs of 50, and 20 for the answers."""
    arm = ArmPlan(
        arm="lora", stages=(StagePlan(epoch_seconds=50.0, epochs=2.0, look_seconds=5.0),), answer_seconds=20.0
    )
    plan = Plan(arms=(arm,), allowance=Allowance(), left_out={}, cuts=())
    counted = {"steps": float(steps), "planned_steps": 100.0} if steps else {}
    figures = _planned(plan, [ArmResult(arm="lora", status="done", extras=counted)], {"lora": 100.0})
    told = figures["lora.seconds"]
    assert told["value"] == pytest.approx(foretold)
    assert told["error"] == pytest.approx(foretold / 100 - 1)
    assert told.get("whole") == (140.0 if steps == 75 else None)
