"""The table of metrics: defaults, what tells right from wrong, and what may be added."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args
from unittest.mock import patch

import pytest

from trimtab.base.errors import InputError
from trimtab.base.metrics import (
    METRICS,
    Metric,
    default_metric,
    find_metric,
    metrics_of,
    register_metric,
    right_metric,
)
from trimtab.base.records import Example, Kind, Message
from trimtab.base.task import load_task
from trimtab.measurement.evaluate import score_text
from trimtab.measurement.metrics import score_one

GRADED = Metric(name="graded", kinds=("answer", "generate"), score=lambda *_: 0.5, label="graded", meaning="a half")


@pytest.fixture(autouse=True)
def table_as_before() -> Iterator[None]:
    with patch.dict(METRICS):
        yield


def test_the_default_of_each_kind_is_its_first_metric_and_stays_so() -> None:
    register_metric(GRADED)
    assert [default_metric(kind).name for kind in get_args(Kind)] == ["accuracy", "contains", "rouge_l"]
    assert metrics_of("generate")[-1] is GRADED


def test_right_is_told_by_the_metric_else_by_the_default_of_its_kind_else_by_nothing() -> None:
    assert {kind: right_metric(GRADED, kind) for kind in ("answer", "generate")} == {
        "answer": METRICS["contains"],
        "generate": None,
    }
    for kind in get_args(Kind):
        for metric in metrics_of(kind):
            assert not metric.right_or_wrong or right_metric(metric, kind) is metric


def test_a_metric_that_is_not_installed_is_called_by_its_name_and_tells_nothing() -> None:
    absent = find_metric("absent")
    assert (absent.label, absent.is_share, right_metric(absent, "generate")) == ("absent", False, None)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": "chrf"}, "is there already"),
        ({"name": "Mine Own"}, "cannot be named so"),
        ({"kinds": ("classify",)}, "grades labels"),
    ],
)
def test_what_cannot_be_added_is_refused(change: dict[str, str], problem: str) -> None:
    before = dict(METRICS)
    with pytest.raises(InputError, match=problem):
        register_metric(replace(GRADED, **change))
    assert before == METRICS


def test_a_score_that_is_none_counts_as_nothing_and_one_out_of_range_is_refused() -> None:
    register_metric(replace(GRADED, score=lambda _question, reference, _answer: None if reference == "a" else 2.0))
    assert score_one("graded", "x", ["a"]) == 0.0
    with pytest.raises(InputError, match="the metric graded gave the score"):
        score_one("graded", "x", ["a", "b"])


@pytest.mark.parametrize("kind", ["answer", "generate"])
def test_a_metric_is_given_the_question_with_reference_and_answer(kind: Kind, tmp_path: Path) -> None:
    given: list[tuple[str, str, str]] = []

    def score(question: str, reference: str, answer: str) -> float:
        given.append((question, reference, answer))
        return 0.5

    register_metric(replace(GRADED, score=score))
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "r"}\n')
    file = tmp_path / "trimtab.toml"
    file.write_text(f'[task]\nkind = "{kind}"\nmetric = "graded"\n[data]\nexamples = ["rows.jsonl"]\n')
    row = Example(id="1", messages=(Message(role="user", content="q"),), references=("r",))
    assert score_text(row, "a", load_task(file)) == 0.5
    assert given == [("q", "r", "a")]


@pytest.mark.parametrize("metric", [metric for metric in METRICS.values() if metric.score is not None])
def test_each_metric_scores_a_reference_with_1(metric: Metric) -> None:
    assert score_one(metric.name, "112 euros", ["112 euros"]) == 1.0
