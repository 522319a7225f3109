"""What a study writes down comes back as it was, and is not taken over by another task."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from study_tasks import write_task

from trimtab.arms.run import Effort, Outcome
from trimtab.arms.session import Session
from trimtab.arms.workspace import Workspace, open_workspace
from trimtab.base.records import Arm, ArmResult, Cost, Estimate
from trimtab.base.task import load_task, parse_arm
from trimtab.decision.cost import Usage
from trimtab.studies.record import arm_digest, arm_from_json, arm_to_json, count_opening, load_arm, save_arm

DONE = ArmResult(
    arm="lora",
    status="done",
    score=Estimate(value=0.8, low=0.7, high=0.9, n=30),
    seeds=2,
    seed_scores=(0.75, 0.85),
    passes=True,
    p_target=0.01,
    format_ok=1.0,
    abstention={"recall": 0.5},
    slices={"rare": Estimate(value=0.5, low=0.2, high=0.8, n=9)},
    extras={"steps": 4.0},
    cost=Cost(total=3.0, up_front=1.0, monthly=0.2, currency="USD"),
    chosen={"shots": 4},
)
USAGE = Usage(
    train_seconds=1.0,
    evaluation_seconds=2.0,
    index_seconds=0.0,
    seconds_per_question=0.1,
    prompt_tokens=20.0,
    new_tokens=3.0,
    runs_on_own_machine=True,
    trained=True,
    token_price=None,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(load_task(write_task(tmp_path, "nowhere", ["prompt", "lora"])))


@pytest.mark.parametrize(
    "result",
    [
        DONE,
        replace(DONE, cost=None, passes=None, p_target=None, slices={}),
        ArmResult(arm="rag", status="failed", why="w"),
        ArmResult(arm="rag", status="not_run", why="w"),
    ],
)
def test_an_arm_comes_back_as_it_was(result: ArmResult) -> None:
    plain = json.loads(json.dumps(arm_to_json(result), allow_nan=False))
    assert arm_from_json(plain) == result
    assert ("score" in plain) == (result.status == "done")


def test_a_finished_arm_is_found_by_its_digest_alone(workspace: Workspace, tmp_path: Path) -> None:
    arm = parse_arm("lora", workspace.task)
    session = Session(workspace)
    digest = arm_digest(workspace, arm, Effort())
    assert load_arm(tmp_path / "lora", digest, session, arm) is None
    save_arm(tmp_path / "lora", arm, Outcome(answers=(), result=DONE, usage=USAGE), digest)
    assert load_arm(tmp_path / "lora", digest, session, arm) == (DONE, USAGE)
    assert load_arm(tmp_path / "lora", arm_digest(workspace, arm, Effort(seeds=2)), session, arm) is None


def test_the_digest_changes_with_all_that_a_result_depends_on(workspace: Workspace) -> None:
    def digest(**changes: object) -> str:
        return arm_digest(replace(workspace, **changes), Arm(name="a", weights="", stages=(), context=""), None)

    train = workspace.splits["train"]
    moved = {**workspace.splits, "train": train[1:], "dev": (*workspace.splits["dev"], train[0])}
    reworded = {**workspace.splits, "train": (replace(train[0], references=("other",)), *train[1:])}
    task = workspace.task.model_copy(update={"task": workspace.task.task.model_copy(update={"instruction": "else"})})
    found = [digest(), digest(splits=moved), digest(splits=reworded), digest(task=task)]
    assert len(set(found)) == 4
    assert digest() == found[0]
    elsewhere = workspace.task.model_copy(update={"file": Path("/elsewhere/trimtab.toml")})
    assert digest(task=elsewhere) == found[0]


def test_test_questions_opened_again_are_counted_once_a_study(workspace: Workspace) -> None:
    assert [count_opening(workspace, name) for name in ("a", "b", "a", "c")] == [1, 2, 2, 3]
    other = {**workspace.splits, "test": workspace.splits["test"][1:]}
    assert count_opening(replace(workspace, splits=other), "d") == 1
