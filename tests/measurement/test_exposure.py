"""Exposure: its ends, its expectation where nothing is remembered, and what equal losses come to."""

import math

import numpy as np
import pytest

from trimtab.measurement.exposure import exposures, highest_by_chance


def test_from_below_all_controls_to_above_them():
    controls = [float(number) for number in range(1, 256)]
    assert exposures([0.5, 1.5, 999.0], controls) == [8.0, 7.0, 0.0]


def test_of_equals_a_canary_stands_last():
    assert exposures([1.0], [1.0] * 255) == [0.0]


def test_where_nothing_is_remembered_the_mean_is_that_of_all_ranks():
    draw = np.random.default_rng(0)
    found = [exposures(draw.normal(size=20).tolist(), draw.normal(size=255).tolist()) for _ in range(400)]
    every_rank = float(np.mean([8 - math.log2(rank) for rank in range(1, 257)]))
    assert every_rank == pytest.approx(math.log2(math.e), abs=0.03)
    assert np.mean(found) == pytest.approx(every_rank, abs=0.06)


def test_the_highest_by_chance_is_what_many_draws_come_to():
    draw = np.random.default_rng(1)
    found = [max(exposures(draw.normal(size=20).tolist(), draw.normal(size=255).tolist())) for _ in range(1500)]
    assert highest_by_chance(1, 255) == pytest.approx(float(np.mean([8 - math.log2(rank) for rank in range(1, 257)])))
    assert np.mean(found) == pytest.approx(highest_by_chance(20, 255), abs=0.15)
