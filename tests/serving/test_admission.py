"""How many may be inside: a number, and no more than are answered while their clients still wait."""

from __future__ import annotations

import pytest

from trimtab.serving.gate import LEAST_PLACES, PATIENCE, Admission, Refused


def answer(admission: Admission, seconds: float, *, answered: bool = True) -> None:
    admission.enter()
    admission.leave(seconds, answered=answered)


def fill(admission: Admission) -> int:
    """As many as it takes in; the next one is told to come again."""
    for _ in range(admission.places - admission.inside):
        admission.enter()
    with pytest.raises(Refused) as told:
        admission.enter()
    assert told.value.status == 429
    assert told.value.wait >= 1
    return admission.inside


def test_a_fast_server_has_all_its_places() -> None:
    admission = Admission(100)
    answer(admission, 0.1)
    assert fill(admission) == 100


def test_a_slow_one_takes_what_it_answers_in_time() -> None:
    admission = Admission(100)
    answer(admission, 2.0)
    assert fill(admission) == PATIENCE / 2


def test_a_very_slow_one_still_takes_some() -> None:
    admission = Admission(100)
    answer(admission, 500.0)
    assert fill(admission) == LEAST_PLACES


def test_what_was_refused_or_failed_says_nothing_about_the_rate() -> None:
    admission = Admission(100)
    answer(admission, 2.0)
    for _ in range(50):
        answer(admission, 0.001, answered=False)
    assert fill(admission) == PATIENCE / 2
    assert admission.refused == 1


@pytest.mark.parametrize("together", [1, 8])
def test_the_rate_is_that_of_answers_together(together: int) -> None:
    admission = Admission(100)
    for _ in range(together):
        admission.enter()
    for _ in range(together):
        admission.leave(4.0, answered=True)
        admission.enter()
    assert admission.rate == pytest.approx(together / 4)
