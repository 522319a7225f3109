"""What more rows would add: the true slope is found, and the interval holds it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.measurement.learning import gain_of_more

ROWS = (250, 500, 1000)


@given(st.floats(-0.1, 0.1), st.integers(1, 5000))
def test_scores_that_grow_with_the_logarithm_go_on_as_they_did(slope: float, more: int) -> None:
    scores = [np.full(40, 0.5 + slope * math.log2(rows / 250)) for rows in ROWS]
    found = gain_of_more(ROWS, scores, more, [None] * 40)
    assert found.value == pytest.approx(slope * math.log2((1000 + more) / 1000), abs=1e-12)
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 1e-9  # every question says the same


def test_the_interval_holds_the_true_gain_and_groups_widen_it() -> None:
    random, held, widths = np.random.default_rng(0), 0, []
    truth = [0.5, 0.6, 0.7]
    for _ in range(300):
        draws = random.random(60)
        scores = [(draws < score).astype(float) for score in truth]
        found = gain_of_more(ROWS, scores, 1000, [None] * 60)
        held += found.low <= 0.1 <= found.high
        doubled = [np.repeat(one, 2) for one in scores]
        by_group = gain_of_more(ROWS, doubled, 1000, [str(place // 2) for place in range(120)])
        widths.append((by_group.high - by_group.low) / (found.high - found.low))
    assert held / 300 >= 0.92
    assert np.mean(widths) == pytest.approx(1.0, abs=0.05)  # asked twice, nothing more is known
