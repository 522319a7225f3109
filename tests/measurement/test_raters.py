"""People who judge the same answers: their mean, what each may withdraw, and Krippendorff's α with its interval."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.errors import InputError
from trimtab.base.results import Agreement, Estimate
from trimtab.measurement.raters import (
    FEWEST,
    agreement_of,
    agreement_words,
    agreements,
    judged_by_key,
    rater_name,
    said_by_person,
)

DEGREES = st.sampled_from((0.0, 0.5, 1.0))
UNITS = st.lists(st.lists(DEGREES, min_size=2, max_size=4), min_size=FEWEST, max_size=25)


def rows(*said: tuple[str, str, float | None], criterion: str = "") -> list[dict[str, object]]:
    return [{"item": item, "answer": "a", "criterion": criterion, "value": value, "by": by} for item, by, value in said]


def alpha_by_pairs(units: list[list[float]]) -> float:
    """Return α by its definition: differences within answers against those of all values there are."""
    values = [value for unit in units for value in unit]
    within = sum(sum((a - b) ** 2 for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units) / len(values)
    total = sum(2 * (a - b) ** 2 for a, b in combinations(values, 2)) / (len(values) * (len(values) - 1))
    return 1 - within / total if total else 1.0


@given(units=UNITS)
def test_alpha_is_that_of_its_definition_and_lies_in_its_interval(units: list[list[float]]) -> None:
    found = agreement_of([[{str(by): value for by, value in enumerate(unit)}] for unit in units])
    assert found is not None
    assert found.alpha.value == pytest.approx(alpha_by_pairs(units), abs=1e-9)
    assert found.alpha.low <= found.alpha.value <= found.alpha.high
    assert found.disagree == sum(len(set(unit)) > 1 for unit in units)


def test_its_interval_holds_the_true_alpha_of_many_answers() -> None:
    draw = np.random.default_rng(0)

    def units(count: int) -> list[list[float]]:
        true = draw.random(count) < 0.6
        return [[float(draw.random() < (0.9 if right else 0.1)) for _ in range(2)] for right in true]

    truth, held = alpha_by_pairs(units(4_000)), 0
    for _ in range(100):
        found = agreement_of([[{"a": a, "b": b}] for a, b in units(60)])
        assert found is not None
        held += found.alpha.low <= truth <= found.alpha.high
    assert held >= 88


def test_few_answers_without_a_disagreement_do_not_show_that_there_is_none() -> None:
    found = agreement_of([[{"a": float(place % 2), "b": float(place % 2)}] for place in range(FEWEST)])
    assert found is not None
    assert found.alpha.value == found.alpha.high == 1
    assert found.alpha.low < 0.9
    assert agreement_of([[{"a": 1.0, "b": 1.0}]] * (FEWEST - 1)) is None


def test_the_mean_of_people_counts_and_each_withdraws_their_own_alone() -> None:
    said = rows(("q1", "anna", 1.0), ("q1", "ben", 0.0), ("q2", "anna", 1.0))
    assert judged_by_key(said, {"": 1.0}) == {("q1", "a"): 0.5, ("q2", "a"): 1.0}
    said += rows(("q1", "ben", None), ("q2", "anna", None))
    assert judged_by_key(said, {"": 1.0}) == {("q1", "a"): 1.0}
    again = [*said, *rows(("q1", "anna", 0.0))]
    assert judged_by_key(again, {"": 1.0}) == {("q1", "a"): 0.0}


def test_rows_of_before_names_count_as_one_persons() -> None:
    row = {"item": "q1", "answer": "a", "criterion": "", "value": 1.0}
    assert said_by_person([row, row | {"value": 0.5}]) == {("q1", "a", ""): {"": 0.5}}


def test_agreement_is_given_by_criterion_and_said_in_words() -> None:
    said = [
        row
        for place in range(20)
        for by in ("anna", "ben")
        for row in (
            *rows((f"q{place}", by, float(place % 2)), criterion="clear: Is clear."),
            *rows((f"q{place}", by, float((place + (by == "ben")) % 2)), criterion="short: Is short."),
        )
    ]
    clear, short = agreements(said_by_person(said))
    assert (clear.criterion, clear.alpha.value) == ("clear: Is clear.", 1.0)
    assert short.alpha.value < 0
    assert agreement_words(clear).startswith("anna and ben agree on clear in 20 of 20 answers (Krippendorff's α 1.00")
    assert "too little to rely on" in agreement_words(short)
    middling = Agreement(
        criterion="", people=("a", "b"), alpha=Estimate(value=0.7, low=0.6, high=0.8, n=50), disagree=5
    )
    assert "tentative" in agreement_words(middling)


def test_a_name_that_names_nobody_is_refused() -> None:
    assert rater_name(" anna ") == "anna"
    assert rater_name(None)
    for name in ("", "  ", "x" * 201):
        with pytest.raises(InputError, match="names nobody"):
            rater_name(name)
