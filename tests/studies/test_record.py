"""The number of openings of a test set, and predictions for arms beside what they took."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from study_tasks import write_task

from trimtab.arms.planning.plan import Allowance, ArmPlan, Plan, StagePlan
from trimtab.arms.workspace import Workspace, open_workspace
from trimtab.base.errors import InputError
from trimtab.base.results import ArmResult
from trimtab.base.task import load_task
from trimtab.measurement.statistics import look_level
from trimtab.studies.held_out import held_out
from trimtab.studies.record import (
    _planned,
    changed_since,
    count_opening,
    frozen_plan,
    plan_hash,
    studies_that_opened,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(load_task(write_task(tmp_path, "nowhere", ["prompt", "lora"])))


def test_test_questions_opened_again_are_counted_once_a_study(workspace: Workspace) -> None:
    assert [count_opening(workspace, name) for name in ("a", "b", "a", "c")] == [1, 2, 1, 3]


def test_a_look_counts_former_studies_of_a_fifth_of_its_questions(workspace: Workspace) -> None:
    def with_test(names: Sequence[int]) -> Workspace:
        row = workspace.splits["test"][0]
        rows = tuple(replace(row, id=f"row-{name}") for name in names)
        return replace(workspace, splits={**workspace.splits, "test": rows})

    assert count_opening(with_test(range(10)), "a") == 1
    assert count_opening(with_test(range(12)), "grown") == 2
    assert count_opening(with_test(range(10, 20)), "two of ten shared") == 2
    assert count_opening(with_test(range(19, 30)), "one of eleven shared") == 1
    assert count_opening(with_test(range(10)), "a") == 1  # goes on


def test_what_changed_since_the_first_look_is_told(workspace: Workspace) -> None:
    def under(**target: float) -> Workspace:
        table = workspace.task.target.model_copy(update=target)
        return replace(workspace, task=workspace.task.model_copy(update={"target": table}))

    def told(study: str) -> list[str]:
        return changed_since(workspace.folder / "studies" / study)

    count_opening(under(quality=0.8), "a")
    assert told("a") == []
    count_opening(under(quality=0.8), "same")
    assert told("same") == []
    count_opening(under(quality=0.7, margin=0.05), "lower")
    assert told("lower") == [
        "target.quality 0.8 → 0.7",
        "target.margin 0.02 → 0.05",
    ]
    count_opening(workspace, "without")
    assert told("without") == ["target.quality 0.8 → not stated"]


def test_a_plan_that_was_edited_in_the_record_is_told(workspace: Workspace) -> None:
    count_opening(workspace, "a")
    file = workspace.folder / "openings.jsonl"
    assert json.loads(file.read_text())["plan_sha256"] == plan_hash(frozen_plan(workspace.task))
    file.write_text(file.read_text().replace('"target.margin": 0.02', '"target.margin": 0.05'))
    edited = "the record of the plan itself, which no longer has its hash"
    assert changed_since(workspace.folder / "studies" / "a") == [edited]


def test_a_record_that_is_cut_off_is_told_and_never_counts_less(workspace: Workspace) -> None:
    """Whoever wrote the line writes it again, and nobody else takes its place."""
    for name in ("a", "b"):
        count_opening(workspace, name)
    file = workspace.folder / "openings.jsonl"
    whole = file.read_bytes()
    for length in (len(whole) - 1, whole.rindex(b'"b"') + 3):
        file.write_bytes(whole[:length])
        told = r"openings\.jsonl:2: is cut off, .* resume the study that it names with --resume"
        for count in (lambda: count_opening(workspace, "c"), lambda: studies_that_opened(workspace)):
            with pytest.raises(InputError, match=told):
                count()
        assert count_opening(workspace, "b") == 2
        assert file.read_bytes() == whole
    assert count_opening(workspace, "c") == 3


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


def test_a_fresh_test_set_is_of_questions_that_no_study_has_tested_on(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path, "nowhere", ["prompt"]))
    first = open_workspace(task)
    count_opening(first, "a")
    assert (held_out(task).looks, held_out(task).next_level) == (1, look_level(2))
    found = held_out(task, fresh=True)
    second = open_workspace(task)
    ids = [{row.id for row in one.splits["test"]} for one in (first, second)]
    assert (found.looks, found.questions, found.next_level) == (0, len(ids[1]), look_level(1))
    assert len(ids[1]) >= len(ids[0])
    assert not ids[0] & ids[1]
    assert ids[0] <= {row.id for row in second.splits["train"]}
    assert count_opening(second, "b") == 1


def test_no_fresh_test_set_without_rows_that_were_never_tested_on(tmp_path: Path) -> None:
    task = load_task(write_task(tmp_path, "nowhere", ["prompt"]))

    def draw_on() -> None:
        for number in range(20):
            count_opening(open_workspace(task), str(number))
            held_out(task, fresh=True)

    with pytest.raises(InputError, match="no study has tested on"):
        draw_on()
