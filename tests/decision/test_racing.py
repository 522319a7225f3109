"""Which arms dev leaves in the running."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trimtab.decision.racing import LEAST_SHARED, contenders


def scores(values: list[float]) -> dict[str, float]:
    return {f"q{number}": value for number, value in enumerate(values)}


@given(
    st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=30, max_size=30), min_size=2, max_size=5),
    st.floats(0, 0.5),
)
def test_the_best_is_always_in_and_a_wider_margin_leaves_out_no_more(rows: list[list[float]], margin: float) -> None:
    on_dev = {f"a{number}": scores(row) for number, row in enumerate(rows)}
    found = contenders(on_dev, margin)
    best = max(np.mean(row) for row in rows)
    assert {name for name, own in on_dev.items() if np.mean(list(own.values())) == best} <= set(found)
    assert set(found) <= set(contenders(on_dev, margin + 0.1))


def test_an_arm_that_is_clearly_behind_is_out_and_one_of_which_nothing_is_known_is_in() -> None:
    good, bad = [1.0] * 38 + [0.0] * 2, [0.0] * 38 + [1.0] * 2
    near = [0.0] + [1.0] * 38 + [0.0]
    on_dev = {"good": scores(good), "bad": scores(bad), "near": scores(near), "unasked": {}}
    assert contenders(on_dev, 0.02) == ("good", "near", "unasked")


def test_of_one_arm_or_few_questions_nothing_is_said() -> None:
    few = scores([1.0] * (LEAST_SHARED - 1))
    assert contenders({"a": few, "b": few}, 0.02) == ()
    assert contenders({"a": scores([1.0] * 50)}, 0.02) == ()
    assert contenders({}, 0.02) == ()
