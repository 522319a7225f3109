"""The table of arms in the terminal."""

from __future__ import annotations

import io
import sys

import pytest

from trimtab.base.results import ArmResult, Cost, Estimate, StudyResult, TrivialArm, Verdict
from trimtab.cli.output import Output


def test_trivial_arms_stand_below_the_arms_with_a_score_and_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    half = Estimate(value=0.5, low=0.4, high=0.6, n=100)
    cost = Cost(total=7.25, up_front=1.0, monthly=0.5, currency="USD")
    result = StudyResult(
        study="S",
        task="t",
        metric="accuracy",
        target=None,
        verdict=Verdict(status="not_shown", arm=None, sentence="Not shown."),
        arms=(ArmResult(arm="prompt", status="done", score=half, train_seconds=3.0, cost=cost),),
        comparisons=(),
        report="r.html",
        trivial=(TrivialArm(arm="most-frequent", score=Estimate(value=0.25, low=0.2, high=0.3, n=100)),),
    )
    monkeypatch.setattr(sys, "stdout", shown := io.StringIO())
    with Output(as_json=False) as output:
        output.study(result)
    lines = [line.split() for line in shown.getvalue().splitlines()]
    rows = [line for line in lines if line and line[0] in ("prompt", "most-frequent")]
    assert rows == [
        ["prompt", "0.500", "[0.400,", "0.600]", "3", "7.25"],
        ["most-frequent", "0.250", "[0.200,", "0.300]"],
    ]
