"""What the curves are said to mean, and when a run stops."""

import pytest

from trimtab.training.monitor import ADVICE, METRIC_NOISE, Reading, best_of, health, should_stop


def curve(*points, metrics=None):
    """Readings from (train loss, dev loss)."""
    return [
        Reading(step=number, train_loss=train, dev_loss=dev, dev_metric=metrics[number] if metrics else None)
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
        ([(2.0, 2.0), (1.0, 1.5), (1.2, 1.8)], "learning"),  # both rise: not memorising
        ([(2.0, 2.0), (1.0, 1.5), (0.9, 1.52)], "learning"),  # a rise within noise
    ],
)
def test_health(points, said):
    assert health(curve(*points)) == said
    assert bool(ADVICE[said]) == (said != "learning")


def test_the_best_is_by_the_metric_then_by_dev_loss_and_the_earliest_of_equals():
    assert best_of(curve((1, 2.0), (1, 1.0), (1, 3.0))).step == 1
    assert best_of(curve((1, 2.0), (1, 1.0), (1, 3.0), metrics=[0.1, 0.1, 0.2])).step == 2
    assert best_of(curve((1, 2.0), (1, 1.0), (1, 3.0), metrics=[0.1, 0.1, 0.1])).step == 1
    assert best_of(curve((1, 2.0), (1, 2.0))).step == 0


def test_a_lead_of_one_lucky_answer_does_not_outweigh_a_lower_dev_loss():
    lucky = METRIC_NOISE * 0.9
    assert best_of(curve((1, 2.0), (1, 1.0), metrics=[0.5 + lucky, 0.5])).step == 1
    assert best_of(curve((1, 2.0), (1, 1.0), metrics=[0.5 + 2 * METRIC_NOISE, 0.5])).step == 0


def test_it_stops_when_the_best_is_old_and_dev_loss_rises():
    rising = curve((1, 1.0), (1, 1.1), (1, 1.2))
    assert not should_stop(rising[:2], 2)
    assert should_stop(rising, 2)
    assert not should_stop(rising, 3)
    falling = curve((1, 1.2), (1, 1.1), (1, 1.0), metrics=[0.5, 0.4, 0.4])
    assert not should_stop(falling, 2)  # the metric is old, but the loss still falls


def scored(*points):
    """Readings from (train loss, metric), without a dev loss."""
    return [
        Reading(step=number, train_loss=train, dev_loss=None, dev_metric=metric)
        for number, (train, metric) in enumerate(points)
    ]


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([(2.0, 0.5), (1.5, 0.6), (1.4, 0.61)], "learning"),
        ([(2.0, 0.5), (1.5, 0.6), (1.4, 0.7)], "still improving"),
        ([(2.0, 0.5), (1.5, 0.7), (1.0, 0.6)], "memorising"),
        ([(2.0, 0.5), (1.5, 0.7), (1.6, 0.6)], "learning"),  # both got worse: not memorising
        ([(2.0, 0.5), (1.5, 0.7), (1.0, 0.69)], "learning"),  # a fall within noise
    ],
)
def test_health_by_the_metric_alone(points, said):
    assert health(scored(*points)) == said


def test_the_metric_alone_chooses_the_best_and_stops():
    falling = scored((1, 0.5), (1, 0.7), (1, 0.69), (1, 0.65))
    assert best_of(falling).step == 1
    assert should_stop(falling, 2)
    assert not should_stop(falling[:3], 2)
    assert best_of(scored((1, 0.5), (1, 0.5))).step == 0
