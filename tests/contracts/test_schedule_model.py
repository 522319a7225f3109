"""The simulator of the schedule: counted by hand, held to the product's schedule, and to what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.studies.jobs import Job
from trimtab.studies.schedule import end_times

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULT = BENCHMARKS / "results" / "cluster.json"
SECONDS = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def model() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import schedule_model  # type: ignore[import-not-found]
    sys.modules.pop("schedule_model")
    return schedule_model


@pytest.mark.parametrize(
    ("start", "jobs", "workers", "cores", "end"),
    [
        (0, [4, 4, 4, 4], 1, 1, 16),
        (1, [4, 4, 4, 4], 2, 2, 9),
        (1, [4, 4, 4, 4], 4, 2, 10),  # two starts more, on cores that are shared
        (1, [4], 4, 2, 5),
        (0, [6, 2, 2], 2, 1, 10),  # no core is ever idle
        (0, [9, 1, 1], 3, 2, 9.5),  # three share two cores for 1.5 s
        (0, [], 2, 2, 0),
    ],
)
def test_a_schedule_that_is_counted_by_hand(
    model: ModuleType, start: float, jobs: list[float], workers: int, cores: int, end: float
) -> None:
    assert model.simulate(model.StageTimes(start=start, jobs=tuple(jobs)), workers, cores) == pytest.approx(end)


@given(seconds=SECONDS, workers=st.integers(1, 6))
def test_with_a_core_for_each_worker_it_is_the_schedule_of_the_product(
    model: ModuleType, seconds: list[float], workers: int
) -> None:
    jobs = [Job(name=str(number), stage="make", arms=("a",), seconds=one) for number, one in enumerate(seconds)]
    found = model.simulate(model.StageTimes(start=0.0, jobs=tuple(seconds)), workers, workers)
    assert found == pytest.approx(max(end_times(jobs, workers).values()))


def test_the_committed_model_is_within_15_percent_where_each_worker_has_a_core(model: ModuleType) -> None:
    """What it costs that workers share cores is not in the model; there it foretells too little."""
    committed = json.loads(RESULT.read_text(encoding="utf-8"))
    again = json.loads(json.dumps(model.checked(committed)))
    assert [{**one, "error": pytest.approx(one["error"])} for one in again] == committed["model"]
    for one in committed["model"]:
        assert abs(one["error"]) <= (0.15 if one["workers"] <= one["cores"] else 0.2)
