"""Figures of an arm that was made several times are means over its seeds, not the first one's."""

from __future__ import annotations

import pytest

from trimtab.base.records import Answer
from trimtab.base.results import Classes, ClassRow
from trimtab.measurement.figures import class_figures
from trimtab.measurement.seeds import by_seed, mean_classes, mean_figures


def answer(seed: int, item: str, reference: str, said: str, probability: float = 0.5) -> Answer:
    return Answer(
        item_id=item, split="test", group=None, slice=None, seed=seed, input="q", reference=(reference,), answer=said,
        score=float(reference == said), format_ok=True, abstained=False, probability=probability, seconds=0.1,
        prompt_tokens=1, new_tokens=1, hits=(), failure="none" if reference == said else "wrong",
    )  # fmt: skip


def test_answers_by_seed_whatever_their_order() -> None:
    mixed = [answer(seed, item, "a", "a") for item in "xy" for seed in (3, 0)]
    assert [[(one.seed, one.item_id) for one in run] for run in by_seed(mixed)] == [
        [(0, "x"), (0, "y")],
        [(3, "x"), (3, "y")],
    ]
    assert by_seed([]) == []


def test_figures_are_means_of_what_all_runs_have() -> None:
    assert mean_figures([{"ece": 0.1, "mrr": 0.5}, {"ece": 0.3}]) == {"ece": pytest.approx(0.2)}
    assert mean_figures([{"ece": 0.1}]) == {"ece": 0.1}
    assert mean_figures([]) == {}


def test_a_class_is_the_mean_of_its_runs_and_asked_as_often_as_in_one() -> None:
    right = [answer(0, "1", "a", "a", 0.9), answer(0, "2", "b", "b", 0.8), answer(0, "3", "b", "b", 0.7)]
    wrong = [answer(1, "1", "a", "b", 0.9), answer(1, "2", "b", "a", 0.8), answer(1, "3", "b", "b", 0.7)]
    alone = [class_figures(run) for run in (right, wrong)]
    found = mean_classes(alone)
    assert [row.label for row in found.rows] == ["b", "a"]
    assert [row.support for row in found.rows] == [2, 1]
    assert found.rows[0] == ClassRow(label="b", precision=0.75, recall=0.75, f1=0.75, support=2)
    assert found.rows[1] == ClassRow(label="a", precision=0.5, recall=0.5, f1=0.5, support=1)
    assert found.selective[1.0] == pytest.approx((1 + 1 / 3) / 2)
    assert mean_classes([Classes(rows=(), selective={})] * 2) == Classes(rows=(), selective={})
