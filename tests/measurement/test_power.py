"""How many items a finding needs: the power that is said, and where none suffices."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.base.errors import InputError
from trimtab.measurement.paired_proportions import mcnemar
from trimtab.measurement.power import (
    FIRST_LEVEL,
    Variation,
    assumed_variation,
    discordance,
    groups_needed,
    items_for_difference,
    observed_variation,
    smallest_difference,
)
from trimtab.measurement.statistics import compare_paired


def pairs(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.r_[np.ones(both + first), np.zeros(second + neither)]
    b = np.r_[np.ones(both), np.zeros(first), np.ones(second), np.zeros(neither)]
    return a, b


def plain(discordance: float, effect: float = 1.0) -> Variation:
    return Variation(discordance=discordance, effect=effect, source="assumed")


def test_items_and_smallest_difference_are_inverse() -> None:
    for n, d, m in [(300, 0.2, 4), (100, 0.05, 1), (5000, 0.5, 7), (40, 0.3, 2)]:
        assert items_for_difference(smallest_difference(n, plain(d), m), d, m) == pytest.approx(n, abs=1)


def test_items_for_difference_gives_the_power_it_says() -> None:
    random, d, delta = np.random.default_rng(0), 0.2, 0.08
    n = items_for_difference(delta, d, 1)
    wins, losses, _ = random.multinomial(n, [(d + delta) / 2, (d - delta) / 2, 1 - d], 4000).T
    power = np.mean([mcnemar(int(b), int(c)) <= FIRST_LEVEL for b, c in zip(wins, losses, strict=True)])
    assert power == pytest.approx(0.8, abs=0.04)


def test_differences_that_no_items_show_are_refused() -> None:
    with pytest.raises(InputError):
        items_for_difference(0, 0.2, 3)
    assert smallest_difference(3, plain(0.1), 1) == 1.0


@pytest.mark.parametrize("comparisons", [1, 2, 4, 7, 20])
def test_fewer_groups_than_needed_never_reach_the_corrected_level(comparisons: int) -> None:
    """Every group won, the most that can be: shown by as many groups as are needed, and by one fewer not."""
    needed = groups_needed(comparisons)
    for groups, shown in ((needed - 1, False), (needed, True)):
        a, names = np.ones(3 * groups), [str(item // 3) for item in range(3 * groups)]
        assert (compare_paired(a, 0 * a, names).p <= FIRST_LEVEL / comparisons) is shown
        assert (smallest_difference(3 * groups, plain(0.2), comparisons, names) == 1.0) is not shown
    assert groups_needed(4) == 9


def test_discordance_is_the_share_that_one_arm_has_right() -> None:
    assert discordance(*pairs(50, 10, 5, 35)) == 0.15


def test_groups_whose_questions_differ_alike_show_less() -> None:
    """60 questions in 20 groups: one group's three differ alike, so they show what 20 questions would, with t of 19
    degrees."""
    names = [str(item // 3) for item in range(60)]
    alone, grouped = smallest_difference(60, plain(0.2), 1), smallest_difference(60, plain(0.2, 3.0), 1, names)
    twenty = smallest_difference(20, plain(0.2), 1)
    assert alone < twenty < grouped < 1.2 * twenty


def test_what_is_assumed_grows_with_the_groups() -> None:
    assert assumed_variation() == assumed_variation([None] * 5) == plain(0.3)
    even = assumed_variation([str(item // 5) for item in range(50)])
    assert even.effect == pytest.approx(1 + 4 * 0.1)
    uneven = assumed_variation(["big"] * 25 + [str(item) for item in range(25)])
    assert uneven.effect == pytest.approx(1 + (13 - 1) * 0.1)


def test_what_is_observed_is_of_the_two_arms_that_are_hardest_to_tell_apart() -> None:
    right = np.r_[np.ones(30), np.zeros(30)]
    near, far = np.r_[np.zeros(3), right[3:]], 1 - right
    lone = [None] * 60
    found = observed_variation([right, near, far], lone, "test answers")
    assert found == Variation(discordance=1.0, effect=1.0, source="test answers")
    assert observed_variation([right], lone, "test answers") == assumed_variation(lone)
    assert observed_variation([right, right], lone, "test answers").discordance == 1 / 60
    names = [str(item // 3) for item in range(60)]
    whole_groups = np.repeat(np.random.default_rng(0).permutation(np.r_[np.ones(10), np.zeros(10)]), 3)
    assert observed_variation([whole_groups, np.zeros(60)], names, "test answers").effect == pytest.approx(3.0, rel=0.1)
    assert observed_variation([right, near], ["one"] * 60, "test answers").source == "assumed"


def test_closer_arms_disagree_less_than_those_that_are_far_apart() -> None:
    a, b = (np.repeat(np.tile(values, 4), 25)[:100] for values in ([1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]))
    found = observed_variation([a, b], [None] * 100, "test answers")
    assert (found.discordance, found.difference) == (0.75, 0.25)
    assert found.discordance_at(0.25) == found.discordance_at(0.5) == 0.75
    assert found.discordance_at(0.05) == pytest.approx(0.75 - 0.25**2 + 0.05**2)
    far = Variation(discordance=0.55, effect=1.0, source="test answers", difference=0.479)
    assert smallest_difference(100, far, 10) < smallest_difference(100, plain(0.55), 10)
    assert smallest_difference(20, far, 10) == smallest_difference(20, plain(0.55), 10)  # more than the difference


def test_power_by_groups_is_what_it_says() -> None:
    """Groups of four that differ alike: with the difference named, about 80% of studies show it."""
    groups, size = 40, 4
    names = [str(item // size) for item in range(groups * size)]
    random, share = np.random.default_rng(2), 0.3
    delta = smallest_difference(groups * size, plain(share, float(size)), 1, names)
    shown = 0
    for _ in range(300):
        gaps = random.choice([1.0, -1.0, 0.0], groups, p=[(share + delta) / 2, (share - delta) / 2, 1 - share])
        a = np.repeat(np.maximum(gaps, 0), size)
        shown += compare_paired(a, np.repeat(np.maximum(-gaps, 0), size), names).p <= FIRST_LEVEL
    assert shown / 300 == pytest.approx(0.8, abs=0.08)
