"""Units of answers: sessions and days are found in the answers themselves, and independent ones stay alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trimtab.measurement.units import block_length, unit_codes

RUNS = 20


def found(*, each: int, n: int = 300, named: bool = False, change: float = 0.0) -> list[int | None]:
    """The lengths chosen for answers of which `each` in a row are alike, as many times as RUNS."""
    lengths = []
    for seed in range(RUNS):
        random = np.random.default_rng(seed)
        who = np.repeat(np.arange(n), each)[:n]
        values = random.standard_normal((n, 4))[who] + 0.2 * random.standard_normal((n, 4))
        values += change * np.sin(2 * np.pi * np.arange(n) / n)[:, None]
        lengths.append(block_length([values, values[:, 0]], [str(one) for one in who] if named else [None] * n))
    return lengths


def test_independent_answers_are_units_of_their_own() -> None:
    assert sum(length == 1 for length in found(each=1)) >= RUNS - 5  # 1 in 10 is taken for dependent
    assert sum(length == 1 for length in found(each=5, named=True)) >= RUNS - 5


def test_blocks_are_longer_than_sessions_whose_users_nobody_knows() -> None:
    for each in (2, 5, 15):
        assert all(length is None or length > each for length in found(each=each))


def test_what_lasts_as_long_as_the_answers_leaves_no_block() -> None:
    assert all(length is None or length > 30 for length in found(each=1, change=2.0))


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=40), st.integers(1, 9))
def test_a_name_is_in_one_unit_and_units_are_about_equally_many_names(names: list[str | None], length: int) -> None:
    codes, single = unit_codes(names, length), unit_codes(names)
    assert set(codes.tolist()) == set(range(int(codes.max()) + 1))
    for name in set(names) - {None}:
        assert len({code for code, own in zip(codes, names, strict=True) if own == name}) == 1
    sizes = np.bincount(np.array([codes[single == one][0] for one in set(single.tolist())]))
    assert sizes.min() >= min(length, len(set(single.tolist())))
    assert np.ptp(sizes) <= 1
    assert (unit_codes(names, length, begin=7) == codes + 7).all()
