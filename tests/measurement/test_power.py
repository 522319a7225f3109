"""How many items a finding needs: the power that is said, and where none suffices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from trimtab.base.errors import InputError
from trimtab.measurement.power import (
    discordance,
    groups_needed,
    items_for_difference,
    items_for_target,
    smallest_difference,
)
from trimtab.measurement.statistics import compare
from trimtab.measurement.tango import mcnemar


def pairs(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.r_[np.ones(both + first), np.zeros(second + neither)]
    b = np.r_[np.ones(both), np.zeros(first), np.ones(second), np.zeros(neither)]
    return a, b


def test_items_and_smallest_difference_are_inverse() -> None:
    for n, d, m in [(300, 0.2, 4), (100, 0.05, 1), (5000, 0.5, 7), (40, 0.3, 2)]:
        assert items_for_difference(smallest_difference(n, d, m), d, m) == pytest.approx(n, abs=1)


def test_items_for_difference_gives_the_power_it_says() -> None:
    random, d, delta = np.random.default_rng(0), 0.2, 0.08
    n = items_for_difference(delta, d, 1)
    wins, losses, _ = random.multinomial(n, [(d + delta) / 2, (d - delta) / 2, 1 - d], 4000).T
    power = np.mean([mcnemar(int(b), int(c)) <= 0.05 for b, c in zip(wins, losses, strict=True)])
    assert power == pytest.approx(0.8, abs=0.04)


def test_differences_that_no_items_show_are_refused() -> None:
    with pytest.raises(InputError):
        items_for_difference(0, 0.2, 3)
    assert smallest_difference(3, 0.1, 1) == 1.0


@pytest.mark.parametrize("comparisons", [1, 2, 4, 7, 20])
def test_fewer_groups_than_needed_never_reach_the_corrected_level(comparisons: int) -> None:
    """Every group won, the most that can be: shown by as many groups as are needed, and by one fewer not."""
    needed = groups_needed(comparisons)
    for groups, shown in ((needed - 1, False), (needed, True)):
        a, names = np.ones(3 * groups), [str(item // 3) for item in range(3 * groups)]
        assert (compare(a, 0 * a, names).p <= 0.05 / comparisons) is shown
        assert (smallest_difference(3 * groups, 0.2, comparisons, groups) == 1.0) is not shown
    assert groups_needed(4) == 8


def test_items_for_target() -> None:
    assert items_for_target(0.8, 0.85, 3) is None
    assert items_for_target(0.85, 0.85, 3) is None
    n = items_for_target(0.9, 0.85, 1)
    assert n is not None
    random = np.random.default_rng(1)
    power = np.mean(stats.binom.sf(random.binomial(n, 0.9, 4000) - 1, n, 0.85) <= 0.05)
    assert power == pytest.approx(0.8, abs=0.05)
    more = items_for_target(0.9, 0.85, 4)
    assert more is not None
    assert more > n


def test_discordance_is_the_share_that_one_arm_has_right() -> None:
    assert discordance(*pairs(50, 10, 5, 35)) == 0.15
