"""What is cut when the arms do not fit the budget, in which order."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_tasks import write_task

from trimtab.arms.plan import ArmPlan, StagePlan, fit, load_plan, save_plan
from trimtab.arms.run import Effort
from trimtab.arms.session import Session, open_session
from trimtab.arms.timing import predict
from trimtab.arms.workspace import open_workspace
from trimtab.base.task import load_task


def arm(name: str, epoch: float = 100.0, answer: float = 10.0, choose: float = 30.0, epochs: float = 3.0) -> ArmPlan:
    return ArmPlan(
        arm=name,
        stages=(StagePlan(epoch_seconds=epoch, epochs=epochs),),
        answer_seconds=answer,
        choose_seconds=choose,
        memory_mb=None,
    )


def test_cuts_come_in_their_order_and_no_further_than_needed() -> None:
    arms = [arm("lora")]  # 2 seeds: 2 (300 + 10) + 30 = 650 seconds
    assert fit(arms, None, 2).cuts == ()
    assert fit(arms, 650, 2).effort == Effort(seeds=2)
    assert fit(arms, 640, 2).effort == Effort(seeds=2, search=False)
    assert fit(arms, 500, 2).effort == Effort(seeds=2, search=False, epochs=2.0)
    assert fit(arms, 130, 2).effort == Effort(seeds=2, search=False, epochs=0.5)
    assert fit(arms, 100, 2).effort == Effort(seeds=2, search=False, epochs=0.25)
    plan = fit(arms, 60, 2)
    assert plan.effort == Effort(seeds=1, search=False, epochs=0.25)
    assert [len(plan.cuts), plan.left_out, plan.seconds] == [3, {}, 35.0]
    assert "lora" in fit(arms, 30, 2).left_out


def test_the_longest_arm_is_left_out_first_and_told_its_minutes() -> None:
    plan = fit([arm("prompt", epoch=0, choose=0), arm("lora", epoch=1000)], 60, 1)
    assert set(plan.left_out) == {"lora"}
    assert (
        "the 1.0 min that the budget leaves lack about 3.5 min" in plan.left_out["lora"]
    )  # 260 s and 10 s of the other, less 60 s
    assert plan.seconds == 10.0


@given(
    st.lists(
        st.tuples(st.floats(0, 1e4), st.floats(0.1, 1e4), st.floats(0, 1e4), st.floats(0, 20)), min_size=1, max_size=5
    ),
    st.floats(0.1, 1e5),
    st.integers(1, 5),
)
def test_what_is_left_fits_and_a_larger_budget_leaves_out_no_more(rows, budget: float, seeds: int) -> None:
    arms = [arm(f"a{number}", *row) for number, row in enumerate(rows)]
    plan = fit(arms, budget, seeds)
    assert plan.seconds <= budget * (1 + 1e-9)
    assert plan.effort.seeds >= 1
    if not plan.left_out:
        assert not fit(arms, 2 * budget, seeds).left_out
    if not plan.cuts:
        assert plan.effort == Effort(seeds=seeds)


def test_a_kept_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    plan = fit([arm("lora"), arm("prompt", epoch=0)], 100, 3)
    save_plan(tmp_path / "plan.json", plan)
    assert load_plan(tmp_path / "plan.json") == plan
    assert load_plan(tmp_path / "none.json") is None


OWN = """
[arm.fixed]
weights = "base"
context = "few-shot"
shots = 2
[arm.open]
weights = "base"
context = "few-shot"
[arm.tuned]
weights = "lora"
context = "few-shot"
[api.big]
url = "http://127.0.0.1:9"
model = "m"
"""


def a_session(folder: Path, model: Path, arms: list[str]) -> Session:
    return open_session(open_workspace(load_task(write_task(folder, model, arms, more=OWN))))


@pytest.mark.parametrize("first", ["fixed", "api-big+few-shot"])
def test_an_arm_pays_for_choosing_where_the_one_before_it_chose_nothing(
    first: str, tmp_path: Path, tiny_model_folder: Path
) -> None:
    session = a_session(tmp_path, tiny_model_folder, [first, "open", "tuned"])
    plans = predict(session, session.task.arms)
    assert plans[0].choose_seconds == 0.0
    assert plans[1].choose_seconds > 0.0
    assert plans[2].choose_seconds == 0.0  # what was chosen is shared
