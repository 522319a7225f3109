"""What is foretold of machines: how many cores a job gets, how many run at once, and when the last one ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_tasks import write_task

from trimtab.arms.artifacts import Allowance
from trimtab.arms.planning.plan import ArmPlan, Plan, StagePlan
from trimtab.arms.search.context_search import RATES, TrialPlan
from trimtab.base.grammar import arm_from_name
from trimtab.base.records import Arm
from trimtab.base.task import Task, load_task
from trimtab.studies.jobs import Job, making_jobs
from trimtab.studies.schedule import MachineCapacity, cores_each, describe_waits, end_times, wall_times

TWO_ARMS = (("lora", 60.0), ("full", 100.0))
SECONDS = st.lists(st.floats(0.0, 1e4, allow_nan=False), min_size=1, max_size=12)


def jobs_of(seconds: list[float]) -> list[Job]:
    return [Job(name=str(number), stage="make", arms=("a",), seconds=each) for number, each in enumerate(seconds)]


@pytest.mark.parametrize(
    ("seconds", "slots", "wall"),
    [([60.0] * 4, 1, 240.0), ([60.0] * 4, 2, 120.0), ([60.0] * 4, 8, 60.0), ([90.0, 60.0, 30.0], 2, 90.0)],
)
def test_jobs_end_when_counted_by_hand(seconds: list[float], slots: int, wall: float) -> None:
    assert max(end_times(jobs_of(seconds), slots).values()) == wall


def test_a_job_waits_for_the_one_before_it() -> None:
    first, other = jobs_of([10.0, 4.0])
    seed = Job(name="seed", stage="make", arms=("a",), seed=1, seconds=7.0, after=("0",))
    assert end_times([first, seed, other], 3) == {"0": 10.0, "seed": 17.0, "1": 4.0}
    assert end_times([seed, other], 1) == {"seed": 7.0, "1": 11.0}  # what it waits for was done before


@given(SECONDS, st.integers(1, 6))
def test_no_schedule_is_shorter_than_its_work_or_longer_than_grahams_bound(seconds: list[float], slots: int) -> None:
    ends = end_times(jobs_of(seconds), slots)
    wall, least = max(ends.values()), max(max(seconds), sum(seconds) / slots)
    assert len(ends) == len(seconds)
    assert wall >= least * (1 - 1e-9)
    assert wall <= (2 - 1 / slots) * least * (1 + 1e-9)


@pytest.mark.parametrize(
    ("machines", "jobs", "cores"),
    [
        ([16, 16, 16], 4, 8),
        ([16, 16, 16], 3, 16),
        ([16, 16, 16], 1, 16),
        ([2], 2, 1),
        ([2], 9, 1),
        ([8, 4], 3, 4),
        ([1, 1, 1], 2, 1),
    ],
)
def test_cores_are_shared_out_so_that_as_many_run_as_can(machines: list[int], jobs: int, cores: int) -> None:
    assert cores_each([MachineCapacity(cores=one) for one in machines], jobs) == cores


@given(st.lists(st.integers(1, 64), min_size=1, max_size=5), st.integers(1, 20))
def test_one_more_core_for_each_would_stop_a_job(machines: list[int], jobs: int) -> None:
    found = [MachineCapacity(cores=one) for one in machines]
    cores, at_once = cores_each(found, jobs), min(jobs, sum(machines))
    assert sum(machine.slots(cores) for machine in found) >= at_once
    assert sum(machine.slots(cores + 1) for machine in found) < at_once or cores == max(machines)


def test_memory_and_gpus_bound_what_runs_at_once() -> None:
    assert MachineCapacity(cores=8).slots(2) == 4
    assert MachineCapacity(cores=8, gpus=1).slots(2) == 1
    assert MachineCapacity(cores=8, gpus=0).slots(2) == 0
    assert MachineCapacity(cores=8, memory_mb=16_000).slots(2, 5_000) == 3
    assert (
        MachineCapacity(cores=8, memory_mb=16_000).slots(2, 99_000) == 1
    )  # a prediction alone makes no machine useless


def planned(seconds: list[float], **more: Any) -> list[Job]:
    return [replace(job, **more) for job in jobs_of(seconds)]


def test_wall_time_and_cost_of_more_machines_until_these_are_no_gain() -> None:
    """Three runs of an hour on both cores of a machine, and of six minutes each for their answers."""
    stages = [planned([3600.0] * 3), planned([360.0] * 3)]
    found = wall_times(stages, [MachineCapacity(cores=2)], 2, hour_price=0.5, alone=40.0)
    # 1: one core each, two at once, so two rounds of twice the time; 2: three at once with a core each
    assert [(one.machines, one.seconds) for one in found] == [(1, 15_880.0), (2, 7_960.0), (4, 4_000.0)]
    assert [one.cost for one in found] == pytest.approx([15_880 / 7200, 2 * 7_960 / 7200, 4 * 4_000 / 7200])
    assert all(one.cost is None for one in wall_times(stages, [MachineCapacity(cores=2)], 2))


def test_a_gpu_is_no_faster_for_more_cores_and_machines_alternate() -> None:
    (one, two, four) = wall_times([planned([60.0] * 4)], [MachineCapacity(cores=16, gpus=1)], 16)
    assert [one.seconds, two.seconds, four.seconds] == [240.0, 120.0, 60.0]
    kinds = [MachineCapacity(cores=2), MachineCapacity(cores=1)]
    assert [each.seconds for each in wall_times([planned([60.0] * 3)], kinds, 1)] == [120.0, 60.0]


@given(SECONDS, st.integers(1, 8))
def test_more_machines_are_told_as_long_as_they_gain(seconds: list[float], cores: int) -> None:
    found = wall_times([jobs_of(seconds)], [MachineCapacity(cores=cores)], cores)
    walls = [one.seconds for one in found]
    assert walls == sorted(walls, reverse=True)
    assert walls[-1] >= max(seconds) * (1 - 1e-9)


def named(name: str) -> Arm:
    arm = arm_from_name(name)
    assert arm is not None
    return arm


def task_in(folder: Path) -> Task:
    (folder / "rows.jsonl").write_text('{"question": "a?", "answer": "b"}\n')
    return load_task(write_task(folder, folder, ["prompt"]))


@pytest.mark.parametrize(
    ("arm", "quarter", "limit", "steps"),
    [
        ("lora", 100.0, 1e9, [0, 1, -1, 2, -2]),
        ("lora", 100.0, 250.0, [0, 1, -1]),
        ("lora-dpo", 100.0, 400.0, [0, 1, -1]),  # both stages share the time
        ("lora", 100.0, 99.0, []),
        ("lora", 29.0, 1e9, []),  # a process would spend more on loading the model
        ("lora+rag", 100.0, 1e9, [0, 1, -1, 2, -2]),
        ("lora-docs", 100.0, 1e9, []),  # its weights read the documents first
        ("linear", 100.0, 1e9, []),
    ],
)
def test_rates_are_jobs_where_there_is_time(
    tmp_path: Path, arm: str, quarter: float, limit: float, steps: list[int]
) -> None:
    task = task_in(tmp_path)
    rates = TrialPlan(what=RATES, count=6, seconds=6 * quarter)
    one = ArmPlan(arm=arm, stages=(StagePlan(epoch_seconds=4 * quarter, epochs=1),), trials=(rates,))
    plan = Plan(arms=(one,), allowance=Allowance(seeds=2, search_seconds=limit), left_out={}, cuts=())
    jobs = making_jobs(task, [named(arm)], plan)
    trials = [job for job in jobs if job.stage == "trial"]
    assert [job.step for job in trials] == steps
    first, later = (job for job in jobs if job.stage == "make")
    assert first.after == tuple(job.name for job in trials)
    assert later.after == (first.name,)
    whole = one.making_seconds(Allowance(search_seconds=limit))
    assert sum(job.seconds for job in (*trials, first)) == pytest.approx(whole)


def test_what_is_waited_for_the_longest_comes_first(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    lora, full = (ArmPlan(arm=name, stages=(StagePlan(epoch_seconds=s, epochs=1),)) for name, s in TWO_ARMS)
    seeds = {"lora": Allowance(seeds=3), "full": Allowance()}
    plan = Plan(arms=(lora, full), allowance=Allowance(), left_out={}, cuts=(), allowances=seeds)
    names = [job.name for job in making_jobs(task, [named(name) for name, _ in TWO_ARMS], plan)]
    assert names == ["make-lora-0", "make-full-0", "make-lora-1", "make-lora-2"]


def test_what_waits_is_told() -> None:
    first, many = jobs_of([100.0, 200.0])
    many = replace(many, arms=("prompt", "few-shot"))
    seeds = [Job(name=f"s{n}", stage="make", arms=("a",), seed=n, seconds=150.0, after=("0",)) for n in (1, 2)]
    assert list(describe_waits([many, *seeds, first])) == [
        "prompt, few-shot are built one after another, as they share what they find",
        "2 more seeds of a wait for its first run",
        "no number of machines builds a in less than 4 min",
    ]
    trials = [Job(name=f"t{n}", stage="trial", arms=("a",), step=n, seconds=50.0) for n in (0, 1)]
    assert list(describe_waits([*trials, replace(first, after=("t0", "t1")), *seeds])) == [
        "2 learning rates of a are tried at once, before its first run",
        "2 more seeds of a wait for its first run",
        "no number of machines builds a in less than 5 min",
    ]
