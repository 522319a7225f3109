"""Trivial arms (no model) beside a study: finds arms that are not shown to beat them, and writes the sentence; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trimtab.base.grammar import TRIVIAL, joined
from trimtab.base.results import Estimate, TrivialArm
from trimtab.measurement.statistics import LEVEL, holm


def beside(
    arms: Sequence[str], trivial: Mapping[str, Estimate], p_behind: Callable[[str, str], float]
) -> tuple[TrivialArm, ...]:
    """Return each trivial arm with the arms that are not shown to be better than it.

    `p_behind(arm, trivial)`: one-sided p of "the arm is no better", the paired test that the verdict makes, with no
    margin. Holm over all pairs of an arm and a trivial arm: every arm might be the one that is said to beat one of
    them.
    """
    pairs = [(name, arm) for name in trivial for arm in arms]
    adjusted = dict(zip(pairs, holm([p_behind(arm, name) for name, arm in pairs]), strict=True))
    return tuple(
        TrivialArm(arm=name, score=score, not_beaten_by=tuple(arm for arm in arms if adjusted[(name, arm)] > LEVEL))
        for name, score in trivial.items()
    )


def sentence(trivial: Sequence[TrivialArm]) -> str:
    """Return the arms that are not shown to beat a trivial arm, each beside the best of those; empty if all beat
    all."""
    strongest: dict[str, TrivialArm] = {}
    for one in sorted(trivial, key=lambda one: -one.score.value):
        for arm in one.not_beaten_by:
            strongest.setdefault(arm, one)
    named = []
    for one in trivial:
        arms = [arm for arm, own in strongest.items() if own is one]
        rule = f"{one.arm}: {TRIVIAL[one.arm].removeprefix('no model: ')}; it scores {one.score.value:.3f}"
        verb = "is" if len(arms) == 1 else "are"
        named += (
            [f"{joined(arms)} {verb} not shown to be better than a fixed rule without a model ({rule})."]
            if arms
            else []
        )
    return " ".join(named)
