"""The model of scale: its parts on cases with a known result, and the committed result, which is that of the committed
rates."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "scale_model.py"


@pytest.fixture(scope="module")
def model() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale_model", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for the types of fields
    spec.loader.exec_module(module)
    return module


def test_a_power_law_comes_back(model: ModuleType) -> None:
    factor, exponent = model.power_law([10, 100, 1000], [3 * n**1.5 for n in (10, 100, 1000)])
    assert (factor, exponent) == (pytest.approx(3), pytest.approx(1.5))


@pytest.mark.parametrize(("jobs", "machines", "end"), [([4, 3, 2, 1], 1, 10), ([4, 3, 2, 1], 2, 5), ([4, 1], 9, 4)])
def test_jobs_go_to_the_first_machine_that_is_free(
    model: ModuleType, jobs: list[float], machines: int, end: float
) -> None:
    assert model.makespan(jobs, machines) == end


def test_more_arms_need_more_rows(model: ModuleType) -> None:
    assert model.rows_factor(2) == pytest.approx(7.849, abs=0.001)  # (1.960 + 0.842)², of any textbook
    assert model.rows_factor(2) < model.rows_factor(10) < model.rows_factor(1000)


def test_the_tightest_limit_is_the_one_that_is_used_most(model: ModuleType) -> None:
    line = model.Line(size=1, figures={}, use={"memory": 0.5, "time": 0.9})
    assert (line.bottleneck, line.holds) == ("time", True)
    assert not model.Line(size=1, figures={}, use={"memory": 1.5, "time": 0.9}).holds


def test_the_committed_result_and_page_are_those_of_the_committed_rates(model: ModuleType) -> None:
    """Where this fails, run: python benchmarks/scale_model.py write."""
    committed = json.loads(model.RESULT.read_text(encoding="utf-8"))
    again = json.loads(json.dumps(model.modelled(committed["measured"])))
    assert _close(again, committed)
    page = model.PAGE.read_text(encoding="utf-8")
    assert model.page_with(page, committed) == page


def _close(one: object, other: object) -> bool:
    """True if two plain values are equal but for rounding of the processor."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    if isinstance(one, float) or isinstance(other, float):
        return one == pytest.approx(other)
    return one == other
