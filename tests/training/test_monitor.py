"""What the curves are said to mean, and when a run stops."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.training.monitor import ADVICE, EvalRecord, best_of, health, paired_error, should_stop

pytestmark = pytest.mark.any_processor


def curve(*points, metrics=None):
    """Readings from (train loss, dev loss)."""
    return [
        EvalRecord(step=number, train_loss=train, dev_loss=dev, dev_metric=metrics[number] if metrics else None)
        for number, (train, dev) in enumerate(points)
    ]


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([], "learning"),
        ([(2.0, 2.0)], "learning"),
        ([(2.0, 2.0), (1.5, 1.6), (1.4, 1.59)], "learning"),
        ([(2.0, 2.0), (1.5, 1.6), (1.2, 1.3)], "still improving"),
        ([(2.0, 2.0), (1.0, 1.5), (0.4, 1.8)], "memorising"),
        ([(2.0, 2.0), (1.0, 1.5), (1.2, 1.8)], "diverging"),  # both rise
        ([(2.0, 2.0), (1.0, 1.5), (1.02, 1.8)], "learning"),  # train loss within noise
        ([(2.0, 2.0), (1.0, 1.5), (0.9, 1.52)], "learning"),  # a rise within noise
    ],
)
def test_health(points, said):
    assert health(curve(*points)) == said
    assert bool(ADVICE[said]) == (said != "learning")


def by_rows(*rows):
    """Readings whose dev loss is the mean of what each row of dev adds."""
    return [
        EvalRecord(step=number, train_loss=1.0, dev_loss=float(np.mean(own)), dev_metric=None, rows=tuple(own))
        for number, own in enumerate(rows)
    ]


def test_the_best_is_the_lowest_dev_loss_and_the_latest_of_equals():
    assert best_of(curve((1, 2.0), (1, 1.0), (1, 3.0))).step == 1
    assert best_of(curve((1, 2.0), (1, 1.0), (1, 3.0), metrics=[0.1, 0.1, 0.9])).step == 1
    assert best_of(curve((1, 2.0), (1, 2.0))).step == 1


def test_the_latest_within_one_paired_standard_error_of_the_lowest_is_the_best():
    before = [1.0, 2.0, 3.0, 4.0]
    within, beyond = (
        [1.0, 2.0, 3.0, 4.4],
        [1.1, 2.1, 3.1, 4.1],
    )  # both 0.1 higher: by one row of four, and by all of them
    assert best_of(by_rows(before, within)).step == 1
    assert best_of(by_rows(before, beyond)).step == 0
    assert best_of(by_rows(before, within, beyond)).step == 1
    assert best_of(by_rows(within, before, beyond)).step == 1


def test_the_best_does_not_depend_on_the_order():
    """B scored .015 more than A at a higher loss, C .015 more than B: A beat B, B beat C, and C beat A, by the rule
    before."""
    circle = curve((1, 1.0), (1, 1.1), (1, 1.2), metrics=[0.5, 0.515, 0.53])
    assert {best_of(order).step for order in itertools.permutations(circle)} == {0}


LOOKS = st.lists(st.tuples(*[st.floats(0.01, 9)] * 4), min_size=1, max_size=5)


@given(LOOKS)
def test_whatever_was_read_the_best_is_one_in_every_order_and_close_to_the_lowest(looks):
    readings = by_rows(*looks)
    best, lowest = best_of(readings), min(readings, key=lambda one: one.dev_loss)
    assert {best_of(order).step for order in itertools.permutations(readings)} == {best.step}
    assert best.step >= lowest.step
    assert best.dev_loss - lowest.dev_loss <= paired_error(best, lowest) * (1 + 1e-6)


@given(LOOKS)
def test_a_new_look_is_the_best_or_leaves_it_as_it_was(looks):
    """So a run keeps one set of weights beside its last, never all that it has seen."""
    readings = by_rows(*looks)
    for count in range(2, len(readings) + 1):
        assert best_of(readings[:count]) in (readings[count - 1], best_of(readings[: count - 1]))


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=2, max_size=20))
def test_the_standard_error_is_that_of_the_differences_row_by_row(pairs):
    left, right = by_rows(*zip(*pairs, strict=True))
    gaps = np.subtract(left.rows, right.rows)
    assert paired_error(left, right) == pytest.approx(gaps.std(ddof=1) / math.sqrt(len(pairs)), abs=1e-12)
    assert paired_error(left, right) == pytest.approx(paired_error(right, left))


def test_without_rows_every_difference_counts():
    assert paired_error(*curve((1, 1.0), (1, 2.0))) == 0.0


def test_it_stops_when_the_best_is_old_and_dev_loss_rises():
    rising = curve((1, 1.0), (1, 1.1), (1, 1.2))
    assert not should_stop(rising[:2], 2)
    assert should_stop(rising, 2)
    assert not should_stop(rising, 3)
    falling = curve((1, 1.2), (1, 1.1), (1, 1.0), metrics=[0.5, 0.4, 0.4])
    assert not should_stop(falling, 2)  # the metric is old, but the loss still falls


def test_a_rise_within_one_paired_standard_error_does_not_stop():
    """The same mean rise of 0.1: a coin's work where one row of four tells of it, shown where all do."""
    before = [1.0, 2.0, 3.0, 4.0]
    one, all_alike = [1.0, 2.0, 3.0, 4.4], [1.1, 2.1, 3.1, 4.1]
    assert should_stop(by_rows(before, all_alike, all_alike), 2)
    for late in ((one, one), (one, all_alike), (all_alike, one)):
        assert not should_stop(by_rows(before, *late), 2)
    assert not should_stop([], 2)


def scored(*points):
    """Readings from (train loss, metric), without a dev loss: the share of 100 questions that were right, the same
    ones first."""
    return [
        EvalRecord(
            step=number,
            train_loss=train,
            dev_loss=None,
            dev_metric=metric,
            rows=(1.0,) * round(100 * metric) + (0.0,) * round(100 - 100 * metric),
        )
        for number, (train, metric) in enumerate(points)
    ]


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([(2.0, 0.5), (1.5, 0.6), (1.4, 0.61)], "learning"),
        ([(2.0, 0.5), (1.5, 0.6), (1.4, 0.7)], "still improving"),
        ([(2.0, 0.5), (1.5, 0.7), (1.0, 0.6)], "memorising"),
        ([(2.0, 0.5), (1.5, 0.7), (1.6, 0.6)], "diverging"),  # both got worse
        ([(2.0, 0.5), (1.5, 0.7), (1.0, 0.69)], "learning"),  # a fall within noise
    ],
)
def test_health_by_the_metric_alone(points, said):
    assert health(scored(*points)) == said


def test_the_metric_alone_chooses_the_best_and_stops():
    falling = scored((1, 0.5), (1, 0.7), (1, 0.66), (1, 0.65))
    assert best_of(falling).step == 1
    assert should_stop(falling, 2)
    assert not should_stop(falling[:3], 2)
    assert not should_stop(scored((1, 0.7), (1, 0.69), (1, 0.69)), 2)  # one question of 100
    assert best_of(scored((1, 0.5), (1, 0.5))).step == 1


@pytest.mark.parametrize(
    ("metrics", "rewards", "said", "kept"),
    [
        ([0.5, 0.9, 0.4], [0.2, 0.4, 0.8], "gaming", 1),  # earns more, does worse
        ([0.5, 0.9, 0.4], [0.2, 0.9, 0.8], "learning", 1),  # earns less, too
        ([0.5, 0.9, 0.85], [0.2, 0.4, 0.8], "learning", 2),  # within a paired standard error
        ([0.1, 0.4, 0.9], [0.2, 0.4, 0.8], "still improving", 2),
    ],
)
def test_a_reward_that_rises_while_the_metric_falls_is_gamed(metrics, rewards, said, kept):
    def rows(metric):
        return tuple(1.0 if place < round(20 * metric) else 0.0 for place in range(20))

    readings = [
        EvalRecord(
            step=step,
            train_loss=0.0,
            dev_loss=None,
            dev_metric=metric,
            rows=rows(metric),
            figures={"train_reward": reward},
        )
        for step, (metric, reward) in enumerate(zip(metrics, rewards, strict=True))
    ]
    assert health(readings) == said
    assert best_of(readings).step == kept
