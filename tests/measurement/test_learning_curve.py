"""What more rows would add: a power law goes on as it did, and the interval holds the true gain though runs differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.measurement.learning_curve import gain_of_more

ROWS = (250, 500, 1000)


@given(st.floats(0, 2), st.sampled_from([0.2, 0.5, 0.8]), st.integers(1, 3000))
def test_scores_that_follow_a_power_law_go_on_as_they_did(fall: float, exponent: float, more: int) -> None:
    def score(rows: int) -> float:
        return 0.9 - fall * rows**-exponent

    found = gain_of_more(ROWS, [np.full(40, score(rows)) for rows in ROWS], more, [None] * 40)
    truth = score(1000 + more) - score(1000)
    assert found.low <= truth <= found.high
    assert found.value == pytest.approx(truth, abs=max(0.5 * truth, 0.01))


@pytest.mark.parametrize("run_sd", [0.0, 0.03])
def test_the_interval_holds_the_true_gain_though_runs_differ(run_sd: float) -> None:
    random, held = np.random.default_rng(0), 0
    truth = np.array([0.9 - 2 * rows**-0.4 for rows in (*ROWS, 1500)])
    for _ in range(300):
        draws = random.random(300)
        runs = truth[:3] + random.normal(0, run_sd, 3)
        found = gain_of_more(ROWS, [(draws < score).astype(float) for score in runs], 500, [None] * 300)
        held += found.low <= truth[3] - truth[2] <= found.high
    assert held / 300 >= 0.93


def test_groups_that_repeat_tell_nothing_more() -> None:
    random, widths = np.random.default_rng(0), []
    for _ in range(100):
        draws = random.random(60)
        scores = [(draws < score).astype(float) for score in (0.5, 0.6, 0.7)]
        found = gain_of_more(ROWS, scores, 1000, [None] * 60)
        doubled = [np.repeat(one, 2) for one in scores]
        by_group = gain_of_more(ROWS, doubled, 1000, [str(place // 2) for place in range(120)])
        widths.append((by_group.high - by_group.low) / (found.high - found.low))
    assert np.mean(widths) == pytest.approx(1.0, abs=0.05)
