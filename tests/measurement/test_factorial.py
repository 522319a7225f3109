"""Two factors on the same questions: effects are differences of means, and their intervals are those of the
questions' groups."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.records import Answer
from trimtab.measurement.clusters import group_count
from trimtab.measurement.factorial import Factorial, factorial
from trimtab.measurement.statistics import compare_paired


def answers(scores: Sequence[float], groups: Sequence[str | None] | None = None, seed: int = 0) -> tuple[Answer, ...]:
    return tuple(
        Answer(
            item_id=f"{index:04d}", split="test", group=groups[index] if groups else None, slice=None, seed=seed,
            input="q",
            reference=("r",), answer="a", score=score, format_ok=True, abstained=False, probability=None, seconds=0.1,
            prompt_tokens=1, new_tokens=1, hits=(), failure="none" if score == 1 else "wrong",
        )
        for index, score in enumerate(scores)
    )  # fmt: skip


def effects_of(scores: np.ndarray, groups: Sequence[str | None] | None = None) -> Factorial:
    found = factorial(*(answers(line, groups) for line in scores))
    assert found is not None
    return found


@given(st.integers(2, 60), st.integers(0, 1000))
def test_effects_are_differences_of_means(items: int, seed: int) -> None:
    scores = np.random.default_rng(seed).random((4, items))
    found = effects_of(scores)
    prompt, lora, rag, blend = scores.mean(axis=1)
    assert found.first.value == pytest.approx(lora - prompt)
    assert found.second.value == pytest.approx(rag - prompt)
    assert found.interaction.value == pytest.approx(blend - lora - rag + prompt)
    assert found.interaction.low <= found.interaction.value <= found.interaction.high


def test_interval_matches_the_normal_theory_of_paired_items() -> None:
    scores = np.random.default_rng(3).random((4, 400))
    found = effects_of(scores).interaction
    contrast = scores[3] - scores[1] - scores[2] + scores[0]
    half = 1.96 * contrast.std(ddof=1) / 400**0.5
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)


def test_repeated_groups_widen_the_interval() -> None:
    random = np.random.default_rng(5)
    scores = np.repeat(random.random((4, 50)), 6, axis=1)
    groups = [f"g{index // 6}" for index in range(300)]
    alone = effects_of(scores)
    grouped = effects_of(scores, groups)
    assert grouped.groups == 50
    assert alone.groups is None
    width = (grouped.interaction.high - grouped.interaction.low) / (alone.interaction.high - alone.interaction.low)
    assert width == pytest.approx(6**0.5, rel=0.15)


def test_few_groups_are_not_taken_for_independent_questions() -> None:
    """Six groups of 50 equal rows are six observations: the interval is Student's with five degrees of freedom."""
    means = np.random.default_rng(2).random((4, 6))
    groups = [f"g{index // 50}" for index in range(300)]
    found = effects_of(np.repeat(means, 50, axis=1), groups).interaction
    contrast = means[3] - means[1] - means[2] + means[0]
    assert found.high - found.value == pytest.approx(2.5706 * contrast.std(ddof=1) / 6**0.5, rel=1e-3)


def test_an_interval_by_group_is_that_of_a_comparison_by_group() -> None:
    """One rule for intervals of differences by group, also where groups level out and would seem surer than items."""
    random = np.random.default_rng(8)
    pairs = [f"g{index // 2}" for index in range(200)]
    unequal = [f"g{max(0, index - 60) // 4}" for index in range(200)]  # one of 64, 34 of 4
    for swing, groups in itertools.product((0.0, 0.2), (pairs, unequal)):
        scores = np.clip(
            random.random((4, 200)) * 0.5 + swing * np.tile([1, -1], 100) * [[0], [1], [0], [0]] + 0.2, 0, 1
        )
        first = effects_of(scores, groups).first
        wanted = compare_paired(scores[1], scores[0], groups)
        assert (first.value, first.low, first.high) == pytest.approx(wanted[:3])


def test_seeds_count_as_their_mean() -> None:
    random = np.random.default_rng(4)
    once, again = random.random((2, 4, 30))
    both = [(*answers(a), *answers(b, seed=1)) for a, b in zip(once, again, strict=True)]
    assert factorial(*both) == effects_of((once + again) / 2)


def test_no_effects_without_two_shared_items_or_groups() -> None:
    four = [answers([0.1, 0.9]) for _ in range(4)]
    assert factorial(*four) is not None
    assert factorial(*four[:3], four[3][:1]) is None
    assert factorial(*four[:3], ()) is None
    assert factorial(*(answers([0.1, 0.9], ["g", "g"]) for _ in range(4))) is None


def test_items_without_a_group_are_groups_of_their_own() -> None:
    assert group_count([]) is None
    assert group_count(["a", None, None]) is None
    assert group_count(["a", "a", None, None]) == 3
