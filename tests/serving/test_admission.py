"""How many may be inside: a number, and no more than are answered while their clients still wait."""

from __future__ import annotations

import pytest

from trimtab.serving.middleware import MIN_CAPACITY, PATIENCE_SECONDS, Refused, RequestLimiter


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def ready(most: int, clock: Clock) -> RequestLimiter:
    """Of a server that has looked at itself."""
    admission = RequestLimiter(most, clock)
    admission.is_ready = True
    return admission


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock: Clock) -> RequestLimiter:
    return ready(100, clock)


def answer(admission: RequestLimiter, clock: Clock, seconds: float, *, answered: bool = True) -> None:
    admission.enter()
    clock.now += seconds
    admission.leave(answered=answered)


def fill(admission: RequestLimiter) -> int:
    """As many as it takes in; the next one is told to come again."""
    for _ in range(admission.capacity - admission.inside):
        admission.enter()
    with pytest.raises(Refused) as told:
        admission.enter()
    assert told.value.status == 429
    assert told.value.wait >= 1
    return admission.inside


def test_a_fast_server_has_all_its_places(admission: RequestLimiter, clock: Clock) -> None:
    answer(admission, clock, 0.1)
    assert fill(admission) == 100


def test_a_slow_one_takes_what_it_answers_in_time(admission: RequestLimiter, clock: Clock) -> None:
    answer(admission, clock, 2.0)
    assert fill(admission) == PATIENCE_SECONDS / 2


def test_a_very_slow_one_still_takes_some(admission: RequestLimiter, clock: Clock) -> None:
    answer(admission, clock, 500.0)
    assert fill(admission) == MIN_CAPACITY


def test_what_was_refused_or_failed_says_nothing_about_the_rate(admission: RequestLimiter, clock: Clock) -> None:
    answer(admission, clock, 2.0)
    for _ in range(50):
        answer(admission, clock, 0.001, answered=False)
    assert fill(admission) == PATIENCE_SECONDS / 2
    assert admission.refused == 1


@pytest.mark.parametrize("together", [1, 8])
def test_the_rate_is_that_of_answers_together(admission: RequestLimiter, clock: Clock, together: int) -> None:
    for _ in range(together):
        admission.enter()
    clock.now += 4.0
    for _ in range(together):
        admission.leave(answered=True)
        admission.enter()
    assert admission.rate == pytest.approx(together / 4)


def test_while_nobody_asks_nothing_grows_slower(admission: RequestLimiter, clock: Clock) -> None:
    for _ in range(10):
        answer(admission, clock, 4.0)
        clock.now += 100.0
    assert admission.rate == pytest.approx(1 / 4)


def test_the_rate_of_a_busy_server_is_that_of_its_answers_however_many_there_are(clock: Clock) -> None:
    admission = ready(16, clock)
    for _ in range(8):
        admission.enter()
    for _ in range(1000):
        clock.now += 0.1
        admission.leave(answered=True)
        admission.enter()
    assert admission.rate == pytest.approx(10, rel=0.1)


def test_a_rush_is_no_speed(admission: RequestLimiter, clock: Clock) -> None:
    for _ in range(10):
        answer(admission, clock, 1.0)
    for _ in range(15):
        admission.enter()
    clock.now += 1.0
    admission.leave(answered=True)
    assert admission.rate == pytest.approx(1)


def test_a_server_that_grows_slow_takes_fewer(admission: RequestLimiter, clock: Clock) -> None:
    for _ in range(30):
        answer(admission, clock, 0.5)
    fast = admission.capacity
    answer(admission, clock, 2 * PATIENCE_SECONDS)
    assert admission.capacity == MIN_CAPACITY < fast
